"""Rows of a dataset on the Hugging Face hub, read through ``datasets`` without running any code of the repository."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.formats.rows import Reading, Rows, Source, build_source

if TYPE_CHECKING:
    import datasets

_REPO_ID = re.compile(r"[\w][\w.\-]*/[\w][\w.\-]*")
_TIMEOUT_SECONDS = 10
_RETRIES = 2
_RETRY_SECONDS = 1


def _fail_fast() -> None:
    """``datasets`` repeats a broken download 20 times, 5 to 60 seconds apart; a person waits for this one."""
    from datasets import config

    config.STREAMING_READ_MAX_RETRIES = config.STREAMING_OPEN_MAX_RETRIES = _RETRIES
    config.STREAMING_READ_RETRY_INTERVAL = config.STREAMING_OPEN_RETRY_INTERVAL = _RETRY_SECONDS
    config.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = _RETRY_SECONDS
    config.STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL = _RETRY_SECONDS


def _resolve_revision(repo_id: str, revision: str | None) -> str:
    """Ask the hub once, with a time limit and without retries: the commit of ``revision``."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RevisionNotFoundError

    instead = "Check the connection and HF_ENDPOINT, or download the file elsewhere and upload it."
    try:
        info = HfApi().dataset_info(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS)
    except GatedRepoError as error:
        raise InputError(_gated(repo_id)) from error
    except RevisionNotFoundError as error:
        raise InputError(f"The dataset {repo_id} has no revision {revision!r}. Leave it empty.") from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            raise InputError(
                f"There is no dataset {repo_id} on the Hugging Face hub, or it is private. Check its name, "
                "or set HF_TOKEN in the server's environment if it is yours."
            ) from error
        raise InputError(f"The Hugging Face hub failed for {repo_id} ({_short(error)}). {instead}") from error
    except HTTPError as error:
        raise InputError(f"The Hugging Face hub cannot be reached ({_short(error)}). {instead}") from error
    except OSError as error:  # HF_HUB_OFFLINE is set
        raise InputError(f"The Hugging Face hub may not be used ({_short(error)}). {instead}") from error
    return info.sha or revision or "main"


def _gated(repo_id: str) -> str:
    return (
        f"The dataset {repo_id} is gated: accept its terms on its page at the hub, then set HF_TOKEN in the server's "
        "environment."
    )


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _open_stream(repo_id: str, config: str | None, split: str, sha: str) -> datasets.IterableDataset:
    import datasets
    from datasets.data_files import EmptyDatasetError
    from huggingface_hub.errors import GatedRepoError, HTTPError

    try:
        # The prefix keeps a folder of this name on the server from being read in the hub's place.
        opened = datasets.load_dataset(f"hf://datasets/{repo_id}", name=config, revision=sha, streaming=True)
    except GatedRepoError as error:
        raise InputError(_gated(repo_id)) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise InputError(_gated(repo_id) if "gated" in str(error) else f"{repo_id}: {_short(error)}.") from error
    except (datasets.exceptions.DataFilesNotFoundError, EmptyDatasetError) as error:
        raise InputError(
            f"The dataset {repo_id} holds no data files that can be read (JSON, CSV, Parquet, …)."
        ) from error
    except (ValueError, RuntimeError) as error:  # no such configuration; a repository that needs its own script
        raise InputError(f"The dataset {repo_id} cannot be opened: {_config_advice(error)}") from error
    except (HTTPError, OSError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"The dataset {repo_id} cannot be read from the hub: {_short(error)}. Try again.") from error
    if split not in opened:
        splits = ", ".join(map(str, opened))
        raise InputError(f"The dataset {repo_id} has no split {split!r}. Its splits are: {splits}.")
    return opened[split].decode(False)


def _config_advice(error: Exception) -> str:
    text = str(error)
    listed = re.search(r"\[(.*?)\]", text, re.DOTALL)
    if "Config name is missing" in text or "BuilderConfig" in text:
        names = listed.group(1).replace("'", "") if listed else "see its page at the hub"
        return f"choose one of its configurations: {names}."
    if "scripts are no longer supported" in text:
        return "it needs a script of its own, and no code of a repository is run here. Download its data files instead."
    return f"{_short(error)}."


def _rows(open_stream: Callable[[], Any], name: str, reading: Reading) -> Rows:
    import datasets
    import pyarrow as pa
    from huggingface_hub.errors import HTTPError

    number = 0
    reading.done = 0
    try:
        for number, row in enumerate(open_stream(), start=1):
            reading.done = number
            yield number, row
    except (HTTPError, OSError, ValueError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise InputError(
            f"{name}: reading from the hub stopped after row {number:,} ({_short(error)}). Try again."
        ) from error


def open_hub(repo_id: str, *, split: str = "train", config: str | None = None, revision: str | None = None) -> Source:
    """Open a split of a dataset on the hub; rows are streamed, nothing is kept on disk but the library's small cache.

    The revision is fixed to its commit, so a preview and the import after it read the same rows. No code of the
    repository is run.

    Raises:
        InputError: the hub cannot be reached (known after one attempt), the dataset is missing, private or gated, or
            there is no such split, configuration or revision.
    """
    repo_id = repo_id.strip()
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise InputError(
            f"{repo_id[:100]!r} is not a dataset's id. Give it as owner/name, as its page at the hub shows it."
        )
    sha = _resolve_revision(repo_id, revision or None)
    _fail_fast()
    stream = _open_stream(repo_id, config or None, split, sha)
    reading = Reading()
    name = f"{repo_id} ({split})"
    info = stream.info.splits.get(split) if stream.info.splits else None
    source = build_source(
        name,
        "Hugging Face dataset",
        lambda: _rows(lambda: iter(stream), name, reading),
        columns=stream.column_names,
        notes=[f"Read from the Hugging Face hub at revision {sha}."],
        reading=reading,
    )
    reading.total = info.num_examples or 0 if info is not None else 0
    return source
