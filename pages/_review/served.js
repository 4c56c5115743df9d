// What passes between the desk, the page and the server: whose desk it is, pairs that lie ready, what became of entries,
// what others took.

const USUAL_AHEAD = { least: 12, most: 12 };
const FEW = 4; // lie ready whatever they weigh
const MOST_CHARACTERS = 4e6; // of texts that lie ready
const ASK_AGAIN_MS = 1000;
const SEATED = "assay-review-seated";
const USUAL_LOOK = { marks: true, folded: false, markdown: false, in_step: true, guidelines: true, similar: false };
let seated = null; // the desk that hears of logs whose own desk has gone

class ServedDesk extends BaseDesk {
  leaveLog() {
    this.log?.leave((answer, sent) => seated?.toldOfOther(answer, sent));
    this.log = null;
  }

  // The log of this desk, and those of earlier desks of this page that are still being sent.
  get logs() { return [...(this.log ? [this.log] : []), ...leaving]; }

  // ---- what the page says: who, which desk, a token; and the pairs to begin with ----

  update(component) {
    this.component = component;
    keptIsThere.then(() => { if (this.component === component && this.root.isConnected) this.take(component.data); });
  }

  take(data) {
    if (!data) return;
    const sameSeat = this.data && this.data.desk === data.desk && this.data.reviewer === data.reviewer;
    const freshToken = this.data && this.data.token !== data.token;
    this.data = data;
    if (!sameSeat) this.sit();
    else {
      Object.assign(this.session, { api: data.api, token: data.token });
      if (freshToken) this.log.wake(0);
    }
    this.apply();
  }

  sit() {
    const { data } = this;
    // A server that was started again, or a reloaded queue, does not take away the pair that is being looked at, and
    // nothing takes away one that is being typed at.
    const mine = this.log && this.session.reviewer === data.reviewer && this.view?.pair_id === this.stage.pairId ? this.view : null;
    const again = data.first?.pairs?.find((view) => view.pair_id === mine?.pair_id);
    const sameScope = JSON.stringify(this.log?.scope) === JSON.stringify(data.scope);
    const stays = mine && (this.mode !== "read" || (sameScope && again)) ? again ?? mine : null;
    // The first pairs of a new desk were chosen before the latest decisions of the old one came there.
    const justDecided = sameScope && this.session?.reviewer === data.reviewer ? this.done : [];
    if (!stays) this.toRead();
    this.leaveLog();
    seated = this;
    this.session = { api: data.api, token: data.token, reviewer: data.reviewer };
    this.keys = keysWith(data.keys);
    this.look = { ...USUAL_LOOK, ...data.preferences?.view, similar: false };
    Object.assign(this, { cache: stays ? [stays] : [], past: [], acts: [], notices: new Map(), end: null, stored: null, again: null, undoing: new Set(),
      wanted: new Set() }); // wanted: pairs that this person went back to, decided or not
    // Not yet known to the server as decided: by logs of other tabs of this person, or of this one before a reload.
    this.done = new Set([...justDecided, ...decidedHere(data.reviewer)]);
    this.log = new Log({ session: this.session, desk: data.desk, scope: data.scope, ask: () => this.need(),
      told: (answer, sent) => this.told(answer, sent), changed: () => this.drawSaving() });
    const seatedBefore = inTab.get(SEATED) === data.desk; // its first pairs have been shown: ask for what waits now
    inTab.set(SEATED, data.desk);
    this.prepared = null;
    if (!stays) {
      this.similar.hide();
      this.stage.show(this.waiting(), null);
    }
    if (data.first && !seatedBefore) this.told(data.first, null);
    else { this.again = "reload"; this.log.wake(0); }
    this.sayAside();
    adopt(this.session, this.log, (answer, sent) => seated.toldOfOther(answer, sent, "that an earlier tab had not sent"));
  }

  get view() { return this.cache?.[0] ?? null; }

  need() {
    const { least, most } = this.data.ahead ?? USUAL_AHEAD;
    // The faster one decides, the more pairs lie ready: as many as are decided in three answers' time.
    const recent = this.root.__presses.length ? this.pace() : 0;
    const ahead = Math.min(most, Math.ceil(least + recent * Math.max(0.3, (this.log.tookMs ?? 0) / 1000) * 3));
    const lacking = this.again ? least : ahead - this.cache.length;
    return { on_screen: this.again ? null : this.stage.pairId, holding: this.again ? [] : this.cache.map((view) => view.pair_id),
      want: this.again || this.asksFor(lacking, ahead) ? lacking : 0, again: this.again };
  }

  // Many pairs at once cost the server little more than one, so a few that lack are not asked for; and texts that are
  // very long do not lie here by the dozen.
  asksFor(lacking, ahead) {
    if (lacking <= 0) return false;
    if (this.cache.length < FEW) return true;
    return lacking >= ahead / 4 && this.cache.reduce((sum, view) => sum + (view.characters ?? 0), 0) < MOST_CHARACTERS;
  }

  pace() {
    const now = performance.now();
    this.times = (this.times ?? []).filter((time) => now - time < 2000);
    return this.times.length / 2;
  }

  told(answer, sent) {
    if (!this.log) return;
    if (answer.results?.some((result) => result.aside)) { // no answer of the server: an entry that it cannot take
      for (const result of answer.results) this.result(result, sent.entries.find((entry) => entry.n === result.n));
      this.sayAside();
      this.drawHead();
      return;
    }
    if (answer.head) this.stored = answer.head;
    if (sent?.again) {
      Object.assign(this, { again: null, cache: [], past: [] });
      this.done = decidedHere(this.data.reviewer);
    }
    this.end = answer.end ?? null;
    for (const result of answer.results ?? []) this.result(result, sent?.entries.find((entry) => entry.n === result.n));
    this.drop(answer.dropped ?? []);
    const here = new Set(this.cache.map((view) => view.pair_id));
    for (const view of answer.pairs ?? []) if (!here.has(view.pair_id) && !this.done.has(view.pair_id)) this.cache.push(view);
    const endIsNew = this.end && !this.log.unsent && JSON.stringify(this.end) !== this.endShown;
    if (this.stage.pairId) this.prepare();
    else if (this.mode === "read" && (this.view || endIsNew)) this.next(null);
    this.drawHead();
    if (!this.end && !this.again && this.need().want) {
      clearTimeout(this.asking);
      this.asking = setTimeout(() => this.log?.wake(0), answer.pairs?.length ? 0 : ASK_AGAIN_MS);
    }
  }

  // What became of an entry. Refused: its pair comes back, next, with the reason.
  result(result, entry) {
    const act = this.acts.find((one) => one.n === result.n);
    const asked = this.undoing.delete(result.n);
    if (result.text && (result.kind !== "ok" || asked)) this.showMessage(result.kind === "error" ? "error" : "info", result.text);
    if (result.kind === "error") {
      this.acts = this.acts.filter((one) => one !== act);
      if (entry?.action === "decide") this.comeBack(result.pair ?? act?.view, result.text);
      return;
    }
    if (entry?.action === "decide") {
      if (act) act.view.seen = result.decision_id ?? act.view.seen;
      if (entry.edited) {
        kept.drop(draftKey(this.data.reviewer, entry.pair_id));
        this.log.keepDraft(entry.pair_id, null);
      }
    }
    if (!result.pair && this.stage.pairId === result.pair_id && entry) this.lookAgain(result.pair_id); // one went back to it
    if (!result.pair) return;
    const onScreen = this.view?.pair_id === result.pair.pair_id;
    if (entry?.action === "undo" && entry.undoes === null && !onScreen) this.toFront(result.pair, null);
    else this.freshen(result.pair);
  }

  async lookAgain(pairId) {
    const fresh = await this.fetch("pair", { desk: this.data.desk, id: pairId });
    if (fresh.pair && !this.log?.entries.some((entry) => entry.pair_id === pairId)) this.freshen(fresh.pair);
  }

  // What the server refused for good: it stays here until this person sends it again or drops it.
  sayAside() {
    const [first, ...others] = asideOf(this.session.reviewer);
    this.zones.aside.hidden = !first;
    if (!first) return;
    const { name, entry, sentence } = first;
    const said = [entry.note, ...Object.values(entry.edited ?? {})].filter(Boolean).join(" · ").slice(0, 300);
    const drop = () => { kept.drop(name); this.sayAside(); };
    const again = () => { this.log.add(entry); drop(); };
    this.zones.aside.replaceChildren(
      `Refused and kept aside in this browser${others.length ? ` (and ${count(others.length)} more)` : ""}: ${entry.verdict || entry.action} of pair ${entry.pair_id}`,
      said ? ` (“${said}”)` : "", `. ${sentence} `,
      ...(entry.action === "undo" ? [] : [plainButton("", again, "Send it again")]), plainButton("", drop, "Drop it"));
  }

  comeBack(view, reason) {
    if (!view) return;
    this.done.delete(view.pair_id);
    this.wanted.add(view.pair_id);
    this.notices.set(view.pair_id, reason);
    this.past = this.past.filter((one) => one.pair_id !== view.pair_id);
    if (this.view?.pair_id === view.pair_id) {
      this.cache[0] = view;
      if (this.mode === "read") this.next(null); // shown anew: a press made before it was is not for this
      return;
    }
    this.cache = this.cache.filter((one) => one.pair_id !== view.pair_id);
    this.cache.splice(this.stage.pairId ? 1 : 0, 0, view);
  }

  freshen(view) {
    const at = this.cache.findIndex((one) => one.pair_id === view.pair_id);
    if (at < 0) return;
    this.cache[at] = { ...view, position: view.position ?? this.cache[at].position };
    if (at === 0 && this.stage.pairId === view.pair_id) refreshAround(this.stage.sheet, this.cache[0], this.open);
    else if (at === 1) this.prepared = null;
  }

  // Others took these pairs, or their lease was lost.
  drop(pairIds) {
    const gone = new Set(pairIds.filter((id) => !this.wanted.has(id)));
    if (!gone.size) return;
    const shown = this.stage.pairId;
    const keepsShown = gone.has(shown) && this.mode !== "read";
    this.cache = this.cache.filter((view) => !gone.has(view.pair_id) || (keepsShown && view.pair_id === shown));
    if (!gone.has(shown)) return;
    const said = `Pair ${shown} was decided or taken by somebody else while it lay here`;
    if (keepsShown) this.showMessage("error", `${said}. What you typed is kept as your draft.`);
    else { this.showMessage("info", `${said}; here is the next one.`); this.next(null); }
  }

  // What became of a log of another desk. which: whose entries they were, where it is worth saying that they are stored.
  toldOfOther(answer, sent, which) {
    if (!this.log) return;
    for (const result of answer.results ?? []) {
      const entry = sent.entries.find((one) => one.n === result.n);
      if (!result.pair || !entry) continue;
      if (result.kind === "error" && entry.action === "decide") this.comeBack(result.pair, result.text);
      else if (entry.action === "undo" && result.kind !== "error" && this.view?.pair_id !== result.pair.pair_id) this.toFront(result.pair, null);
    }
    if (answer.results?.some((result) => result.aside)) { this.sayAside(); return; }
    const said = (answer.results ?? []).filter((result) => result.kind !== "ok" && result.text);
    const stored = which ? (answer.results ?? []).length - said.length : 0;
    if (stored) this.showMessage("info", `${count(stored)} decision${stored === 1 ? "" : "s"} ${which} ${stored === 1 ? "is" : "are"} stored now.`);
    if (said.length) this.showMessage(said[0].kind, said.map((result) => result.text).join(" "));
    if (stored) this.log?.wake(0); // the head counts them now
  }

  async fetch(what, params) {
    try {
      const query = new URLSearchParams(params); // without the token, which would stand in the log of every proxy
      const response = await fetch(`${this.session.api}/${what}?${query}`, { cache: "no-store", headers: { "X-Assay-Token": this.session.token } });
      const answer = await response.json();
      return response.ok ? answer : { error: answer.error ?? `the server answered ${response.status}` };
    } catch {
      return { error: "no connection to the server" };
    }
  }

  async askSimilar(pairId) {
    const answer = await this.fetch("similar", { desk: this.data.desk, id: pairId });
    return { pairs: answer.pairs ?? [], reason: answer.reason || answer.error || "" };
  }
}
