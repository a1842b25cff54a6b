"""Reproduce is a list of commands, each of which its own parser reads."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import probing
from probing import reproduce
from probing.experiments import EXPERIMENTS
from probing.measure import options_of
from probing.options import OptionsParser
from probing.reproduce import ReproduceOptions
from probing.table_files import write_parquet

MODELS = ("testbed-xs", "testbed-xs-seed1", "testbed-xs-step00010", "testbed-s", "testbed-s-seed1", "sd35-medium")


@pytest.fixture
def commands(monkeypatch, tmp_path):
    monkeypatch.setattr(probing, "model_names", lambda: MODELS)
    return reproduce.steps(ReproduceOptions(all=True, cache=tmp_path, figures=tmp_path / "figures", limit=10))


@pytest.fixture
def main_commands(tmp_path):
    return reproduce.steps(ReproduceOptions(cache=tmp_path))


def parsed(step):
    """The options of a step: output path, and paths of stores."""
    # Tables of earlier steps are read when the options are parsed.
    table = pd.DataFrame({"item_id": ["a"], "reward": 0.0, "stage": "B1", "first_block": 0, "last_block": 1})
    for argument in step.arguments:
        path = Path(argument.partition("=")[2] or argument)
        if path.suffix == ".parquet":
            write_parquet(path, table.assign(block=0, other=1, value=1.0))
    if step.module == "probing.measure":
        experiment = EXPERIMENTS[step.arguments[0]]
        options, _ = OptionsParser("x", options_of(experiment), "").parse(step.arguments[1:])
        stores = options.stores.store if "stores" in experiment.inputs else ()
        return SimpleNamespace(output=options.run.output, store=stores)
    module = importlib.import_module(step.module)
    options, _ = module.PARSER.parse(step.arguments)
    return SimpleNamespace(output=options.output, store=())


@pytest.mark.parametrize("which", ["commands", "main_commands"])
def test_every_command_can_be_parsed_and_writes_into_the_cache(which, request, tmp_path):
    for step in request.getfixturevalue(which):
        assert tmp_path in parsed(step).output.parents, step


def test_every_store_is_extracted_before_it_is_read(commands):
    written = set()
    for step in commands:
        options = parsed(step)
        assert set(options.store) <= written, step
        written.add(options.output)
    # Eight of the model (three draws of random weights), one of each other training, a control of the other size.
    assert len([step for step in commands if step.module == "probing.extract"]) == 8 + (len(MODELS) - 2) + 1


def test_the_main_result_extracts_what_everything_goes_on_from(commands, main_commands):
    """The same stores, with some of their items and noise levels, and the streams that cannot be added for free."""

    def extractions(steps):
        return {str(parsed(step).output): step.arguments for step in steps if step.module == "probing.extract"}

    def option(arguments, name):
        return arguments[arguments.index(name) + 1]

    whole, main = extractions(commands), extractions(main_commands)
    assert len(main) == 2 and set(main) <= set(whole)
    for path, arguments in main.items():
        for name in ("--model", "--streams", "--batch-size"):
            assert option(arguments, name) == option(whole[path], name)
        assert ("--random-init" in arguments) == ("--random-init" in whole[path])
        assert set(option(arguments, "--sigmas").split(",")) < set(option(whole[path], "--sigmas").split(","))


def test_the_main_result_writes_no_committed_figure(main_commands):
    for step in main_commands:
        assert "figures" not in step.arguments


def test_every_experiment_is_measured_once(commands):
    measured = [step.arguments[0] for step in commands if step.module == "probing.measure"]
    assert sorted(measured) == sorted(EXPERIMENTS)


def test_every_training_has_its_own_store_and_is_in_scaling(commands):
    outputs = [parsed(step).output for step in commands if step.module == "probing.extract"]
    assert len(set(outputs)) == len(outputs)
    (scaling,) = [step for step in commands if step.arguments[0] == "scaling"]
    stores = {Path(path).stem for path in parsed(scaling).store}
    controls = {"testbed-s-random-init", "testbed-xs-random-init"}
    assert stores == {name for name in MODELS if name.startswith("testbed-")} | controls


def test_a_dry_run_prints_the_commands_and_runs_none(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(reproduce, "importlib", SimpleNamespace(import_module=pytest.fail))
    assert reproduce.main(["--all", "--dry-run", "--cache", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("$ python -m probing.") == len(reproduce.steps(ReproduceOptions(all=True, cache=tmp_path)))
    assert "--pair-noise shared" in printed and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [1, 2, 130])
def test_a_failing_command_ends_the_run_with_its_status(monkeypatch, capsys, status):
    class Failing:
        calls = 0

        @classmethod
        def main(cls, arguments):
            cls.calls += 1
            return status if cls.calls == 3 else 0

    monkeypatch.setattr(reproduce, "importlib", SimpleNamespace(import_module=lambda name: Failing))
    assert reproduce.main([]) == status
    assert Failing.calls == 3 and f"ended with status {status}" in capsys.readouterr().err
