"""What a reward model reads: request and response in the form ``pair`` or ``chat`` (see ``core.reward``).

A text over ``max_length`` loses the tail of its response, never a token of its request, nor of what the tokenizer or
the template puts after the response, where a decoder is read out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from core.example import Example


def question_of(example: Example) -> str:
    """The request as one text: the instruction, and on the next line the input if there is one."""
    return f"{example.instruction}\n{example.input}" if example.input else example.instruction


@dataclass(frozen=True, slots=True)
class Text:
    """A text as the model reads it: token ids, and token types where tokenizer and model know them."""

    ids: tuple[int, ...]
    types: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextForm:
    """Turns (question, answer) into what the reward model reads; ``has_types``: it reads token types."""

    tokenizer: PreTrainedTokenizerBase
    form: str
    max_length: int
    has_types: bool

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Text | str]:
        """Return for every pair its text, or the reason why there is none."""
        if not pairs:
            return []
        found = self._encode_pairs(pairs) if self.form == "pair" else self._encode_chats(pairs)
        return [
            one if isinstance(one, str) or one.ids else "The tokenizer knows nothing of this text." for one in found
        ]

    def _alone(self) -> str:
        return f"The request alone fills max_length ({self.max_length} tokens); nothing of the response is left."

    def _texts(self, encoded: Any) -> list[Text]:
        types = encoded.get("token_type_ids") if self.has_types else None
        rows = encoded["input_ids"]
        return [Text(tuple(ids), tuple(types[i]) if types is not None else ()) for i, ids in enumerate(rows)]

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Text | str]:
        whole = self._texts(self.tokenizer([q for q, _ in pairs], [a for _, a in pairs], verbose=False))
        return [
            text if len(text.ids) <= self.max_length else self._cut_pair(*pair, over=len(text.ids) - self.max_length)
            for text, pair in zip(whole, pairs, strict=True)
        ]

    def _cut_pair(self, question: str, answer: str, *, over: int) -> Text | str:
        if len(self.tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"]) <= over:
            return self._alone()
        limits: dict[str, Any] = {"truncation": "only_second", "max_length": self.max_length}
        return self._texts(self.tokenizer([question], [answer], verbose=False, **limits))[0]

    def _encode_chats(self, pairs: Sequence[tuple[str, str]]) -> list[Text | str]:
        rendered = [self._render(question, answer) for question, answer in pairs]
        texts = iter(self._tokenise([text for text in rendered if text is not None]))
        return [
            "The chat template of the reward model cannot render this text."
            if text is None
            else self._fitted(next(texts), *pair)
            for text, pair in zip(rendered, pairs, strict=True)
        ]

    def _render(self, question: str, answer: str) -> str | None:
        """The chat as text; None if the template refuses it."""
        from jinja2 import TemplateError

        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except (TemplateError, ValueError, TypeError):
            return None

    def _tokenise(self, rendered: list[str]) -> list[Text]:
        # The template has written BOS and its kin already.
        return self._texts(self.tokenizer(rendered, add_special_tokens=False, verbose=False)) if rendered else []

    def _fitted(self, text: Text, question: str, answer: str) -> Text | str:
        """Cut the answer, not what the template puts after it, until the whole fits."""
        left = answer
        while len(text.ids) > self.max_length:
            tokens = self.tokenizer(left, add_special_tokens=False, verbose=False)["input_ids"]
            left = self._head_of(left, len(tokens) - (len(text.ids) - self.max_length))
            rendered = self._render(question, left) if left.strip() else None
            if rendered is None:
                return self._alone()
            text = self._tokenise([rendered])[0]
        return text

    def _head_of(self, text: str, n_tokens: int) -> str:
        """The longest beginning of a text with at most so many tokens, by offsets; always shorter than the text."""
        if n_tokens <= 0:
            return ""
        if not self.tokenizer.is_fast:
            n_all = len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
            return text[: min(len(text) - 1, len(text) * n_tokens // n_all)]
        told = self.tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        # A character of several tokens ends where its first token ends, so the text before the next token is taken.
        return text[: min(len(text) - 1, told["offset_mapping"][n_tokens][0])]
