"""The student's prompt templates, to the letter (METHOD.md, section 2).

They are published formats that students were trained on, so no character of them is ours to improve.
Sources: Stanford Alpaca (``alpaca``), FastChat (``vicuna``), WizardLM (``wizardlm``); the reverse request is that of
Selective Reflection-Tuning, arXiv 2402.10110. ``chat`` is the tokenizer's own chat template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.errors import ModelError
from core.example import Example

ChatRenderer = Callable[[str], str]
"""Turns the text of one user turn into a prompt that ends where the assistant's answer begins."""


@dataclass(frozen=True)
class Template:
    """What stands before, between and after instruction and input; ``input_*`` serve rows that have an input."""

    before: str
    after: str
    input_before: str
    input_between: str
    input_after: str

    def prompt(self, instruction: str, input_text: str = "") -> str:
        """Return the prompt; the answer follows it with nothing between."""
        if input_text:
            return self.input_before + instruction + self.input_between + input_text + self.input_after
        return self.before + instruction + self.after


_ALPACA_TASK = "Below is an instruction that describes a task"
_ALPACA_WRITE = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: "
)
_RESPONSE = "\n\n### Response:"

_PUBLISHED: dict[str, Template] = {
    "alpaca": Template(
        before=f"{_ALPACA_TASK}. {_ALPACA_WRITE}",
        after=_RESPONSE,
        input_before=f"{_ALPACA_TASK}, paired with an input that provides further context. {_ALPACA_WRITE}",
        input_between="\n\n### Input:\n",
        input_after=_RESPONSE,
    ),
    "vicuna": Template(
        before=_VICUNA,
        after=" ASSISTANT:",
        input_before=_VICUNA,
        input_between="\nInput:\n",
        input_after=" ASSISTANT:",
    ),
    "wizardlm": Template(
        before="",
        after=_RESPONSE,
        input_before="",
        input_between="\n",
        input_after=_RESPONSE,
    ),
}
CHAT = "chat"
TEMPLATES: tuple[str, ...] = (*_PUBLISHED, CHAT)
"""Every template a student can be asked with."""

_GUESS_BEFORE = (
    "Below is the response to an instruction, please guess the corresponding instruction for the given response.\n"
)
_GUESS_AFTER = "\nGenerate the instruction for the above response."


def _prompt(instruction: str, input_text: str, *, template: str, chat: ChatRenderer | None) -> str:
    if template == CHAT:
        if chat is None:
            raise ModelError("The template 'chat' needs the chat template of a tokenizer; none was given.")
        return chat(f"{instruction}\n{input_text}" if input_text else instruction)
    if template not in _PUBLISHED:
        raise ModelError(f"There is no prompt template {template!r}; choose one of {', '.join(TEMPLATES)}.")
    return _PUBLISHED[template].prompt(instruction, input_text)


def forward_prompt(example: Example, *, template: str, chat: ChatRenderer | None = None) -> str:
    """Return the prompt built from x and c, which y follows with nothing between.

    With ``chat`` one user turn holds the instruction, and on the next line the input if there is one (our choice:
    no format of it is published).

    Raises:
        ModelError: the template is unknown, or is ``chat`` without a renderer.
    """
    return _prompt(example.instruction, example.input, template=template, chat=chat)


def reverse_prompt(example: Example, *, template: str, chat: ChatRenderer | None = None) -> str:
    """Return the prompt that asks to guess the instruction of y, in the template's form without input.

    Raises:
        ModelError: the template is unknown, or is ``chat`` without a renderer.
    """
    return _prompt(_GUESS_BEFORE + example.output + _GUESS_AFTER, "", template=template, chat=chat)
