"""What all commands share: exit statuses, errors of one sentence, options that mean the same everywhere."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from probing.errors import UserError

OK, FAILED, BAD_USAGE = 0, 1, 2


def run_command(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    resumes: bool = False,
) -> int:
    """Parse ``argv``, run ``main`` and turn what goes wrong into one sentence on stderr.

    Args:
        main: Does the work; may return an exit status.
        parser: Of the command's options.
        argv: The arguments; those of the process if None.
        resumes: Whether the same command, given again, goes on where it was stopped.

    Returns:
        0 if all went well (or what ``main`` returned), 2 for a mistake in what was asked (:class:`UserError`),
        1 for any other failure, 130 after ctrl-C. ``--debug`` shows the traceback.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    try:
        return main(arguments) or OK
    except KeyboardInterrupt:
        print("Stopped" + ("; the same command goes on from here." if resumes else "."), file=sys.stderr)
        return 130
    except BrokenPipeError:
        with suppress(OSError):
            sys.stdout.close()
        return FAILED
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"{parser.prog}: {_sentence(error)}", file=sys.stderr)
        return BAD_USAGE if isinstance(error, UserError) else FAILED


def _sentence(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    said = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {said} (add --debug to see where)"


def add_transformer_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--transformer",
        type=Path,
        help="folder of a transformer, such as a fine-tuned one, in the place of the model's",
    )


def numbers(text: str) -> list[float]:
    """Read ``0.005,0.25`` as an argparse type."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants numbers with commas between them, got {text!r}") from None


def words(text: str) -> list[str]:
    """Read ``image,text`` as an argparse type."""
    return [part.strip() for part in text.split(",") if part.strip()]


def named_values(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    """Read an option that is given several times as ``NAME=VALUE``.

    Raises:
        UserError: One is not written so, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not (name and value):
            raise UserError(f"{option} wants NAME=VALUE, such as {example}; got {text!r}.")
        if name in found:
            raise UserError(f"{option} is given twice for {name!r}; give each its own name.")
        found[name] = value
    return found


def blocks(text: str) -> list[int] | None:
    """Read ``all`` (None) or ``0,5,9`` as an argparse type."""
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants 'all' or block numbers like 0,5,9, got {text!r}") from None
