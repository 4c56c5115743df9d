// The stage holds the one sheet that is on screen, and knows since when: a press counts for a pair that was painted.

const SETTLE_MS = 300; // a pair that came by itself is not decided by a press meant for what stood there before
const MOST_PRESSES = 1000;

class Stage {
  constructor(root, body, { changed, after }) {
    Object.assign(this, { root, body, changed, after });
    this.turn = 0;
    this.painted = false;
    this.settled = false;
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
  show(sheet, press) {
    this.body.replaceChildren(sheet);
    this.painted = false;
    this.drawnAt = null;
    if (press) this.unmeasured = this.note({ ...press, counted: true, paint_ms: null });
    this.settled = Boolean(press);
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

  // The same pair drawn another way: what was seen stays seen.
  redraw(sheet) { this.body.replaceChildren(sheet); }

  get phase() { return !this.painted ? "loading" : this.settled ? "ready" : "settling"; }

  leave() { clearTimeout(this.timer); this.turn += 1; }
}

const round = (ms) => Math.round(ms * 10) / 10;
