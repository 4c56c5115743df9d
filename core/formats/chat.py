"""Conversations: which turn is the instruction, which the response, and what came before (METHOD.md, section 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.formats.values import Conversions, RowRefusedError, text_of

_ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_KNOWN_COLUMNS = ("messages", "conversations", "conversation")
_STYLES = (("from", "value"), ("role", "content"))


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation; ``role`` is system, user, assistant, or what the file says (tool, …)."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns with the places of x and y in them: ``turns[user]`` is x, ``turns[assistant]`` is y."""

    turns: tuple[Turn, ...]
    user: int
    assistant: int

    @property
    def instruction(self) -> str:
        return self.turns[self.user].text

    @property
    def output(self) -> str:
        return self.turns[self.assistant].text

    @property
    def earlier(self) -> str:
        """c: every other turn before the response, the system prompt among them, as "Role: text" blocks."""
        before = (turn for index, turn in enumerate(self.turns[: self.assistant]) if index != self.user)
        return "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in before)


def turn_style(value: Any) -> tuple[str, str] | None:
    """The names of (speaker, text) in a list of turns: from/value or role/content; None if it is no list of turns."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        return None
    for style in _STYLES:
        if all(isinstance(turn, Mapping) and style[0] in turn and style[1] in turn for turn in value):
            return style
    return None


def find_turns(row: Mapping[str, Any]) -> tuple[str, tuple[str, str]] | None:
    """The column that holds a conversation and its style; usual names first. None if there is none."""
    for column in sorted(row, key=lambda name: name.lower() not in _KNOWN_COLUMNS):
        style = turn_style(row[column])
        if style is not None:
            return column, style
    return None


def _content_text(value: Any, field: str, counts: Conversions) -> str:
    """Text of a turn; a list of text parts is joined."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return text_of(value, field, counts)
    parts = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        if kind != "text":
            raise RowRefusedError(f"a turn holds a part of the kind '{kind}'; only text can be read.")
        parts.append(text_of(part.get("text") if isinstance(part, Mapping) else part, field, counts))
    return "".join(parts)


def read_conversation(value: Any, column: str, style: tuple[str, str], counts: Conversions) -> Conversation:
    """Read a list of turns: y is the last assistant turn, x the last user turn before it.

    Turns after y (a question that nobody answered) are kept in the conversation and are neither x, c nor y.

    Raises:
        RowRefusedError: it is no list of turns, or has no assistant turn with a user turn before it.
    """
    speaker, text = style
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise RowRefusedError(f"'{column}' holds no list of turns.")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or speaker not in turn:
            raise RowRefusedError(f"turn {number} of '{column}' does not say who speaks (no '{speaker}').")
        role = str(turn[speaker]).strip().lower()
        turns.append(Turn(_ROLES.get(role, role), _content_text(turn.get(text), text, counts)))
    assistant = next((i for i in reversed(range(len(turns))) if turns[i].role == "assistant"), None)
    if assistant is None:
        raise RowRefusedError(f"'{column}' has no assistant turn, so there is no response.")
    user = next((i for i in reversed(range(assistant)) if turns[i].role == "user"), None)
    if user is None:
        raise RowRefusedError(f"'{column}' has no user turn before the response, so there is no instruction.")
    return Conversation(tuple(turns), user, assistant)
