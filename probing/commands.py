"""What all commands share: parser, exit statuses, signals, errors of one sentence, options of the same meaning."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from probing.errors import UserError
from probing.files import sentences_for_disk_errors

OK, FAILED, BAD_USAGE = 0, 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised like ctrl-C so that temporary files are removed on the way out."""


class Parser(Protocol):
    """The parser of a command."""

    prog: str

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, bool]:
        """Return the options, and whether ``--debug`` was given."""
        ...


def run_command(
    main: Callable[[Any], int | None], parser: Parser, argv: Sequence[str] | None, *, resumes: bool = False
) -> int:
    """Parse ``argv``, run ``main`` and turn what goes wrong into one sentence on stderr.

    Args:
        main: Does the work; may return an exit status.
        parser: Of the command's options.
        argv: The arguments; those of the process if None.
        resumes: Whether the same command, given again, goes on where it was stopped.

    Returns:
        0 if all went well (or what ``main`` returned), 2 for a mistake in what was asked (:class:`UserError`),
        1 for any other failure, 130 after ctrl-C, 143 after SIGTERM. ``--debug`` shows the traceback.
    """
    _print_anything()
    debug = False
    try:
        with _signals_as_exceptions():
            arguments, debug = parser.parse(argv)
            status = main(arguments) or OK
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as stop:
        print("Stopped" + ("; the same command goes on from here." if resumes else "."), file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return FAILED
    except SystemExit:
        # Of the parser, such as after --help into a pipe that is closed.
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        known = _known(error)
        print(f"{parser.prog}: {_sentence(known)}", file=sys.stderr)
        return BAD_USAGE if isinstance(known, UserError) else FAILED


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Raise :class:`Terminated` at SIGTERM and KeyboardInterrupt at SIGINT; put the old handlers back at the end."""

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {signal.SIGTERM: stop, signal.SIGINT: signal.default_int_handler}
    # A signal that the parent chose to ignore stays ignored.
    wanted = {number: handler for number, handler in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _print_anything() -> None:
    """Escape what the terminal cannot encode: a finished run must not fail at its last line."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Point stdout at nothing: its reader is gone, and Python would report that once more at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _known(error: Exception) -> Exception:
    """Turn a full or read-only disk, met anywhere, into a :class:`UserError`."""
    if not isinstance(error, OSError):
        return error
    try:
        with sentences_for_disk_errors(Path(str(error.filename or "the output"))):
            raise error
    except (UserError, OSError) as known:
        return known


def _sentence(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {message} (add --debug to see where)"


def check_output_folder(path: Path, option: str = "--output") -> None:
    """Refuse, before any work, a folder for output that is a file or cannot be written. Nothing is left behind.

    Raises:
        UserError: With the reason.
    """
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists() or one.is_symlink())
    if not there.is_dir():
        what = f"{path} is a file" if there == path.absolute() else f"{there} on the way to {path} is a file"
        raise UserError(f"{option} is a folder, and {what}; give another path.")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror}); give another path.") from error


def check_output_file(path: Path, option: str = "--output") -> None:
    """Refuse, before any work, a file for output that cannot be written.

    Raises:
        UserError: It is a folder or a device, or its folder cannot be written.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{option} is a file, and {path} is {what}; give another path.")
    check_output_folder(path.parent, option)
