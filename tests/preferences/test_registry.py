"""Every benchmark by name, from its published files."""

from __future__ import annotations

import pytest

from probing import preferences
from probing.errors import UserError
from probing.preferences.benchmarks import BENCHMARKS
from probing.statistics import RULES
from tests.preferences.published import WRITERS, write


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {name: write(name, tmp_path_factory.mktemp("published") / name) for name in WRITERS}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_loads_whole_and_by_split(roots, name):
    benchmark = BENCHMARKS[name]
    whole = preferences.load_pairs(name, root=roots[name])
    assert set(whole.pairs["split"]) == set(benchmark.files)
    assert len(whole.missing_images()) == 0
    assert whole.open_image(whole.items["item_id"].iloc[-1]).size == (16, 16)
    assert benchmark.rule in RULES
    for split in benchmark.files:
        part = preferences.load_pairs(name, root=roots[name], split=split)
        here = whole.pairs[whole.pairs["split"] == split].reset_index(drop=True)
        # The ids and sides of a split do not depend on the other splits, and so its noise does not.
        assert part.pairs[["pair_id", "first", "second", "choice"]].equals(
            here[["pair_id", "first", "second", "choice"]]
        )
        assert set(part.items["item_id"]) == {*here["first"], *here["second"]}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_seeds_change_sides_only_where_order_reveals_choices(roots, name):
    one, other = (preferences.load_pairs(name, root=roots[name], seed=seed).pairs for seed in (0, 1))
    same = (one["first"] == other["first"]).all()
    assert same != BENCHMARKS[name].randomize_sides


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_files_is_one_sentence(tmp_path, name):
    with pytest.raises(UserError, match="--data-root") as error:
        preferences.load_pairs(name, root=tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="There is no folder"):
        preferences.load_pairs(name, root=tmp_path / "nowhere")


def test_unknown_values_of_leaks_and_splits_are_refused(roots):
    with pytest.raises(UserError, match="Unknown value of leaks 'ignore'"):
        preferences.load_pairs("hpdv3", root=roots["hpdv3"], leaks="ignore")
    with pytest.raises(UserError, match="has the splits test, got 'train'"):
        preferences.load_pairs("imagereward", root=roots["imagereward"], split="train")
