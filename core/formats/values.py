"""Turn values of foreign data into text and metadata, and count what was converted on the way."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

_MISSING = object()


class RowRefusedError(Exception):
    """A row that cannot become an example; the text is the reason. Never leaves this package."""


class Conversions(Counter[str]):
    """How often each kind of conversion was made; the key is the sentence that follows the count."""

    def sentences(self) -> list[str]:
        """One sentence a kind, for the report."""
        return [f"{count:,} {what}" for what, count in self.items()]


def is_empty(text: str) -> bool:
    """Whether a text holds nothing but white space."""
    return not text or text.isspace()


def _scalar_text(value: Any) -> str | None:
    """The text of a value that is not text itself; None if it is a structure."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta, uuid.UUID)):
        return str(value)
    return None


def text_of(value: Any, field: str, counts: Conversions) -> str:
    """Return ``value`` as text; nothing (null, NaN) is the empty text. What was converted is counted.

    Raises:
        RowRefusedError: the value is a list, an object, or bytes that are not UTF-8.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, float) and math.isnan(value):
        counts[f"value(s) of '{field}' were NaN (not a number) and were read as missing."] += 1
        return ""
    if isinstance(value, bytes):
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            raise RowRefusedError(f"'{field}' holds bytes that are not UTF-8 text.") from None
        counts[f"value(s) of '{field}' were bytes and were read as UTF-8 text."] += 1
        return text
    try:
        scalar = _scalar_text(value)
    except ValueError as error:  # an integer of thousands of digits
        raise RowRefusedError(f"'{field}' cannot be written as text: {error}.") from None
    if scalar is None:
        structure = "an object" if isinstance(value, Mapping) else "a list"
        raise RowRefusedError(f"'{field}' holds {structure} (nested data), not text. Map a field that holds text.")
    counts[f"value(s) of '{field}' were not text (a number, a date, true or false) and were read as text."] += 1
    return scalar


def field_text(row: Mapping[str, Any], field: str, counts: Conversions, *, required: bool = True) -> str:
    """Return the text of a field of ``row``.

    Raises:
        RowRefusedError: the field is missing and required, or is no text.
    """
    value = row.get(field, _MISSING)
    if type(value) is str:
        return value
    if value is _MISSING:
        if required:
            raise RowRefusedError(f"the field '{field}' is missing.")
        return ""
    return text_of(value, field, counts)


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (set, tuple)):
        return list(value)
    return _scalar_text(value) or str(value)


def _finite(value: Any) -> Any:
    """A copy without NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def metadata_json(fields: Mapping[str, Any], counts: Conversions) -> str | None:
    """Return the fields as one JSON text, or None if there are none.

    NaN and infinity become null and lone surrogates U+FFFD, so that every JSON reader takes the text; both are counted.

    Raises:
        RowRefusedError: the fields are nested too deeply.
    """
    if not fields:
        return None
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_json_default)
    except RecursionError:
        raise RowRefusedError("its other fields are nested too deeply to be kept.") from None
    except (ValueError, TypeError):
        counts["row(s) had NaN or infinity in their other fields; these are kept as null."] += 1
        text = json.dumps(_finite(dict(fields)), ensure_ascii=False, default=_json_default)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        counts["row(s) had half a character (a lone surrogate) in their other fields; U+FFFD stands there now."] += 1
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
