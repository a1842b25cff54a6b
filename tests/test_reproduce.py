"""The whole of the testbed as a list of commands, each of which its own parser takes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from probing import reproduce

FURTHER = ("testbed-xs", "testbed-xs-seed1", "testbed-xs-step00010", "testbed-s", "testbed-s-seed1", "sd35-medium")


@pytest.fixture
def commands(monkeypatch, tmp_path):
    monkeypatch.setattr(reproduce, "model_names", lambda: FURTHER)
    return reproduce.steps("testbed-s", tmp_path, tmp_path / "figures", 10)


def parsed(step):
    return importlib.import_module(step.module).build_parser().parse_args(step.options)


def test_every_command_is_one_that_its_parser_takes_and_writes_where_it_was_told(commands, tmp_path):
    for step in commands:
        arguments = parsed(step)
        assert tmp_path in (arguments.output or arguments.results).parents, step


def test_what_is_read_was_written_by_a_command_before(commands, tmp_path):
    made = set()
    for step in commands:
        arguments = vars(parsed(step))
        stores = arguments.get("store") or []
        read = {str(path) for path in (stores if isinstance(stores, list) else [stores])}
        read |= {str(arguments[name]) for name in ("random_init_store",) if arguments.get(name)}
        assert read <= made, step
        made.add(str(arguments["output"]))
    # Six of the model, one of each other training, and a control of the other size that is there.
    assert len([step for step in commands if step.module == "probing.extract"]) == 6 + (len(FURTHER) - 2) + 1


def test_every_training_of_the_family_has_a_store_of_its_own_and_counts_in_scaling(commands, tmp_path):
    outputs = [str(parsed(step).output) for step in commands if step.module == "probing.extract"]
    assert len(set(outputs)) == len(outputs)
    (scaling,) = [step for step in commands if step.options[0] == "scaling"]
    given = {Path(path).stem for path in parsed(scaling).store}
    controls = {"testbed-s-random-init", "testbed-xs-random-init"}
    assert given == {name for name in FURTHER if name.startswith("testbed-")} | controls


def test_a_dry_run_says_the_commands_and_runs_none(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(reproduce, "importlib", SimpleNamespace(import_module=pytest.fail))
    assert reproduce.main(["--dry-run", "--cache", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("$ python -m probing.") == len(reproduce.steps("testbed-s", tmp_path, tmp_path, None))
    assert "--pair-noise shared" in said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [1, 2, 130])
def test_a_command_that_fails_ends_the_whole_with_its_status(monkeypatch, capsys, status):
    class Failing:
        calls = 0

        @classmethod
        def main(cls, options):
            cls.calls += 1
            return status if cls.calls == 3 else 0

    monkeypatch.setattr(reproduce, "importlib", SimpleNamespace(import_module=lambda name: Failing))
    assert reproduce.main([]) == status
    assert Failing.calls == 3 and f"ended with status {status}" in capsys.readouterr().err
