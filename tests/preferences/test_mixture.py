"""Several data sets as one: nothing is renamed apart from the set's name, and no prompt is in two of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import probing
from probing import preferences
from probing.errors import UserError
from probing.extract import PARSER, _request
from probing.preferences.mixture import MIXTURES, mix
from tests.preferences.published import write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name in ("hpdv3", "hpdv2", "pickapic-v1", "imagereward-db", "hpdv3pp", "rapidata"):
        write(name, folder / name, prompts=8)
    return folder


def small(name, prompts, split="train", facet="all"):
    """A data set of one pair a prompt, with drawn pictures."""
    rows = [
        {"prompt": text, "first": f"{n}-a", "second": f"{n}-b", "choice": 1.0, "split": split, "facet": facet}
        for n, text in enumerate(prompts)
    ]
    from probing.preferences.comparisons import from_comparisons
    from probing.preferences.images import DrawnImages

    images = DrawnImages(lambda picture: Image.new("RGB", (8, 8), (len(name), ord(picture[0]), 0)), name)
    return from_comparisons(name, pd.DataFrame(rows), images, randomize_sides=False)


def test_every_pair_keeps_its_ids_choice_and_pictures_behind_the_name_of_its_set(root):
    names = ("hpdv2", "hpdv3pp")
    whole = probing.load_pairs(",".join(names), root=root, duplicates="keep", leaks="keep")
    assert whole.name == "hpdv2+hpdv3pp"
    for name in names:
        alone = probing.load_pairs(name, root=root / name, leaks="keep")
        part = whole.pairs[whole.pairs["source"] == name].reset_index(drop=True)
        for column in ("pair_id", "first", "second"):
            assert (part[column] == f"{name}:" + alone.pairs[column]).all()
        for column in ("choice", "split"):
            assert (part[column] == alone.pairs[column]).all()
        for item in alone.items["item_id"][::7]:
            assert whole.open_image(f"{name}:{item}").tobytes() == alone.open_image(item).tobytes()
    assert set(whole.pairs["facet"]) == {"hpdv2", "hpdv3pp:aesthetics", "hpdv3pp:text-following"}
    assert len(whole.missing_images()) == 0
    (root / "hpdv2" / "train" / "000000.png").rename(root / "hidden.png")
    try:
        assert len(whole.missing_images()) == 1
    finally:
        (root / "hidden.png").rename(root / "hpdv2" / "train" / "000000.png")


def test_a_prompt_of_two_sets_is_one_prompt_and_is_left_to_the_first():
    one, other = small("one", ["a cat", "a dog"]), small("other", ["A  Cat", "an owl"])
    kept = mix([one, other], duplicates="keep")
    assert len(kept.pairs) == 4 and kept.items["prompt_id"].nunique() == 3
    assert set(kept.items.loc[kept.items["prompt_id"] == one_of(kept, "a cat"), "prompt"]) == {"a cat"}
    dropped = mix([one, other])
    assert dropped.pairs["source"].tolist() == ["one", "one", "other"]
    assert dropped.settings["dropped_duplicate_pairs"] == {"one": 0, "other": 1}
    assert mix([other, one]).pairs["source"].tolist() == ["other", "other", "one"]
    with pytest.raises(UserError, match="Every prompt of copy is in a set named before it"):
        mix([one, small("copy", ["a cat"])])


def one_of(data, words):
    return data.items.loc[data.items["prompt"] == words, "prompt_id"].iloc[0]


def test_a_prompt_that_one_set_trains_on_and_another_tests_is_a_leak(tmp_path):
    for name, split in (("one", "train"), ("other", "test")):
        rows = [{"prompt": "a cat", "chosen": "a.png", "rejected": "b.png", "split": split}]
        rows += [{"prompt": f"{name} {split}", "chosen": "c.png", "rejected": "d.png", "split": split}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = f"{tmp_path / 'one.jsonl'},{tmp_path / 'other.jsonl'}"
    with pytest.raises(UserError, match="'a cat'; --leaks drop"):
        probing.load_pairs(source, duplicates="keep")
    data = probing.load_pairs(source, duplicates="keep", leaks="drop")
    assert sorted(data.pairs["split"]) == ["test", "test", "train"]


@pytest.mark.parametrize("shares", [(1, 1, 1), (3, 1, 1), (0.2, 0.7, 0.1)])
def test_training_pairs_have_the_given_shares_and_test_pairs_stay(shares):
    parts = [small(name, [f"{name} {n}" for n in range(count)]) for name, count in (("a", 60), ("b", 200), ("c", 90))]
    tests = [small(f"{name}test", [f"test {name}"], split="test") for name in "d"]
    with pytest.raises(UserError, match="dtest has no training pairs"):
        mix([*parts, *tests], shares=(*shares, 1))
    data = mix(parts, shares=shares)
    counts = data.pairs["source"].value_counts()
    got = np.array([counts[name] for name in "abc"])
    np.testing.assert_allclose(got / got.sum(), np.array(shares) / sum(shares), atol=1.5 / got.sum())
    # As many as the scarcest set allows.
    assert any(got[i] == len(part.pairs) for i, part in enumerate(parts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "hpdv2,hpdv2"}, "name each once"),
        ({"source": "hpdv2,nothing"}, "Unknown data set 'nothing'"),
        ({"source": "hpdv2,hpdv3", "shares": (1,)}, "--mix takes one share above 0 a data set, got 1 for 2"),
        ({"source": "hpdv2,hpdv3", "shares": (1, 0)}, "--mix takes one share above 0"),
        ({"source": "hpdv2", "shares": (1,)}, "--mix shares the training pairs of several data sets"),
    ],
)
def test_bad_mixtures_get_a_sentence(root, arguments, message):
    source = arguments.pop("source")
    folder = root if "," in source else root / source
    with pytest.raises(UserError, match=message):
        probing.load_pairs(source, root=folder, **arguments)


def test_the_papers_mixture_is_a_name(root):
    data = probing.load_pairs("paper-mixture", root=root, duplicates="keep", leaks="drop")
    assert set(data.pairs["source"]) == {name for name, _ in MIXTURES["paper-mixture"]}
    train = data.pairs[(data.pairs["source"] == "hpdv3") & (data.pairs["split"] == "train")]
    assert len(train) and (train["confidence"] >= 0.95).all()
    assert set(data.pairs.loc[data.pairs["source"] == "imagereward-db", "facet"]) == {"imagereward-db:overall"}


def test_heat_maps_are_those_of_the_set_that_has_them(root):
    data = probing.load_pairs("hpdv2,rapidata", root=root)
    assert data.heat_map_kinds == ("misalignment", "artifacts")
    of = {name: data.items.loc[data.items["item_id"].str.startswith(name), "item_id"] for name in ("hpdv2", "rapidata")}
    assert all(data.heat_map(item, "artifacts") is None for item in of["hpdv2"][:3])
    assert all(data.heat_map(item, "artifacts").shape == (4, 5) for item in of["rapidata"][:3])


def test_the_command_takes_several_sets_and_a_repair_gives_them_again():
    words = ["--model", "testbed-xs", "--data", "hpdv3,hpdv2", "--mix", "0.7,0.3", "--duplicates", "keep"]
    options, _ = PARSER.parse(words)
    assert options.data.mix == (0.7, 0.3)
    request = _request(options)
    assert (request["data"], request["mix"], request["duplicates"]) == ("hpdv3,hpdv2", "0.7,0.3", "keep")
    assert _request(PARSER.parse(["--model", "testbed-xs"])[0])["mix"] is None


def test_one_store_holds_a_mixture(root, tiny_folder, tmp_path):
    data = preferences.load_pairs("hpdv2,hpdv3", root=root, duplicates="keep", limit=24)
    sizes = {"resolution": 16, "t5_length": 12, "device": "cpu"}
    store = probing.extract(tiny_folder, data, output=tmp_path / "s.zarr", **sizes)
    assert set(store.item_ids) == set(data.items["item_id"])
    assert set(store.read_pairs()["source"]) == {"hpdv2", "hpdv3"}
