"""Shared parts of all commands: exit statuses, signals, options, help, unprintable output."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from probing import console
from probing.commands import check_output_file, check_output_folder, run_command
from probing.errors import UserError
from probing.options import OptionsParser, VerbsParser
from probing.progress import progress

COMMANDS = (
    "extract",
    "store",
    "measure",
    "figures",
    "score",
    "reward",
    "audit",
    "reproduce",
    "testbed.adaptation",
    "testbed.causal",
    "testbed.policy.__main__",
    "testbed.rival",
    "testbed.report",
    "testbed.train",
)


def parsers_of(name):
    """The parsers of a command's options: its own, or those of its verbs."""
    parser = console.module_of(name).PARSER
    if isinstance(parser, VerbsParser):
        return [OptionsParser(f"probing.{name} {verb}", entry.options(), "") for verb, entry in parser.verbs.items()]
    return [parser]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_value_of_an_option_is_refused(name):
    for parser in parsers_of(name):
        for flag in parser.single_flags:
            with pytest.raises(UserError, match=f"{flag} is given more than once"):
                parser.parse([flag, "1", flag, "2"])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_and_no_default_of_python(name, capsys):
    for parser in parsers_of(name):
        with pytest.raises(SystemExit) as stop:
            parser.parse(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert stop.value.code == 0 and "(default: None)" not in text and "(default: ())" not in text
        assert all(flag.removeprefix("--") in text for flag in parser.single_flags)


@dataclass(frozen=True)
class Options:
    """Options of a test.

    Attributes:
        depths: Depths.
        share: Share.
        store: Stores.
        names: Names.
    """

    depths: tuple[float, ...] = (0.25, 1.0)
    share: str = "5%"
    seed: int | None = None
    store: tuple[Path, ...] = ()
    names: Mapping[str, float] = field(default_factory=dict)


PARSER = OptionsParser("probing.x", Options, "A test.")


def test_help_shows_defaults_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        PARSER.parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Depths. (default: 0.25,1)" in text and "Share. (default: 5%)" in text


def test_repeated_options_are_collected_and_parsers_can_be_used_again():
    options, debug = PARSER.parse(
        ["--store", "a", "--seed=3", "--names", "x=1", "--store=b", "--names", "y=2.5", "--debug"]
    )
    assert options == Options(seed=3, store=(Path("a"), Path("b")), names={"x": 1.0, "y": 2.5}) and debug
    assert PARSER.parse([]) == (Options(), False)


def test_the_command_of_options_has_those_options():
    options = Options(depths=(0.5,), share="a b", store=(Path("x y"), Path("z")), names={"n": 2.5})
    written = PARSER.command(options)
    assert written.startswith("python -m probing.x --depths 0.5 --share 'a b'")
    assert PARSER.parse(shlex.split(written)[3:])[0] == options
    assert PARSER.command(Options()) == "python -m probing.x"
    assert PARSER.command(options, leave_out=("store", "names", "share")) == "python -m probing.x --depths 0.5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depths", "0.1,x"], "--depths: expected a number, got 'x'"),
        (["--seed", "1.5"], "--seed: expected an integer, got '1.5'"),
        (["--depth", "1"], "did you mean --depths"),
        (["--names", "x"], "--names: expected NAME=VALUE, got 'x'"),
        (["--names", "x=1", "--names", "x=2"], "'x' is given twice"),
        (["--names", "a\udcff=1"], "is not UTF-8 text"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        PARSER.parse(arguments)
    assert "\n" not in str(error.value) and "│" not in str(error.value)


def run(main, capsys, **options):
    status = run_command(main, PARSER, [], **options)
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
    assert result == status and cleaned and output.err.startswith("Stopped; go on with: python -m probing.")


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
    from dataclasses import dataclass
    from probing.commands import run_command
    from probing.options import OptionsParser
    @dataclass
    class Options:
        "None."
    def main(arguments):
        for _ in range({times}):
            print("σ = 0.5, \\u65e5 \\udcff")
    raise SystemExit(run_command(main, OptionsParser("probing.x", Options, ""), []))
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


@pytest.mark.parametrize("name", ["extract", "reproduce", "console"])
def test_a_command_parses_before_it_imports_libraries(name):
    heavy = "torch diffusers transformers nnsight zarr pandas sklearn matplotlib scipy"
    code = f"import sys, probing.{name}; print(*(set({heavy.split()}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_dry_run_needs_no_library_of_models():
    code = (
        "import sys; from probing.extract import main; "
        "main(['--model', 'testbed-xs', '--device', 'cpu', '--dry-run']); "
        "print('LOADED', *({'torch', 'diffusers', 'transformers', 'nnsight'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.endswith("LOADED\n") and "forwards" in output


def test_the_console_command_has_every_command(capsys):
    assert console.main([]) == 0
    shown = capsys.readouterr().out
    for name in console.COMMANDS:
        assert f"  {name} " in shown and callable(console.module_of(name).main)
    assert set(console.COMMANDS) >= {name for name in COMMANDS if "." not in name}


def test_the_console_command_refuses_an_unknown_command(capsys):
    assert console.main(["extrct"]) == 2
    assert "did you mean extract?" in capsys.readouterr().err


def test_the_console_command_hands_its_options_on(capsys, tmp_path):
    assert console.main(["figures", "--results", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    ("raised", "event", "more"),
    [
        (None, "done", {"status": 0}),
        (UserError("give another"), "failed", {"message": "give another"}),
        (KeyboardInterrupt(), "stopped", {"go_on": "python -m probing.x --log json --seed 3"}),
    ],
)
def test_log_json_writes_what_happens_as_lines_of_json(capsys, raised, event, more):
    def main(options):
        assert options.seed == 3
        with progress(2, "w", "u") as bar:
            bar.update(2)
        if raised is not None:
            raise raised

    run_command(main, PARSER, ["--log", "json", "--seed", "3"], resumes=True)
    first, *_, last = json_lines(capsys.readouterr().err)
    assert (first["event"], first["done"], first["total"]) == ("progress", 2, 2) and "T" in first["time"]
    assert last["event"] == event and {name: last[name] for name in more} == more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log", "xml"], "--log is one of text, json, got 'xml'"),
        (["--log"], "--log needs a value"),
        (["--track=mlflow"], "--track is one of tensorboard, wandb, got 'mlflow'"),
        (["--track", "wandb"], "--track wandb needs a library; pip install 'dit-probing[track]'"),
    ],
)
def test_logs_and_trackers_that_there_are_not_get_a_sentence(capsys, options, message):
    assert run_command(lambda _: None, PARSER, options) == 2
    assert message in capsys.readouterr().err
