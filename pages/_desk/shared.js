// What the desks of Review and of blind judging share; the files of one desk follow in the same module.
// Every text of a row enters the page as a text node; nothing here or there parses HTML.

const TYPING = "input, textarea, select, [contenteditable]:not([contenteditable=false]), [role=textbox], [role=combobox], "
  + "[role=listbox], [role=option], [role=slider], [role=spinbutton], [role=radio], [role=tab], [role=grid]";
const DIALOG = "[role=dialog], [role=alertdialog], [role=menu], [data-testid=stPopoverBody]";

function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function plainButton(className, onClick, ...children) {
  const button = el("button", className, ...children);
  button.type = "button";
  button.addEventListener("click", onClick);
  return button;
}

// A browser breaks a run of a million characters without a space in minutes: it is offered places to break at.
const LONG_RUN = /\S{500}(?=\S)/gu;

function breakable(text) {
  if (text.length <= 500) return [text];
  const parts = [];
  let from = 0;
  for (const run of text.matchAll(LONG_RUN)) {
    const to = run.index + run[0].length;
    parts.push(text.slice(from, to), document.createElement("wbr"));
    from = to;
  }
  return [...parts, text.slice(from)];
}

// 128 random bits in hex: the name of a press, or of a log.
function pressName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const count = (number) => number.toLocaleString("en");

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

// The browser may forbid its storage, or it may be full; then nothing is found there, and set() says so.
function storage(area) {
  return {
    get(name) {
      try { return JSON.parse(area().getItem(name)); } catch { return null; }
    },
    set(name, value) {
      try { area().setItem(name, JSON.stringify(value)); return true; } catch { return false; }
    },
    drop(name) {
      try { area().removeItem(name); } catch { /* forbidden */ }
    },
    names(beginning) {
      try { return Object.keys(area()).filter((name) => name.startsWith(beginning)); } catch { return []; }
    },
  };
}
const inTab = storage(() => sessionStorage);
const inBrowser = storage(() => localStorage);

const DOUBLE_CLICK_MS = 300;

// A desk listens (onKey, onVisible), knows how long its item was visible, and shows messages.
class BaseDesk {
  listen() {
    document.addEventListener("keydown", this.onKey);
    this.root.addEventListener("click", (event) => this.countOnce(event), { capture: true });
    document.addEventListener("visibilitychange", this.onVisible);
  }

  close() {
    document.removeEventListener("keydown", this.onKey);
    document.removeEventListener("visibilitychange", this.onVisible);
  }

  startTime() {
    this.visibleMs = 0;
    this.visibleSince = document.hidden ? null : performance.now();
  }

  watchTime() {
    const now = performance.now();
    if (document.hidden && this.visibleSince !== null) {
      this.visibleMs = (this.visibleMs ?? 0) + now - this.visibleSince;
      this.visibleSince = null;
    } else if (!document.hidden) this.visibleSince ??= now;
  }

  secondsOnScreen() {
    const running = this.visibleSince === null || this.visibleSince === undefined ? 0 : performance.now() - this.visibleSince;
    return Math.round(((this.visibleMs ?? 0) + running) / 10) / 100;
  }

  showMessage(kind, text, button) {
    this.zones.message.className = `message ${kind}`;
    this.zones.message.replaceChildren(text, ...(button ? [button] : []));
  }

  sayIfQuiet(text) { if (!this.zones.message.textContent) this.showMessage("info", text); }

  // Of a double click on a button only the first counts: the second would be for what the first has brought.
  countOnce(event) {
    const apart = event.timeStamp - (this.clickedAt ?? -Infinity);
    this.clickedAt = event.timeStamp;
    const button = event.target.closest("button");
    if (!button || "often" in button.dataset || event.detail < 2 || apart > DOUBLE_CLICK_MS) return;
    event.stopPropagation();
    this.sayIfQuiet("That was a double click: it counts once.");
  }

  // The key of a press that is meant for the desk, or null: not while typing, nor behind a dialog, nor with Ctrl or Alt.
  keyForDesk(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return null;
    const target = event.composedPath()[0];
    if (target instanceof Element && target.closest(TYPING) && target.type !== "checkbox") return null;
    if (document.querySelector(DIALOG)) return null;
    const key = event.key.toLowerCase();
    // Shift makes "?" of another key, so it is no modifier there; Shift+A is no A.
    return event.shiftKey && (key.length > 1 || key !== key.toUpperCase()) ? null : key;
  }
}

const DESKS = new WeakMap();

// The desk that sits in the component's place, made when there is none, brought up to date.
function seat(Desk, component) {
  const parent = component.parentElement;
  let desk = DESKS.get(parent);
  if (!desk || !desk.root.isConnected) {
    desk?.close();
    desk = new Desk(parent);
    DESKS.set(parent, desk);
  }
  desk.update(component);
  // Also called for a render that was overtaken by the next one, so look whether the desk is really gone.
  return () => setTimeout(() => { if (!desk.root.isConnected) desk.close(); });
}
