"""Conditions on the members of datasets (alias ``m``) as SQL with ``$name`` parameters, for the queries about rows."""

from __future__ import annotations

from typing import Any

from core.filters import Category, NoValue

Condition = tuple[str, dict[str, Any]]
LONGEST_CATEGORY = 200


def pointer(key: str) -> str:
    """The JSON pointer (RFC 6901) of a member's further column: any key, whatever its characters."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def metadata_value(parameter: str) -> str:
    """SQL of the text that a further column holds; ``$parameter`` is its :func:`pointer`. NULL where it holds none."""
    return f"try(json_extract_string(m.metadata, ${parameter}))"


def category_column(key: str | None) -> Condition:
    """SQL of the first ``LONGEST_CATEGORY`` characters of a further column, for a label; NULL where none is asked."""
    if key is None:
        return "null::varchar", {}
    return f"left({metadata_value('key')}, {LONGEST_CATEGORY})", {"key": pointer(key)}


def third_score(scorer_id: int | None) -> tuple[str, str, dict[str, Any]]:
    """SQL of a score's value beside others, of the join that it needs, and its parameters; NULL where none is asked."""
    if scorer_id is None:
        return "null::double", "", {}
    join = "left join scores t on t.example_id = m.example_id and t.scorer_id = $third"
    return "t.value", join, {"third": scorer_id}


def of_category(category: Category) -> Condition:
    """Members whose further column holds one of the values."""
    value = metadata_value("category_key")
    parameters: dict[str, Any] = {"category_key": pointer(category.key)}
    ways = []
    texts = [text for text in category.values if text is not None]
    if texts:
        ways.append(f"{value} in (select unnest($category_values))")
        parameters["category_values"] = texts
    if None in category.values:
        ways.append(f"{value} is null")
    return (f"({' or '.join(ways)})", parameters) if ways else ("true", {})


def without_value(missing: NoValue, number: int) -> Condition:
    """Members without a value of a scorer; ``number`` tells the parameters of several conditions apart."""
    scorer, reason = f"without{number}", f"reason{number}"
    parameters: dict[str, Any] = {scorer: missing.scorer_id}
    of_row = f"select 1 from scores w where w.scorer_id = ${scorer} and w.example_id = m.example_id"
    if missing.kind == "null":
        because = ""
        if missing.reason:
            because = f" and w.reason = ${reason}"
            parameters[reason] = missing.reason
        return f"exists ({of_row} and w.value is null{because})", parameters
    scored = " and w.value is not null" if missing.kind == "either" else ""
    return f"not exists ({of_row}{scored})", parameters
