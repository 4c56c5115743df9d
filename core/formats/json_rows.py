"""Rows of JSON: lists read piece by piece, JSON Lines, and objects that wrap a list.

Python's own JSON scanner reads one element at a time out of a sliding window, so a list of any length, on one line or
many, needs the memory of its longest element. (ijson was looked at: its fast backend gives no line numbers,
refuses NaN and turns a lone surrogate into a question mark without saying so.)
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from core.errors import InputError
from core.formats.rows import MAX_ROW_SIZE, BadRow, Rows, excerpt

Opener = Callable[[], BinaryIO]

# strict=False: a raw tab or line break inside a string is wrong JSON but has only one possible meaning.
DECODER = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\n\r]*")
_CHUNK_BYTES = 1024 * 1024
_LITERAL_CHARS = (
    16  # an error this near to the end of what was read may only mean that more must be read: "fals", "\\u00e"
)
TOO_DEEP = "it is nested too deeply to be read"


def utf8_problem(error: UnicodeDecodeError, offset: int) -> str:
    """Say which byte is not UTF-8; ``offset`` is that of the decoded bytes in the file."""
    return (
        f"byte 0x{error.object[error.start]:02X} at byte {offset + error.start:,} is not UTF-8 text; "
        "the file is perhaps Latin-1 or Windows-1252: save it as UTF-8"
    )


def kind_of(value: Any) -> str:
    """Name a JSON value in plain words."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def ends_early(error: json.JSONDecodeError, length: int) -> bool:
    """Whether the text of ``length`` characters could still become valid JSON if more of it came."""
    return error.msg.startswith("Unterminated string") or error.pos >= length - _LITERAL_CHARS


class JsonText:
    """A window that slides over a JSON text: looks at the next character, takes the next value."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._bytes_read = 0
        self._at_end = False
        self._text = ""
        self._position = 0
        self._line = 1
        self._line_position = 0  # up to here the line breaks are counted
        self._grow()
        self._text = self._text.removeprefix("\ufeff")

    def _count_lines(self) -> None:
        self._line += self._text.count("\n", self._line_position, self._position)
        self._line_position = self._position

    @property
    def line(self) -> int:
        """Line of the next character, from 1."""
        self._count_lines()
        return self._line

    def error(self, message: str) -> InputError:
        return InputError(f"{self._name}, line {self.line}: {message}")

    def _grow(self) -> bool:
        """Read on; drop what was taken. Return False at the end of the file."""
        kept = len(self._text) - self._position
        chunk = self._stream.read(max(_CHUNK_BYTES, kept))  # doubling keeps a long element linear in time
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            self._position = len(self._text)
            before = error.object[: error.start].count(b"\n")
            problem = utf8_problem(error, self._bytes_read - pending)
            raise InputError(f"{self._name}, line {self.line + before}: {problem}.") from error
        self._bytes_read += len(chunk)
        self._at_end = not chunk
        self._count_lines()
        self._text = self._text[self._position :] + text
        self._position = self._line_position = 0
        return not self._at_end

    def peek(self) -> str:
        """The next character that is not white space, or "" at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._grow():
                return ""

    def take(self, char: str, where: str) -> None:
        """Step over ``char``.

        Raises:
            InputError: another character stands there.
        """
        found = self.peek()
        if found != char:
            raise self.error(f"{where}: expected {char!r} but found {found!r}." if found else f"{where}: {_CUT_OFF}")
        self._position += 1

    def value(self, what: str) -> Any:
        """Take one JSON value; ``what`` names it in messages.

        Raises:
            InputError: it is no valid JSON, is cut off, or is longer than MAX_ROW_SIZE.
        """
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                self._need_more(error, what)
                continue
            except RecursionError as error:
                raise self.error(f"{what} cannot be read: {TOO_DEEP}.") from error
            except ValueError as error:  # an integer of thousands of digits
                raise self.error(f"{what} cannot be read: {error}.") from error
            # A number that touches the end of the window may go on behind it.
            if end == len(self._text) and not self._at_end and not isinstance(value, (str, list, dict)):
                self._grow()
                continue
            if end - self._position > MAX_ROW_SIZE:
                raise self._too_long(what)
            self._position = end
            return value

    def _too_long(self, what: str) -> InputError:
        return self.error(f"{what} is longer than {MAX_ROW_SIZE // 2**20} MB, which no row of a dataset is.")

    def _need_more(self, error: json.JSONDecodeError, what: str) -> None:
        """Read on if that may complete the value that could not be decoded; say what is wrong otherwise."""
        if ends_early(error, len(self._text)) and not self._at_end:
            if len(self._text) - self._position > MAX_ROW_SIZE:
                raise self._too_long(what)
            self._grow()
            return
        if error.msg.startswith("Unterminated string") or error.pos >= len(self._text.rstrip()):
            raise self.error(f"{what} begins here, but {_CUT_OFF}") from error
        line = self.line + self._text.count("\n", self._position, error.pos)
        near = excerpt(self._text[max(error.pos - 20, 0) : error.pos + 30])
        raise InputError(
            f"{self._name}, line {line}: {what} is not valid JSON ({error.msg}) near “{near}”. "
            "Mend the file there, or save the rows as JSON Lines, where one bad row does not spoil the rest."
        ) from error

    def elements(self, what: str) -> Iterator[tuple[int, Any]]:
        """Take a list element by element: (line, value)."""
        self.take("[", what)
        if self.peek() == "]":
            self.take("]", what)
            return
        number = 0
        while True:
            number += 1
            self.peek()
            line = self.line
            yield line, self.value(f"row {number:,} of {what}")
            if self.peek() != ",":
                self.take("]", f"after row {number:,} of {what}")
                return
            self._position += 1


_CUT_OFF = "the file ends before it is complete. It was probably cut off on its way here: get it again."


def _as_row(line: int, value: Any) -> tuple[int, dict[str, Any]] | BadRow:
    if isinstance(value, dict):
        return line, value
    return BadRow(line, f"the row is {kind_of(value)}, not an object with named fields.", excerpt(json.dumps(value)))


def list_rows(opener: Opener, name: str) -> Rows:
    """Rows of a JSON list."""
    with opener() as stream:
        text = JsonText(stream, name)
        for line, value in text.elements("the list"):
            yield _as_row(line, value)
        if text.peek():
            raise text.error("something follows the end of the list. Remove it, or save the rows as JSON Lines.")


def sequence_rows(opener: Opener, name: str) -> Rows:
    """Rows of JSON objects that follow each other without commas, each over as many lines as it likes."""
    with opener() as stream:
        text = JsonText(stream, name)
        number = 0
        while text.peek():
            number += 1
            line = text.line
            yield _as_row(line, text.value(f"object {number:,}"))


def wrapped_rows(opener: Opener, name: str, *, key: str) -> Rows:
    """Rows of the list that an object holds under ``key``."""
    with opener() as stream:
        text = JsonText(stream, name)
        for found in _entries(text):
            if found == key and text.peek() == "[":
                for line, value in text.elements(f"the list “{key}”"):
                    yield _as_row(line, value)
            else:
                _skip(text, found)


def _entries(text: JsonText) -> Iterator[str]:
    """Keys of an object; the caller takes each value before asking for the next key."""
    text.take("{", "the object")
    if text.peek() == "}":
        text.take("}", "the object")
        return
    while True:
        key = text.value("a field's name")
        if not isinstance(key, str):
            raise text.error(f"a field's name is {kind_of(key)}, not text.")
        text.take(":", f"after the name “{excerpt(key)}”")
        yield key
        if text.peek() != ",":
            text.take("}", f"after “{excerpt(key)}”")
            return
        text.take(",", "the object")


def _skip(text: JsonText, key: str) -> tuple[Any, bool]:
    """Take a value without keeping it whole: (the value, a list cut to three elements; whether all are objects)."""
    if text.peek() != "[":
        return text.value(f"“{excerpt(key)}”"), False
    kept: list[Any] = []
    all_objects = True
    for _, value in text.elements(f"the list “{excerpt(key)}”"):
        all_objects = all_objects and isinstance(value, dict)
        if len(kept) < 3:
            kept.append(value)
    return kept, all_objects and bool(kept)


def sketch_object(opener: Opener, name: str) -> tuple[dict[str, Any], list[str], bool]:
    """Read one object at the start of the file without keeping its lists.

    Returns:
        (the object with lists cut to three elements, names of the lists of objects, whether more follows it).

    Raises:
        InputError: it is no valid JSON or is cut off.
    """
    with opener() as stream:
        text = JsonText(stream, name)
        sketch: dict[str, Any] = {}
        lists = []
        for key in _entries(text):
            sketch[key], all_objects = _skip(text, key)
            if all_objects:
                lists.append(key)
        return sketch, lists, bool(text.peek())


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(line from 1, byte offset, bytes with their line end); a line over MAX_ROW_SIZE comes cut, without its end."""
    offset = 0
    number = 0
    while data := stream.readline(MAX_ROW_SIZE):
        number += 1
        yield number, offset, data
        offset += len(data)
        while not data.endswith(b"\n") and (data := stream.readline(MAX_ROW_SIZE)):
            offset += len(data)


def too_long(data: bytes) -> bool:
    """Whether a line of :func:`numbered_lines` was cut."""
    return len(data) >= MAX_ROW_SIZE and not data.endswith(b"\n")


def _line_row(line: int, offset: int, data: bytes) -> tuple[int, dict[str, Any]] | BadRow:
    if too_long(data):
        reason = f"the line is longer than {MAX_ROW_SIZE // 2**20} MB, which no row of a dataset is."
        return BadRow(line, reason, excerpt(data[:1000].decode("utf-8", "replace")))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRow(line, utf8_problem(error, offset) + ".", excerpt(data[:1000].decode("utf-8", "replace")))
    try:
        return _as_row(line, DECODER.decode(text))
    except json.JSONDecodeError as error:
        return BadRow(line, f"it is not valid JSON at column {error.pos + 1:,} ({error.msg}).", excerpt(text))
    except RecursionError:
        return BadRow(line, TOO_DEEP + ".", excerpt(text))
    except ValueError as error:  # an integer of thousands of digits
        return BadRow(line, f"it cannot be read: {error}.", excerpt(text))


def line_rows(opener: Opener) -> Rows:
    """Rows of JSON Lines; blank lines are passed over. A bad line is a bad row and does not touch the others."""
    with opener() as stream:
        for line, offset, data in numbered_lines(stream):
            if line == 1:
                data = data.removeprefix(codecs.BOM_UTF8)
            if data.strip():
                yield _line_row(line, offset, data)
