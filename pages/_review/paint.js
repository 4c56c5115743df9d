// One pair as a sheet of the desk: built from what the server knows of the pair, before it is needed.

const FOLD_LINES = 3;
const LINE_CHARACTERS = 80;

// look: {marks, folded, markdown, in_step}; open: which of critique and history are unfolded.
function buildSheet(view, { look, open, notice }) {
  const sheet = el("div", "sheet",
    notice ? el("div", "notice", "! ", notice) : null,
    badges(view), facts(view), columns(view, look), voices(view.voices),
    critique(view, open), history(view, open));
  sheet.dataset.pair = String(view.pair_id);
  sheet.classList.toggle("plain-text", !look.marks);
  if (look.in_step) stepTogether(sheet);
  return sheet;
}

// What is around the texts, drawn again when the server knows more; the texts and an edit stay as they are.
function refreshAround(sheet, view, open) {
  sheet.querySelector(".badges").replaceWith(badges(view));
  sheet.querySelector("details.history")?.remove();
  sheet.append(...[history(view, open)].filter(Boolean));
}

function badges(view) {
  const line = el("div", "badges", el("span", "badge", el("b", "", "pair"), String(view.pair_id)));
  for (const badge of view.badges ?? []) line.append(el("span", `badge ${badge.kind}`, el("b", "", badge.label), badge.text));
  if (view.decision) {
    line.append(el("span", `badge ${view.decision.kind}`, view.decision.kind === "accept" ? "✓ " : view.decision.kind === "reject" ? "✗ " : "",
      view.decision.text));
  }
  if (view.flag) line.append(el("span", "badge flag", "⚑ ", view.flag.text, view.flag.note ? `: ${view.flag.note}` : ""));
  return line;
}

function facts(view) {
  const scores = view.scores ?? [];
  if (!scores.length && !view.proposal) return null;
  const box = el("div", "facts");
  if (scores.length) {
    const withBase = scores.some((score) => score.base !== null);
    const names = ["", "Original", ...(withBase ? ["Stage before"] : []), "Reflected", "Change"];
    const table = el("table", "scores", el("tr", "", ...names.map((name) => el("th", "", name))));
    const why = [];
    for (const score of scores) {
      table.append(el("tr", "",
        el("td", "name", el("b", "", score.name), el("span", "", score.rule)),
        el("td", "", score.original), withBase ? el("td", "", score.base ?? "—") : null, el("td", "", score.reflected),
        el("td", score.tone, score.change)));
      for (const reason of score.missing) why.push(el("div", "why", `No ${score.name}. ${reason}`));
      if (score.warning) why.push(el("div", "why warn", `! ${score.warning}`));
    }
    box.append(el("div", "card", table, ...why));
  }
  if (view.proposal) {
    box.append(el("div", "card proposal", el("div", "title", view.proposal.title), el("div", "reason", view.proposal.reason),
      el("div", "hint", "A proposal, not a decision: you decide.")));
  }
  return box;
}

// ---- the two sides ----

function columns(view, look) {
  const grid = el("div", "pair", side("Original", "original"), side("Reflected", "reflected"));
  for (const field of view.fields) {
    const runs = look.markdown ? null : runsOf(field);
    for (const name of ["original", "reflected"]) {
      const cell = el("div", `cell ${name}`, fieldLabel(field, name), textBlock(field, name, runs, look));
      cell.dataset.field = field.field;
      grid.append(cell);
    }
  }
  return grid;
}

function side(shown, name) {
  const title = el("div", `side ${name}`, shown);
  title.setAttribute("role", "heading");
  title.setAttribute("aria-level", "3");
  return title;
}

function fieldLabel(field, name) {
  const label = el("div", "field-label", el("span", "", field.label));
  if (name === "reflected" && field.note) {
    label.append(el("em", field.note === "unchanged" ? "unchanged" : "note-on-diff", field.note));
  }
  return label;
}

const wholeText = (field, name) => field[name].map((segment) => segment[1]).join("");

function textBlock(field, name, runs, look) {
  const block = el("div", `text ${name}`);
  block.dataset.field = field.field;
  block.setAttribute("role", "group");
  block.setAttribute("aria-label", `${name === "original" ? "Original" : "Reflected"} ${field.label.toLowerCase()}`);
  const text = wholeText(field, name);
  if (!text) block.append(el("span", "empty", "(empty)"));
  else if (look.markdown) { block.classList.add("rendered"); block.append(...markdown(text)); }
  else if (runs) appendRuns(block, runs, name, look);
  else block.append(stretch("span", text, 0));
  return block;
}

// A stretch of text that knows where in the whole it begins: a click on it finds the place in an editor.
function stretch(tag, text, at) {
  const node = el(tag, "", ...breakable(text));
  node.dataset.at = String(at);
  return node;
}

// Runs of a field: [{original, reflected, equal}], equal ones with the same text on both sides. null where the sides
// were not compared ("rewritten", "too long"): then unmarked does not mean equal.
function runsOf(field) {
  const equal = (name) => field[name].filter(([changed]) => !changed).map(([, text]) => text).join("");
  if (equal("original") !== equal("reflected")) return null;
  const runs = [];
  const before = { segments: field.original, index: 0, at: 0 };
  const after = { segments: field.reflected, index: 0, at: 0 };
  const here = (one) => one.segments[one.index];
  const changed = (one) => {
    const segment = here(one);
    if (!segment?.[0]) return "";
    one.index += 1;
    return segment[1];
  };
  const eat = (one, n) => {
    one.at += n;
    if (one.at === here(one)[1].length) { one.index += 1; one.at = 0; }
  };
  while (here(before) || here(after)) {
    if (here(before)?.[0] || here(after)?.[0]) {
      runs.push({ original: changed(before), reflected: changed(after), equal: false });
    } else {
      const rest = [before, after].map((one) => here(one)[1].length - one.at);
      const text = here(before)[1].slice(before.at, before.at + Math.min(...rest));
      runs.push({ original: text, reflected: text, equal: true });
      eat(before, text.length);
      eat(after, text.length);
    }
  }
  return runs;
}

function appendRuns(block, runs, name, look) {
  const mark = name === "original" ? "del" : "ins";
  let at = 0;
  runs.forEach((run, number) => {
    const text = run[name];
    if (!text) return;
    const fold = run.equal && look.folded ? foldOf(text, number === 0, number === runs.length - 1) : null;
    const nodes = fold ? foldedNodes(text, at, fold, name) : [stretch(run.equal ? "span" : mark, text, at)];
    for (const node of nodes) node.dataset.run = String(number);
    block.append(...nodes);
    at += text.length;
  });
}

const lineCount = (text) => text.replace(/\n$/, "").split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / LINE_CHARACTERS)), 0);

// What of a long equal run is folded: [from, to), with a line left on each side that has a change beyond it.
function foldOf(text, first, last) {
  if (lineCount(text) <= FOLD_LINES) return null;
  const from = first ? 0 : edge(text, LINE_CHARACTERS, 1);
  const to = last ? text.length : edge(text, text.length - LINE_CHARACTERS, -1);
  return to - from > LINE_CHARACTERS ? [from, to] : null;
}

// The nearest place to cut at, at most a line away: behind a line's end, else between words.
function edge(text, near, direction) {
  for (const sign of ["\n", " "]) {
    const place = direction > 0 ? text.lastIndexOf(sign, near) : text.indexOf(sign, near);
    if (place >= 0) return place + 1;
  }
  return near;
}

function foldedNodes(text, at, [from, to], name) {
  const lines = lineCount(text.slice(from, to));
  const button = plainButton("fold", () => openFold(button), `⋯ ${count(lines)} equal line${lines === 1 ? "" : "s"}`);
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-label", `Show ${count(lines)} equal lines of the ${name} text`);
  button.hiddenText = [text.slice(from, to), at + from];
  const nodes = [button];
  if (from) nodes.unshift(stretch("span", text.slice(0, from), at));
  if (to < text.length) nodes.push(stretch("span", text.slice(to), at + to));
  return nodes;
}

// Opens the fold on both sides.
function openFold(button) {
  const both = button.closest(".pair").querySelectorAll(
    `.text[data-field="${button.closest(".text").dataset.field}"] .fold[data-run="${button.dataset.run}"]`);
  for (const one of both) {
    const text = stretch("span", ...one.hiddenText);
    text.dataset.run = one.dataset.run;
    one.replaceWith(text);
  }
}

// ---- both sides scroll in step: where a run begins on both they are brought to one height, in between by proportion ----

function stepTogether(sheet) {
  sheet.addEventListener("scroll", (event) => {
    const block = event.target;
    if (!(block instanceof Element) || !block.matches(".text, textarea")) return;
    if (block.steppedTo === block.scrollTop) { block.steppedTo = null; return; } // it was moved by its partner
    const partner = partnerOf(block);
    if (!partner) return;
    const places = placesOf(block, partner);
    const to = Math.round(interpolate(block.scrollTop, places));
    if (Math.abs(partner.scrollTop - to) < 1) return;
    partner.scrollTop = to;
    partner.steppedTo = partner.scrollTop;
  }, { capture: true, passive: true });
}

function partnerOf(block) {
  const cell = block.closest(".cell");
  const other = cell.classList.contains("original") ? "reflected" : "original";
  return cell.parentElement.querySelector(`.cell.${other}[data-field="${cell.dataset.field}"] :is(.text:not([hidden]), textarea)`);
}

// Heights that belong together: [[here, there], …], from the top to the lowest that each side can be scrolled.
function placesOf(block, partner) {
  const most = [block.scrollHeight - block.clientHeight, partner.scrollHeight - partner.clientHeight];
  const size = `${block.scrollHeight}|${partner.scrollHeight}`;
  if (block.places?.size === size) return block.places.list;
  const list = [[0, 0]];
  const runs = new Map();
  for (const node of partner.querySelectorAll("[data-run]")) if (!runs.has(node.dataset.run)) runs.set(node.dataset.run, node);
  const seen = new Set();
  for (const node of block.querySelectorAll("[data-run]")) {
    const match = runs.get(node.dataset.run);
    if (!match || seen.has(node.dataset.run)) continue;
    seen.add(node.dataset.run);
    const [here, there] = [node.offsetTop, match.offsetTop];
    if (here >= list.at(-1)[0] && there >= list.at(-1)[1] && here < most[0] && there < most[1]) list.push([here, there]);
  }
  list.push(most);
  block.places = { size, list };
  return list;
}

function interpolate(place, list) {
  let at = 1;
  while (at < list.length - 1 && list[at][0] < place) at += 1;
  const [[x0, y0], [x1, y1]] = [list[at - 1], list[at]];
  return x1 > x0 ? y0 + ((y1 - y0) * Math.min(place - x0, x1 - x0)) / (x1 - x0) : y1;
}

// ---- what was said ----

function critique(view, open) {
  if (!view.critique) return null;
  if (!view.critique.length) return el("div", "why", "The teacher left no critique of this pair.");
  const details = el("details", "critique", el("summary", "", "What the teacher said (critique)"));
  for (const [label, said] of view.critique) details.append(el("div", "said-label", label), el("div", "said", ...breakable(said)));
  return remembered(details, "critique", open);
}

function history(view, open) {
  if (!view.history?.length) return null;
  const list = el("ul", "");
  for (const event of view.history) {
    list.append(el("li", event.undone ? "undone" : "", event.text, event.note ? ` — ${event.note}` : "",
      event.undone ? " (taken back)" : ""));
  }
  return remembered(el("details", "history", el("summary", "", `History of this pair (${view.history.length})`), list), "history", open);
}

function remembered(details, name, open) {
  details.open = Boolean(open[name]);
  details.addEventListener("toggle", () => { open[name] = details.open; });
  return details;
}

// Adjudication: who said what of this pair.
function voices(said) {
  if (!said?.length) return null;
  const box = el("div", "voices");
  box.setAttribute("role", "list");
  box.setAttribute("aria-label", "What the reviewers said");
  for (const voice of said) {
    const sign = { accept: "✓ ", reject: "✗ ", flag: "⚑ " }[voice.kind] ?? "";
    const card = el("div", `voice ${voice.kind ?? ""}`, el("div", "who", voice.name), el("div", "verdict", sign, voice.text),
      voice.note ? el("div", "words", `“${voice.note}”`) : null, voice.when ? el("div", "when", voice.when) : null);
    for (const [field, text] of Object.entries(voice.texts ?? {})) {
      card.append(el("details", "", el("summary", "", `Edited ${field}`), el("div", "said", ...breakable(String(text)))));
    }
    card.setAttribute("role", "listitem");
    box.append(card);
  }
  return box;
}
