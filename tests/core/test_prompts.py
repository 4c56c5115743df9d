"""The templates are published formats: every character counts."""

import pytest

from core.errors import ModelError
from core.example import Example
from core.prompts import TEMPLATES, forward_prompt, reverse_prompt

WITH_INPUT = Example("Sort {this}.", "b, a", "a, b")
NO_INPUT = Example("Say {hi}.", "", "Hi {there}!")
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: "
)
REQUEST = (
    "Below is the response to an instruction, please guess the corresponding instruction for the given response.\n"
    "Hi {there}!\nGenerate the instruction for the above response."
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)


@pytest.mark.parametrize(
    ("template", "example", "expected"),
    [
        (
            "alpaca",
            WITH_INPUT,
            "Below is an instruction that describes a task, paired with an input that provides further context. Write "
            "a response that appropriately completes the request.\n\n### Instruction:\nSort {this}.\n\n### Input:\nb, a"
            "\n\n### Response:",
        ),
        ("alpaca", NO_INPUT, f"{ALPACA}Say {{hi}}.\n\n### Response:"),
        ("wizardlm", WITH_INPUT, "Sort {this}.\nb, a\n\n### Response:"),
        ("wizardlm", NO_INPUT, "Say {hi}.\n\n### Response:"),
        ("vicuna", WITH_INPUT, f"{VICUNA}Sort {{this}}.\nInput:\nb, a ASSISTANT:"),
        ("vicuna", NO_INPUT, f"{VICUNA}Say {{hi}}. ASSISTANT:"),
    ],
)
def test_forward_to_the_letter(template, example, expected):
    assert forward_prompt(example, template=template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("alpaca", f"{ALPACA}{REQUEST}\n\n### Response:"),
        ("wizardlm", f"{REQUEST}\n\n### Response:"),
        ("vicuna", f"{VICUNA}{REQUEST} ASSISTANT:"),
    ],
)
def test_reverse_is_the_request_in_the_form_without_input(template, expected):
    assert reverse_prompt(NO_INPUT, template=template) == expected


def test_reverse_ignores_instruction_and_input():
    other = Example("Another.", "With input.", NO_INPUT.output)
    assert reverse_prompt(other, template="alpaca") == reverse_prompt(NO_INPUT, template="alpaca")


def test_chat_renders_one_user_turn():
    def chat(text: str) -> str:
        return f"<user>{text}<assistant>"

    assert forward_prompt(NO_INPUT, template="chat", chat=chat) == "<user>Say {hi}.<assistant>"
    assert forward_prompt(WITH_INPUT, template="chat", chat=chat) == "<user>Sort {this}.\nb, a<assistant>"
    assert reverse_prompt(NO_INPUT, template="chat", chat=chat) == f"<user>{REQUEST}<assistant>"


def test_unknown_template_and_chat_without_renderer_are_refused_in_plain_words():
    assert TEMPLATES == ("alpaca", "vicuna", "wizardlm", "chat")
    with pytest.raises(ModelError, match="no prompt template 'llama9'"):
        forward_prompt(NO_INPUT, template="llama9")
    with pytest.raises(ModelError, match="chat template"):
        reverse_prompt(NO_INPUT, template="chat")
