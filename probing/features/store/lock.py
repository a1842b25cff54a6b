"""Lock the folder in which a store is created, and remove what a killed creation leaves behind."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator

from probing.errors import UserError
from probing.paths import AnyPath


def unfinished_prefix(path: AnyPath) -> str:
    """Return the beginning of the name of the folder in which this process creates a store."""
    return f"{path.name}.{os.getpid()}."


def remove_unfinished(path: AnyPath) -> None:
    """Remove the folders of killed creations of this store.

    The folder of a running creation belongs to a living process, and is locked, also against other machines.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        owner = left.name.removeprefix(f"{path.name}.").split(".")[0]
        if owner.isdigit() and _is_alive(int(owner)):
            continue
        with contextlib.suppress(UserError, OSError), locked(left):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def locked(folder: AnyPath) -> Iterator[None]:
    """Lock a folder against other processes; the system releases the lock of a killed process.

    Raises:
        UserError: Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is writing {folder}; wait until it ends, or give another --output."
            ) from None
        yield
    finally:
        os.close(descriptor)
