"""Tables with a known truth, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.regression import FitSpec

SLOPES = {"reward": -0.15, "length": 8e-5, "knn_6": -0.9}
INTERCEPT = 1.07
NOISE = 0.05


def table(seed: int, n: int = 40) -> dict[str, list[Any]]:
    """Runs whose log loss is linear in three indicators of different units, two of them correlated, plus noise."""
    draw = np.random.default_rng(seed)
    reward = draw.normal(1.0, 0.5, n)
    columns = {
        "reward": reward,
        "length": draw.normal(300, 80, n),
        "knn_6": 0.8 + 0.1 * reward + draw.normal(0, 0.1, n),
    }
    log_loss = INTERCEPT + sum(SLOPES[name] * column for name, column in columns.items()) + draw.normal(0, NOISE, n)
    return {"loss": np.exp(log_loss).tolist(), **{name: column.tolist() for name, column in columns.items()}}


SPEC = FitSpec(response="loss", regressors=tuple(SLOPES))
