"""Put a page on disk, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from probing.errors import UserError


def write_page(page: str, path: Path) -> None:
    """Write beside ``path`` and move into its place, so that a page that stood there stays until the new one is whole.

    Raises:
        UserError: The path is a folder, or its folder cannot be made.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give --output a file, such as {path / 'report.html'}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {path.parent} cannot be made ({error.strerror}); give another --output."
        ) from error
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is its owner's alone; a page is to be read by whoever may read other new files here.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
