// What can be done at the desk, and by which key; keys may be changed by each reviewer.

const ACTIONS = [
  { id: "accept", key: "a", label: "✓ Accept", kind: "accept", help: "Accept: take the reflected pair" },
  { id: "reject", key: "x", label: "✗ Reject", kind: "reject", help: "Reject: keep the original" },
  { id: "edit", key: "e", label: "✎ Edit", help: "Edit the reflected texts, then accept (Ctrl+Enter saves, Esc leaves; the draft stays)" },
  { id: "new_instruction", rare: true, key: "1", label: "New instruction + old response", brief: "New instr.", help: "Accept the new instruction with the old response" },
  { id: "new_response", rare: true, key: "2", label: "Old instruction + new response", brief: "New resp.", help: "Accept the old instruction with the new response" },
  { gap: "go" },
  { id: "skip", key: "s", label: "Skip", help: "Skip: decide later" },
  { id: "flag", rare: true, key: "f", label: "⚑ Flag", help: "Flag with a note; the pair stays on screen" },
  { id: "undo", key: "u", label: "↶ Undo", help: "Take back your latest decision, skip or flag; as often as you like" },
  { id: "back", rare: true, key: "arrowleft", more: ["b"], label: "Back", help: "Go back in the queue without deciding" },
  { id: "forward", rare: true, key: "arrowright", more: ["n"], label: "Forward", help: "Go on in the queue without deciding" },
  { gap: "view" },
  { id: "marks", key: "d", label: "Marks", help: "Show or hide the marks of differences" },
  { id: "folded", key: "o", label: "Changed only", help: "Fold long equal parts, show what changed" },
  { id: "markdown", key: "w", label: "Markdown", help: "Read the texts as written, or as Markdown (no links followed, no images loaded)" },
  { id: "in_step", key: "y", label: "In step", help: "Scroll both sides in step" },
  { id: "similar", key: "m", label: "Similar", help: "Similar pairs; tick those that get the same verdict" },
  { id: "guidelines", key: "g", label: "Guidelines", help: "Show or hide the guidelines" },
  { id: "critique", key: "t", label: "Critique", help: "Open or close the teacher's critique" },
  { id: "help", key: "?", label: "Keys", help: "Show these keys and change them" },
];
const DOABLE = ACTIONS.filter((action) => action.id);
const VERDICTS = new Set(["accept", "reject", "new_instruction", "new_response", "skip"]);
const OF_PAIR = new Set([...VERDICTS, "edit", "flag"]); // what a press does to the pair that is on screen
const GOING = new Set(["back", "forward"]);
const AT_END = new Set(["undo", "back", "help", "skipped", "passed", "reload", "guidelines"]);
const VERDICT_WORDS = { accept: "accepted", reject: "rejected", edit: "edited and accepted", skip: "skipped",
  new_instruction: "new instruction with the old response", new_response: "old instruction with the new response" };

const SHOWN_KEYS = { arrowleft: "←", arrowright: "→", arrowup: "↑", arrowdown: "↓" };
const ARIA_KEYS = { arrowleft: "ArrowLeft", arrowright: "ArrowRight" };
const shownKey = (key) => SHOWN_KEYS[key] ?? key.toUpperCase();
const ariaKey = (key) => ARIA_KEYS[key] ?? key.toUpperCase();

// Why a key cannot be given to an action, or "".
function whyReserved(key) {
  if (key === "c" || key === "r") return `${key.toUpperCase()} belongs to the page around the desk (clear its cache, run it again)`;
  if (key === "?") return "? always opens these keys";
  if (["arrowup", "arrowdown", " ", "pageup", "pagedown", "home", "end"].includes(key)) return "this key scrolls";
  if (["tab", "enter", "escape"].includes(key)) return "this key moves between fields and buttons, or ends a typing";
  if (key.length > 1 && !key.startsWith("arrow")) return "only letters, digits, signs and the arrows ← → can be used";
  return "";
}

// The keys of a reviewer: the usual ones, with the changes that can be used.
function keysWith(changes) {
  const keys = Object.fromEntries(DOABLE.map((action) => [action.id, action.key]));
  for (const [id, key] of Object.entries(changes ?? {})) {
    if (id in keys && id !== "help" && typeof key === "string" && key && !whyReserved(key)) keys[id] = key;
  }
  return keys;
}

function actionOf(key, keys) {
  return DOABLE.find((action) => keys[action.id] === key)
    ?? DOABLE.find((action) => action.more?.includes(key) && !Object.values(keys).includes(key));
}

// The dialog of the keys. chosen(changes) is called with {action: key} for every action whose key is not the usual one.
class KeysDialog {
  constructor(dialog, { chosen, left }) {
    Object.assign(this, { dialog, chosen });
    this.waiting = null; // the action that gets the next key
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => { this.waiting = null; left(); });
    dialog.addEventListener("cancel", (event) => { if (this.waiting) { event.preventDefault(); this.wait(null); } });
  }

  open(keys) {
    this.keys = { ...keys };
    this.said = "";
    this.draw();
    this.dialog.showModal();
    this.dialog.querySelector(".close").focus();
  }

  get isOpen() { return this.dialog.open; }

  wait(id) {
    this.waiting = id;
    this.said = "";
    this.draw();
    if (id) this.dialog.querySelector(`[data-change="${id}"]`)?.focus();
  }

  // True when the key was for this dialog.
  key(event) {
    if (!this.isOpen) return false;
    const key = event.key.toLowerCase();
    if (["shift", "control", "alt", "meta"].includes(key)) return true;
    if (!this.waiting) {
      if (key === "?") { event.preventDefault(); this.dialog.close(); }
      return true;
    }
    event.preventDefault();
    if (key === "escape") this.wait(null);
    else if (event.ctrlKey || event.altKey || event.metaKey) this.say("Use the key alone, without Ctrl, Alt or Cmd.");
    else this.assign(key);
    return true;
  }

  assign(key) {
    const id = this.waiting;
    const reserved = whyReserved(key);
    const taken = DOABLE.find((one) => this.keys[one.id] === key && one.id !== id);
    if (reserved) this.say(`${shownKey(key)} cannot be used: ${reserved}.`);
    else if (taken) {
      this.say(`${shownKey(key)} already means “${bare(taken.label)}”. Press another key, or `,
        plainButton("swap", () => { this.keys[taken.id] = this.keys[id]; this.set(id, key); }, "swap the two"));
    } else this.set(id, key);
  }

  set(id, key) {
    this.keys[id] = key;
    this.chosen(this.changes());
    this.wait(null);
    this.dialog.querySelector(`[data-change="${id}"]`)?.focus();
  }

  changes() {
    return Object.fromEntries(DOABLE.filter((one) => this.keys[one.id] !== one.key).map((one) => [one.id, this.keys[one.id]]));
  }

  say(...parts) {
    this.said = parts;
    this.dialog.querySelector(".said-of-keys")?.replaceChildren(...parts);
  }

  draw() {
    const rows = DOABLE.map((action) => {
      const waits = this.waiting === action.id;
      const change = action.id === "help" ? null
        : plainButton(waits ? "change waits" : "change", () => this.wait(waits ? null : action.id), waits ? "press a key…" : "change");
      if (change) {
        change.dataset.change = action.id;
        change.setAttribute("aria-label", `Change the key of ${bare(action.label)}`);
      }
      return el("tr", "", el("td", "", el("kbd", "", shownKey(this.keys[action.id]))), el("td", "", action.help), el("td", "", change));
    });
    const said = el("p", "said-of-keys", ...(this.said || []));
    said.setAttribute("role", "status");
    this.dialog.replaceChildren(el("div", "", el("h3", "", "Keys"), el("table", "", ...rows), said,
      el("p", "", "Keys do nothing while you type, and together with Ctrl, Alt or Cmd; a key held down decides one pair only. "
        + "B and N also go back and forward. Every decision is kept in this browser until the server has stored it."),
      el("div", "next",
        plainButton("reset", () => { this.keys = keysWith({}); this.chosen({}); this.draw(); this.dialog.querySelector(".close").focus(); }, "Back to the usual keys"),
        plainButton("close", () => this.dialog.close(), "Close", el("kbd", "", "Esc")))));
  }
}

const bare = (label) => label.replace(/^[^\p{L}]+/u, "");
