"""Put a page on disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from probing.errors import UserError
from probing.files import write_text


def write_page(page: str, path: Path) -> None:
    """Write a page, so that one that stood there stays until the new one is whole.

    Raises:
        UserError: The path is a folder, or its folder cannot be made.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give --output a file, such as {path / 'report.html'}.")
    write_text(path, page)
