"""Shared parts of all commands: parser, exit statuses, signals, errors in one sentence, common options."""

from __future__ import annotations

import os
import shlex
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
from probing.progress import send, without_events

OK, FAILED, BAD_USAGE = 0, 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, so that temporary files are removed as after ctrl-C."""


class Parser(Protocol):
    """The parser of a command."""

    prog: str

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, bool]:
        """Return the options, and whether ``--debug`` was given."""
        ...


def run_command(
    main: Callable[[Any], int | None], parser: Parser, argv: Sequence[str] | None, *, resumes: bool = False
) -> int:
    """Parse ``argv``, run ``main``, and report an error as one sentence on stderr.

    Args:
        main: Function of the command; may return an exit status.
        parser: Parser of the command's options.
        argv: Arguments; those of the process if None.
        resumes: Whether the same command continues after an interruption.

    Returns:
        0 on success (or the result of ``main``), 2 for an invalid request (:class:`UserError`), 1 for any other
        failure, 130 after ctrl-C, 143 after SIGTERM. ``--debug`` shows the traceback.
    """
    _escape_unprintable_output()
    with without_events():
        return _run_reporting(main, parser, argv, resumes)


def _run_reporting(main: Callable[[Any], int | None], parser: Parser, argv: Sequence[str] | None, resumes: bool) -> int:
    debug = False
    try:
        with _signals_as_exceptions():
            arguments, debug = parser.parse(argv)
            status = main(arguments) or OK
            send("done", status=status)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as stop:
        going_on = f"{parser.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}" if resumes else None
        send("stopped", go_on=going_on)
        print("Stopped" + (f"; go on with: {going_on}" if resumes else "."), file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return FAILED
    except SystemExit:
        # The parser exits after --help, whose reader may have closed the pipe.
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        error = _translate_disk_error(error)
        send("failed", message=_format_error(error))
        print(f"{parser.prog}: {_format_error(error)}", file=sys.stderr)
        return BAD_USAGE if isinstance(error, UserError) else FAILED


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Raise :class:`Terminated` at SIGTERM and KeyboardInterrupt at SIGINT; restore the old handlers at the end."""

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {signal.SIGTERM: stop, signal.SIGINT: signal.default_int_handler}
    # A signal that the parent process ignores stays ignored.
    replaced = {number: handler for number, handler in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in replaced.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _escape_unprintable_output() -> None:
    """Escape characters that the terminal cannot encode, so that printing never fails."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Redirect stdout to the null device: its reader has closed it, and Python would report that again at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _translate_disk_error(error: Exception) -> Exception:
    """Turn the error of a full or read-only disk into a :class:`UserError`; return any other error as it is."""
    if not isinstance(error, OSError):
        return error
    try:
        with sentences_for_disk_errors(Path(str(error.filename or "the output"))):
            raise error
    except (UserError, OSError) as translated:
        return translated


def _format_error(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {message} (add --debug to see where)"


def check_output_folder(path: Path, option: str = "--output") -> None:
    """Check before the work that a folder for output can be written. Nothing is created.

    Raises:
        UserError: The path is a file, is below a file, or cannot be written.
    """
    candidates = (path.absolute(), *path.absolute().parents)
    existing = next(folder for folder in candidates if folder.exists() or folder.is_symlink())
    if not existing.is_dir():
        problem = f"{path} is a file" if existing == path.absolute() else f"{existing} on the way to {path} is a file"
        raise UserError(f"{option} is a folder, and {problem}; give another path.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror}); give another path.") from error


def check_output_file(path: Path, option: str = "--output") -> None:
    """Check before the work that a file for output can be written.

    Raises:
        UserError: The path is a folder or a device, or its folder cannot be written.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise UserError(f"{option} is a file, and {path} is {kind}; give another path.")
    check_output_folder(path.parent, option)
