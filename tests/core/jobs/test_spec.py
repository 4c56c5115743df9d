from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import JobError
from core.jobs.runner import HANDLERS
from core.jobs.secrets import redact, redacted
from core.jobs.spec import KINDS, JobSpec
from tests.core.jobs.conftest import make_spec


def test_a_spec_comes_back_as_it_was_written() -> None:
    spec = make_spec(
        priority=3, created_by="Ada", retry_of="job-0", params={"student": {"model": "sshleifer/tiny-gpt2"}}
    )
    assert JobSpec.from_json(spec.to_json()) == spec


def test_every_kind_has_its_handler() -> None:
    assert set(KINDS) == set(HANDLERS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ('{"job_id": "a"', "not JSON"),
        ("[1]", "one JSON object"),
        ('{"job_id": "a"}', "has no kind"),
        (make_spec().to_json().replace('"title"', '"titel": 1, "title"'), "does not know: titel"),
        (make_spec().to_json().replace('"score"', '"conquer"'), "one of score, reflect"),
        (make_spec().to_json().replace('"n_rows": 10', '"n_rows": "10"'), "whole number of 0 or more"),
        (make_spec().to_json().replace('"shard_rows": 3', '"shard_rows": 0'), "whole number of 1 or more"),
        (make_spec().to_json().replace('"job-1"', '"../job-1"'), "letters, digits"),
        (make_spec().to_json().replace("2026-11-20T12:00:00", "yesterday"), "ISO 8601"),
    ],
)
def test_a_damaged_spec_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(JobError, match=says):
        JobSpec.from_json(text)


@pytest.mark.parametrize(
    "params",
    [
        {"api_key": "x"},
        {"apiKey": "x"},
        {"teacher": {"openai_api_key": None}},
        {"headers": [{"Authorization": "x"}]},
        {"hf_token": "x"},
        {"token": "x"},
        {"db": {"password": 1234}},
        {"aws_secret_access_key": "x"},
        {"api_key_env": "sk-abcdefghijklmnopqrstuvwx"},
        {"note": "use sk-proj-4fJ2abcDEF_123 here"},
        {"models": ["hf_abcdefghijklmnopqrstuvwxyz"]},
        {"base_url": "https://ada:lovelace@example.org/v1"},
        {"extra": "Bearer abcdefgh.ijkl"},
        {"key": "AKIAIOSFODNN7EXAMPLE"},
    ],
)
def test_a_secret_is_refused_and_not_repeated(params: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="looks like a secret") as caught:
        make_spec(params=params).to_json()
    assert "4fJ2" not in str(caught.value)
    assert "lovelace" not in str(caught.value)


def test_names_that_only_sound_like_secrets_pass() -> None:
    params = {
        "batch_tokens": 8192,
        "max_tokens": 512,
        "n_tokens_y": 3,
        "pad_token": "<pad>",
        "usd_per_token": 1e-6,
        "api_key_env": "OPENAI_API_KEY",
        "needs_api_key": True,
        "indicators": ["ifd", "r_ifd"],
        "model": "sk-learn-classifier",
        "task": "risk-assessment-of-2024-loans",
        "base_url": "http://localhost:8000/v1",
    }
    assert json.loads(make_spec(params=params).to_json())["params"] == params


def test_the_value_of_a_secret_variable_is_refused_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VLLM_API_KEY", "correct horse battery")
    with pytest.raises(JobError, match="looks like a secret"):
        make_spec(title="with correct horse battery staple").to_json()


def test_redaction_replaces_values_and_leaves_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefghij", "C_PASSWORD": "1", "PLAIN": "visible value"}
    assert redact("abcdefghij abcdefgh 1 visible value", environ=environ) == (
        "[redacted B_TOKEN] [redacted A_TOKEN] 1 visible value"
    )
    monkeypatch.setenv("A_TOKEN", 'with "quotes"')
    assert redacted({"e": ['say with "quotes"!', 3]}) == {"e": ["say [redacted A_TOKEN]!", 3]}
