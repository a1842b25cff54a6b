"""The options that load and split pairs: stated in dataclasses, parsed and applied alike by every command."""

from __future__ import annotations

import argparse
import dataclasses

import pandas as pd
import pytest

from probing import preferences
from probing.data_options import DataOptions, SplitOptions, add_data_options, add_split_options, load_data, split_pairs


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_data_options(made)
    add_split_options(made)
    made.add_argument("--seed", type=int, default=0)
    return made


def test_defaults_are_those_of_the_dataclasses():
    arguments = parser().parse_args([])
    for options in (DataOptions(), SplitOptions()):
        for name, default in dataclasses.asdict(options).items():
            assert getattr(arguments, name) == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize("options", [DataOptions, SplitOptions])
def test_every_option_has_its_help_text(options):
    helps = {action.dest: action.help for action in parser()._actions}
    for field in dataclasses.fields(options):
        assert len(helps[field.name]) > 20, field.name


def test_parsed_options_load_as_keyword_arguments_do():
    arguments = parser().parse_args(["--where", "facet == 'quality'", "--limit", "60"])
    loaded = load_data(arguments, split="test")
    expected = preferences.load_pairs("testbed", split="test", where="facet == 'quality'", limit=60)
    assert loaded.fingerprint == expected.fingerprint
    assert set(loaded.pairs["facet"]) == {"quality"} and len(loaded.items) <= 60


def test_parsed_options_split_as_keyword_arguments_do():
    pairs = pd.DataFrame({"prompt_id": [f"p{n}" for n in range(50)], "split": "train"})
    for side in ("first", "second"):
        pairs[f"source_model_{side}"] = ["flux", "sdxl"] * 25
    arguments = parser().parse_args(["--split-by", "source-model", "--held-out", "flux", "--seed", "3"])
    expected = preferences.split_pairs(pairs, "source-model", held_out=["flux"], seed=3)
    assert split_pairs(pairs, arguments).equals(expected)
