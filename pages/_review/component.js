// The review desk. A press is written into the log of this tab and the next pair, prepared before, is painted at once;
// the server is told in the meantime (log.js). A press counts for the pair that was painted when it was made; in a burst
// that is faster than a slow frame, for the pair that the presses before it bring, once that one is painted.

const PAST_VIEWS = 60;
const MOST_PAST = 500;
const MISSED = "What was pressed before there was a pair on screen for it did not count.";

class Desk extends TypingDesk {
  constructor(parent) {
    super();
    this.root = parent.querySelector(".desk");
    const find = (name) => this.root.querySelector(name);
    this.zones = { body: find(".body"), message: find(".message"), aside: find(".refused"), bar: find(".bar"), notePanel: find(".note-panel"),
      note: find(".note"), work: find(".work"), guidelines: find(".guidelines"), aloud: find(".aloud") };
    this.head = new Head(find(".head"));
    this.stage = new Stage(this.root, this.zones.body, { changed: () => this.apply(), after: () => this.afterPaint(),
      missed: () => this.sayIfQuiet(MISSED) });
    this.similar = new SimilarPanel(find(".similar"), { ask: (id) => this.askSimilar(id), chosen: () => this.apply() });
    this.help = new KeysDialog(find(".help"), { chosen: (changes) => this.changeKeys(changes), left: () => this.toRead() });
    this.bar = new Bar(this.zones.bar, (id, at) => this.act(id, at));
    this.mode = "read";
    this.open = { critique: false, history: false };
    this.onKey = (event) => this.key(event);
    this.onVisible = () => { this.watchTime(); if (document.hidden) { this.stage.forget(); this.editor?.flush(); } };
    this.onHide = () => this.editor?.flush();
    this.onUnload = (event) => { this.editor?.flush(); if (this.logs.some((log) => !log.idle())) event.preventDefault(); };
    this.listen();
    window.addEventListener("pagehide", this.onHide);
    window.addEventListener("beforeunload", this.onUnload);
    find(".save-note").addEventListener("click", () => this.saveNote("flag"));
    find(".remove-flag").addEventListener("click", () => this.saveNote("unflag"));
    find(".leave-note").addEventListener("click", () => this.toRead());
    this.zones.body.addEventListener("dblclick", (event) => this.editAt(event));
    this.ticking = setInterval(() => this.drawSaving(), 1000);
  }

  close() {
    super.close();
    clearInterval(this.ticking);
    window.removeEventListener("pagehide", this.onHide);
    window.removeEventListener("beforeunload", this.onUnload);
    this.stage.leave();
    this.editor?.flush();
    this.leaveLog();
  }

  // ---- going from pair to pair ----

  // press: {at, action, pair_id} when a press of this person brings the next sheet.
  next(press) {
    this.mode = "read";
    this.editor = null;
    const { view } = this;
    if (!view) {
      const atEnd = this.end && !this.log.unsent && !this.again;
      this.endShown = atEnd ? JSON.stringify(this.end) : null;
      this.stage.show(atEnd ? this.endCard() : this.waiting(), press);
      if (atEnd) this.component.setTriggerValue?.("ended", Date.now());
    } else {
      this.endShown = null;
      const ready = this.prepared?.view === view && this.prepared.look === this.look ? this.prepared.sheet : this.build(view);
      this.prepared = null;
      this.stage.show(ready, press, { returned: this.notices.has(view.pair_id) });
    }
    this.drawHead();
  }

  build(view) {
    const sheet = buildSheet(view, { look: this.look, open: this.open, notice: this.notices.get(view.pair_id) });
    const draft = draftOf(this.data.reviewer, view);
    if (draft) {
      sheet.prepend(el("div", "draft-note", `✎ Your draft of ${clock(draft.at)} waits here. `,
        plainButton("", () => this.startEdit(null), "Go on with it", el("kbd", "", shownKey(this.keys.edit))),
        plainButton("", () => this.dropDraft(), "Drop it")));
    }
    return sheet;
  }

  prepare() {
    const view = this.cache[1];
    if (!view || (this.prepared?.view === view && this.prepared.look === this.look)) return;
    this.prepared = { view, look: this.look, sheet: this.build(view) };
  }

  redraw() {
    if (this.view && this.stage.pairId === this.view.pair_id) this.stage.redraw(this.build(this.view));
  }

  afterPaint() {
    this.startTime();
    this.prepare();
    for (const block of this.zones.body.querySelectorAll(".text")) if (block.scrollHeight > block.clientHeight + 1) block.tabIndex = 0;
    this.takeFocus();
    if (this.look.similar) this.similar.show(this.stage.pairId);
    this.announce();
    if (!this.end && this.need().want) this.log?.wake(0);
    this.takeHeld();
  }

  // Focus is on the desk, unless the person is in a field somewhere else.
  takeFocus() {
    const active = document.activeElement;
    if (this.mode !== "read" || document.querySelector(DIALOG) || (active?.closest(TYPING) && !active.shadowRoot)) return;
    this.root.focus({ preventScroll: true });
  }

  announce() {
    const { view } = this;
    const unsent = this.log?.unsent ? ` ${this.log.unsent} not saved yet.` : "";
    const first = view?.fields?.[0];
    this.aloud(`${this.justDone ?? ""}${unsent} ${view ? `Next: pair ${view.pair_id}. ${first ? wholeText(first, "reflected").slice(0, 140) : ""}` : ""}`);
    this.justDone = null;
  }

  aloud(text) {
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => { this.zones.aloud.textContent = text.trim(); }, 250);
  }

  // ---- what a press does ----

  key(event) {
    if (!this.root.isConnected) { this.close(); return; }
    if (event.defaultPrevented || event.isComposing || !this.log) return;
    if (this.help.key(event)) return;
    if (this.mode !== "read") { this.keyInMode(event); return; }
    const key = this.keyForDesk(event);
    const action = key && actionOf(key, this.keys);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || GOING.has(action.id)) this.act(action.id, event.timeStamp);
  }

  keyInMode(event) {
    const ctrl = event.ctrlKey || event.metaKey;
    const saves = event.key === "Enter" && (this.mode === "edit" ? ctrl : !ctrl);
    if (event.key === "Escape") { event.preventDefault(); this.toRead(); }
    else if (saves && !event.repeat && event.composedPath().includes(this.mode === "edit" ? this.root : this.zones.note)) {
      event.preventDefault();
      if (this.mode === "edit") this.saveEdit(event.timeStamp); else this.saveNote("flag");
    }
  }

  act(id, at) {
    const { stage } = this;
    if (id === "save-edit") { this.saveEdit(at); return; }
    if (id === "leave-edit") { this.toRead(); return; }
    if (this.mode !== "read") return;
    // What is about the pair on screen waits for that pair; and behind what waits, everything does.
    const now = (!OF_PAIR.has(id) || stage.seenAt(at)) && !stage.held.length;
    if (now) { stage.latestAt = at; this.does(id, at); return; }
    if (stage.hold(id, at)) { this.takeHeld(); return; } // its pair may have been drawn since it was pressed
    if (OF_PAIR.has(id)) { stage.miss([{ id, at }]); return; }
    stage.forget(); // whoever goes elsewhere after a look does not mean what still waits
    this.does(id, at);
  }

  does(id, at) {
    if (!this.offered(id)) { if (VERDICTS.has(id)) this.stage.note({ at, action: id, pair_id: this.stage.pairId, counted: false }); }
    else if (VERDICTS.has(id)) this.decide(id, null, at);
    else if (id === "edit") this.startEdit(null);
    else if (id === "flag") this.startNote();
    else if (id === "undo") this.undo(at);
    else if (id === "back") this.back(at);
    else if (id === "forward") this.forward(at);
    else if (id === "help") { this.mode = "help"; this.help.open(this.keys); this.apply(); }
    else if (id === "critique") this.toggleCritique();
    else if (id === "more") this.zones.bar.classList.toggle("open");
    else if (id in this.look) this.toggle(id);
    else { this.again = id; this.cache = []; this.next({ at, action: id, pair_id: null }); this.log.wake(0); }
  }

  // The presses of a burst whose turn it is, once a pair has been drawn for them. One that brings no other pair ends the
  // burst: what follows it was meant for pairs that have not come.
  takeHeld() {
    const { stage } = this;
    const { turn } = stage;
    if (!stage.painted) return;
    if (this.mode !== "read") stage.forget();
    const held = stage.nextHeld();
    if (held) this.does(held.id, held.at);
    if (held && stage.turn === turn) stage.forget();
  }

  offered(id) {
    const { view } = this;
    if (["skipped", "passed", "reload"].includes(id)) return !view;
    if (id === "guidelines") return Boolean(this.data.guidelines);
    if (id === "back") return this.past.length > 0;
    if (id === "more") return true;
    if (!view || !this.stage.pairId) return AT_END.has(id);
    if (id === "new_instruction" || id === "new_response") return Boolean(view.mixes);
    if (id === "critique") return Boolean(view.critique?.length);
    return true;
  }

  decide(verdict, edited, at) {
    const { view } = this;
    const pairId = this.stage.pairId; // what stands on the page, not what is thought to stand there
    if (!view || view.pair_id !== pairId) return;
    if (this.log.unsent >= MOST_UNSENT) {
      this.showMessage("error", `${count(this.log.unsent)} decisions wait in this browser and cannot be sent. Go on once the connection is back; nothing was decided now.`);
      return;
    }
    const n = this.log.add({ action: "decide", pair_id: pairId, verdict, edited, seconds: this.secondsOnScreen(), seen: view.seen ?? null });
    const act = { n, kind: "decide", view, before: view.decision, taken: [] };
    const alike = verdict === "edit" ? [] : [...this.similar.ticks];
    if (alike.length) {
      act.applied = this.log.add({ action: "apply", pair_id: pairId, verdict, pair_ids: alike });
      act.taken = this.cache.filter((one) => alike.includes(one.pair_id));
      this.cache = this.cache.filter((one) => !alike.includes(one.pair_id));
      for (const id of alike) this.done.add(id);
    }
    this.acts.push(act);
    if (this.acts.length > MOST_PAST) this.acts.shift();
    this.done.add(pairId);
    if (verdict !== "skip") view.decision = { kind: verdict === "reject" ? "reject" : "accept", text: `Decided: you ${VERDICT_WORDS[verdict]} just now.` };
    this.notices.delete(pairId);
    this.passOn();
    (this.times ??= []).push(performance.now());
    this.justDone = `Pair ${pairId} ${VERDICT_WORDS[verdict]}${alike.length ? `, and ${alike.length} similar ones with it` : ""}.`;
    this.showMessage("", alike.length ? this.justDone : "");
    this.next({ at, action: verdict, pair_id: pairId });
  }

  passOn() {
    this.past.push({ pair_id: this.view.pair_id, view: this.view });
    this.cache.shift();
    if (this.past.length > PAST_VIEWS) this.past[this.past.length - 1 - PAST_VIEWS].view = null;
    if (this.past.length > MOST_PAST) this.past.shift();
  }

  undo(at) {
    const act = this.acts.pop();
    if (!act) {
      this.undoing.add(this.log.add({ action: "undo", pair_id: this.stage.pairId }));
      this.showMessage("", "Asking for your latest decision…");
      this.drawSaving();
      return;
    }
    const { view } = act;
    this.justDone = `Taken back on pair ${view.pair_id}.`;
    this.showMessage("info", this.justDone);
    if (act.applied) this.log.add({ action: "undo", pair_id: view.pair_id, undoes: act.applied });
    this.log.add({ action: "undo", pair_id: view.pair_id, undoes: act.n });
    if (act.kind === "flag") {
      view.flag = act.before;
      this.freshen(view);
      this.apply();
      return;
    }
    for (const id of [view.pair_id, ...act.taken.map((one) => one.pair_id)]) this.done.delete(id);
    view.decision = act.before;
    const last = this.past.map((one) => one.pair_id).lastIndexOf(view.pair_id);
    if (last >= 0) this.past.splice(last, 1);
    this.cache = [...act.taken, ...this.cache];
    this.toFront(view, { at, action: "undo", pair_id: this.stage.pairId });
  }

  toFront(view, press) {
    this.done.delete(view.pair_id);
    this.wanted.add(view.pair_id);
    this.cache = [view, ...this.cache.filter((one) => one.pair_id !== view.pair_id)];
    if (this.mode === "read") this.next(press);
    else this.cache.splice(0, 2, this.cache[1], view); // who is typing stays at that pair; this one comes next
  }

  async back(at) {
    const { pair_id, view } = this.past.pop();
    const press = { at, action: "back", pair_id: this.stage.pairId };
    if (view) this.toFront(view, press);
    if (view && this.log.entries.some((entry) => entry.pair_id === pair_id)) return; // the server does not know it all yet
    const fresh = await this.fetch("pair", { desk: this.data.desk, id: pair_id });
    if (fresh.pair && view) this.freshen(fresh.pair);
    else if (fresh.pair) this.toFront(fresh.pair, null);
    else if (!view) this.showMessage("error", `Pair ${pair_id} cannot be shown: ${fresh.error}`);
  }

  forward(at) {
    if (!this.view) return;
    const press = { at, action: "forward", pair_id: this.stage.pairId };
    this.passOn();
    this.next(press);
    if (!this.view) this.log.wake(0);
  }

  // ---- modes: edit, note, help ----

  toRead() {
    const was = this.mode;
    this.mode = "read";
    if (was === "edit") {
      this.editor.flush();
      this.editor = null;
      this.showMessage("", "");
      this.redraw();
      if (!this.stage.pairId) this.next(null);
    }
    if (was === "note") this.zones.note.blur(); // a hidden field keeps the focus for a moment
    if (was !== "read") { this.apply(); this.takeFocus(); }
  }

  toggleCritique() {
    const details = this.stage.sheet.querySelector("details.critique");
    if (!details) return;
    details.open = !details.open;
    if (details.open) details.scrollIntoView({ block: "nearest" });
  }

  toggle(id) {
    this.look = { ...this.look, [id]: !this.look[id] };
    const { similar, ...lasting } = this.look;
    if (id !== "similar") this.log.prefer("view", lasting);
    this.prepared = null;
    if (id === "marks") this.stage.sheet?.classList.toggle("plain-text", !this.look.marks);
    else if (id === "similar") { if (similar) this.similar.show(this.stage.pairId); else this.similar.hide(); }
    else if (id !== "guidelines") this.redraw();
    this.prepare();
    this.apply();
  }

  changeKeys(changes) {
    this.keys = keysWith(changes);
    this.log.prefer("keys", changes);
    this.apply();
  }

  // ---- drawing ----

  apply() {
    if (!this.log) return;
    this.root.dataset.phase = this.mode !== "read" ? this.mode : this.stage.pairId || this.atEnd ? this.stage.phase : "loading";
    this.root.dataset.pair = this.stage.pairId ?? (this.atEnd ? "end" : "");
    this.zones.notePanel.hidden = this.mode !== "note";
    drawGuidelines(this.zones.guidelines, this.data.guidelines, this.look.guidelines);
    this.zones.work.classList.toggle("with-aside", !this.zones.guidelines.hidden || !this.root.querySelector(".similar").hidden);
    this.bar.draw({ mode: this.mode, keys: this.keys, look: this.look, hasPair: Boolean(this.stage.pairId),
      offered: (id) => this.offered(id), absent: this.data.guidelines ? [] : ["guidelines"] });
    this.drawSaving();
  }

  get atEnd() { return Boolean(this.stage.sheet?.classList.contains("end")); }

  drawHead() {
    const ahead = this.log.entries.reduce((sum, { action, verdict, undoes }) =>
      sum + (action === "decide" && verdict !== "skip") - (action === "undo" && undoes !== null), 0);
    this.head.draw({ head: this.stored, view: this.view, ahead, reviewer: this.data.shown_name ?? this.data.reviewer, atEnd: this.atEnd });
  }

  drawSaving() {
    const { log } = this;
    if (!log) return;
    const sum = (of) => this.logs.reduce((total, one) => total + of(one), 0);
    const unsent = sum((one) => one.unsent);
    const oldest = this.logs.map((one) => one.entries[0]).find(Boolean) ?? null;
    if (oldest !== this.oldest) { this.oldest = oldest; this.since = performance.now(); }
    const news = this.head.drawSaving({ unsent, drafts: sum((one) => one.drafts.size), isKept: log.isKept, since: this.since,
      trouble: log.trouble ?? [...leaving].map((one) => one.trouble).find(Boolean) });
    if (news) this.aloud(news);
    this.root.dataset.unsaved = String(unsent);
    if (log.trouble?.kind === "token" && this.renewed !== this.session.token) {
      this.renewed = this.session.token;
      this.component.setTriggerValue?.("renew", Date.now());
    }
    const waits = this.stage.sheet?.classList.contains("waiting") ? this.stage.sheet : null;
    if (waits) waits.textContent = this.waitingText();
  }

  waiting() { return el("div", "waiting", this.waitingText()); }

  waitingText() {
    const { log } = this;
    if (!log?.trouble) return log?.unsent ? "loading… the last decisions are being stored" : "loading…";
    return `loading… ${log.trouble.text}. ${log.unsent ? `${count(log.unsent)} decisions wait in this browser and are sent` : "The next pairs come"} when the server answers again.`;
  }

  endCard() {
    const { end } = this;
    const next = el("div", "next");
    const offer = (id, label) => next.append(this.bar.button(id, label));
    if (end.skipped) offer("skipped", `Go through the ${count(end.skipped)} skipped`);
    if (end.passed) offer("passed", `Go through the ${count(end.passed)} passed by`);
    offer("reload", "Reload the queue");
    return el("div", "end", el("h3", "", end.title), ...end.lines.map((line) => el("p", "", line)), next);
  }
}

export default (component) => seat(Desk, component);
