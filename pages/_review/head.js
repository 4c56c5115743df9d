// The line above the pair: the place in the queue, what is decided, and whether all of it is stored.

const QUIET_MS = 1500;

class Head {
  constructor(zone) {
    this.place = el("span", "place");
    this.fill = el("i", "");
    this.meter = el("div", "meter", this.fill);
    this.pace = el("span", "pace");
    this.saving = el("span", "saving");
    this.meter.setAttribute("role", "progressbar");
    this.meter.setAttribute("aria-label", "Pairs decided");
    zone.replaceChildren(this.place, this.meter, this.pace, this.saving);
  }

  // head: what the server has stored; ahead: decisions of this tab that it has not.
  draw({ head, view, ahead, reviewer, atEnd }) {
    if (!head) { this.place.textContent = ""; return; }
    const decided = Math.max(0, head.decided + ahead);
    const parts = [`${count(decided)} of ${count(head.pairs)} decided`, `${count(Math.max(0, head.today + ahead))} today by ${reviewer}`];
    if (head.median_seconds !== null) parts.push(`median ${duration(head.median_seconds)} a decision`);
    const left = Math.max(0, head.left - ahead);
    if (view && head.median_seconds !== null && left) parts.push(`about ${duration(head.median_seconds * left)} left in this queue`);
    this.fill.style.width = `${head.pairs ? Math.min(100, (100 * decided) / head.pairs) : 0}%`;
    this.meter.setAttribute("aria-valuenow", String(decided));
    this.meter.setAttribute("aria-valuemax", String(head.pairs));
    this.pace.textContent = parts.join(" · ");
    this.place.textContent = view ? (view.position ? `Pair ${count(view.position)} of ${count(head.length)}` : `Pair ${view.pair_id}`)
      : atEnd ? (head.length ? `End of ${count(head.length)}` : "Empty queue") : `${count(head.length)} pairs`;
  }

  // Returns what was newly found to be wrong or right again, for those who cannot see it, or "".
  drawSaving({ unsent, drafts, trouble, isKept, since }) {
    const late = unsent && performance.now() - since > QUIET_MS;
    const n = `${count(unsent)} not saved yet`;
    const [state, text] = trouble
      ? ["trouble", `⚠ ${unsent ? `${n}: ` : ""}${trouble.text}${trouble.kind === "role" ? "" : "; trying again"}`]
      : late ? ["trouble", `⚠ ${n}: the server takes long`]
        : unsent ? ["busy", `↻ ${n}`]
          : drafts ? ["busy", "↻ keeping the draft"] : ["saved", "✓ all saved"];
    const warning = isKept ? "" : " · ⚠ the storage of this browser is full: do not close the page before all is saved";
    this.saving.textContent = text + warning;
    this.saving.className = `saving ${state}`;
    const before = this.state;
    this.state = state;
    if (state === "trouble" && before !== "trouble") return text.slice(2);
    return state === "saved" && this.wasTrouble ? (this.wasTrouble = false, "All saved.") : (this.wasTrouble ||= state === "trouble", "");
  }
}
