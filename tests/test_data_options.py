"""The options that load and split pairs: stated in dataclasses, parsed and applied alike by every command."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import pytest

from probing import preferences
from probing.data_options import DataOptions, SplitOptions
from probing.options import OptionsParser


@dataclass(frozen=True)
class Options:
    """Both."""

    data: DataOptions = field(default_factory=DataOptions)
    split: SplitOptions = field(default_factory=SplitOptions)


PARSER = OptionsParser("probing.x", Options, "")


def test_defaults_are_those_of_the_dataclasses():
    assert PARSER.parse([])[0] == Options()


def test_every_option_has_its_help_text(capsys):
    with pytest.raises(SystemExit):
        PARSER.parse(["--help"])
    text = capsys.readouterr().out
    for words in ("largest number of items", "condition on columns", "values are distributed alike", "to hold out"):
        assert words in " ".join(text.replace("│", " ").split())


def test_parsed_options_load_as_keyword_arguments_do():
    options, _ = PARSER.parse(["--where", "facet == 'quality'", "--limit", "60"])
    loaded = options.data.load("test")
    expected = preferences.load_pairs("testbed", split="test", where="facet == 'quality'", limit=60)
    assert loaded.fingerprint == expected.fingerprint
    assert set(loaded.pairs["facet"]) == {"quality"} and len(loaded.items) <= 60


def test_parsed_options_split_as_keyword_arguments_do():
    pairs = pd.DataFrame({"prompt_id": [f"p{n}" for n in range(50)], "split": "train"})
    for side in ("first", "second"):
        pairs[f"source_model_{side}"] = ["flux", "sdxl"] * 25
    options, _ = PARSER.parse(["--split-by", "source-model", "--held-out", "flux"])
    expected = preferences.split_pairs(pairs, "source-model", held_out=["flux"], seed=3)
    assert options.split.split(pairs, seed=3).equals(expected)
