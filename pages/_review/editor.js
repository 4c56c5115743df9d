// Editing in place: text areas stand exactly where the reflected texts stood, the cursor where the text was clicked or
// at the first difference. What is typed is a draft at once, here and soon on the server.

const DRAFTS = "assay-review-draft:";
const DRAFT_MS = 400;
const EDITED_FIELDS = ["instruction", "input", "output"];

const draftKey = (reviewer, pairId) => `${DRAFTS}${reviewer}:${pairId}`;

// The newest draft of a pair, of this browser or of the server: {texts, at: epoch seconds} or null.
function draftOf(reviewer, view) {
  const here = kept.get(draftKey(reviewer, view.pair_id));
  const there = view.draft ?? null;
  const newest = !here || (there && there.at > here.at) ? there : here;
  if (!newest?.texts) return null;
  const reflected = reflectedTexts(view);
  return EDITED_FIELDS.some((field) => (newest.texts[field] ?? reflected[field]) !== reflected[field]) ? newest : null;
}

function reflectedTexts(view) {
  const texts = { instruction: "", input: "", output: "" };
  for (const field of view.fields) texts[field.field] = wholeText(field, "reflected");
  return texts;
}

class Editor {
  // at: {field, offset} where the cursor goes, or null for the first difference. drafted(texts | null) keeps a draft.
  constructor({ sheet, view, reviewer, at, drafted }) {
    Object.assign(this, { sheet, view, reviewer, drafted });
    this.draft = draftOf(reviewer, view);
    this.areas = {};
    const texts = { ...reflectedTexts(view), ...this.draft?.texts };
    const heights = view.fields.map((field) => this.block(field.field).offsetHeight); // all read before any is written
    view.fields.forEach((field, i) => this.stand(field, texts[field.field], this.block(field.field), heights[i]));
    if (!this.areas.input) this.offerInput(texts.input);
    sheet.querySelector(".side.reflected").textContent = "Reflected: your edit";
    this.focus(at ?? (this.draft ? null : this.firstDifference()));
  }

  block(field) { return this.sheet.querySelector(`.text.reflected[data-field="${field}"]`); }

  stand(field, text, block, height) {
    const area = el("textarea", "text reflected");
    area.name = field.field;
    area.dataset.field = field.field;
    if (/\S{5000}/.test(text)) area.wrap = "off"; // a text area offers no place to break at
    area.value = text;
    area.setAttribute("aria-label", `Edited ${field.label.toLowerCase()}`);
    area.spellcheck = true;
    area.style.height = `${height}px`;
    area.addEventListener("input", () => this.typed(area));
    const scrolled = block.scrollTop;
    block.replaceWith(area);
    area.scrollTop = scrolled;
    this.areas[field.field] = area;
  }

  // Few pairs have an input: a place to write one is made on demand, so that the texts do not move.
  offerInput(text) {
    const add = () => {
      const label = el("div", "field-label", el("span", "", "Input"));
      const place = el("div", "");
      const cell = el("div", "cell reflected", label, place);
      cell.dataset.field = "input";
      this.sheet.querySelector('.cell.reflected[data-field="instruction"]').after(el("div", "cell original"), cell);
      this.stand({ field: "input", label: "Input" }, text, place, 60);
      button.remove();
      return this.areas.input;
    };
    const button = plainButton("quiet", () => add().focus(), "+ add an input");
    if (text) add();
    else this.sheet.querySelector('.cell.reflected[data-field="instruction"] .field-label').append(button);
  }

  typed(area) {
    this.grow(area);
    const texts = this.texts();
    kept.set(draftKey(this.reviewer, this.view.pair_id), { texts, at: Date.now() / 1000 });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), DRAFT_MS);
    this.unsent = texts;
  }

  flush() {
    clearTimeout(this.timer);
    if (this.unsent) this.drafted(this.unsent);
    this.unsent = null;
  }

  grow(area) {
    const most = window.innerHeight * 0.62;
    if (area.scrollHeight > area.clientHeight && area.offsetHeight < most) {
      area.style.height = `${Math.min(area.scrollHeight + area.offsetHeight - area.clientHeight, most)}px`;
    }
  }

  texts() {
    const texts = { instruction: "", input: "", output: "" };
    for (const [name, area] of Object.entries(this.areas)) {
      texts[name] = area.value.toWellFormed ? area.value.toWellFormed() : area.value;
    }
    return texts;
  }

  firstDifference() {
    for (const field of this.view.fields) {
      let offset = 0;
      for (const [changed, text] of field.reflected) {
        if (changed) return { field: field.field, offset };
        offset += text.length;
      }
    }
    return null;
  }

  focus(at) {
    const area = this.areas[at?.field] ?? this.areas.output ?? Object.values(this.areas)[0];
    const offset = Math.min(at?.offset ?? 0, area.value.length);
    area.focus({ preventScroll: true });
    area.setSelectionRange(offset, offset);
  }

  startAgain() {
    clearTimeout(this.timer);
    this.unsent = null;
    const texts = reflectedTexts(this.view);
    for (const [name, area] of Object.entries(this.areas)) area.value = texts[name];
    this.draft = null;
    kept.drop(draftKey(this.reviewer, this.view.pair_id));
    this.drafted(null);
    this.focus(this.firstDifference());
  }

}

// Where in a text block a point lies: {field, offset}, or null outside of a text.
function placeAt(block, x, y) {
  const root = block.getRootNode();
  const caret = document.caretPositionFromPoint?.(x, y, root instanceof ShadowRoot ? { shadowRoots: [root] } : undefined);
  if (!caret?.offsetNode || !block.contains(caret.offsetNode)) return null;
  const from = (caret.offsetNode.nodeType === Node.TEXT_NODE ? caret.offsetNode.parentElement : caret.offsetNode).closest("[data-at]");
  if (!from) return null;
  let offset = Number(from.dataset.at) + (caret.offsetNode.nodeType === Node.TEXT_NODE ? caret.offset : 0);
  for (const node of from.childNodes) {
    if (node === caret.offsetNode) break;
    offset += node.textContent.length;
  }
  return { field: block.dataset.field, offset };
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
