"""Runs on one base: each is the run that it would be alone, and what goes wrong is an outcome with a reason."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.example import Example
from core.finetune import training
from core.finetune.base import Base
from core.finetune.curve import read_curve
from core.finetune.results import RunResult, from_table, to_table
from core.finetune.settings import paper_preset
from core.lm import Student, StudentSettings
from core.scoring import DEMO_STUDENT
from tests.core import tiny_models
from tests.core.finetune import small


def numbers(result: RunResult) -> Any:
    """All that must be equal to the last bit: everything but times."""
    return (
        result.outcome,
        result.loss_nats,
        result.train_loss_nats,
        result.losses,
        [dataclasses.replace(point, seconds=None) for point in result.curve],
    )


def weights(work: Path) -> bytes:
    return (work / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def base(llama: Path) -> Base:
    return Base.load(small.settings(llama))


def run(base: Base, work: Path, *, rows: list[Example] | None = None, seed: int = 1, **settings: Any) -> Any:
    """A run under changed settings of the same loaded base."""
    before = base.settings
    base.settings = dataclasses.replace(before, **settings)
    try:
        return base.run(small.ROWS if rows is None else rows, evaluation=small.EVALUATION, seed=seed, work=work)
    finally:
        base.settings = before


@pytest.mark.parametrize("precision", ["fp32", "int8", "nf4"])
def test_a_run_in_a_sweep_is_the_run_alone_to_the_last_bit(tmp_path, llama, precision):
    settings = small.settings(llama, precision=precision, keep_adapter=True)
    sweep = Base.load(settings)
    untrained = run(sweep, tmp_path / "untrained", rows=[])
    run(sweep, tmp_path / "other", rows=small.ROWS[:9], seed=2)
    hot = run(sweep, tmp_path / "hot", lora_alpha=10**30)
    assert hot.outcome == "diverged"
    assert run(sweep, tmp_path / "empty", rows=[Example("a", "", "")]).outcome == "failed"
    with pytest.raises(KeyboardInterrupt):  # a run that is stopped from outside leaves no adapter on the base
        sweep.run(small.ROWS, evaluation=small.EVALUATION, seed=3, work=tmp_path / "stopped", report=stop)
    inside = run(sweep, tmp_path / "inside")
    alone = run(Base.load(settings), tmp_path / "alone")
    assert numbers(inside) == numbers(alone)
    assert weights(tmp_path / "inside") == weights(tmp_path / "alone")
    assert inside.outcome == "done"
    assert numbers(run(sweep, tmp_path / "again", rows=[])) == numbers(untrained)
    assert run(sweep, tmp_path / "seed", seed=4).loss_nats != inside.loss_nats


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_a_run_leaves_and_says(tmp_path, base):
    result = run(base, tmp_path, rows=[*small.ROWS, Example("nothing", "", "")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.jsonl"], "no checkpoint, no adapter"
    assert read_curve(tmp_path / "curve.jsonl") == list(result.curve)
    assert [point.step for point in result.curve] == [1, 2, 3, 4, 5]
    assert [point.epoch for point in result.curve] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert result.loss_nats == pytest.approx(sum(one.loss_nats for one in result.losses) / 8)
    assert result.train_loss_nats == pytest.approx(sum(point.loss_nats for point in result.curve) / 5)
    details = result.details
    assert (details["n_train_rows"], details["n_train_rows_skipped"], details["n_steps"]) == (40, 1, 5)
    assert details["skipped"] == {"The response is empty.": 1}
    assert details["n_tokens_trained"] == details["n_tokens"] > details["n_train_tokens"] > 0
    assert details["versions"]["peft"]
    assert details["settings"]["revision"].startswith("local-")
    assert details["peak_bytes"] > 1e7
    assert from_table(to_table(3, result)) == (3, dataclasses.replace(result, details=dict(details)))


def test_the_untrained_base_has_the_losses_that_scoring_gives(tmp_path, base, llama):
    result = run(base, tmp_path, rows=[])
    student = Student.load(StudentSettings(str(llama), max_length=512))
    expected = student.score([example for _, example in small.EVALUATION], ("loss_y_given_x",))
    assert [one.loss_nats for one in result.losses] == pytest.approx(
        [loss["loss_y_given_x"].loss_nats for loss in expected], rel=1e-6
    )
    assert [one.n_tokens for one in result.losses] == [loss["loss_y_given_x"].n_tokens for loss in expected]
    assert (result.outcome, result.curve, result.train_loss_nats) == ("done", (), None)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_kept_adapter_loads_elsewhere_and_gives_the_same_losses(tmp_path, family):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = tiny_models.save(tmp_path / "model", family)
    base = Base.load(small.settings(folder, keep_adapter=True, lora_targets="attention"))
    result = run(base, tmp_path / "work")
    assert result.details["adapter"] == "adapter"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "work" / "adapter")
    rows = base._rows.rows([example for _, example in small.EVALUATION]).rows
    for one, row in zip(result.losses, rows, strict=True):
        ids = torch.tensor([list(row.ids[:-1])])  # EOS is trained, not evaluated
        labels = ids.clone()
        labels[0, : row.start] = -100
        with torch.no_grad():
            expected = model.eval()(input_ids=ids, labels=labels).loss.item()
        assert one.loss_nats == pytest.approx(expected, rel=1e-5)
    assert result.loss_nats < run(base, tmp_path / "untrained", rows=[]).loss_nats - 0.01


def test_the_first_loss_is_that_of_the_untrained_base_over_the_batch(tmp_path, base):
    """B of the adapter begins as zero, so that the first batch, all rows here, must have the base's own loss."""
    import torch

    result = run(base, tmp_path, batch_size=40, lora_dropout=0.0)
    sums, n = 0.0, 0
    for row in base._rows.rows(small.ROWS).rows:
        ids = torch.tensor([list(row.ids)])
        with torch.no_grad():
            logits = base._model(input_ids=ids).logits[0, row.start - 1 : -1]
        sums += torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum").item()
        n += len(row.ids) - row.start
    assert result.curve[0].loss_nats == pytest.approx(sums / n, rel=1e-5)


def test_micro_batches_are_the_same_batch(tmp_path, base):
    whole, parts = (
        run(base, tmp_path / str(n), micro_batch_size=n, lora_dropout=0.0, learning_rate=1e-3) for n in (8, 2)
    )
    assert [point.loss_nats for point in parts.curve] == pytest.approx(
        [point.loss_nats for point in whole.curve], rel=1e-5
    )
    assert parts.loss_nats == pytest.approx(whole.loss_nats, rel=1e-5)


def test_gradient_checkpointing_changes_no_number(tmp_path, base, llama):
    checkpointed = Base.load(small.settings(llama, gradient_checkpointing=True))
    found, expected = run(checkpointed, tmp_path / "a"), run(base, tmp_path / "b")
    assert [point.loss_nats for point in found.curve] == pytest.approx([point.loss_nats for point in expected.curve])
    assert found.loss_nats == pytest.approx(expected.loss_nats)


def out_of_memory(most: int) -> Any:
    """The loss as it is, on a machine that holds no more than ``most`` rows."""
    import torch

    whole = training.summed_nll

    def loss(model: Any, rows: Any, **options: Any) -> Any:
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(model, rows, **options)

    return loss


def test_out_of_memory_halves_the_micro_batch_and_begins_again(tmp_path, base, monkeypatch):
    expected = run(base, tmp_path / "a", micro_batch_size=2)
    monkeypatch.setattr(training, "summed_nll", out_of_memory(3))
    found = run(base, tmp_path / "b")
    assert found.outcome == "done"
    assert found.details["micro_batch_size"] == 2
    assert "2 rows in memory at once" in found.details["micro_batch_note"]
    assert numbers(found) == numbers(expected)
    asked_for = run(base, tmp_path / "c", micro_batch_size=4)
    assert asked_for.outcome == "failed"
    assert "Memory ran out with 4 rows at once" in asked_for.reason
    monkeypatch.setattr(training, "summed_nll", out_of_memory(0))
    never = run(base, tmp_path / "d")
    assert never.outcome == "failed"
    assert "a single row" in never.reason
    assert never.loss_nats is None


def test_a_loss_that_is_no_number_ends_the_run_at_its_step(tmp_path, base):
    found = run(base, tmp_path, lora_alpha=10**30, epochs=3.0)
    assert (found.outcome, found.loss_nats) == ("diverged", None)
    assert found.reason == "The gradient's norm was inf at step 1 of 15."
    assert [(point.step, point.grad_norm) for point in found.curve] == [(1, None)]
    assert found.losses == ()


def test_an_evaluation_loss_worse_than_guessing_is_told(tmp_path, base):
    rows = [Example(f"Say {i}", "", "z" * 40) for i in range(40)]
    found = run(base, tmp_path, rows=rows, learning_rate=3e-2, epochs=3.0)
    assert found.outcome == "diverged"
    assert found.loss_nats > math.log(tiny_models.VOCABULARY)
    assert "above that of guessing all tokens alike (5.768)" in found.reason


def test_nothing_to_train_or_evaluate_on(tmp_path, base):
    empty = run(base, tmp_path / "a", rows=[Example("a", "", ""), Example("b", "", "")])
    assert empty.reason == "No row has a response token to train on (2 times: The response is empty.)"
    without: Any = base.run(small.ROWS[:8], evaluation=[(1, Example("a", "", ""))], seed=0, work=tmp_path / "b")
    assert (without.outcome, without.n_null) == ("failed", 1)
    assert "No output of the evaluation set has a loss: The response is empty." in without.reason
    nobody = base.run(small.ROWS[:8], evaluation=[], seed=0, work=tmp_path / "c")
    assert nobody.reason == "The evaluation set has no output to evaluate on."
    some = [*small.EVALUATION, (7, Example("a", "", ""))]
    partly = base.run(small.ROWS[:8], evaluation=some, seed=0, work=tmp_path / "d")
    assert (partly.outcome, partly.n_null, partly.losses[-1].reason) == ("done", 1, "The response is empty.")


def test_an_output_whose_loss_is_not_finite_is_no_gap_in_a_mean(tmp_path, llama):
    """Else one run's mean would be over other outputs than another's, and both would go into the same fit."""
    import torch

    base = Base.load(small.settings(llama))
    embeddings = base._model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings[base.tokenizer("~")["input_ids"][-1]] = math.nan
    evaluation = [*small.EVALUATION, (7, Example("Say", "", "a ~ b"))]
    trained: Any = base.run(small.ROWS[:8], evaluation=evaluation, seed=0, work=tmp_path / "a")
    assert (trained.outcome, trained.loss_nats) == ("diverged", None)
    assert "outputs of the evaluation set have tokens but no loss" in trained.reason
    assert "not a finite number" in trained.reason
    untrained = base.run([], evaluation=evaluation, seed=0, work=tmp_path / "b")
    assert (untrained.outcome, untrained.loss_nats) == ("failed", None)
    assert base.run([], evaluation=small.EVALUATION, seed=0, work=tmp_path / "c").outcome == "done"


@pytest.mark.parametrize("family", ["gemma2", "bloom"])
def test_families_with_a_peculiar_head_attention_or_none(tmp_path, family):
    base = Base.load(small.settings(tiny_models.save(tmp_path / "model", family), lora_targets="attention"))
    assert base.tokenizer.pad_token_id is None
    result = run(base, tmp_path / "work", rows=small.ROWS[:9])
    assert result.outcome == "done", result.reason


def test_query_and_value_that_peft_does_not_know_are_all_linear_layers_and_it_is_told(tmp_path):
    notes: list[str] = []
    folder = tiny_models.save(tmp_path / "model", "olmo")
    base = Base.load(small.settings(folder, lora_targets="attention"), note=notes.append)
    assert "peft does not name the query and value projections of a olmo model" in notes[0]
    result = run(base, tmp_path / "work", rows=small.ROWS[:9])
    assert (result.details["lora_targets"], result.details["lora_note"]) == ("all-linear", notes[0])
    mamba = tiny_models.save(tmp_path / "mamba", "mamba")
    with pytest.raises(ModelError, match="No adapter can be put on"):
        Base.load(small.settings(mamba, lora_targets="attention"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": "chat"}, "no chat template"),
        ({"max_length": 5000}, "has 1024 positions"),
        ({"revision": "local-another"}, "another one than before"),
        ({"base": "no/where/at all"}, "does not exist"),
    ],
)
def test_a_base_that_does_not_do_is_refused_before_anything_is_trained(llama, changes, says):
    with pytest.raises(ModelError, match=says):
        Base.load(dataclasses.replace(small.settings(llama), **changes))


def test_the_papers_setting_runs_on_the_demo_student(tmp_path: Path) -> None:
    """In 8 bits a token's rounding depends on later ones, which the probe once took for a model that looks ahead."""
    loaded = Base.load(dataclasses.replace(paper_preset(str(DEMO_STUDENT)), max_steps=1))
    found = loaded.run(small.ROWS[:8], evaluation=small.EVALUATION, seed=0, work=tmp_path)
    plain = Base.load(small.settings(DEMO_STUDENT)).run([], evaluation=small.EVALUATION, seed=0, work=tmp_path / "base")
    assert found.outcome == "done"
    assert found.loss_nats == pytest.approx(plain.loss_nats, abs=0.1)
