"""kNN distance: how far an example lies from its i-th nearest neighbour in its dataset [IM, table 1].

It belongs to a dataset: the same row scores differently inside another one. ``KNN[i]`` is the indicator for one i.
"""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value

DEFAULT_NEIGHBOUR = 6
"""The i of the published rule [IM, equation 4]."""

MOST_NEIGHBOURS = 50


def _indicator(i: int) -> Indicator:
    key = f"knn_{i}"

    def compute(evidence: Evidence) -> dict[str, Value]:
        """Return the Euclidean distance to the i-th nearest neighbour, the example itself left out."""
        return {key: evidence.distances[i]}

    return Indicator(
        key=key,
        title=f"kNN distance (i = {i})",
        summary="How far the row lies from its neighbours in the dataset: rare rows lie far away.",
        paper="Instruction Mining, arXiv 2307.06290, table 1",
        outputs=(
            Output(
                key,
                f"kNN-{i}",
                "higher",
                "",
                f"Euclidean distance to nearest neighbour number {i} among the sentence embeddings of the same "
                "dataset. Higher means rarer.",
                "embedder",
                (0.0, None),
            ),
        ),
        version="1",
        compute=compute,
        needs=Needs(neighbour=i),
    )


KNN: dict[int, Indicator] = {i: _indicator(i) for i in range(1, MOST_NEIGHBOURS + 1)}
