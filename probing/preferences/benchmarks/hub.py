"""Fetch benchmarks from the Hugging Face hub, and unpack their archives of pictures."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from probing.errors import UserError
from probing.preferences.archives.unpacking import unpack


def fetch(name: str, dataset: str, patterns: Iterable[str], *, mirrors: Sequence[str] = (), gone: str = "") -> Path:
    """Download the files of a data set, and unpack its archives; what is already downloaded is reused.

    Args:
        name: The benchmark's name, for messages.
        dataset: Its id on the hub.
        patterns: Patterns of the files' names.
        mirrors: Other data sets with the same content, for messages.
        gone: Data sets that held it before, for messages.

    Returns:
        A folder to read the benchmark from.

    Raises:
        UserError: No network, no access, a full disk, or a damaged archive.
    """
    try:
        root = Path(huggingface_hub.snapshot_download(dataset, repo_type="dataset", allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk is full while {name} is fetched; free some space, or set HF_HOME to a folder on another "
                f"disk, and give the same command again."
            ) from error
        if isinstance(error, RepositoryNotFoundError):
            # The hub answers alike for a data set that is gone, that was moved, and that is private.
            others = f"; known mirrors: {', '.join(mirrors)}" if mirrors else ""
            before = f"; gone before it: {gone}" if gone else ""
            raise UserError(
                f"The hub has no data set {dataset} for {name}, or none that you may see{others}{before}; give "
                f"--data-root, a folder with its files."
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name} could not be fetched from the hub's {dataset} ({reason}); connect to the network, accept its "
            f"terms and log in with `hf auth login`, or give --data-root, a folder with its files."
        ) from error
    unpack(root)
    return root
