"""Overlap of an evaluation set with training data: what a student would be evaluated on and trained on (pure).

What is compared is the instruction with its input: the answer to a question that was trained on is no longer news to
the student, whatever its wording. Three degrees: the same after folding case and white space, the same instruction with
another input, and near. Near is measured by words without any model, and by embeddings where both sides have them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from core.errors import SettingsError

WORDS, COSINE = "words", "embedding"
MEASURES: Mapping[str, str] = {
    WORDS: "the same words in the same order, instruction with input (Indel similarity of words)",
    COSINE: "cosine similarity of the embeddings of the whole rows",
}
LEAST_THRESHOLD = 0.5
MOST_WORDS = 400
MOST_PAIRS = 20_000

# Scripts without spaces between words (kana, Han, Hangul): each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Pair(NamedTuple):
    """A row of the evaluation set (the first of those that share instruction and input) beside a training row."""

    evaluation_id: int
    training_id: int
    similarity: float


class Prompt(NamedTuple):
    """What a row asks: its id, instruction and input."""

    example_id: int
    instruction: str
    input: str


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What two sets share. Each list has at most ``MOST_PAIRS`` pairs; ``counts`` says how many there are.

    ``n_instructions``    distinct (instruction, input) of the evaluation set
    ``n_training``        distinct training rows
    ``same_example``      pairs of which also the output is the same, to the letter; part of ``exact``
    ``exact``             the same instruction and input after folding case and white space
    ``same_instruction``  the same instruction after folding, with another input
    ``near``              similarity of ``threshold`` or more and not in ``exact``, nearest first
    ``n_instructions_found``  instructions that are exactly or nearly among the training rows
    ``training_ids``      all training rows that are exactly or nearly in the evaluation set, to be left out; ascending
    ``near_measure``      "words" or "embedding" (``MEASURES``)
    ``n_evaluation_unembedded``, ``n_training_unembedded``  rows without an embedding; None where no embedding
                          model has vectors of both sides
    """

    n_instructions: int
    n_training: int
    threshold: float
    near_measure: str
    n_instructions_found: int = 0
    training_ids: tuple[int, ...] = ()
    same_example: tuple[Pair, ...] = ()
    exact: tuple[Pair, ...] = ()
    same_instruction: tuple[Pair, ...] = ()
    near: tuple[Pair, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    embedder: str | None = None
    n_evaluation_unembedded: int | None = None
    n_training_unembedded: int | None = None


def gathered(
    *,
    same_example: Sequence[Pair],
    exact: Sequence[Pair],
    same_instruction: tuple[Sequence[Pair], int],
    near: Sequence[Pair],
    **rest: Any,
) -> Overlap:
    """An :class:`Overlap` of all pairs (``same_instruction``: the first ones, their number) and its other fields."""
    concerned = (*exact, *near)
    return Overlap(
        same_example=tuple(same_example[:MOST_PAIRS]),
        exact=tuple(exact[:MOST_PAIRS]),
        same_instruction=tuple(same_instruction[0][:MOST_PAIRS]),
        near=tuple(near[:MOST_PAIRS]),
        counts={
            "same_example": len(same_example),
            "exact": len(exact),
            "same_instruction": same_instruction[1],
            "near": len(near),
        },
        n_instructions_found=len({pair.evaluation_id for pair in concerned}),
        training_ids=tuple(sorted({pair.training_id for pair in concerned})),
        **rest,
    )


def folded(text: str) -> str:
    """A text after folding case and runs of white space, as :func:`core.example.folded_hash` does."""
    return " ".join(text.split()).casefold()


def one_a_prompt(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The first of those that share instruction and input, in order: references of one instruction are one question."""
    found: dict[tuple[str, str], Prompt] = {}
    for prompt in prompts:
        found.setdefault((folded(prompt.instruction), folded(prompt.input)), prompt)
    return list(found.values())


def exact_pairs(evaluation: Sequence[Prompt], training: Sequence[Prompt]) -> tuple[list[Pair], tuple[list[Pair], int]]:
    """Pairs with the same instruction and input, and those with the same instruction and another input, after folding.

    Of the latter the first ``MOST_PAIRS`` and their number: an instruction such as "Summarise this." makes millions.
    The similarity of all of them is 1: that of what is compared.
    """
    by_instruction: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for prompt in evaluation:
        instruction = folded(prompt.instruction)
        if instruction:
            by_instruction[instruction].append((folded(prompt.input), prompt.example_id))
    exact: list[Pair] = []
    same: list[Pair] = []
    n_same = 0
    for prompt in training:
        here = by_instruction.get(folded(prompt.instruction))
        if here is None:
            continue
        own_input = folded(prompt.input)
        for input_text, example_id in here:
            if input_text == own_input:
                exact.append(Pair(example_id, prompt.example_id, 1.0))
                continue
            n_same += 1
            if n_same <= MOST_PAIRS:
                same.append(Pair(example_id, prompt.example_id, 1.0))
    return exact, (same, n_same)


def check_threshold(threshold: float) -> float:
    """The threshold.

    Raises:
        SettingsError: it is not between 0.5 and 1: below, texts of the same kind are all near each other.
    """
    if not LEAST_THRESHOLD <= threshold <= 1.0:
        raise SettingsError(f"The threshold of near rows is {threshold}; give {LEAST_THRESHOLD} to 1.")
    return threshold


def words_of(prompt: Prompt) -> list[str]:
    """The first ``MOST_WORDS`` words of instruction and input, case folded."""
    return _WORD.findall(f"{prompt.instruction}\n{prompt.input}".casefold())[:MOST_WORDS]


def near_by_words(evaluation: Sequence[Prompt], training: Sequence[Prompt], *, threshold: float = 0.9) -> list[Pair]:
    """Pairs whose words are near: 2·LCS / (n + m) ≥ ``threshold`` over the sequences of n and m words.

    (The normalised Indel similarity, LCS = longest common subsequence; as RapidFuzz computes it.) No pair is missed:
    to reach the threshold s both must share at least s·n / (2 − s) words, so a training row that has none of the rarest
    n − ⌈s·n / (2 − s)⌉ + 1 words of an instruction need not be compared (prefix filtering: Chaudhuri et al. 2006).

    Raises:
        SettingsError: the threshold is out of its range.
    """
    from rapidfuzz.distance import Indel

    ratio = check_threshold(threshold) / (2.0 - threshold)
    rows = [words_of(prompt) for prompt in training]
    n_rows_with: Counter[str] = Counter()
    for words in rows:
        n_rows_with.update(set(words))
    asked = [(prompt.example_id, words_of(prompt)) for prompt in evaluation]
    by_word = _prefixes(asked, ratio=ratio, n_rows_with=n_rows_with)
    found = []
    for prompt, words in zip(training, rows, strict=True):
        for index in _candidates(words, by_word):
            example_id, own = asked[index]
            if not ratio * len(own) <= len(words) <= len(own) / ratio:
                continue
            similarity = Indel.normalized_similarity(own, words, score_cutoff=threshold)
            if similarity >= threshold:
                found.append(Pair(example_id, prompt.example_id, float(similarity)))
    return found


def _prefixes(
    asked: Sequence[tuple[int, Sequence[str]]], *, ratio: float, n_rows_with: Mapping[str, int]
) -> dict[str, list[int]]:
    """Word -> places in ``asked`` that have it among their rarest words."""
    by_word: dict[str, list[int]] = defaultdict(list)
    for index, (_, words) in enumerate(asked):
        least_shared = int(np.ceil(ratio * len(words) - 1e-9))
        rarest = sorted(words, key=lambda word: (n_rows_with.get(word, 0), word))[: len(words) - least_shared + 1]
        for word in dict.fromkeys(rarest):
            by_word[word].append(index)
    return by_word


def _candidates(words: Sequence[str], by_word: Mapping[str, Sequence[int]]) -> set[int]:
    return {index for word in by_word.keys() & words for index in by_word[word]}


def near_by_vectors(
    evaluation: tuple[np.ndarray, np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    threshold: float = 0.9,
) -> Iterator[Pair]:
    """Pairs whose embeddings have a cosine similarity of ``threshold`` or more.

    Args:
        evaluation: int64 ids ``[n]`` and vectors float32 ``[n, d]`` of the evaluation rows; need not be of length 1.
        batches: the same of training rows, ``[m]`` and ``[m, d]`` each. A vector of length 0 is near nothing.
        threshold: 0.5 to 1.

    Raises:
        SettingsError: the threshold is out of its range.
    """
    check_threshold(threshold)
    ids, vectors = evaluation
    own = _unit(vectors)
    for other_ids, others in batches:
        cosine = own @ _unit(others).T
        for row, column in zip(*np.nonzero(cosine >= threshold - 1e-6), strict=True):
            yield Pair(int(ids[row]), int(other_ids[column]), float(min(cosine[row, column], 1.0)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float32), where=lengths > 0)


def nearest_first(near: Iterable[Pair], *, exact: Iterable[Pair]) -> list[Pair]:
    """Near pairs without those that are exact, the nearest first; of a pair that came twice the nearer one."""
    known = {(pair.evaluation_id, pair.training_id) for pair in exact}
    best: dict[tuple[int, int], Pair] = {}
    for pair in near:
        key = (pair.evaluation_id, pair.training_id)
        if key not in known and (key not in best or best[key].similarity < pair.similarity):
            best[key] = pair
    return sorted(best.values(), key=lambda pair: (-pair.similarity, pair.evaluation_id, pair.training_id))
