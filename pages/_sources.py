"""Three ways to choose what to load: an upload, a file on the server, a dataset on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from core.errors import AssayError
from core.formats import Source, open_hub, open_source, resolve_server_path, safe_name
from db import imports
from db.service import Service
from pages import _pick, _rows, _ui

WAYS = {
    "upload": ":material/upload: Upload a file",
    "server": ":material/dns: File on the server",
    "hub": ":material/hub: Hugging Face hub",
}
CHOSEN, UPLOADER, CHANGED, SERVER_PATH = (f"load_{name}" for name in ("chosen", "uploader", "changed", "server_path"))


@dataclass(frozen=True)
class Chosen:
    """What the user has chosen to load: a source, or why there is none. ``token`` tells one choice from the next."""

    way: str
    token: str
    origin: str
    name: str
    size: int | None = None
    source: Source | None = None
    error: str | None = None
    upload: Path | None = None


def _put_away() -> None:
    """Forget the choice; an upload is removed from the disk."""
    chosen: Chosen | None = st.session_state.pop(CHOSEN, None)
    if chosen is not None and chosen.upload is not None:
        imports.discard_upload(chosen.upload)


def clear(source: Source | None = None) -> None:
    """Forget the choice and empty the widgets that made it; with ``source`` only if it is the choice still."""
    chosen: Chosen | None = st.session_state.get(CHOSEN)
    if source is not None and (chosen is None or chosen.source is not source):
        return
    _put_away()
    st.session_state[UPLOADER] = st.session_state.get(UPLOADER, 0) + 1
    st.session_state.pop(SERVER_PATH, None)


def _take(way: str, opener: Callable[[], Chosen], *, wanted: str) -> None:
    """Replace the choice by what ``opener`` opens, or by why it could not be opened."""
    _put_away()
    try:
        chosen = opener()
    except AssayError as error:
        chosen = Chosen(way, wanted, wanted, "", error=str(error))
    st.session_state[CHOSEN] = chosen


def _stem(file_name: str) -> str:
    """A file's name without its endings: the default name of the dataset."""
    return re.sub(r"(\.(json|jsonl|ndjson|csv|tsv|tab|txt|parquet|pq|gz))+$", "", file_name, flags=re.IGNORECASE)


def size(n_bytes: int) -> str:
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= divisor:
            return f"{n_bytes / divisor:.1f} {unit}"
    return f"{n_bytes} bytes"


def choose(service: Service) -> Chosen | None:
    """The widgets of the way that the user takes; what was chosen on it, if anything was."""
    way = _pick.switch("Where the rows are", WAYS, parameter="way")
    {"upload": _choose_upload, "server": _choose_server, "hub": _choose_hub}[way](service)
    chosen: Chosen | None = st.session_state.get(CHOSEN)
    return chosen if chosen is not None and chosen.way == way else None


def _mark_changed() -> None:
    st.session_state[CHANGED] = True


def _choose_upload(service: Service) -> None:
    number = st.session_state.setdefault(UPLOADER, 0)
    uploaded = st.file_uploader(
        "JSON, JSON Lines, CSV, TSV or Parquet, plain or gzipped",
        key=f"load-upload-{number}",
        on_change=_mark_changed,
        help="Its content decides what a file is, not its name. The upload leaves the server after the import.",
    )
    if not st.session_state.pop(CHANGED, False):
        return
    if uploaded is None:
        _put_away()
        return

    def opened() -> Chosen:
        path = imports.keep_upload(service.settings.home / "uploads", uploaded.name, uploaded)
        try:
            source = open_source(path, name=safe_name(uploaded.name))
        except AssayError:
            imports.discard_upload(path)
            raise
        return Chosen(
            "upload", path.parent.name, f"upload: {source.name}", _stem(source.name), uploaded.size, source, None, path
        )

    with st.spinner("Reading the first rows …"):
        _take("upload", opened, wanted=safe_name(uploaded.name))


def _wish_server_path(text: str) -> None:
    st.session_state[SERVER_PATH] = text


def _choose_server(service: Service) -> None:
    roots = service.settings.data_roots
    where = ", ".join(str(root) for root in roots)
    st.caption(f"Files may be loaded from: {_ui.plain(where)} \\(set with ASSAY\\_DATA\\_ROOTS)")
    files = imports.server_files(roots)
    if files:
        _file_table(files)
    else:
        st.info("There is no file in these folders. Put one there, or upload it.", icon=":material/folder_off:")
    st.text_input(
        "Or give its path",
        key="load-path",
        placeholder=f"{roots[0]}/rows.jsonl" if roots else "",
        on_change=lambda: _wish_server_path(st.session_state["load-path"]),
        max_chars=4096,
    )
    wanted = st.session_state.pop(SERVER_PATH, None)
    if wanted and wanted.strip():

        def opened() -> Chosen:
            path = resolve_server_path(wanted, roots)
            source = open_source(path)
            status = path.stat()
            token = f"{path}-{status.st_mtime_ns}-{status.st_size}"
            return Chosen("server", token, str(path), _stem(path.name), status.st_size, source)

        with st.spinner("Reading the first rows …"):
            _take("server", opened, wanted=wanted)


def _choose_file(paths: Sequence[str], widget: str) -> None:
    selection = st.session_state[widget]["selection"]
    found = [*selection["rows"], *(cell[0] for cell in selection["cells"])]
    if found and found[0] < len(paths):
        _wish_server_path(paths[found[0]])


def _file_table(files: Sequence[Path]) -> None:
    rows, paths = [], []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue  # it went away, or may not be looked at
        changed = datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None)
        paths.append(str(path))
        rows.append({"file": path.name, "folder": str(path.parent), "size": size(status.st_size), "changed": changed})
    widget = f"load-files-{_rows.identity(tuple(paths))}"
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content" if len(rows) <= 6 else 250,
        key=widget,
        on_select=lambda: _choose_file(paths, widget),
        selection_mode=["single-row", "single-cell"],
        column_config={"changed": st.column_config.DatetimeColumn("changed (UTC)", format="YYYY-MM-DD HH:mm")},
    )


def _choose_hub(_service: Service) -> None:
    with st.form("load-hub", border=False):
        sides = st.columns([4, 2, 2, 2, 1.4], vertical_alignment="bottom")
        repo = sides[0].text_input("Dataset", placeholder="owner/name", max_chars=200, key="load-hub-id")
        split = sides[1].text_input("Split", value="train", max_chars=100, key="load-hub-split")
        config = sides[2].text_input("Configuration", placeholder="the only one", max_chars=200, key="load-hub-config")
        revision = sides[3].text_input("Revision", placeholder="newest", max_chars=200, key="load-hub-revision")
        pressed = sides[4].form_submit_button("Look it up", icon=":material/search:", key="load-hub-press")
    st.caption("Rows are streamed from the hub; no code of the repository is run. A token is read from HF\\_TOKEN.")
    if not pressed:
        return

    def opened() -> Chosen:
        source = open_hub(
            repo, split=split.strip() or "train", config=config.strip() or None, revision=revision.strip()
        )
        details = ", ".join(filter(None, (config.strip(), split.strip(), revision.strip())))
        token = f"{repo}-{details}-{datetime.now(UTC).timestamp()}"
        return Chosen("hub", token, f"hub: {repo.strip()} ({details})", repo.strip().split("/")[-1], None, source)

    with st.spinner("Asking the hub …"):
        _take("hub", opened, wanted=repo.strip() or "the hub")
