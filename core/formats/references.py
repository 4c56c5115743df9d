"""Rows of an evaluation set: an instruction with one or several reference outputs, or with none yet.

A row becomes one example a reference; without any it becomes one example with an empty output, for which references can
be written later. Training data is not read this way: see ``shapes.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import InputError
from core.formats.rows import BadRow, Rows, Source, build_source, excerpt
from core.formats.shapes import ChatMapping, ColumnMapping, InstancesMapping, Mapped, detect_shape
from core.formats.values import Conversions, RowRefusedError, field_text, is_empty, metadata_json, text_of

JOINED = "reference answers"
"""The column that :func:`join_references` adds: a list of references, each a list of its turns."""
JOIN_KEYS = ("question_id", "id", "instruction_id", "idx")
NO_REFERENCE = "there is no reference yet: losses of this instruction cannot be computed before it has one."

_INSTRUCTIONS = ("instruction", "prompt", "question", "query", "text")
_INPUTS = ("input", "context")
_OUTPUTS = (
    *("outputs", "references", "reference", "reference_outputs", "output"),
    *("responses", "response", "completion", "answers", "answer"),
)
_WITHOUT = "instruction(s) have no reference output yet."


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _texts(value: Any, field: str, counts: Conversions) -> list[str]:
    """The texts of a value that is a text or a list of them; blank ones are left out.

    Raises:
        RowRefusedError: there is something else in it.
    """
    texts = [text_of(item, field, counts) for item in (value if _is_list(value) else [value])]
    filled = [text for text in texts if not is_empty(text)]
    if _is_list(value) and len(filled) < len(texts):
        counts[f"item(s) of '{field}' were empty and were left out."] += len(texts) - len(filled)
    return filled


def _given(row: Mapping[str, Any], column: str) -> Any:
    """A column's value; of the joined answers the first turn of each."""
    value = row.get(column)
    return [turns[0] for turns in value or ()] if column == JOINED else value


@dataclass(frozen=True, kw_only=True)
class ReferencesMapping:
    """One instruction a row; each of the columns ``outputs`` holds a reference or a list of them, or nothing."""

    instruction: str
    input: str | None = None
    outputs: tuple[str, ...] = ()
    name: str = "references"

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that the source must have."""
        return (self.instruction, *self.outputs, *(() if self.input is None else (self.input,)))

    def describe(self) -> str:
        """Which column becomes what, for people."""
        middle = f", input = {self.input}" if self.input is not None else ""
        end = f"references = {', '.join(self.outputs)}" if self.outputs else "no references yet"
        return f"instruction = {self.instruction}{middle}, {end}"

    def apply(self, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]:
        """Return one example a reference, or one without an output.

        Raises:
            RowRefusedError: a field is missing or no text.
        """
        instruction = field_text(row, self.instruction, counts)
        input_text = "" if self.input is None else field_text(row, self.input, counts, required=False)
        references = [text for column in self.outputs for text in _texts(_given(row, column), column, counts)]
        used = self.required
        metadata = metadata_json({key: value for key, value in row.items() if key not in used}, counts)
        if not references:
            counts[_WITHOUT] += 1
        return [(instruction, input_text, text, metadata) for text in references or [""]]


@dataclass(frozen=True, kw_only=True)
class TurnsMapping:
    """MT-bench: a row's ``turns`` are what a user asks one after the other; references come from a second file.

    The first turn is the instruction. With ``all_turns`` each later one is an instruction too, with the turns before it
    and their reference answers as its input, as earlier turns of a chat are; without such answers it cannot be asked
    and is left out, counted.
    """

    turns: str = "turns"
    references: str | None = None
    all_turns: bool = False
    name: str = "mt-bench"

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that the source must have."""
        return (self.turns, *(() if self.references is None else (self.references,)))

    def describe(self) -> str:
        """Which turn becomes what, for people."""
        asked = "each turn (input = the turns before it with their answers)" if self.all_turns else "the first turn"
        known = "reference = its answer in the second file" if self.references else "no references yet"
        return f"instruction = {asked} of {self.turns}, {known}"

    def apply(self, row: Mapping[str, Any], counts: Conversions) -> list[Mapped]:
        """Return one example a turn that is asked and a reference.

        Raises:
            RowRefusedError: there is no turn, or something that is no text.
        """
        value = row.get(self.turns)
        if not _is_list(value) or not value:
            raise RowRefusedError(f"'{self.turns}' holds no list of turns.")
        turns = [text_of(turn, f"{self.turns}[{number}]", counts) for number, turn in enumerate(value, start=1)]
        given = row.get(self.references) if self.references is not None else None
        answers = [list(answer) for answer in given or ()]
        fields = {key: value for key, value in row.items() if key not in (self.turns, self.references)}
        mapped: list[Mapped] = []
        for place, turn in enumerate(turns if self.all_turns else turns[:1]):
            metadata = metadata_json({**fields, "turn": place + 1} if self.all_turns else fields, counts)
            mapped += [(turn, *rest, metadata) for rest in self._asked(turns, place, answers, counts)]
        return mapped

    def _asked(
        self, turns: Sequence[str], place: int, answers: Sequence[Sequence[str]], counts: Conversions
    ) -> Iterator[tuple[str, str]]:
        """(input, output) of the turn at ``place``: one a reference; without any one without an output."""
        if place == 0:
            outputs = list(dict.fromkeys(answer[0] for answer in answers if answer and not is_empty(answer[0])))
            if not outputs:
                counts[_WITHOUT] += 1
            yield from (("", output) for output in outputs or [""])
            return
        whole = [answer for answer in answers if len(answer) >= place and not any(map(is_empty, answer[:place]))]
        if not whole:
            counts["later turn(s) were left out: the turn before them has no reference answer."] += 1
        for answer in whole:
            said = zip(turns[:place], answer[:place], strict=True)
            output = answer[place] if len(answer) > place else ""
            if is_empty(output):
                counts[_WITHOUT] += 1
            yield "\n\n".join(f"User: {asked}\n\nAssistant: {reply}" for asked, reply in said), output


EvaluationMapping = ReferencesMapping | TurnsMapping | InstancesMapping | ChatMapping


def detect_evaluation_shape(source: Source) -> EvaluationMapping | None:
    """How the rows of an evaluation set are read, by what most of the first ones look like; None: the user maps them.

    Known: MT-bench's questions, self-instruct's instances, rows with an instruction and one or several references (in
    a list, or in columns called output, outputs, references, …), rows with an instruction only, and chats.
    """
    rows = source.sample(100)
    columns = {column.strip().lower(): column for column in reversed(source.columns)}
    turns = columns.get("turns")
    if turns is not None and 2 * sum(_is_turns(row.get(turns)) for row in rows) > len(rows):
        return TurnsMapping(turns=turns, references=JOINED if JOINED in source.columns else None)
    found = detect_shape(source)
    if found is not None and not isinstance(found, ColumnMapping):
        return found
    instruction = next((columns[name] for name in _INSTRUCTIONS if name in columns), None)
    if instruction is None:
        return None
    wanted = (JOINED,) if JOINED in source.columns else _OUTPUTS
    outputs = tuple(columns[name] for name in wanted if name in columns)
    own_input = next((columns[name] for name in _INPUTS if name in columns), None)
    return ReferencesMapping(instruction=instruction, input=own_input, outputs=outputs)


def _is_turns(value: Any) -> bool:
    return _is_list(value) and bool(value) and all(isinstance(turn, str) for turn in value)


def join_references(questions: Source, answers: Source) -> Source:
    """The questions with their answers out of a second source in the column ``JOINED``.

    Rows are matched by the first of ``JOIN_KEYS`` that both have. An answer is MT-bench's ``choices`` (each with its
    ``turns``), or a column as :func:`detect_evaluation_shape` knows it; several rows of one question are several
    references. Rows of the answers that cannot be read are bad rows of what is returned.

    Raises:
        InputError: there is no common key, no answer at all, no answer that belongs to a question, or a column
            ``JOINED`` is there already.
    """
    key = next((name for name in JOIN_KEYS if name in questions.columns and name in answers.columns), None)
    if key is None:
        raise InputError(
            f"{questions.name} and {answers.name} have no common column to match their rows by; one of "
            f"{', '.join(JOIN_KEYS)} is looked for. {answers.name} has: {', '.join(answers.columns)}."
        )
    if JOINED in questions.columns:
        raise InputError(f"{questions.name} has a column '{JOINED}' already. Give it another name in the file.")
    known, bad = _answers_by_key(answers, key)
    asked = [_key_text(row[1].get(key)) for row in questions.rows() if not isinstance(row, BadRow)]
    n_found = sum(one in known for one in asked)
    if not n_found:
        raise InputError(
            f"None of the answers in {answers.name} belongs to a question of {questions.name} (matched by '{key}'). "
            "Is it the right file?"
        )
    n_strange = len(known.keys() - set(asked))
    notes = [f"{n_found:,} of the {len(asked):,} questions have a reference in {answers.name} (matched by '{key}')."]
    if n_strange:
        notes.append(f"{answers.name} answers {n_strange:,} question(s) that are not in {questions.name}.")

    def read() -> Rows:
        yield from bad
        for row in questions.rows():
            yield (
                row if isinstance(row, BadRow) else (row[0], {**row[1], JOINED: known.get(_key_text(row[1].get(key)))})
            )

    name = f"{questions.name} with {answers.name}"
    columns = (*questions.columns, JOINED)
    return build_source(
        name, questions.container, read, columns=columns, notes=(*questions.notes, *notes), reading=questions.reading
    )


def _key_text(value: Any) -> str | None:
    return None if value is None or _is_list(value) or isinstance(value, Mapping) else str(value)


def _answers_by_key(answers: Source, key: str) -> tuple[dict[str | None, list[list[str]]], list[BadRow]]:
    """References by the text of their key, and the rows that hold none."""
    known: dict[str | None, list[list[str]]] = {}
    bad: list[BadRow] = []
    for row in answers.rows():
        if isinstance(row, BadRow):
            bad.append(BadRow(row.line, f"in {answers.name}: {row.reason}", row.excerpt))
            continue
        line, fields = row
        try:
            where = _key_text(fields.get(key))
            if where is None:
                raise RowRefusedError(f"the field '{key}' is missing.")
            known.setdefault(where, []).extend(_answers_of(fields))
        except RowRefusedError as error:
            bad.append(BadRow(line, f"in {answers.name}: {error}", excerpt(str(fields.get(key)))))
    return known, bad


def _answers_of(fields: Mapping[str, Any]) -> list[list[str]]:
    """The references of one row, each as the texts of its turns.

    Raises:
        RowRefusedError: there is none, or something that is no text.
    """
    counts = Conversions()
    choices = fields.get("choices")
    if _is_list(choices) and choices:
        found = []
        for number, choice in enumerate(choices, start=1):
            turns = choice.get("turns") if isinstance(choice, Mapping) else None
            if turns is None or not _is_turns(turns):
                raise RowRefusedError(f"choice {number} of 'choices' has no list of turns.")
            found.append(list(turns))
        return found
    column = next((name for name in _OUTPUTS if name in fields), None)
    if column is None:
        raise RowRefusedError(f"it has neither 'choices' nor one of {', '.join(_OUTPUTS)}.")
    texts = _texts(fields[column], column, counts)
    if not texts:
        raise RowRefusedError(f"'{column}' is empty.")
    return [[text] for text in texts]
