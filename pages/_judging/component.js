// Blind judging. Every text of a row enters the page as a text node; nothing here parses HTML.
//
// A press locks the desk, goes to the server and is stored there; only the answer brings another question. Keys count
// again once that question has been painted, and verdicts a moment later, so that no press lands on answers nobody saw.
// Which model wrote which answer is not here: the server alone knows.

const SETTLE_MS = 150;
const PATIENCE_MS = 10000;
const PENDING = "assay-judging-pending";

const ACTIONS = [
  { id: "left", keys: ["1", "arrowleft"], shown: ["1", "←"], label: "A is better", kind: "choice", help: "The left answer is better" },
  { id: "tie", keys: ["2", "arrowdown"], shown: ["2", "↓"], label: "Tie", kind: "choice tie", help: "Neither is better" },
  { id: "right", keys: ["3", "arrowright"], shown: ["3", "→"], label: "B is better", kind: "choice", help: "The right answer is better" },
  { id: "skip", keys: ["s"], shown: ["S"], label: "Skip", help: "Skip: judge it later" },
  { id: "undo", keys: ["u"], shown: ["U"], label: "↶ Undo", help: "Take back your latest verdict; as often as you like" },
  { id: "help", keys: ["?"], shown: ["?"], label: "Keys", help: "Show or close this help" },
];
const CHOICES = new Set(["left", "tie", "right"]);
const DECIDING = new Set(["left", "tie", "right", "skip"]);
const AT_END = new Set(["undo", "help", "skipped"]);

class Desk extends BaseDesk {
  constructor(parent) {
    super();
    this.root = parent.querySelector(".desk");
    const find = (name) => this.root.querySelector(name);
    this.zones = { head: find(".head"), message: find(".message"), body: find(".body"), bar: find(".bar"), help: find(".help") };
    this.helping = false;
    this.painted = false;
    this.settled = false;
    this.pending = inTab.get(PENDING);
    this.firstUpdate = true;
    this.onKey = (event) => this.key(event);
    this.onVisible = () => this.watchTime();
    this.listen();
    this.zones.help.addEventListener("click", (event) => { if (event.target === this.zones.help) this.showHelp(false); });
    this.zones.help.addEventListener("close", () => { if (this.helping) this.showHelp(false); });
  }

  close() {
    super.close();
    clearTimeout(this.patience);
  }

  // ---- what comes from the server ----

  update(component) {
    this.component = component;
    const before = this.data;
    this.data = component.data;
    if (!this.data) return;
    const moved = !before || before.desk !== this.data.desk || this.itemId(before) !== this.itemId(this.data);
    const lost = this.settlePending();
    if (moved) this.helping = false;
    this.renderHead();
    if (moved || !this.data.item) this.renderBody();
    this.apply();
    if (moved && this.root.getBoundingClientRect().top < 0) this.root.scrollIntoView({ block: "start" });
    this.awaitPaint(moved);
    if (lost) this.send({ action: "recover", choice: lost.choice ?? "", lost: lost.press, item_id: lost.item_id });
  }

  itemId(data) {
    return data?.item?.item_id ?? null;
  }

  settlePending() {
    const answer = this.data.answer;
    const first = this.firstUpdate;
    this.firstUpdate = false;
    if (!this.pending) return null;
    let answered = false;
    if (answer && answer.press === this.pending.press) {
      answered = true;
      this.message = answer;
    } else if (!first && this.data.desk === this.pending.desk) {
      return null; // a rerun for another reason; the answer is still to come
    }
    const lost = !answered && this.pending.action === "judge" && this.pending.comparison === this.data.comparison ? this.pending : null;
    this.pending = null;
    inTab.drop(PENDING);
    clearTimeout(this.patience);
    return lost;
  }

  awaitPaint(moved) {
    this.painted = false;
    if (moved) this.settled = false;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.apply();
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (turn !== this.turn) return;
      this.painted = true;
      if (!moved) this.settled = true;
      else {
        this.startTime();
        setTimeout(() => {
          if (turn !== this.turn) return;
          this.settled = true;
          this.apply();
        }, SETTLE_MS);
      }
      this.apply();
    }));
  }

  // ---- what goes to the server ----

  send(press) {
    if (this.pending) return;
    this.message = null;
    this.pending = { item_id: this.itemId(this.data), seconds: this.secondsOnScreen(), ...press, press: pressName(),
      desk: this.data.desk, comparison: this.data.comparison };
    this.post();
  }

  post() {
    inTab.set(PENDING, this.pending);
    this.component.setTriggerValue("press", this.pending);
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.noAnswer(), PATIENCE_MS);
    this.apply();
  }

  noAnswer() {
    const again = plainButton("", () => this.post(), "Send again");
    this.showMessage("error", "The server has not answered yet. Your press is kept and can be sent again; it is stored once.", again);
  }

  act(id) {
    if (!this.mayAct(id)) return;
    if (CHOICES.has(id)) this.send({ action: "judge", choice: id });
    else if (id === "help") this.showHelp(true);
    else this.send({ action: id });
  }

  mayAct(id) {
    if (!this.data || this.pending || this.helping || !this.painted) return false;
    if (!this.settled && DECIDING.has(id)) return false;
    return this.offered(id);
  }

  offered(id) {
    return this.data.item ? id !== "skipped" : AT_END.has(id);
  }

  key(event) {
    if (!this.root.isConnected) { this.close(); return; }
    if (event.defaultPrevented || event.isComposing || this.pending || !this.data) return;
    if (this.helping) {
      if (event.key === "Escape" || event.key === "?") {
        event.preventDefault();
        this.showHelp(false);
      }
      return;
    }
    const pressed = event.repeat ? null : this.keyForDesk(event);
    if (!pressed) return;
    const target = event.composedPath()[0];
    // Who clicked into a long answer reads it with the arrows; these must not decide then.
    if (pressed.startsWith("arrow") && target instanceof Element && target.closest(".text.long")) return;
    const action = ACTIONS.find((one) => one.keys.includes(pressed));
    if (!action) return;
    event.preventDefault();
    this.act(action.id);
  }

  showHelp(open) {
    this.helping = open;
    if (open) {
      const table = el("table", "", ...ACTIONS.map((action) =>
        el("tr", "", el("td", "", ...action.shown.map((key) => el("kbd", "", key))), el("td", "", action.help))));
      const close = plainButton("", () => this.showHelp(false), "Close", el("kbd", "", "Esc"));
      this.zones.help.replaceChildren(el("div", "", el("h3", "", "Keys"), table,
        el("p", "", "Click into a long answer to scroll it with the arrow keys; there they do not judge, 1, 2 and 3 still do. "
          + "Keys do nothing while you type, while a verdict is being stored, and together with Ctrl, Alt or Cmd."), close));
    }
    this.apply();
  }

  // ---- drawing ----

  apply() {
    const busy = this.pending ? "saving" : !this.painted ? "loading" : null;
    this.root.dataset.phase = busy ?? (this.helping ? "help" : this.settled ? "ready" : "settling");
    this.root.dataset.item = this.itemId(this.data) ?? (this.data ? "end" : "");
    if (this.helping && !this.zones.help.open) this.zones.help.showModal();
    else if (!this.helping && this.zones.help.open) this.zones.help.close();
    this.renderBar();
  }

  renderHead() {
    const { head } = this.data;
    const fill = el("i", "");
    fill.style.width = `${head.total ? (100 * head.done) / head.total : 0}%`;
    const meter = el("div", "meter", fill);
    meter.setAttribute("role", "progressbar");
    meter.setAttribute("aria-label", "Questions judged");
    meter.setAttribute("aria-valuenow", String(head.done));
    meter.setAttribute("aria-valuemax", String(head.total));
    const parts = [];
    if (this.data.item && head.seconds_left !== null) parts.push(`about ${duration(head.seconds_left)} left`);
    if (head.skipped) parts.push(`${count(head.skipped)} skipped`);
    this.zones.head.replaceChildren(el("span", "place", `${count(head.done)} of ${count(head.total)} judged`), meter,
      el("span", "pace", parts.join(" · ")), el("span", "saving", "storing…"));
    if (this.message) this.showMessage(this.message.kind, this.message.text);
    else if (!this.pending) this.showMessage("", "");
  }

  renderBody() {
    const item = this.data.item;
    if (!item) { this.zones.body.replaceChildren(this.endCard()); return; }
    const question = el("div", "question", el("div", "label", "Question"), this.block(item.instruction, "instruction"));
    if (item.input) question.append(el("div", "label", "Input"), this.block(item.input, "input"));
    this.zones.body.replaceChildren(question,
      el("div", "answers", this.side("Answer A", item.left, "left"), this.side("Answer B", item.right, "right")));
    for (const block of this.zones.body.querySelectorAll(".text")) {
      if (block.scrollHeight <= block.clientHeight + 1) continue;
      block.classList.add("long");
      block.tabIndex = 0;
    }
  }

  block(text, field) {
    const block = el("div", "text", ...(text ? breakable(text) : [el("span", "empty", "(empty)")]));
    block.dataset.field = field;
    return block;
  }

  side(name, text, field) {
    return el("div", "side", el("div", "label", name), this.block(text, field));
  }

  endCard() {
    const { end } = this.data;
    const next = el("div", "next");
    if (end.skipped) next.append(this.button({ id: "skipped", label: `Go through the ${count(end.skipped)} skipped`, shown: [] }));
    return el("div", "end", el("h3", "", end.title), ...end.lines.map((line) => el("p", "", line)), next);
  }

  button(action) {
    const button = plainButton(action.kind ?? "", () => {
      button.blur(); // else Enter or Space would press it again on the next question
      this.act(action.id);
    }, action.label, ...action.shown.map((key) => el("kbd", "", key)));
    button.dataset.action = action.id;
    return button;
  }

  renderBar() {
    if (!this.data) return;
    const shape = String(Boolean(this.data.item));
    if (shape !== this.barShape) {
      this.barShape = shape;
      const more = el("div", "more");
      const choices = [];
      for (const action of ACTIONS) {
        if (!this.data.item && !AT_END.has(action.id)) continue;
        const button = this.button(action);
        button.title = action.help;
        button.setAttribute("aria-keyshortcuts", action.shown.join(" "));
        if (action.kind) choices.push(button); else more.append(button);
      }
      this.zones.bar.replaceChildren(...choices, more);
    }
    for (const button of this.root.querySelectorAll("button[data-action]")) {
      button.disabled = Boolean(this.pending) || !this.offered(button.dataset.action);
    }
  }
}

export default (component) => seat(Desk, component);
