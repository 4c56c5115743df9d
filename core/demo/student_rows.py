"""The rows that the demo student is trained on: files given by the user, docstrings of installed code, templates.

Every source is permissively licensed; ``core/demo/student/README.md`` lists them. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.demo.everyday import Row, everyday_rows
from core.errors import InputError

# BSD: numpy, pandas, scipy, torch; Apache-2.0: transformers, pyarrow. The standard library is under the PSF licence.
PACKAGES = ("numpy", "pandas", "scipy", "torch", "transformers", "pyarrow")
_LONGEST = 700
_PARAMETERS = re.compile(r"^Parameters\n-+\n(.*?)(?:\n\n\w+\n-+\n|\Z)", re.S | re.M)


@dataclass(frozen=True)
class Documented:
    """A function or class with its docstring: ``module`` is dotted, ``source`` is the code without the docstring."""

    kind: str
    name: str
    module: str
    package: str
    doc: str
    source: str


def _without_docstring(node: ast.FunctionDef | ast.ClassDef, text: str) -> str:
    if not isinstance(node, ast.FunctionDef) or len(node.body) < 2 or node.end_lineno is None:
        return ""
    lines = text.splitlines()
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    body = lines[node.body[1].lineno - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] for line in [*head, *body])


def _documented_in(path: Path, *, root: Path, package: str) -> Iterator[Documented]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        doc = ast.get_docstring(node)
        if doc and doc.isascii() and len(doc) >= 40:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield Documented(kind, node.name, module, package, doc, _without_docstring(node, text))


def documented_objects() -> list[Documented]:
    """Return every public documented function and class of the standard library and of ``PACKAGES``, in path order."""
    found: list[Documented] = []
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    site = Path(sysconfig.get_paths()["purelib"])
    for path in sorted(stdlib.rglob("*.py")):
        parts = path.relative_to(stdlib).parts
        if parts[0] not in ("site-packages", "test", "idlelib", "lib2to3") and "tests" not in parts:
            found.extend(_documented_in(path, root=stdlib, package="python"))
    for package in PACKAGES:
        for path in sorted((site / package).rglob("*.py")):
            if not {"tests", "testing", "_vendor", "third_party"} & set(path.parts):
                found.extend(_documented_in(path, root=site, package=package))
    return found


def _paragraphs(doc: str) -> list[str]:
    """Prose paragraphs of a docstring, each on one line; code, lists and section headings are left out."""
    kept = []
    for block in re.split(r"\n\s*\n", doc):
        if re.search(r">>>|^\s*[-=*.`:|+]{2,}|^\s{2,}\S|^\s*[-*] |\{|\}|Parameters|Returns|Args:", block, re.M):
            continue
        text = re.sub(r":\w+:`~?\.?([^`]*)`", r"\1", " ".join(block.split())).replace("`", "")
        if 30 <= len(text) <= _LONGEST and text.count(" ") >= 4 and text[-1] in ".!?:":
            kept.append(text.rstrip(":"))
    return kept


def _parameter_names(doc: str) -> list[str]:
    match = _PARAMETERS.search(doc)
    if match is None:
        return []
    return [line.split(":")[0].strip() for line in match.group(1).splitlines() if line[:1].isalpha() and " : " in line]


def _doc_rows_of(thing: Documented, r: random.Random) -> Iterator[Row]:
    paragraphs = _paragraphs(thing.doc)
    where = f"{thing.kind} {thing.name} of {thing.module}"
    if paragraphs:
        ask = r.choice(["What does the {w} do?", "Explain the {w}.", "Describe the {w}.", "Tell me about the {w}."])
        yield _row(ask.format(w=where), " ".join(paragraphs)[:_LONGEST].rsplit(".", 1)[0] + ".")
    if len(paragraphs) > 1:
        ask = r.choice(["Summarize the text in one sentence.", "Give a short summary.", "What is the text about?"])
        yield _row(ask, paragraphs[0], " ".join(paragraphs[1:])[:_LONGEST])
    names = _parameter_names(thing.doc)
    if 1 <= len(names) <= 8:
        yield _row(f"List the parameters of the {where}.", "\n".join(f"- {name}" for name in names))
    if paragraphs and 40 <= len(thing.source) <= 500 and thing.source.isascii():
        yield _row(f"Write a Python function named {thing.name}. {paragraphs[0]}", thing.source)


def _copy_row(text: str, r: random.Random) -> Row:
    """A task whose answer stands in the input: what teaches a small model to look back."""
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]
    words = sentences[0].rstrip(".!?").split()
    kind = r.choice(["repeat", "first", "last", "sentences", "quote", "words"])
    if kind == "repeat" or len(words) < 4:
        return _row(r.choice(["Repeat the text.", "Copy the following text.", "Say this again."]), text, text)
    if kind == "first":
        return _row("Give the first sentence of the text.", sentences[0], text)
    if kind == "last":
        return _row("Give the last sentence of the text.", sentences[-1], text)
    if kind == "sentences":
        return _row("Write each sentence on a line of its own.", "\n".join(sentences), text)
    if kind == "quote":
        return _row(f'What comes after "{" ".join(words[:3])}" in the text?', " ".join(words[3:]), text)
    return _row("List the first four words.", "\n".join(f"{i}. {w}" for i, w in enumerate(words[:4], 1)), sentences[0])


def _row(instruction: str, output: str, input_text: str = "") -> Row:
    return {"instruction": instruction, "input": input_text, "output": output}


def doc_rows(count: int, *, seed: int) -> list[Row]:
    """Return up to ``count`` rows out of docstrings, half of them from the standard library where it has enough."""
    r = random.Random(seed)
    things = documented_objects()
    by_package: dict[str, list[Row]] = {}
    for thing in things:
        rows = list(_doc_rows_of(thing, r))
        paragraphs = _paragraphs(thing.doc)
        if paragraphs:
            rows.append(_copy_row(r.choice(paragraphs), r))
        by_package.setdefault(thing.package, []).extend(row for row in rows if len(row["output"]) <= _LONGEST)
    for rows in by_package.values():
        r.shuffle(rows)
    chosen = by_package.pop("python", [])[: count // 2]
    rest = [row for rows in by_package.values() for row in rows[: 2 * count // len(PACKAGES)]]
    r.shuffle(rest)
    return _distinct(chosen + rest[: count - len(chosen)])


def _distinct(rows: list[Row]) -> list[Row]:
    return list({(row["instruction"], row["input"], row["output"]): row for row in rows}.values())


def _read_json_rows(path: Path) -> list[dict[str, object]]:
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON or JSON Lines: {error}") from error
    if not isinstance(data, list):
        raise InputError(f"{path} holds one JSON object; a list of rows is needed.")
    return data


def instruction_file_rows(path: Path) -> list[Row]:
    """Rows of a file with instruction/input/output (GSM8K) or instruction/instances (self-instruct)."""
    rows = []
    for item in _read_json_rows(path):
        instances = item.get("instances", [item])
        assert isinstance(instances, list)
        for one in instances:
            rows.append(_row(str(item["instruction"]), str(one["output"]), str(one.get("input", ""))))
    return rows


def mt_bench_rows(questions: Path, answers: Path) -> list[Row]:
    """Both turns of the MT-bench questions that have a reference answer; the first turn is the input of the second."""
    turns = {item["question_id"]: item["turns"] for item in _read_json_rows(questions)}
    rows = []
    for item in _read_json_rows(answers):
        question = turns[item["question_id"]]
        choices = item["choices"]
        assert isinstance(question, list)
        assert isinstance(choices, list)
        first, second = choices[0]["turns"][:2]
        rows += [_row(question[0], first), _row(question[1], second, f"{question[0]}\n{first}")]
    return rows


def training_rows(
    *, instructions: list[Path], questions: Path | None, answers: Path | None, docs: int, everyday: int, seed: int
) -> dict[str, list[Row]]:
    """Return all rows by source; file sources are named by their file."""
    sources = {path.stem: instruction_file_rows(path) for path in instructions}
    if questions is not None and answers is not None:
        sources["mt_bench"] = mt_bench_rows(questions, answers)
    sources["docstrings"] = doc_rows(docs, seed=seed)
    sources["everyday"] = _distinct(everyday_rows(everyday, seed=seed))
    return sources
