"""How rows become examples: the mapping, prefilled by the shape that was recognised, and a preview of what it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from core.formats import (
    JOINED,
    BadRow,
    ChatMapping,
    ColumnMapping,
    InstancesMapping,
    ReferencesMapping,
    RowMapping,
    Shape,
    Source,
    TurnsMapping,
    detect_shape,
    preview,
)
from core.formats.chat import find_turns
from pages import _rows, _ui

SHAPES = {
    "alpaca": "Alpaca",
    "dolly": "Dolly",
    "sharegpt": "ShareGPT",
    "messages": "Messages",
    "self-instruct": "Self-instruct with instances",
    "prompt-completion": "Prompt and completion",
    "references": "Instructions with references",
    "mt-bench": "MT-bench questions",
}
KINDS = {
    "columns": "One example a row",
    "chat": "One conversation a row",
    "instances": "Several instances a row",
}
INSTRUCTION_NAMES = ("instruction", "prompt", "question", "query", "task", "user", "input", "text", "title")
OUTPUT_NAMES = ("output", "response", "completion", "answer", "target", "assistant", "label", "summary")
PREVIEW_ROWS = 10
PREVIEW_CHARACTERS = 2_000
_LONG_TEXT = 60  # characters; with a longer one lines are made high enough for four lines of text
_LINES_HEIGHT = 78
NONE = "— none —"


def _guess(columns: Sequence[str], names: Sequence[str], otherwise: str) -> str:
    by_name = {column.strip().lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), otherwise)


def _select(label: str, options: Sequence[str], wanted: str, key: str) -> str:
    index = options.index(wanted) if wanted in options else 0
    return str(st.selectbox(label, options, index=index, key=key, persist_state="session"))


def _turn_columns(source: Source) -> dict[str, tuple[str, str]]:
    """Columns that hold conversations in the first rows, with the names of speaker and text in a turn."""
    found: dict[str, tuple[str, str]] = {}
    for row in source.sample(100):
        for column, value in row.items():
            if column not in found and isinstance(value, list) and (turns := find_turns({column: value})):
                found[column] = turns[1]
    return found


def _instance_columns(source: Source) -> list[str]:
    """Columns that hold lists of objects with an output."""
    return [
        column
        for column in source.columns
        if any(
            isinstance(items := row.get(column), list)
            and items
            and isinstance(items[0], Mapping)
            and "output" in items[0]
            for row in source.sample(100)
        )
    ]


def _map_columns(columns: Sequence[str], found: RowMapping | None, token: str) -> RowMapping:
    known = found if isinstance(found, ColumnMapping) else None
    output = known.output if known else _guess(columns, OUTPUT_NAMES, columns[-1])
    others = [column for column in columns if column != output] or list(columns)
    instruction = known.instruction if known else _guess(others, INSTRUCTION_NAMES, others[0])
    middle = (known.input or NONE) if known else NONE
    sides = st.columns(3)
    with sides[0]:
        chosen = _select("Instruction from", columns, instruction, f"map-instruction-{token}")
    with sides[1]:
        context = _select("Input (context) from", [NONE, *columns], middle, f"map-input-{token}")
    with sides[2]:
        response = _select("Response from", columns, output, f"map-output-{token}")
    mapping = ColumnMapping(instruction=chosen, input=None if context == NONE else context, output=response)
    if known and (mapping.instruction, mapping.input, mapping.output) == (known.instruction, known.input, known.output):
        return known
    return mapping


def choose(source: Source, token: str) -> RowMapping:
    """The widgets of the mapping, prefilled by what was recognised. ``token`` names the choice of the file."""
    found = detect_shape(source)
    turns, instances = _turn_columns(source), _instance_columns(source)
    kinds = ["columns", *(["chat"] if turns else []), *(["instances"] if instances else [])]
    default = "chat" if isinstance(found, ChatMapping) else "columns"
    default = "instances" if isinstance(found, InstancesMapping) else default
    kind = default if default in kinds else "columns"
    if len(kinds) > 1:
        kind = str(
            st.segmented_control(
                "How a row is read", kinds, default=kind, required=True, format_func=KINDS.__getitem__,
                key=f"map-kind-{token}", persist_state="session",
            )
        )  # fmt: skip
    if kind == "columns":
        return _map_columns(source.columns, found, token)
    sides = st.columns(3)
    if kind == "chat":
        with sides[0]:
            first = found.turns if isinstance(found, ChatMapping) else next(iter(turns))
            column = _select("Conversation from", list(turns), first, f"map-turns-{token}")
        mapping: RowMapping = ChatMapping(turns=column, speaker=turns[column][0], text=turns[column][1])
    else:
        with sides[0]:
            instruction = _select("Instruction from", source.columns, "instruction", f"map-instruction-{token}")
        with sides[1]:
            column = _select("Instances from", instances, "instances", f"map-instances-{token}")
        mapping = InstancesMapping(instruction=instruction, instances=column)
    st.caption(_ui.plain(mapping.describe()))
    return mapping


def choose_evaluation(source: Source, found: Shape | None, token: str) -> Shape:
    """The widgets of an evaluation set's mapping, prefilled by the shape ``found``. ``token`` as in :func:`choose`."""
    if isinstance(found, TurnsMapping):
        all_turns = st.checkbox(
            "Every turn is an instruction", key=f"map-turns-{token}",
            help="Off: the first turn only. A later turn has the turns before it, with their reference answers, as its "
            "input; where there are none it is left out.",
        )  # fmt: skip
        return replace(found, all_turns=all_turns)
    if found is not None and not isinstance(found, ReferencesMapping):
        st.caption(_ui.plain(found.describe()))
        return found
    columns = [column for column in source.columns if column != JOINED]
    known = (
        found if found is not None else ReferencesMapping(instruction=_guess(columns, INSTRUCTION_NAMES, columns[0]))
    )
    sides = st.columns(3)
    with sides[0]:
        instruction = _select("Instruction from", columns, known.instruction, f"map-instruction-{token}")
    with sides[1]:
        context = _select("Input (context) from", [NONE, *columns], known.input or NONE, f"map-input-{token}")
    with sides[2]:
        outputs = st.multiselect(
            "References from", list(source.columns), default=list(known.outputs), key=f"map-outputs-{token}",
            placeholder="none yet", help="Each column holds an output or a list of them; none: they can be written.",
        )  # fmt: skip
    return ReferencesMapping(
        instruction=instruction, input=None if context == NONE else context, outputs=tuple(outputs)
    )


def _cut(text: str) -> str:
    if len(text) <= PREVIEW_CHARACTERS:
        return text
    return f"{text[:PREVIEW_CHARACTERS]} … ({len(text):,} characters in all)"


def show_preview(source: Source, mapping: Shape, token: str, *, empty: str = "○ empty response") -> None:
    """The first rows as examples, bad ones with their reason; ``empty`` is said of those without an output.

    Raises:
        InputError: the mapping names a column twice, or one that is not there.
    """
    rows: list[dict[str, Any]] = []
    n_bad = 0
    for line, found, metadata in preview(source, mapping, PREVIEW_ROWS):
        if isinstance(found, BadRow):
            n_bad += 1
            begins = f" It begins: {found.excerpt}" if found.excerpt else ""
            rows.append({"line": line, "problem": f"✗ {found.reason}{begins}"})
        else:
            texts = {"instruction": found.instruction, "input": found.input, "response": found.output}
            problem = "" if found.output.strip() else empty
            rows.append(
                {"line": line, "problem": problem, **{name: _cut(text) for name, text in texts.items()}}
                | {"other fields": _cut(metadata or "")}
            )
    columns = ["line", "problem", "instruction", "input", "response", "other fields"]
    frame = pd.DataFrame(rows, columns=columns).fillna("")
    blank = [name for name in ("problem", "other fields") if not frame[name].any()]
    if isinstance(mapping, ColumnMapping | ReferencesMapping) and mapping.input is None:
        blank.append("input")
    long = any(len(str(value)) > _LONG_TEXT for name in columns[1:5] for value in frame[name])
    st.dataframe(
        frame.drop(columns=blank),
        hide_index=True,
        row_height=_LINES_HEIGHT if long else None,
        height=440 if long and len(frame) > 5 else "content",
        key=f"preview-{_rows.identity(token, mapping)}",
        column_config={
            "line": st.column_config.NumberColumn(format="localized", width=60),
            "problem": st.column_config.TextColumn(width=220),
            "instruction": st.column_config.TextColumn(width="large"),
            "input": st.column_config.TextColumn(width="small"),
            "response": st.column_config.TextColumn(width="large"),
            "other fields": st.column_config.TextColumn(width="small"),
        },
    )
    if n_bad:
        st.warning(
            f"{n_bad} of these rows cannot become an example; the column “problem” says why. With “Skip bad rows” they "
            "are left out, without it nothing is imported.",
            icon=":material/rule:",
        )
