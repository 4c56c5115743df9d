"""What the review component is told about a pair: plain data, made of what the store knows (pure).

Texts travel as lists of segments; the component puts them into the page as text, never as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.review_diff import Diff, word_diff
from db.decisions import VERDICT_WORDS

PROPOSALS: Mapping[str, str] = {
    "reflected": "take the reflected pair",
    "original": "keep the original",
    "leave out": "leave this row out",
}
SHOWN_FIELDS = (
    *("proposal", "ifd_original", "ifd_base", "ifd_candidate"),
    *("r_ifd_original", "r_ifd_base", "r_ifd_candidate"),
)
_FIELDS = (("instruction", "Instruction"), ("input", "Input"), ("output", "Response"))
_NO_REASON = "It was not scored."
_WARNING = "Reflected: IFD is 1 or more, so the instruction does not help the student at all."

Reasons = Mapping[tuple[str, str], str]
"""(output key, "original" or "candidate") -> why there is no score."""


def shown(pair: Mapping[str, Any], *, blind: bool) -> dict[str, Any]:
    """What is kept with a decision: the scores, the proposal and the texts (their hashes) that were on screen."""
    kept = {name: pair[name] for name in SHOWN_FIELDS if not (blind and name == "proposal")}
    return {**kept, "original_hash": pair["o_hash"], "candidate_hash": pair["c_hash"], "blind": blind}


def pair_view(
    pair: Mapping[str, Any],
    *,
    now: datetime,
    reasons: Reasons,
    blind: bool = False,
    viewer: str = "",
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything the component draws of one pair (:func:`db.review.pair`). ``now`` is naive UTC.

    ``names``: identity -> what people are called. ``blind``: without the student's proposal and what others said of the
    pair; a flag only where it is ``viewer``'s.
    """
    fields = [
        _field(field, label, str(pair[f"o_{field}"]), str(pair[f"c_{field}"]))
        for field, label in _FIELDS
        if field != "input" or pair["o_input"] or pair["c_input"]
    ]
    asked = any(pair[f"o_{field}"] != pair[f"c_{field}"] for field in ("instruction", "input"))
    flag, called = pair["flag"], names or {}
    proposal = {"title": f"The student proposes: {_proposed(pair)}", "reason": str(pair["proposal_reason"])}
    return {
        "pair_id": int(pair["pair_id"]),
        "badges": _badges(pair),
        "fields": fields,
        "scores": scores_view(pair, reasons),
        "proposal": None if blind else proposal,
        "critique": [[_words(str(name)), _said(said)] for name, said in pair["critique"].items()],
        "history": [] if blind else [_event(event, now, called) for event in pair["history"]],
        "decision": None if blind else _standing(pair["decision"], now, called),
        "flag": None if blind and flag and flag["reviewer"] != viewer else _flag(flag, now, called),
        "mixes": asked and pair["o_output"] != pair["c_output"],
    }


def _proposed(pair: Mapping[str, Any]) -> str:
    """What to do with this pair. "original" means "not this candidate": in the response stage that may leave the pair
    of the instruction stage, not the original."""
    if pair["proposal"] == "original" and pair["base_id"] != pair["original_id"]:
        return "not this response; the pair of the instruction stage stands"
    return PROPOSALS.get(pair["proposal"], str(pair["proposal"]))


def _words(name: str) -> str:
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _said(said: Any) -> str:
    return said if isinstance(said, str) else str(said)


def _badges(pair: Mapping[str, Any]) -> list[dict[str, str]]:
    recorded = pair["teacher"] == "recorded"
    model = pair.get("teacher_model")
    teacher = "recorded answers, replayed" if recorded else f"{pair['teacher']}{f' · {model}' if model else ''}"
    return [
        {"label": "dataset", "text": str(pair["dataset"]), "kind": "plain"},
        {"label": "method", "text": str(pair["method"]), "kind": "plain"},
        {"label": "stage", "text": f"{pair['stage']} reflection", "kind": "plain"},
        {"label": "teacher", "text": teacher, "kind": "recorded" if recorded else "plain"},
    ]


def _segments(diff: Diff, side: str) -> list[list[Any]]:
    return [[int(segment.changed), segment.text] for segment in getattr(diff, side)]


def _field(field: str, label: str, original: str, reflected: str) -> dict[str, Any]:
    diff = word_diff(original, reflected)
    return {
        "field": field,
        "label": label,
        "original": _segments(diff, "original"),
        "reflected": _segments(diff, "reflected"),
        "note": _note(diff),
    }


def _note(diff: Diff) -> str:
    if diff.state == "same":
        return "unchanged"
    if not diff.original or not diff.reflected:
        return "removed" if diff.original else "added"
    if diff.state == "rewritten":
        return f"rewritten: {diff.kept or 0:.0%} of the words stayed, so changes are not marked"
    if diff.state == "too long":
        return "too long to compare word by word"
    return ""


def scores_view(pair: Mapping[str, Any], reasons: Reasons) -> list[dict[str, Any]]:
    """IFD and r-IFD of both sides with the direction in words; a missing score is a dash with its reason."""
    return [_score(pair, reasons, "ifd"), _score(pair, reasons, "r_ifd")]


_SCORE_WORDS: Mapping[str, Mapping[str, str]] = {
    "ifd": {
        "name": "IFD",
        "rule": "higher = harder for the student",
        "up": "harder for the student",
        "down": "easier for the student",
    },
    "r_ifd": {
        "name": "r-IFD",
        "rule": "lower = better",
        "up": "worse (harder to guess)",
        "down": "better (easier to guess)",
    },
}


def _score(pair: Mapping[str, Any], reasons: Reasons, output: str) -> dict[str, Any]:
    words = _SCORE_WORDS[output]
    original, candidate = pair[f"{output}_original"], pair[f"{output}_candidate"]
    base = pair[f"{output}_base"] if pair["base_id"] not in (pair["original_id"], pair["candidate_id"]) else None
    missing = [
        f"{side}: {reasons.get((output, which), _NO_REASON)}"
        for value, side, which in ((original, "Original", "original"), (candidate, "Reflected", "candidate"))
        if value is None
    ]
    change, tone = "", "none"
    if not missing:
        difference = candidate - original
        direction = "up" if difference > 0 else "down"
        if abs(difference) < 0.0005:
            change = "= no change"
        else:
            change = f"{'▲ +' if difference > 0 else '▼ −'}{abs(difference):.3f} {words[direction]}"
            tone = "none" if output == "ifd" else {"up": "bad", "down": "good"}[direction]
    return {
        "name": words["name"],
        "rule": words["rule"],
        "original": _number(original),
        "reflected": _number(candidate),
        "base": None if base is None else _number(base),
        "change": change,
        "tone": tone,
        "warning": _WARNING if output == "ifd" and candidate is not None and candidate >= 1.0 else "",
        "missing": missing,
    }


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _when(moment: datetime, now: datetime) -> str:
    seconds = max(0.0, (now - moment).total_seconds())
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if moment.date() == now.date():
        return f"today at {moment:%H:%M} UTC"
    return f"on {moment:%Y-%m-%d} at {moment:%H:%M} UTC"


def when_said(moment: datetime) -> str:
    """A moment of the store (naive UTC) in words, against now."""
    return _when(moment, datetime.now(UTC).replace(tzinfo=None))


def _name(event: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return names.get(event["reviewer"], str(event["reviewer"]))


def _event(event: Mapping[str, Any], now: datetime, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "text": f"{_name(event, names)} {VERDICT_WORDS.get(event['verdict'], event['verdict'])} "
        f"{_when(event['decided_at'], now)}",
        "note": event["note"] or "",
        "undone": bool(event["undone"]),
    }


def _standing(decision: Mapping[str, Any] | None, now: datetime, names: Mapping[str, str]) -> dict[str, str] | None:
    if decision is None:
        return None
    verdict = decision["verdict"]
    return {
        "kind": "reject" if verdict == "reject" else "accept",
        "text": f"Decided: {_name(decision, names)} {VERDICT_WORDS[verdict]} {_when(decision['decided_at'], now)}.",
    }


def _flag(flag: Mapping[str, Any] | None, now: datetime, names: Mapping[str, str]) -> dict[str, str] | None:
    if flag is None:
        return None
    return {"note": flag["note"] or "", "text": f"Flagged by {_name(flag, names)} {_when(flag['decided_at'], now)}"}


def end_view(
    *, decided: int, skipped: int, passed: int, elsewhere: int, length: int, words: str = ""
) -> dict[str, Any]:
    """What the component draws at the end of a queue: a summary, and what can be done next. ``words``: why it ends."""
    if not length and words:
        return {"title": "Nothing to review here", "lines": [words], "skipped": 0, "passed": 0}
    if not length:
        lines = ["No pair is in this queue now: all are decided, or the filters let none through."]
        return {"title": "Nothing to review in this queue", "lines": lines, "skipped": 0, "passed": 0}
    lines = [f"{decided:,} decided and {skipped:,} skipped in this pass of {length:,} pairs."]
    if elsewhere:
        lines.append(f"{elsewhere:,} were decided by other people meanwhile and were not shown.")
    if passed:
        lines.append(f"{passed:,} were passed without a decision.")
    if words:
        lines.append(words)
    return {"title": "The end of this queue", "lines": lines, "skipped": skipped, "passed": passed}


def pace_view(progress: Mapping[str, Any], *, position: int, length: int, left: int) -> dict[str, Any]:
    """Numbers of the bar above the pair: place, decided of all, today and median seconds."""
    median = progress["median_seconds"]
    return {
        "position": position,
        "length": length,
        "left": left,
        "decided": int(progress["n_decided"]),
        "pairs": int(progress["n_pairs"]),
        "today": int(progress["n_today"]),
        "median_seconds": None if median is None else float(median),
    }
