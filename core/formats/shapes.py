"""Shapes of instruction data: recognise the known ones, and turn a row into examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import InputError
from core.formats.chat import find_turns, read_conversation
from core.formats.rows import Source
from core.formats.values import Conversions, RowRefusedError, field_text, is_empty, metadata_json

Mapped = tuple[str, str, str, str | None]
"""(instruction, input, output, metadata as JSON or None)"""


class Shape(Protocol):
    """How a row becomes examples; ``name`` says it in a word, ``describe()`` in a line."""

    @property
    def name(self) -> str: ...

    @property
    def required(self) -> tuple[str, ...]: ...

    def describe(self) -> str: ...

    def apply(self, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]: ...


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """One example a row: three columns hold x, c and y; ``input`` None means that there is no c."""

    instruction: str
    input: str | None = None
    output: str
    name: str = "columns"

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that the source must have."""
        return (self.instruction, self.output) + (() if self.input is None else (self.input,))

    def describe(self) -> str:
        """Which column becomes what, for people."""
        middle = f", input = {self.input}" if self.input is not None else ""
        return f"instruction = {self.instruction}{middle}, output = {self.output}"

    def apply(self, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]:
        """Return the row's example.

        Raises:
            RowRefusedError: a field is missing or no text.
        """
        instruction = field_text(row, self.instruction, counts)
        input_text = "" if self.input is None else field_text(row, self.input, counts, required=False)
        output = field_text(row, self.output, counts)
        used = (self.instruction, self.input, self.output)
        extra = {key: value for key, value in row.items() if key not in used}
        return [(instruction, input_text, output, metadata_json(extra, counts))]


@dataclass(frozen=True, kw_only=True)
class ChatMapping:
    """One example a conversation; the raw row is its metadata. ``speaker`` and ``text`` name the fields of a turn."""

    turns: str
    speaker: str
    text: str

    @property
    def name(self) -> str:
        return "sharegpt" if self.speaker == "from" else "messages"

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that the source must have."""
        return (self.turns,)

    def describe(self) -> str:
        """Which turn becomes what, for people."""
        return (
            f"instruction = last user turn of {self.turns}, input = the turns before it with the system prompt, "
            "output = last assistant turn"
        )

    def apply(self, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]:
        """Return the conversation's example.

        Raises:
            RowRefusedError: there is no conversation with a user and an assistant turn.
        """
        talk = read_conversation(row.get(self.turns), self.turns, (self.speaker, self.text), counts)
        after = len(talk.turns) - talk.assistant - 1
        if after:
            counts["conversation(s) had turns after the last response; these are kept in the metadata only."] += 1
        return [(talk.instruction, talk.earlier, talk.output, metadata_json(row, counts))]


@dataclass(frozen=True, kw_only=True)
class InstancesMapping:
    """Self-instruct: one example for each of a row's instances, all with the row's instruction."""

    instruction: str = "instruction"
    instances: str = "instances"
    name: str = "self-instruct"

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that the source must have."""
        return (self.instruction, self.instances)

    def describe(self) -> str:
        """Which field becomes what, for people."""
        return f"instruction = {self.instruction}, input and output = those of each item of {self.instances}"

    def apply(self, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]:
        """Return one example an instance.

        Raises:
            RowRefusedError: there is no instance, or one of them is not of the form {input, output}.
        """
        instruction = field_text(row, self.instruction, counts)
        instances = row.get(self.instances)
        if not isinstance(instances, Sequence) or isinstance(instances, (str, bytes)) or not instances:
            raise RowRefusedError(f"'{self.instances}' holds no list of instances.")
        extra = {key: value for key, value in row.items() if key not in (self.instruction, self.instances)}
        mapped = []
        for number, instance in enumerate(instances, start=1):
            if not isinstance(instance, Mapping):
                raise RowRefusedError(f"item {number} of '{self.instances}' is not an object.")
            own = {key: value for key, value in instance.items() if key not in ("input", "output")}
            metadata = metadata_json(extra | ({"instance": own} if own else {}), counts)
            input_text = field_text(instance, "input", counts, required=False)
            mapped.append((instruction, input_text, field_text(instance, "output", counts), metadata))
        return mapped


RowMapping = ColumnMapping | ChatMapping | InstancesMapping

_COLUMN_SHAPES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("alpaca", "instruction", "output", ("input",)),
    ("dolly", "instruction", "response", ("context", "input")),
    ("prompt-completion", "prompt", "completion", ()),
    ("prompt-completion", "prompt", "response", ()),
)


def _columns_of_shape(row: Mapping[str, Any]) -> RowMapping | None:
    by_name = {key.strip().lower(): key for key in reversed(list(row))}
    for name, instruction, output, inputs in _COLUMN_SHAPES:
        if instruction not in by_name or output not in by_name:
            continue
        found_input = next((by_name[key] for key in inputs if key in by_name), None)
        mapping = ColumnMapping(name=name, instruction=by_name[instruction], input=found_input, output=by_name[output])
        if not any(isinstance(row.get(column), (list, dict)) for column in mapping.required):
            return mapping
    return None


def detect_row(row: Mapping[str, Any]) -> RowMapping | None:
    """The known shape of one row, or None."""
    turns = find_turns(row)
    columns = _columns_of_shape(row)
    if columns is not None:
        return columns
    if turns is not None:
        column, (speaker, text) = turns
        return ChatMapping(turns=column, speaker=speaker, text=text)
    instances = row.get("instances")
    if "instruction" in row and isinstance(instances, list) and all(isinstance(item, dict) for item in instances):
        return InstancesMapping()
    return None


def detect_shape(source: Source) -> RowMapping | None:
    """The shape that most of the source's first rows have, or None: then the user maps the columns."""
    found = [detect_row(row) for row in source.sample(100)]
    names = Counter(mapping.name for mapping in found if mapping is not None)
    if not names:
        return None
    name, count = names.most_common(1)[0]
    if 2 * count <= len(found):
        return None
    # Rows without the optional input give a narrower mapping of the same shape: the widest serves all.
    return max((m for m in found if m is not None and m.name == name), key=lambda mapping: len(mapping.required))


def check_mapping(source: Source, mapping: Shape) -> None:
    """Refuse a mapping that names a column which the source does not have, or one column twice.

    Raises:
        InputError: with the columns that there are.
    """
    missing = [column for column in mapping.required if column not in source.columns]
    if missing:
        raise InputError(
            f"{source.name} has no column {', '.join(map(repr, missing))}. It has: {', '.join(source.columns)}."
        )
    if len(set(mapping.required)) < len(mapping.required):
        raise InputError(f"{source.name}: one column is mapped twice ({mapping.describe()}). Choose different columns.")


def apply_mapping(mapping: Shape, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]:
    """Return the examples of a row.

    Raises:
        RowRefusedError: the row does not fit the mapping, or has neither an instruction nor an input.
    """
    mapped = mapping.apply(row, counts)
    for instruction, input_text, output, _ in mapped:
        if is_empty(instruction) and is_empty(input_text):
            raise RowRefusedError("it has neither an instruction nor an input.")
        if "\0" in instruction or "\0" in input_text or "\0" in output:
            counts["example(s) hold NUL characters; they are kept as they are."] += 1
    return mapped
