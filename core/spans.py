"""Which tokens of an example are scored, and after what context (METHOD.md, section 2). Pure but for the tokenizer.

Prompt and target are encoded together; the target begins at token ``len(encode(text before the target))``. Texts are
cut at ``max_length`` tokens; a target without context is cut at ``max_length − len(encode(prompt)) + 1`` tokens, BOS
counted, so that both means run over the same tokens. Without BOS the first token has no context and is not scored.

The released script of Selective Reflection-Tuning finds the target by its last occurrence in the whole text (and the
instruction alone, in the reverse direction). That misplaces it where the input repeats the instruction, or where the
instruction is empty; here the spans are built from the parts, which is the same wherever the script is right.
Tokens that a tokenizer adds at the end (EOS) are no part of any text and are left away; the script would score them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import ModelError
from core.example import Example
from core.prompts import ChatRenderer, forward_prompt, reverse_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOSS_KEYS = ("loss_y", "loss_y_given_x", "loss_x", "loss_x_given_y")
EMPTY_RESPONSE = "The response is empty."
EMPTY_REQUEST = "Instruction and input are both empty."


@dataclass(frozen=True, slots=True)
class Span:
    """Token ids of a text, of which those from ``start`` to the end are scored. 1 ≤ start < len(ids)."""

    ids: tuple[int, ...]
    start: int

    @property
    def n_tokens(self) -> int:
        """Number of scored tokens."""
        return len(self.ids) - self.start


class TextEncoder:
    """Encodes texts as the tokenizer does, with BOS if it adds one, without anything that it adds at the end.

    Every distinct text is encoded once until ``forget`` is called.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self.n_before, self.n_after = _added_tokens(tokenizer)

    def encode(self, texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Return the token ids of every text, by text."""
        wanted = dict.fromkeys(texts)
        new = [text for text in wanted if text not in self._known]
        if new:
            encoded = self.tokenizer(new, return_attention_mask=False, return_token_type_ids=False, verbose=False)
            for text, ids in zip(new, encoded["input_ids"], strict=True):
                self._known[text] = tuple(ids[: len(ids) - self.n_after])
        return {text: self._known[text] for text in wanted}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of every text, BOS not counted."""
        encoded = self.encode(texts)
        return [len(encoded[text]) - self.n_before for text in texts]

    def forget(self) -> None:
        """Drop the encoded texts."""
        self._known = {}

    def render_chat(self, content: str) -> str:
        """Return the tokenizer's own chat prompt for one user turn, without the BOS that encoding adds again."""
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise ModelError("This tokenizer has no chat template; choose another prompt template than 'chat'.")
        turn = [{"role": "user", "content": content}]
        try:
            text = str(self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"The tokenizer's chat template cannot render one user turn: {error}") from error
        bos = self.tokenizer.bos_token
        return text.removeprefix(bos) if bos and self.n_before else text


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """How many tokens the tokenizer adds before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for n_before in range(len(whole) - len(plain) + 1):
        if whole[n_before : n_before + len(plain)] == plain:
            return n_before, len(whole) - len(plain) - n_before
    raise ModelError("This tokenizer changes a text when it adds its special tokens; it cannot be used for scoring.")


@dataclass(frozen=True, slots=True)
class _Parts:
    """The texts of one direction: ``target`` alone, and after ``prompt``."""

    prompt: str
    target: str


def _reason_of_parts(key: str, example: Example) -> str | None:
    if key in ("loss_y", "loss_y_given_x"):
        return None if example.output else EMPTY_RESPONSE
    if not example.instruction + example.input:
        return EMPTY_REQUEST
    # Guessing the instruction of an empty response means nothing, and the released script skips such rows.
    return EMPTY_RESPONSE if key == "loss_x_given_y" and not example.output else None


def _given_span(parts: _Parts, encoded: dict[str, tuple[int, ...]], max_length: int) -> Span | str:
    start = len(encoded[parts.prompt])
    ids = encoded[parts.prompt + parts.target][:max_length]
    if start >= max_length:
        return f"The prompt alone fills max_length ({max_length} tokens); nothing is left to score."
    if len(ids) <= max(start, 1):
        return "The text after the prompt has no token of its own; nothing is left to score."
    return Span(ids, max(start, 1))


def _alone_span(parts: _Parts, encoded: dict[str, tuple[int, ...]], max_length: int, n_before: int) -> Span | str:
    start = max(n_before, 1)
    n_prompt = len(encoded[parts.prompt])
    whole = encoded[parts.target]
    ids = whole[: max(max_length - n_prompt + 1, 0)]
    if len(ids) > start:
        return Span(ids, start)
    if len(whole) > start:
        return f"The prompt alone fills max_length ({max_length} tokens); nothing is left to score."
    if n_before == 0 and len(whole) == 1:
        return "The text is a single token, and this tokenizer adds no BOS to predict it from."
    return "The text has no token to score."


def build_spans(
    examples: Sequence[Example], *, keys: Sequence[str], template: str, max_length: int, encoder: TextEncoder
) -> list[dict[str, Span | str]]:
    """Return for every example and loss key the span to score, or the reason why there is none.

    Raises:
        ModelError: the template is unknown, or is ``chat`` and the tokenizer has none.
    """
    chat: ChatRenderer = encoder.render_chat
    y_wanted = any(key in ("loss_y", "loss_y_given_x") for key in keys)
    x_wanted = any(key in ("loss_x", "loss_x_given_y") for key in keys)
    forward: list[_Parts] = []
    reverse: list[_Parts] = []
    for example in examples:
        if y_wanted:
            forward.append(_Parts(forward_prompt(example, template=template, chat=chat), example.output))
        if x_wanted:
            asked = example.instruction + example.input
            reverse.append(_Parts(reverse_prompt(example, template=template, chat=chat), asked))
    encoded = encoder.encode(_texts_of(forward, reverse, keys))
    spans: list[dict[str, Span | str]] = []
    for row, example in enumerate(examples):
        of_row: dict[str, Span | str] = {}
        for key in keys:
            reason = _reason_of_parts(key, example)
            if reason is not None:
                of_row[key] = reason
                continue
            parts = forward[row] if key in ("loss_y", "loss_y_given_x") else reverse[row]
            if key in ("loss_y", "loss_x"):
                of_row[key] = _alone_span(parts, encoded, max_length, encoder.n_before)
            else:
                of_row[key] = _given_span(parts, encoded, max_length)
        spans.append(of_row)
    return spans


def _texts_of(forward: list[_Parts], reverse: list[_Parts], keys: Sequence[str]) -> Iterable[str]:
    for parts, alone, given in ((forward, "loss_y", "loss_y_given_x"), (reverse, "loss_x", "loss_x_given_y")):
        for one in parts:
            yield one.prompt
            if alone in keys:
                yield one.target
            if given in keys:
                yield one.prompt + one.target


_PREFIX_STEP = 16
_FEWEST_SHARING = 24


def shared_prefixes(spans: Sequence[Span]) -> list[int]:
    """Return for every span how many of its first tokens it may share with others that begin with the same ones.

    Spans of one prompt template share its preamble, those of the reverse prompt a longer one. Neither a scored token
    nor the one before it is ever shared. Spans with the same shared beginning have the same number; 0: none to share.
    """
    found = [0] * len(spans)
    pending = [(list(range(len(spans))), 0)]
    while pending:
        members, known = pending.pop()
        step = known + _PREFIX_STEP
        alike: dict[tuple[int, ...], list[int]] = {}
        for i in members:
            found[i] = known
            if spans[i].start > step:
                alike.setdefault(spans[i].ids[known:step], []).append(i)
        for some in alike.values():
            if len(some) >= _FEWEST_SHARING:
                ids = [spans[i].ids for i in some]
                first, last = min(ids), max(ids)
                common = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
                pending.append((some, min(common, *(spans[i].start - 1 for i in some))))
    return found
