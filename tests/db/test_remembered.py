"""The models used last are kept in the workspace; whatever stands in the file, the page gets settings that work."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from core.errors import StoreError
from core.lm import StudentSettings
from db.remembered import FILE_NAME, remember, remembered

USUAL = StudentSettings(model="usual")


def test_what_was_remembered_comes_back_and_other_roles_stay(tmp_path: Path) -> None:
    chosen = StudentSettings(model="org/other", revision="main", template="vicuna", max_length=512, device="cuda")
    remember(tmp_path, {"student": chosen})
    remember(tmp_path, {"reward": StudentSettings(model="reward")})
    assert remembered(tmp_path, "student", USUAL) == chosen
    assert remembered(tmp_path, "reward", USUAL).model == "reward"
    assert remembered(tmp_path, "embedder", USUAL) == USUAL
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ["", "[", "[]", '{"student": 3}', '{"student": {"model": 7, "max_length": true}}'])
def test_a_damaged_file_gives_the_usual_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert remembered(tmp_path, "student", USUAL) == USUAL


def test_fields_of_another_version_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"student": {"model": "m", "quantised": "4bit", "max_length": "long"}}')
    assert remembered(tmp_path, "student", USUAL) == StudentSettings(model="m")


def test_a_secret_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="secret") as caught:
        remember(tmp_path, {"student": StudentSettings(model="https://ada:hunter2hunter2@hub.example/m")})
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """Sessions remember at the same time: a plain write was read half-written by another session."""
    stop = threading.Event()
    broken: list[str] = []

    def look() -> None:
        while not stop.is_set():
            path = tmp_path / FILE_NAME
            if path.exists():
                try:
                    json.loads(path.read_text())
                except ValueError as error:
                    broken.append(str(error))

    reader = threading.Thread(target=look)
    reader.start()

    def write(n: int) -> None:
        for i in range(10):
            remember(tmp_path, {f"role{n}": StudentSettings(model=str(i))})

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    stop.set()
    reader.join()
    assert not broken
    assert {remembered(tmp_path, f"role{n}", USUAL).model for n in range(3)} == {"9"}
