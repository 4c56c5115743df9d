"""kNN distance: a hand-worked set, from vectors to the value of the indicator; and what it is called."""

import numpy as np
import pytest

from core.errors import SettingsError
from core.example import Example
from core.indicators import DEFAULT_NEIGHBOUR, INDICATORS, KNN, MOST_NEIGHBOURS, OUTPUTS, Evidence, Value, chosen
from core.neighbours import neighbour_distances

EXAMPLE = Example("Ask.", "", "Answer.")


def test_hand_worked_from_vectors_to_value():
    # From (0, 0): its duplicate at 0, (3, 4) at 5, (0, 8) at 8.
    vectors = np.array([[0, 0], [0, 0], [3, 4], [0, 8]], dtype=np.float32)
    distances = neighbour_distances(vectors, np.array([0]), neighbours=[1, 2, 3])[0]
    evidence = Evidence(EXAMPLE, distances={i: Value(float(distances[i - 1])) for i in (1, 2, 3)})
    assert [KNN[i].compute(evidence)[f"knn_{i}"].value for i in (1, 2, 3)] == [0.0, 5.0, 8.0]


def test_the_same_row_scores_differently_inside_another_set():
    vectors = np.array([[0.0], [1.0], [4.0]], dtype=np.float32)
    alone = neighbour_distances(vectors[[0, 2]], np.array([0]), neighbours=[1])
    assert alone.tolist() == [[4.0]]
    assert neighbour_distances(vectors, np.array([0]), neighbours=[1]).tolist() == [[1.0]]


def test_a_row_without_a_distance_keeps_its_reason():
    reason = Value(None, "The set has fewer than 6 other rows.")
    assert KNN[6].compute(Evidence(EXAMPLE, distances={6: reason})) == {"knn_6": reason}
    later = Value(None, "The embedder ran out of memory on this text alone.", transient=True)
    assert KNN[6].compute(Evidence(EXAMPLE, distances={6: later})) == {"knn_6": later}


def test_every_neighbour_from_1_to_50_has_its_own_output():
    assert sorted(KNN) == list(range(1, MOST_NEIGHBOURS + 1)) == list(range(1, 51))
    for i, indicator in KNN.items():
        assert indicator.key == f"knn_{i}" == indicator.outputs[0].key
        assert indicator.needs.neighbour == i
        assert indicator.needs.role == "embedder"
        assert OUTPUTS[f"knn_{i}"].direction == "higher"
        assert OUTPUTS[f"knn_{i}"].range == (0.0, None)
        assert OUTPUTS[f"knn_{i}"].depends == "embedder"


def test_the_sixth_is_the_one_of_the_published_rule():
    assert DEFAULT_NEIGHBOUR == 6
    assert [one.key for one in INDICATORS if one.needs.neighbour is not None] == ["knn_6"]
    assert [one.key for one in chosen(["knn_20", "knn_3"])] == ["knn_3", "knn_20"]
    for key in ("knn_0", "knn_51", "knn"):
        with pytest.raises(SettingsError, match="no indicator"):
            chosen([key])
