// The log of one tab: every decision gets a number, is kept in the browser until the server says it is stored, and is
// sent again for as long as it takes. The server applies each number once, so sending twice does no harm.

const LOGS = "assay-review-log:";
const ASIDE = "assay-review-aside:"; // entries that the server could not take, whatever is tried
const REFUSED = new Set([400, 413, 422]);
const MOST_UNSENT = 500;
const MOST_AT_ONCE = 50;
const ANSWER_MS = 20000;
const WAITS_MS = [400, 800, 1600, 3000, 5000, 8000];
const BREATH_MS = 150; // between two requests: what is pressed meanwhile goes along
const BEAT_MS = 25000; // a lease lasts 90 s
const KEEPALIVE_BYTES = 60000; // a browser carries 64 KiB past the end of a page

class Log {
  // session: {api, token, reviewer}, shared by all logs of this page, so that a fresh token serves them all.
  // ask(): what the desk needs ({on_screen, holding, want, again}); told(answer, sent): what the server said.
  constructor({ session, desk, scope, name, ask, told, changed }) {
    Object.assign(this, { session, desk, scope, ask, told, changed });
    this.name = name ?? pressName();
    this.key = LOGS + this.name;
    this.entries = name ? storedEntries(this.key) : [];
    this.next = (this.entries.at(-1)?.n ?? 0) + 1;
    this.drafts = new Map();
    this.preferences = {};
    this.failures = 0;
    this.mostAtOnce = MOST_AT_ONCE;
    this.bare = false; // entries only, after a request was refused: what was wrong with it?
    this.trouble = null; // {kind: "connection" | "token" | "role" | "store" | "refused", text}
    this.isKept = true;
    this.onOnline = () => this.wake(0);
    this.onHide = () => this.lastWords();
    window.addEventListener("online", this.onOnline);
    window.addEventListener("pagehide", this.onHide);
    this.beat = setInterval(() => this.wake(0), BEAT_MS);
  }

  get unsent() { return this.entries.length; }

  // Held while this tab lives: another tab can tell by it that nobody else will send what is left here.
  hold() {
    navigator.locks?.request(this.key, () => new Promise((done) => { this.letGo = done; })).catch(() => {});
  }

  add(entry) {
    const whole = { verdict: "", note: "", seconds: null, edited: null, seen: null, undoes: null, ...entry, n: this.next };
    this.next += 1;
    this.entries.push(whole);
    if (!this.headed) {
      this.headed = true;
      this.hold();
      kept.set(this.key, { reviewer: this.session.reviewer, desk: this.desk, scope: this.scope, at: Date.now() });
    }
    this.isKept = kept.set(`${this.key}:${whole.n}`, whole) && this.isKept;
    this.wake(0);
    return whole.n;
  }

  keepDraft(pairId, texts) {
    this.drafts.set(pairId, texts);
    this.wake(0);
  }

  prefer(name, value) {
    this.preferences[name] = value;
    this.wake(0);
  }

  // ---- sending: one request at a time ----

  wake(inMs) {
    if (this.over || this.sending) { this.again = true; return; }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), Math.max(inMs, (this.answeredAt ?? -BREATH_MS) + BREATH_MS - performance.now()));
  }

  // An earlier log of this person goes first, so that the store has decisions in the order in which they were made.
  get waits() {
    return !this.left && [...leaving].some((log) => log.entries.length && log.session.reviewer === this.session.reviewer && log.trouble?.kind !== "role");
  }

  request() {
    const nothing = { on_screen: null, holding: [], want: 0, again: null };
    const need = this.ask?.() ?? nothing;
    const base = { token: this.session.token, desk: this.desk, scope: this.scope, log: this.name };
    const entries = this.waits ? [] : this.entries.slice(0, this.mostAtOnce);
    if (this.bare && entries.length) return { ...base, entries, drafts: [], preferences: {}, ...nothing };
    return {
      ...base,
      entries,
      drafts: Array.from(this.drafts, ([pair_id, texts]) => ({ pair_id, texts })),
      preferences: { ...this.preferences },
      ...need,
      again: this.entries.length ? null : need.again, // a fresh pass begins once all of this one is stored
    };
  }

  async send() {
    if (this.sending || this.over) return;
    const sent = this.request();
    this.sending = true;
    this.again = false;
    const began = performance.now();
    try {
      const response = await fetch(`${this.session.api}/sync`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent), cache: "no-store",
        signal: AbortSignal.timeout?.(ANSWER_MS),
      });
      const answer = await response.json().catch(() => ({}));
      if (response.ok) this.stored(sent, answer, performance.now() - began);
      else this.refused(response.status, answer.error, sent);
    } catch {
      // fetch throws a TypeError where there is no connection and a TimeoutError where no answer came.
      this.failed({ kind: "connection", text: "no connection to the server" });
    }
    this.sending = false;
    this.answeredAt = performance.now();
    this.afterwards();
  }

  stored(sent, answer, tookMs) {
    this.failures = 0;
    this.trouble = null;
    this.bare = false;
    this.mostAtOnce = Math.min(MOST_AT_ONCE, 2 * this.mostAtOnce);
    this.tookMs = tookMs;
    for (const log of leaving) if (log.trouble && log !== this) log.wake(0);
    const acked = answer.acked ?? 0;
    while (this.entries.length && this.entries[0].n <= acked) kept.drop(`${this.key}:${this.entries.shift().n}`);
    for (const { pair_id, texts } of sent.drafts) if (this.drafts.get(pair_id) === texts) this.drafts.delete(pair_id);
    for (const [name, value] of Object.entries(sent.preferences)) {
      if (this.preferences[name] === value) delete this.preferences[name];
    }
    this.told?.(answer, sent);
    this.changed?.();
  }

  refused(status, sentence, sent) {
    if (REFUSED.has(status) && this.parted(sent, sentence ?? `the server answered ${status}`)) return;
    if (status === 401) this.failed({ kind: "token", text: sentence ?? "the sign-in of this page has run out" });
    else if (status === 403) this.failed({ kind: "role", text: sentence ?? "your role does not allow it" });
    else this.failed({ kind: "store", text: sentence ?? `the server answered ${status}` });
  }

  // A request that is refused for good is not sent again as it was: its entries alone, then fewer and fewer of them, until
  // the one that cannot be taken is found and put aside; the rest goes on.
  parted(sent, sentence) {
    if (!this.bare && sent.entries.length) this.bare = true;
    else if (sent.entries.length > 1) this.mostAtOnce = Math.ceil(sent.entries.length / 2);
    else if (sent.entries.length) this.setAside(this.entries[0], sentence, sent);
    else if (sent.drafts.length || Object.keys(sent.preferences).length) { // a draft stays in this browser
      this.drafts.clear();
      this.preferences = {};
    } else {
      this.failed({ kind: "refused", text: sentence });
      return true;
    }
    this.trouble = null;
    this.changed?.();
    return true;
  }

  setAside(entry, sentence, sent) {
    const text = `Your ${entry.verdict || entry.action} of pair ${entry.pair_id} cannot be stored: ${sentence} It is kept in this browser.`;
    kept.set(`${ASIDE}${this.name}:${entry.n}`, { reviewer: this.session.reviewer, scope: this.scope, entry, sentence, at: Date.now() });
    if (entry.edited) kept.set(draftKey(this.session.reviewer, entry.pair_id), { texts: entry.edited, at: Date.now() / 1000 });
    this.entries.shift();
    kept.drop(`${this.key}:${entry.n}`);
    this.bare = false;
    this.told?.({ results: [{ n: entry.n, kind: "error", text, pair_id: entry.pair_id, pair: null, aside: true }] }, sent);
  }

  failed(trouble) {
    this.failures += 1;
    this.trouble = trouble;
    this.changed?.();
  }

  afterwards() {
    if (this.over) return;
    if (this.trouble) {
      const wait = WAITS_MS[Math.min(this.failures, WAITS_MS.length) - 1];
      this.wake(["role", "refused"].includes(this.trouble.kind) ? 30000 : wait);
    } else if (this.left && this.idle()) this.end();
    else if (this.again || this.entries.length) this.wake(0);
  }

  idle() { return !this.entries.length && !this.drafts.size && !Object.keys(this.preferences).length; }

  // The page goes: what is not stored yet is sent along; what does not fit stays in the browser for the next visit.
  lastWords() {
    if (this.over || this.idle()) return;
    const body = JSON.stringify({ ...this.request(), want: 0, again: null });
    if (body.length > KEEPALIVE_BYTES) return;
    fetch(`${this.session.api}/sync`, { method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: true })
      .catch(() => {});
  }

  // The desk has gone, the page has not: what is left is sent, then the log ends. told() hears what became of it.
  leave(told) {
    Object.assign(this, { left: true, ask: null, told, changed: null });
    leaving.add(this);
    if (this.idle() && !this.sending) this.end();
    else this.wake(0);
  }

  end() {
    this.over = true;
    leaving.delete(this);
    clearTimeout(this.timer);
    clearInterval(this.beat);
    window.removeEventListener("online", this.onOnline);
    window.removeEventListener("pagehide", this.onHide);
    for (const name of [this.key, ...kept.names(`${this.key}:`)]) kept.drop(name);
    this.letGo?.();
  }
}

function storedEntries(key) {
  const found = kept.names(`${key}:`).map((name) => kept.get(name)).filter((entry) => Number.isInteger(entry?.n));
  return found.sort((one, other) => one.n - other.n);
}

// Names of the logs that this person has in this browser, whichever tab they belong to.
function logsOf(reviewer) {
  return kept.names(LOGS).filter((key) => !key.slice(LOGS.length).includes(":") && kept.get(key)?.reviewer === reviewer);
}

// What lies aside of this person: [{name, scope, entry, sentence, at}], the oldest first.
function asideOf(reviewer) {
  const found = kept.names(ASIDE).map((name) => ({ name, ...kept.get(name) })).filter((one) => one.reviewer === reviewer && one.entry);
  return found.sort((one, other) => one.at - other.at);
}

// Pairs that wait in such a log with a decision: whatever the server still says of them, they are decided.
function decidedHere(reviewer) {
  const decided = new Set();
  for (const key of logsOf(reviewer)) {
    for (const entry of storedEntries(key)) {
      if (entry.action === "decide") decided.add(entry.pair_id);
      if (entry.action === "apply") for (const id of entry.pair_ids) decided.add(id);
    }
  }
  return decided;
}

// Send what dead tabs left behind. A tab that lives holds the lock of its log; where a browser has no locks (a page
// that is not served securely) any log is sent, which the server takes once all the same.
function adopt(session, own, done) {
  const send = (key) => new Promise((finished) => {
    const { desk, scope } = kept.get(key) ?? {};
    const log = new Log({ session, desk, scope, name: key.slice(LOGS.length), told: done });
    const end = log.end.bind(log);
    log.end = () => { end(); finished(); };
    log.leave(log.told);
  });
  for (const key of logsOf(session.reviewer)) {
    if (key === own.key || adopted.has(key)) continue;
    adopted.add(key);
    if (!navigator.locks) { send(key); continue; }
    navigator.locks.request(key, { ifAvailable: true }, (lock) => {
      if (lock) return send(key);
      adopted.delete(key);
      return null;
    }).catch(() => adopted.delete(key));
  }
}
const adopted = new Set();
const leaving = new Set(); // logs without a desk that this page is still sending
