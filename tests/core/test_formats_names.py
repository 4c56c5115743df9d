"""Names and paths that users give stay inside the folders they may touch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.formats import resolve_server_path, safe_name


@pytest.mark.parametrize(
    ("given_name", "safe"),
    [
        ("rows.json", "rows.json"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\rows.csv", "rows.csv"),
        ("/abs/rows.jsonl.gz", "rows.jsonl.gz"),
        ("a\0b\n\x1b[31m.json", "ab[31m.json"),
        ("\u202egnp.json", "gnp.json"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("dir/", "unnamed"),
        (".hidden", "hidden"),
        ("ein schöner  Name.json", "ein schöner Name.json"),
        ("a:b*c?.csv", "abc.csv"),
    ],
)
def test_a_name_is_made_harmless(given_name: str, safe: str) -> None:
    assert safe_name(given_name) == safe


def test_a_long_name_keeps_its_extension() -> None:
    name = safe_name("ü" * 500 + ".jsonl")
    assert name.endswith("ü.jsonl")
    assert len(name.encode()) <= 120
    assert len(safe_name("x." + "y" * 400).encode()) <= 120


@given(st.text())
def test_any_name_can_be_written_inside_a_folder(text: str) -> None:
    name = safe_name(text)
    folder = Path("/data/uploads")
    assert name not in ("", ".", "..")
    assert (folder / name).parent == folder
    assert name.isprintable()
    assert len(name.encode()) <= 120
    assert safe_name(name) == name


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    for folder in ("one", "two/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "one/rows.json").write_text("[]")
    (tmp_path / "two/deep/rows.csv").write_text("a,b\n")
    (tmp_path / "secret.json").write_text("[]")
    (tmp_path / "one-too").mkdir()
    (tmp_path / "one-too/rows.json").write_text("[]")
    (tmp_path / "one/link.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "one/inside.json").symlink_to(tmp_path / "two/deep/rows.csv")
    (tmp_path / "one/circle").symlink_to(tmp_path / "one/circle")
    return [tmp_path / "one", tmp_path / "two"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}/one/rows.json", "one/rows.json"),
        (" {}/one/rows.json ", "one/rows.json"),
        ("{}/one/../two/deep/rows.csv", "two/deep/rows.csv"),
        ("rows.json", "one/rows.json"),
        ("deep/rows.csv", "two/deep/rows.csv"),
        ("inside.json", "two/deep/rows.csv"),
    ],
)
def test_a_file_under_a_root_is_found(tmp_path: Path, roots: list[Path], text: str, found: str) -> None:
    assert resolve_server_path(text.format(tmp_path), roots) == (tmp_path / found).resolve()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}/secret.json", "not in a folder from which"),
        ("{}/none.json", "not in a folder from which"),
        ("{}/one-too/rows.json", "not in a folder from which"),
        ("{}/one/../secret.json", "not in a folder from which"),
        ("../secret.json", "not in a folder from which"),
        ("{}/one/link.json", "not in a folder from which"),
        ("link.json", "does not exist"),
        ("/etc/passwd", "not in a folder from which"),
        ("~/rows.json", "does not exist"),
        ("none.json", "does not exist"),
        ("deep", "is not a file"),
        ("circle", "cannot|can be opened|does not exist"),
        ("x" * 5000, "not a path that can be opened"),
        ("", "Give the path"),
        ("  ", "Give the path"),
        ("a\0b", "NUL"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, roots: list[Path], text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve_server_path(text.format(tmp_path), roots)


def test_without_roots_nothing_is_found(roots: list[Path]) -> None:
    for text in (str(roots[0] / "rows.json"), "rows.json"):
        with pytest.raises(InputError, match="Allowed: none"):
            resolve_server_path(text, [])
