"""The form of a teacher behind an OpenAI-compatible endpoint, with its limits and prices."""

from __future__ import annotations

import os
from typing import Any

import streamlit as st

from core.teacher import TeacherSettings


def endpoint(prefix: str, *, temperature: float = 0.7, max_tokens: int = 2048) -> tuple[TeacherSettings, str | None]:
    """Widgets (their keys begin with ``prefix``), and what is missing before the teacher can be asked.

    Raises:
        SettingsError: a value is not of its form.
    """
    left, right = st.columns([3, 2])
    usual = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    base_url = left.text_input("Base URL", value=usual, key=f"{prefix}-url")
    model = right.text_input("Model", placeholder="name at the endpoint", key=f"{prefix}-model").strip()
    key_env = st.text_input(
        "Environment variable with the key",
        value="OPENAI_API_KEY",
        key=f"{prefix}-key-env",
        help="The name, never the key. Set it before the server starts. Leave empty for a local server without a key.",
    ).strip()
    limits = _limits(prefix, temperature=temperature, max_tokens=max_tokens)
    settings = TeacherSettings(base_url=base_url.strip(), model=model or "unnamed", api_key_env=key_env, **limits)
    missing = [] if model else ["Give the name of the teacher's model."]
    if key_env and not os.environ.get(key_env):
        missing.append(f"{key_env} is not set where this server runs. Set it and start the server again.")
    return settings, " ".join(missing) or None


def _limits(prefix: str, *, temperature: float, max_tokens: int) -> dict[str, Any]:
    left, middle, right = st.columns(3)
    chosen: dict[str, Any] = {
        "temperature": left.number_input("Temperature", 0.0, 2.0, temperature, step=0.1, key=f"{prefix}-temperature"),
        "price_in": middle.number_input(
            "USD / million prompt tokens", 0.0, value=None, placeholder="unknown", key=f"{prefix}-price-in"
        ),
        "price_out": right.number_input(
            "USD / million answer tokens", 0.0, value=None, placeholder="unknown", key=f"{prefix}-price-out"
        ),
    }
    with st.expander("Limits"):
        left, middle, right = st.columns(3)
        chosen["concurrency"] = int(left.number_input("Questions at once", 1, 256, 8, key=f"{prefix}-concurrency"))
        chosen["max_tokens"] = int(
            middle.number_input("Most tokens an answer", 64, 32768, max_tokens, step=256, key=f"{prefix}-max")
        )
        chosen["timeout_seconds"] = float(
            right.number_input("Timeout (seconds)", 1, 3600, 120, key=f"{prefix}-timeout")
        )
    return chosen
