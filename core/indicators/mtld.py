"""MTLD, the measure of textual lexical diversity, of the response [McCarthy & Jarvis 2010; IM, table 1].

The mean length of runs of words over which the type-token ratio stays above 0.72, read forward and backward.
It is lexicalrichness that computes it, with its own idea of a word: lower case, digits removed, hyphens removed with
their two halves joined ("well-known" is one word), other ASCII punctuation turned into spaces ("don't" is two words),
then parted by white space. Packages part words differently and disagree, so package and version belong to the scorer.
"""

from __future__ import annotations

from importlib.metadata import version

from core.indicators.value import Evidence, Indicator, Output, Value

THRESHOLD = 0.72


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return MTLD of the response in words; NULL where lexicalrichness sees no word (it does not count digits)."""
    from lexicalrichness import LexicalRichness

    text = LexicalRichness(evidence.example.output)
    if text.words == 0:
        return {"mtld": Value(None, "The response has no word (digits and punctuation do not count).")}
    return {"mtld": Value(float(text.mtld(threshold=THRESHOLD)))}


MTLD = Indicator(
    key="mtld",
    title="Lexical diversity (MTLD)",
    summary="Lexical diversity of the response: how varied its words are.",
    paper="McCarthy & Jarvis 2010; Instruction Mining, arXiv 2307.06290, table 1",
    outputs=(
        Output(
            "mtld",
            "MTLD",
            "higher",
            "words",
            f"Mean run of words with a type-token ratio above {THRESHOLD}: higher means a more varied vocabulary.",
            "text",
            (0.0, None),
        ),
    ),
    version=f"1; lexicalrichness {version('lexicalrichness')}; threshold {THRESHOLD}",
    compute=compute,
)
