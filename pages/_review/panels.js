// What may stand beside the work: the guidelines, and pairs that are similar to the one on screen.

class SimilarPanel {
  // ask(pairId) -> {pairs, reason}; chosen() is called when what is ticked changed.
  constructor(zone, { ask, chosen }) {
    Object.assign(this, { zone, ask, chosen });
    this.found = new Map();
    this.ticks = new Set();
  }

  show(pairId) {
    if (this.pairId === pairId) return;
    this.pairId = pairId;
    this.ticks.clear();
    clearTimeout(this.timer);
    this.zone.hidden = !pairId;
    if (!pairId) return;
    this.draw({ waiting: true });
    // Who decides fast does not wait for a list: it is asked for once the pair stays a moment.
    this.timer = setTimeout(() => this.fetch(pairId), 120);
  }

  hide() {
    clearTimeout(this.timer);
    this.pairId = null;
    this.ticks.clear();
    this.zone.hidden = true;
  }

  async fetch(pairId) {
    const answer = this.found.get(pairId) ?? await this.ask(pairId);
    this.found.set(pairId, answer);
    if (this.found.size > 50) this.found.delete(this.found.keys().next().value);
    if (this.pairId === pairId) this.draw(answer);
  }

  draw({ pairs = [], reason = "", waiting = false }) {
    const title = el("h3", "", "Similar pairs");
    if (waiting) { this.zone.replaceChildren(title, el("p", "why", "looking…")); return; }
    if (!pairs.length) { this.zone.replaceChildren(title, el("p", "why", reason || "No similar pair was found.")); return; }
    const list = el("ul", "similar-list", ...pairs.map((pair) => this.line(pair)));
    this.said = el("p", "applies");
    this.said.setAttribute("role", "status");
    const near = pairs.filter((pair) => pair.near_duplicate);
    const words = near.length === 1 ? "Tick the near-duplicate" : `Tick the ${near.length} near-duplicates`;
    const all = near.length ? plainButton("quiet", () => this.tickAll(near), words) : null;
    this.zone.replaceChildren(title, el("p", "why", "Ticked pairs get the same verdict as this one, with your next press."), all, list, this.said);
    this.tell();
  }

  line(pair) {
    const box = el("input", "");
    box.type = "checkbox";
    box.dataset.similar = String(pair.pair_id);
    box.disabled = Boolean(pair.state) && pair.state !== "undecided"; // blind: no state is told, the server refuses
    box.addEventListener("change", () => {
      if (box.checked) this.ticks.add(pair.pair_id); else this.ticks.delete(pair.pair_id);
      this.tell();
    });
    return el("li", "", el("label", "", box,
      el("span", "alike", Number(pair.similarity).toFixed(2)), el("span", "state", pair.state ?? ""),
      el("span", "words", ...breakable(pair.instruction))));
  }

  tickAll(pairs) {
    for (const pair of pairs) {
      this.ticks.add(pair.pair_id);
      const box = this.zone.querySelector(`[data-similar="${pair.pair_id}"]`);
      if (box) box.checked = true;
    }
    this.tell();
  }

  tell() {
    const n = this.ticks.size;
    if (this.said) this.said.textContent = n ? `Your next verdict also goes to ${count(n)} ticked pair${n === 1 ? "" : "s"}.` : "";
    this.chosen();
  }
}

function drawGuidelines(zone, text, shown) {
  zone.hidden = !(text && shown);
  if (zone.hidden || zone.drawn === text) return;
  zone.drawn = text;
  zone.replaceChildren(el("h3", "", "Guidelines"), el("div", "rendered", ...markdown(text)));
}
