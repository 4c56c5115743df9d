"""What came out of the study benchmark, as JSON and as Markdown; flattering or not."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.comparison import Comparison
from core.regression import FitResult
from core.rules import Rule
from tests.benchmarks.study_rows import KIND_WORDS

Correlated = Mapping[str, Mapping[str, float | int]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the report says. ``alone`` and ``sources``: correlation with the log loss, one at a time."""

    plan: Mapping[str, Any]
    student: Mapping[str, Any]
    settings: Mapping[str, Any]
    base_loss_nats: float | None
    losses_nats: Sequence[float | None]
    bad: Sequence[str]
    means: Mapping[str, Sequence[float | None]]
    alone: Correlated
    sources: Correlated
    fits: Mapping[str, FitResult]
    rule: Rule
    composition: Mapping[str, int]
    comparison: Comparison
    random_losses_nats: Sequence[float | None]
    seconds: Mapping[str, float]
    machine: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; NaN is None."""
        found = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("fits", "rule", "comparison")
        }
        found["fits"] = {name: json.loads(one.to_json()) for name, one in self.fits.items()}
        found["rule"] = json.loads(self.rule.to_json())
        found["comparison"] = dataclasses.asdict(self.comparison)
        cleaned: dict[str, Any] = _clean(found)
        return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(found: Findings) -> str:
    """The report for people."""
    parts = [_setting(found), _alone(found), _fits(found), _compared(found), _times(found)]
    return "\n\n".join(parts) + "\n"


def _setting(found: Findings) -> str:
    plan, done = found.plan, [one for one in found.losses_nats if one is not None]
    base = "—" if found.base_loss_nats is None else f"{found.base_loss_nats:.4f}"
    spread = f"{min(done):.4f} to {max(done):.4f}" if done else "none"
    bad = f" Kept out of the fits: {'; '.join(found.bad)}." if found.bad else ""
    return (
        f"## Study: {plan['mixtures']} mixtures of {plan['size']} rows\n\n"
        f"Student: {found.student['parameters']:,} parameters, trained on {found.student['rows']:,} Alpaca rows "
        f"({found.student['tokens_learnt']:,} tokens scored). Each run: LoRA on all linear layers, float32, "
        f"{plan['epochs']:g} epochs, batch {found.settings['batch_size']}, learning rate {plan['learning_rate']:g}. "
        f"Evaluation: {plan['evaluation']} outputs, two thirds self-instruct's user-oriented rows, the rest held-out "
        f"Alpaca and Dolly rows. Sources: {'; '.join(KIND_WORDS.values())}. No reward model is at hand.\n\n"
        f"Evaluation loss of the untrained base {base} nats a token, of the mixtures {spread}.{bad}"
    )


def _alone(found: Findings) -> str:
    lines = [
        "### One at a time, with the log loss",
        "",
        "| indicator's mean | Pearson (95 %) | Spearman | n |",
        "| --- | --- | --- | --- |",
        *(_correlated(f"`{key}`", one) for key, one in found.alone.items()),
        *(_correlated(f"share of {KIND_WORDS[kind]}", one) for kind, one in found.sources.items()),
    ]
    return "\n".join(lines)


def _correlated(name: str, one: Mapping[str, float | int]) -> str:
    interval = f"{one['pearson']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
    return f"| {name} | {interval} | {one['spearman']:+.2f} | {one['n']} |"


def _fits(found: Findings) -> str:
    parts = []
    for name, one in found.fits.items():
        title = {"all": "All indicators", "stepwise": "Stepwise (both ways, by p)"}[name]
        loo = "—" if one.loo_r2 is None else f"{one.loo_r2:.3f}"
        lines = [
            f"### {title}: R² {one.r2:.3f}, adjusted {one.r2_adjusted:.3f}, leave-one-out {loo}, n {one.n}",
            "",
            "| | coefficient | standard error | p | standardised | VIF |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for c in one.coefficients:
            cells = (_number(c.p, ".2g"), _number(c.standardised, "+.2f"), _number(c.vif, ".1f"))
            lines.append(f"| `{c.name}` | {c.value:.4g} | {c.standard_error:.2g} | {' | '.join(cells)} |")
        lines += ["", *(f"- {text}" for text in one.warnings)]
        parts.append("\n".join(lines).rstrip())
    if "stepwise" not in found.fits:
        parts.append("### Stepwise (both ways, by p)\n\nNo indicator was kept.")
    return "\n\n".join(parts)


def _number(value: float | None, form: str) -> str:
    return "—" if value is None or not math.isfinite(value) else format(value, form)


def _compared(found: Findings) -> str:
    one = found.comparison
    rows = ", ".join(f"{n} {KIND_WORDS[kind]}" for kind, n in found.composition.items())
    lines = [
        "### Rule against random, on unseen rows",
        "",
        f"Rule ({found.rule.source}): `{found.rule.formula(digits=4)}`. It selects {rows}.",
        "",
        f"Selected {_number(one.selected_nats, '.4f')} nats; random mean {_number(one.random_nats, '.4f')} "
        f"(one further random subset is expected from {_number(one.random_low_nats, '.4f')} to "
        f"{_number(one.random_high_nats, '.4f')}). {one.words}",
    ]
    if one.instruction_words:
        lines += ["", one.instruction_words]
    return "\n".join(lines)


def _times(found: Findings) -> str:
    times = ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in found.seconds.items())
    return f"Time: {times} ({found.machine})."
