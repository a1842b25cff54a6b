"""Generated images, made by tiny pipelines with random weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from probing.errors import UserError
from probing.testbed import generated, preferences
from probing.testbed.caption_check import Reading
from probing.testbed.judge import Judge, JudgeNetwork
from probing.testbed.preferences import prompts, reward_of
from probing.testbed.recipes import generated as recipe
from probing.testbed.render import render
from probing.testbed.scenes import ATTRIBUTES, attributes_of

COMBINATIONS = {"steps": (1, 2), "guidance": (1.0, 3.0)}


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    """Four prompts with two images each."""
    folder = tmp_path_factory.mktemp("generated")
    recipe.run(folder / "runs", [str(tiny_folder)], **COMBINATIONS, limit=4, folder=folder, judge=Judge(JudgeNetwork()))
    return folder


@pytest.mark.slow
def test_sheet_and_table_are_written(made):
    shipped = generated.load(made)
    items = shipped.items
    assert len(items) == 8 and items["prompt_id"].nunique() == 4
    assert (items.groupby("prompt_id").size() == 2).all()
    scenes = {prompt.prompt_id: prompt.scene for prompt in prompts()}
    for row in items.to_dict("records"):
        scene = scenes[row["prompt_id"]]
        assert row["prompt"] == scene.caption
        judged = [name for name in ATTRIBUTES if not pd.isna(row[name])]
        assert set(judged) == set(attributes_of(scene))
        assert row["wrong"] == sum(row[name] == 0 for name in judged)
        assert row["reward"] == pytest.approx(reward_of(row["wrong"], row["strength"]), abs=1e-3)
        assert row["fidelity"] == pytest.approx(1 - row["strength"])
        assert shipped.open(row["item_id"]).size == (64, 64)
    card = json.loads((made / "card.json").read_text())
    assert card["pictures"] == 8 and card["models"][0]["n"] == 8


def test_the_two_images_of_a_prompt_differ_in_origin(made):
    origins = generated.load(made).items.groupby("prompt_id")[["source_model", "steps", "guidance"]]
    assert (origins.apply(lambda pair: len(pair.drop_duplicates())) == 2).all()


@pytest.mark.slow
def test_interrupted_run_resumes_with_the_same_bytes(made, tiny_folder, tmp_path):
    judge = Judge(JudgeNetwork())
    recipe.run(tmp_path / "runs", [str(tiny_folder)], **COMBINATIONS, limit=4, folder=tmp_path, judge=judge)
    sheet = (tmp_path / generated.SHEET).read_bytes()
    assert sheet == (made / generated.SHEET).read_bytes()
    for path in sorted((tmp_path / "runs" / "generated").glob("*.png"))[::2]:
        path.unlink()
    recipe.run(tmp_path / "runs", [str(tiny_folder)], **COMBINATIONS, limit=4, folder=tmp_path, judge=judge)
    assert (tmp_path / generated.SHEET).read_bytes() == sheet


def test_other_settings_are_refused(made, tiny_folder):
    with pytest.raises(UserError, match="other settings"):
        recipe.run(made / "runs", [str(tiny_folder)], **COMBINATIONS, limit=5, folder=made, judge=Judge(JudgeNetwork()))


def test_card_counts_images_and_names_weights(made):
    text = (made / "README.md").read_text()
    assert "8 images of 4 prompts" in text and "The sheet is the data" in text
    assert set(json.loads((made / "card.json").read_text())["weights"]) == {"tiny-sd3"}


@pytest.mark.slow
def test_other_weights_are_refused(made, tiny_folder, tmp_path):
    """The model has the same name and other weights."""
    folder = tmp_path / tiny_folder.name
    shutil.copytree(tiny_folder, folder)
    settings = {**COMBINATIONS, "limit": 4, "folder": made, "judge": Judge(JudgeNetwork())}
    recipe.run(made / "runs", [str(folder)], **settings)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({name: 2 * weight for name, weight in weights.items()}, path)
    with pytest.raises(UserError, match="or weights"):
        recipe.run(made / "runs", [str(folder)], **settings)


def test_one_combination_is_refused(tiny_folder, tmp_path):
    with pytest.raises(UserError, match="at least two values"):
        recipe.run(tmp_path, [str(tiny_folder)], steps=(1,), guidance=(1.0,))


def test_sheet_keeps_every_pixel(tmp_path):
    rng = np.random.default_rng(0)
    images = [render(prompt.scene, rng) for prompt in prompts()[:95]]
    generated.make_sheet(images).save(tmp_path / generated.SHEET)
    pd.DataFrame({"item_id": [f"{n}" for n in range(95)]}).to_csv(tmp_path / generated.TABLE, index=False)
    shipped = generated.Generated(tmp_path, pd.read_csv(tmp_path / generated.TABLE, dtype=str))
    for number in (0, 39, 40, 94):
        assert shipped.open(f"{number}").tobytes() == images[number].tobytes()


def test_preferences_include_generated_pairs_if_shipped(made, monkeypatch):
    monkeypatch.setattr(generated, "FOLDER", made)
    preferences._make.cache_clear()
    try:
        data = preferences.load()
        pairs = data.pairs[data.pairs["facet"] == "generated"]
        assert len(pairs) == 4
        items = data.items.set_index("item_id")
        for row in pairs.itertuples():
            assert row.reward_first == items["reward"][row.first]
            assert row.source_model_first == items["source_model"][row.first]
            assert data.open_image(row.first).size == (64, 64)
        assert data.settings["generated"] == generated.digest(made)
        monkeypatch.setattr(generated, "FOLDER", made / "missing")
        preferences._make.cache_clear()
        without = preferences.load()
        # The other facets do not change.
        rest = data.pairs[data.pairs["facet"] != "generated"].reset_index(drop=True)
        assert without.pairs.equals(rest) and without.settings["generated"] is None
    finally:
        preferences._make.cache_clear()


def test_reward_counts_wrong_attributes_and_damage():
    planned = recipe.plan(["a", "b"], (1,), (1.0,), 2)
    table = recipe.judged(planned, [Reading((), "white", 0.25)] * 4)
    assert (table["wrong"] >= 2).all() and (table["fidelity"] == 0.75).all()
    assert (table["reward"] == [reward_of(wrong, 0.25) for wrong in table["wrong"]]).all()
