"""The rows and texts that the demo student is trained on, and a few steps of its training."""

from __future__ import annotations

import json
import random

import pytest

from core.demo.everyday import TOPICS, everyday_rows
from core.demo.student_rows import instruction_file_rows, mt_bench_rows
from core.demo.train_student import FORMS, Sequence, batches_of, mean_loss, new_model, text_in_form, train
from core.errors import InputError

ROW = {"instruction": "Sort.", "input": "b, a", "output": "a, b"}


def test_everyday_rows_are_whole_varied_and_follow_from_the_seed():
    rows = everyday_rows(500, seed=1)
    assert rows == everyday_rows(500, seed=1)
    assert rows != everyday_rows(500, seed=2)
    assert all(row["instruction"] and row["output"] for row in rows)
    assert len({row["instruction"] for row in rows}) > 250
    assert len({topic.name for topic in TOPICS}) == len(TOPICS) > 40


def test_the_forms_are_the_prompts_that_students_are_asked_with():
    texts = {form: text_in_form(ROW, form) for form in FORMS}
    assert texts["response"] == ("", "a, b")
    assert texts["instruction"] == ("", "Sort.b, a")
    assert texts["alpaca"][0].endswith("### Instruction:\n")
    assert texts["alpaca"][1] == "Sort.\n\n### Input:\nb, a\n\n### Response:a, b"
    assert texts["reverse"][1].endswith("### Response:Sort.b, a")
    assert sum(FORMS.values()) == pytest.approx(1)


def test_row_files_of_both_shapes_and_mt_bench(tmp_path):
    plain, nested = tmp_path / "plain.json", tmp_path / "nested.jsonl"
    plain.write_text(json.dumps([ROW]))
    nested.write_text(json.dumps({"instruction": "Sort.", "instances": [{"input": "b, a", "output": "a, b"}]}) + "\n")
    assert instruction_file_rows(plain) == instruction_file_rows(nested) == [ROW]
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text(json.dumps({"question_id": 1, "turns": ["First?", "Second?"]}))
    answers.write_text(json.dumps({"question_id": 1, "choices": [{"turns": ["One.", "Two."]}]}))
    assert [row["output"] for row in mt_bench_rows(questions, answers)] == ["One.", "Two."]


def test_a_damaged_row_file_is_named(tmp_path):
    damaged = tmp_path / "damaged.json"
    damaged.write_text("[{")
    with pytest.raises(InputError, match=r"damaged\.json"):
        instruction_file_rows(damaged)


def test_a_few_steps_learn():
    import torch

    torch.manual_seed(0)
    model = new_model()
    r = random.Random(0)
    sequences = [Sequence([0, *([r.randrange(3, 40)] * 14), 1]) for _ in range(32)]
    before = mean_loss(model, sequences)
    done = train(model, sequences, epochs=6, tokens=256, rate=3e-3, seed=0)
    assert done["steps"] == 6 * len(list(batches_of(sequences, tokens=256, r=r)))
    assert mean_loss(model, sequences) < before - 1
