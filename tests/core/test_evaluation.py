"""References by a teacher: what is asked, which answers count, and what it may cost."""

from __future__ import annotations

import pytest

from core.evaluation import CODES, NoReference, Reference, build_question, estimate_references, read_answer
from core.teacher import TeacherSettings

SETTINGS = TeacherSettings("https://api.example.org/v1", "teacher", price_in=1.0, price_out=2.0, max_tokens=100)


def test_the_teacher_is_asked_the_instruction_with_its_input_and_nothing_else() -> None:
    assert build_question("Sum up.", "A text.").messages == ({"role": "user", "content": "Sum up.\n\nA text."},)
    assert build_question("Say hello.", " \n").messages == ({"role": "user", "content": "Say hello."},)


@pytest.mark.parametrize(
    ("raw", "finish", "expected"),
    [
        ("  The sea.\n", "stop", Reference("The sea.")),
        ("The sea.", None, Reference("The sea.")),
        ("<think>Hm.</think>\n\nThe sea.", "stop", Reference("The sea.")),
        ("I'm sorry for the delay, dear guest.", "stop", Reference("I'm sorry for the delay, dear guest.")),
        ("The se", "length", "cut_off"),
        ("<think>Hm, what", "stop", "cut_off"),
        ("<think>Hm.</think> ", "stop", "empty"),
        (" \n", "stop", "empty"),
        (None, None, "empty"),
        ("", "content_filter", "refusal"),
        ("No.", "refusal", "refusal"),
    ],
)
def test_reading_an_answer(raw: str | None, finish: str | None, expected: Reference | str) -> None:
    found = read_answer(raw, finish)
    if isinstance(expected, Reference):
        assert found == expected
    else:
        assert isinstance(found, NoReference)
        assert found.code == expected
        assert expected in CODES


def test_the_estimate_counts_four_bytes_a_token_and_no_answer_beyond_the_limit() -> None:
    found = estimate_references(10, prompt_bytes=4000, output_bytes=200, settings=SETTINGS)
    assert (found.calls, found.prompt_tokens, found.completion_tokens) == (10, 1000, 500)
    assert found.cost_usd == pytest.approx((1000 * 1 + 500 * 2) / 1e6)
    assert estimate_references(10, prompt_bytes=0, output_bytes=10_000, settings=SETTINGS).completion_tokens == 1000


def test_without_prices_the_cost_is_unknown_not_zero() -> None:
    free = TeacherSettings("https://api.example.org/v1", "teacher")
    assert estimate_references(3, prompt_bytes=100, output_bytes=None, settings=free).cost_usd is None
