// The stage holds the one sheet that is on screen, and knows since when: a press counts for a pair that was painted.

const SETTLE_MS = 300; // a pair that came by itself is not decided by a press meant for what stood there before
const MOST_PRESSES = 1000;
// Presses in a burst are so far apart: closer ones are a key that bounces, and whoever presses later has looked.
const BURST_MS = { least: 10, most: 60 };
const MOST_HELD = 50;

class Stage {
  // missed() is called when presses came before there was a pair for them.
  constructor(root, body, { changed, after, missed }) {
    Object.assign(this, { root, body, changed, after, missed });
    this.turn = 0;
    this.painted = false;
    this.settled = false;
    this.held = []; // presses of a burst that came faster than pairs can be drawn, in their order: {id, at}
    this.latestAt = -Infinity; // when something was pressed that was done, or held, or came too soon to be meant
    root.__presses = [];
    const channel = new MessageChannel();
    this.tasks = [];
    channel.port1.onmessage = () => this.tasks.shift()?.();
    this.soon = (task) => { this.tasks.push(task); channel.port2.postMessage(null); };
  }

  get sheet() { return this.body.firstElementChild; }

  // The pair that is on screen by the sheet itself, or null.
  get pairId() { return Number(this.sheet?.dataset.pair) || null; }

  // press: {at: time of the event, action, pair_id} when a press brought this sheet, else null.
  // returned: it comes in between, as nobody who pressed could know.
  show(sheet, press, { returned = false } = {}) {
    this.body.replaceChildren(sheet);
    this.painted = false;
    this.drawnAt = null;
    if (press) this.unmeasured = this.note({ ...press, counted: true, taken_at: performance.now(), paint_ms: null });
    this.settled = Boolean(press) && !returned;
    clearTimeout(this.timer);
    const turn = (this.turn += 1);
    // A message posted in the frame's callback comes right after that frame was drawn.
    requestAnimationFrame(() => {
      if (turn !== this.turn) return;
      if (this.root.getBoundingClientRect().top < 0) this.root.scrollIntoView({ block: "start" });
      this.drawnAt = performance.now();
      this.soon(() => this.wasPainted(turn));
    });
    this.changed();
  }

  wasPainted(turn) {
    if (turn !== this.turn || this.painted) return;
    this.painted = true;
    if (this.unmeasured && !this.sheet.classList.contains("waiting")) this.measure();
    if (!this.settled) this.timer = setTimeout(() => { this.settled = true; this.changed(); }, SETTLE_MS);
    this.changed();
    this.after();
  }

  // Every press of a verdict, for those who measure: on which pair, whether it counted, and when the next was painted.
  note(press) {
    this.root.__presses.push(press);
    if (this.root.__presses.length > MOST_PRESSES) this.root.__presses.shift();
    return press;
  }

  measure() {
    const press = this.unmeasured;
    this.unmeasured = null;
    press.paint_ms = round(performance.now() - press.at);
    this.root.dataset.pressToPaint = press.paint_ms.toFixed(1);
    requestAnimationFrame(() => { press.next_frame_ms = round(performance.now() - press.at); });
  }

  // Whether a press at this time was made with this sheet before one's eyes: the frame that drew it had begun. A key is
  // handed over before the task that follows the frame, so that task's work is done here where it is not done yet.
  seenAt(time) {
    if (this.drawnAt !== null) this.wasPainted(this.turn);
    return this.painted && this.settled && time >= this.drawnAt;
  }

  // Takes a press of a burst that was made before its pair was drawn: its turn is when that has been drawn. Whoever
  // waits for a pair, or presses again since nothing happened, is not taken for a burst, nor is what follows that.
  hold(id, at) {
    const apart = at - this.latestAt;
    if (apart <= BURST_MS.most) this.latestAt = at;
    const burst = this.settled && this.pairId && apart >= BURST_MS.least && apart <= BURST_MS.most;
    if (!burst || this.held.length >= MOST_HELD) return false;
    this.held.push({ id, at });
    return true;
  }

  // The press whose turn it is, now that a pair has been drawn; none for a pair that came by itself.
  nextHeld() {
    if (!this.settled || !this.pairId) this.forget();
    return this.held.shift() ?? null;
  }

  forget() { this.miss(this.held.splice(0)); }

  // These presses count for no pair, and whoever made them is told.
  miss(presses) {
    for (const { id, at } of presses) this.note({ at, action: id, pair_id: this.pairId, counted: false });
    if (presses.length) this.missed();
  }

  // The same pair drawn another way: what was seen stays seen.
  redraw(sheet) { this.body.replaceChildren(sheet); }

  get phase() { return !this.painted ? "loading" : this.settled ? "ready" : "settling"; }

  leave() { clearTimeout(this.timer); this.turn += 1; }
}

const round = (ms) => Math.round(ms * 10) / 10;
