// Markdown of a row as nodes, of a small known set: headings, emphasis, lists, code, quotes, tables. Nothing is fetched
// and nothing can be followed: a link is its text with the address behind it, a picture is "[image: …]".

const MOST_MARKDOWN = 200000; // a longer text is shown as it is
const DEEPEST = 6;

function markdown(text) {
  if (text.length > MOST_MARKDOWN) return [el("pre", "", ...breakable(text))];
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

const FENCE = /^ {0,3}(```+|~~~+)/;
const HEADING = /^ {0,3}(#{1,6})\s+(\S.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +)(?=\S)/;
const TABLE_LINE = /^\s*\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?\s*$/;

function blocks(lines, depth) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      const end = closingFence(lines, at + 1, fence[1]);
      made.push(el("pre", "code", el("code", "", ...breakable(lines.slice(at + 1, end).join("\n")))));
      at = end + 1;
    } else if (heading) {
      const title = el("div", `heading h${heading[1].length}`, ...inline(heading[2].replace(/\s+#+\s*$/, "")));
      title.setAttribute("role", "heading");
      title.setAttribute("aria-level", String(Math.min(heading[1].length + 4, 9)));
      made.push(title);
      at += 1;
    } else if (RULE.test(line)) { made.push(el("hr", "")); at += 1; }
    else if (QUOTE.test(line) && depth < DEEPEST) {
      const end = endOf(lines, at, (one) => QUOTE.test(one));
      made.push(el("blockquote", "", ...blocks(lines.slice(at, end).map((one) => one.replace(QUOTE, "")), depth + 1)));
      at = end;
    } else if (ITEM.test(line) && depth < DEEPEST) [made[made.length], at] = list(lines, at, depth);
    else if (line.includes("|") && TABLE_LINE.test(lines[at + 1] ?? "")) [made[made.length], at] = table(lines, at);
    else {
      const end = endOf(lines, at + 1, (one) => one.trim() && !startsBlock(one, depth));
      made.push(el("p", "", ...inline(lines.slice(at, end).join("\n"))));
      at = end;
    }
  }
  return made;
}

function startsBlock(line, depth) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line)
    || (depth < DEEPEST && (QUOTE.test(line) || ITEM.test(line)));
}

function endOf(lines, from, belongs) {
  let at = from;
  while (at < lines.length && belongs(lines[at])) at += 1;
  return at;
}

function closingFence(lines, from, opened) {
  return endOf(lines, from, (line) => {
    const close = line.trim();
    return !(close.startsWith(opened) && close === opened[0].repeat(close.length));
  });
}

function list(lines, from, depth) {
  const first = ITEM.exec(lines[from]);
  const ordered = /\d/.test(first[2]);
  const made = el(ordered ? "ol" : "ul", "");
  if (ordered) made.start = Number.parseInt(first[2], 10);
  let at = from;
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || /\d/.test(item[2]) !== ordered) break;
    const width = item[0].length;
    const own = [lines[at].slice(width)];
    at += 1;
    // What is indented belongs to the item, and so does a line that goes on with its paragraph.
    while (at < lines.length) {
      const line = lines[at];
      const indented = line.length - line.trimStart().length;
      const goesOn = line.trim() && own.at(-1).trim() && !startsBlock(line, depth);
      const afterGap = !line.trim() && (lines[at + 1] ?? "").trim() && lines[at + 1].length - lines[at + 1].trimStart().length >= 2;
      if (line.trim() ? indented >= 2 || goesOn : afterGap) own.push(line.slice(Math.min(indented, width)));
      else break;
      at += 1;
    }
    const inner = blocks(own, depth + 1);
    made.append(el("li", "", ...(inner.length === 1 && inner[0].tagName === "P" ? [...inner[0].childNodes] : inner)));
    while (at < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1] ?? "")) at += 1;
  }
  return [made, at];
}

function table(lines, from) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => el("tr", "", ...cells(line).slice(0, 60).map((cell) => el(tag, "", ...inline(cell))));
  const end = endOf(lines, from + 2, (line) => line.trim() && line.includes("|"));
  const made = el("table", "", el("thead", "", row(lines[from], "th")),
    el("tbody", "", ...lines.slice(from + 2, end).map((line) => row(line, "td"))));
  return [el("div", "wide", made), end];
}

// ---- within a line ----

const PIECES = [
  ["code", /(`+)([^`]|[^`][\s\S]{0,5000}?[^`])\1(?!`)/y, (found) => [el("code", "", found[2].trim() || found[2])]],
  ["image", /!\[([^\]\n]{0,500})\]\(([^)\n]{0,2000})\)/y, (found) => [el("span", "image", `[image: ${found[1] || "no text"}]`)]],
  ["link", /\[([^\]\n]{1,500})\]\(([^)\s]{0,2000})[^)\n]{0,500}\)/y, (found) => [...inline(found[1]), el("span", "address", ` (${found[2]})`)]],
  ["strong", /(\*\*|__)(?=\S)([^\n]{1,2000}?\S)\1/y, (found) => [el("strong", "", ...inline(found[2]))]],
  ["em", /(\*|_)(?=[^\s*_])([^\n*_]{0,1000}[^\s*_])\1(?![\w])/y, (found) => [el("em", "", ...inline(found[2]))]],
  ["escape", /\\([\\`*_{}[\]()#+\-.!|~>])/y, (found) => [found[1]]],
];
const STARTS = /[`![*_\\]/g;

function inline(text) {
  const parts = [];
  let plain = 0;
  STARTS.lastIndex = 0;
  let tries = 0;
  for (let start = STARTS.exec(text); start && tries < 4000; start = nextStart(text, start.index + 1)) {
    tries += 1;
    if (start.index < plain) continue;
    // Within a word "_" is a letter: snake_case stays as it is.
    if (text[start.index] === "_" && /\w/.test(text[start.index - 1] ?? "")) continue;
    for (const [, pattern, make] of PIECES) {
      pattern.lastIndex = start.index;
      const found = pattern.exec(text);
      if (!found) continue;
      const end = pattern.lastIndex;
      parts.push(...breakable(text.slice(plain, start.index)), ...make(found));
      plain = end;
      break;
    }
  }
  parts.push(...breakable(text.slice(plain)));
  return parts;
}

function nextStart(text, from) {
  STARTS.lastIndex = from;
  return STARTS.exec(text);
}
