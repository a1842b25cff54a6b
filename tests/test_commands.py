"""Shared parts of all commands: exit statuses, signals, options, help, unprintable output."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from probing.commands import CommandParser, check_output_file, check_output_folder, named_values, run_command
from probing.errors import UserError

COMMANDS = (
    "extract",
    "store",
    "fit",
    "analyse",
    "tokens",
    "similarity",
    "figures",
    "score",
    "audit",
    "reproduce",
    "testbed.rival",
    "testbed.report",
    "testbed.train",
)


def parsers_of(name):
    parser = importlib.import_module(f"probing.{name}").build_parser()
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += action.choices.values()
    return parsers


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_one_value_refuses_a_second(name):
    for parser in parsers_of(name):
        for action in parser._actions:
            taken_once = (
                action.option_strings and action.nargs is None and not isinstance(action, argparse._AppendAction)
            )
            if not taken_once or isinstance(action, argparse._HelpAction | argparse._VersionAction):
                continue
            value = str(next(iter(action.choices))) if action.choices else "1"
            options = [action.option_strings[0], value] * 2
            parser.exit_on_error = False
            with pytest.raises(argparse.ArgumentError, match="given more than once"):
                argparse.ArgumentParser.parse_known_args(_fresh(parser), options)


def _fresh(parser):
    parser.given.clear()
    for action in parser._actions:
        action.required = False
    return parser


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_no_empty_default(name):
    for parser in parsers_of(name):
        text = " ".join(parser.format_help().split())
        assert "(default: None)" not in text and "(default: [])" not in text and "(default: False)" not in text


def test_help_shows_defaults_in_command_line_syntax():
    parser = CommandParser("probing.x")
    parser.add_argument("--depths", default=[0.25, 1.0], help="depths")
    parser.add_argument("--share", default="5%", help="share")
    text = parser.format_help()
    assert "depths (default: 0.25,1.0)" in text and "share (default: 5%)" in text


def test_an_option_can_be_given_again_in_the_next_run():
    parser = CommandParser("probing.x")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", action="append")
    assert [parser.parse_args(["--seed", "3", "--store", "a", "--store", "b"]).seed for _ in range(2)] == [3, 3]
    assert parser.parse_args([]).seed == 0


def run(main, capsys, **options):
    status = run_command(main, CommandParser("probing.x"), [], **options)
    return status, capsys.readouterr()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_the_exit_status_and_cleans_up(capsys, number, status):
    cleaned = []

    def main(arguments):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(True)

    # A background job inherits ctrl-C as ignored.
    inherited = signal.signal(number, signal.default_int_handler)
    try:
        result, output = run(main, capsys, resumes=True)
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, inherited)
    assert result == status and cleaned and output.err == "Stopped; the same command goes on from here.\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "The disk of /data/x is full"),
        (errno.EROFS, "/data/x cannot be written"),
        (errno.EACCES, "/data/x cannot be written"),
    ],
)
def test_a_full_or_forbidden_disk_is_reported_in_one_line(capsys, code, message):
    def main(arguments):
        raise OSError(code, os.strerror(code), "/data/x")

    status, output = run(main, capsys)
    assert status == 2 and message in output.err and output.err.count("\n") == 1


def test_an_error_is_one_line_of_printable_characters(capsys):
    def main(arguments):
        raise UserError("The facet a\nb\x1b[31m is none.")

    status, output = run(main, capsys)
    assert status == 2 and output.err == "python -m probing.x: The facet a b\\x1b[31m is none.\n"


def take_signals():
    """In a child: a background job inherits ctrl-C as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def python(code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        preexec_fn=take_signals,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


PRINTS = """
    from probing.commands import CommandParser, run_command
    def main(arguments):
        for _ in range({times}):
            print("σ = 0.5, \\u65e5 \\udcff")
    raise SystemExit(run_command(main, CommandParser("probing.x"), []))
"""


def test_unprintable_output_is_escaped():
    process = python(PRINTS.format(times=1), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "\\u03c3 = 0.5, \\u65e5 \\udcff\n", "")


def test_a_closed_pipe_prints_no_traceback():
    process = python(PRINTS.format(times=100_000))
    process.stdout.read(5)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_imports_leaves_no_traceback(tmp_path, number, status):
    (tmp_path / "matplotlib.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(30)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    process = subprocess.Popen(
        [sys.executable, "-m", "probing.figures"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_signals,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (status, "Stopped while starting; nothing was done.\n")


def test_importing_the_package_leaves_signals_alone():
    code = "import signal; a = signal.getsignal(2); import probing.commands; assert signal.getsignal(2) is a"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/x", "/proc/none/x"])
def test_folders_that_cannot_be_made_are_refused(path):
    with pytest.raises(UserError, match="give another path"):
        check_output_folder(Path(path))
    with pytest.raises(UserError, match="give another path"):
        check_output_file(Path(path))


def test_checking_an_output_leaves_nothing_behind(tmp_path):
    check_output_folder(tmp_path / "a" / "b")
    check_output_file(tmp_path / "a" / "b.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="is a folder"):
        check_output_file(tmp_path)


def test_a_name_that_is_not_utf8_is_refused():
    with pytest.raises(UserError, match="is not UTF-8 text"):
        named_values("--reference", ["a\udcff=file.csv"], "x=y")
    assert named_values("--reference", ["cost $5 {}=file.csv"], "x=y") == {"cost $5 {}": "file.csv"}
