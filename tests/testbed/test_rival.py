"""The baseline reward model: its training and the shipped weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from probing import preferences, score
from probing.errors import UserError
from probing.testbed import rival as command
from probing.testbed import truth
from probing.testbed.recipes import rival as recipe
from probing.testbed.recipes import rival_card
from probing.testbed.recipes.contrast import contrastive_loss
from probing.testbed.recipes.loop import Schedule
from probing.testbed.recipes.pixels import contradict_at_random
from probing.testbed.rival import LENGTH, WEIGHTS, Rival, RivalNetwork, score_items, word_ids
from probing.testbed.scenes import attributes_of, sample_scene, vocabulary

SHORT = Schedule(steps=4, batch_size=8, learning_rate=1e-3, warmup=1)
shipped = pytest.mark.skipif(not WEIGHTS.exists(), reason="the baseline is not trained yet")


@pytest.fixture(scope="module")
def data():
    return preferences.load_pairs("testbed").select(limit=60)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """Train both stages for a few steps."""
    folder = tmp_path_factory.mktemp("rival")
    network = recipe.run(folder, SHORT, SHORT, scenes=40, data=data, weights=folder / "weights" / "rival.safetensors")
    return folder, network


def test_words_are_numbered_and_unknown_words_refused():
    numbers = word_ids(["a red star on a white background", "two large red stars on a gray to pink background"])
    assert numbers.shape == (2, LENGTH) and (numbers[:, 0] == 1).all()
    assert (numbers[0, 8:] == 0).all() and numbers.max() <= len(vocabulary()) + 1
    assert numbers[0, 2] == numbers[1, 3]
    with pytest.raises(UserError, match="the word 'teapot'"):
        word_ids(["a teapot"])
    with pytest.raises(UserError, match="30 words"):
        word_ids(["a " * 30])


def test_the_longest_captions_fit():
    lengths = [len(sample_scene(np.random.default_rng(seed)).caption.split()) for seed in range(2000)]
    assert max(lengths) < LENGTH


def test_contradictions_have_the_same_number_of_things():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng)
        attribute, wrong = contradict_at_random(scene, rng)
        assert attribute in attributes_of(scene)
        assert wrong.caption != scene.caption and len(wrong.things) == len(scene.things)


def test_equal_captions_share_the_target():
    captions = ["a red star on a white background"] * 4
    value, picked = contrastive_loss(torch.zeros(4, 8), captions, captions)
    # Every caption is right; the entropy of a uniform choice remains.
    assert float(picked) == 1.0
    assert float(value) == pytest.approx(0.5 * (np.log(8) + np.log(4)), abs=1e-4)


def test_loss_does_not_depend_on_the_sides():
    torch.manual_seed(0)
    network = RivalNetwork().eval()
    pixels = torch.randn(5, 2, 3, 64, 64)
    captions = [sample_scene(np.random.default_rng(seed)).caption for seed in range(5)]
    choices = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    loss, _ = recipe.choice_loss(network, pixels, captions, choices)
    swapped, _ = recipe.choice_loss(network, pixels.flip(1), captions, 1 - choices)
    torch.testing.assert_close(loss, swapped)


def test_shifted_images_keep_their_middle():
    pixels = torch.arange(64.0).expand(4, 3, 64, 64) + 100 * torch.arange(64.0)[:, None]
    moved = recipe.shifted(pixels, np.random.default_rng(0))
    assert moved.shape == pixels.shape
    shifts = moved[:, 0, 32, 32] - pixels[:, 0, 32, 32]
    assert (shifts != 0).any()
    for image, shift in zip(moved, shifts, strict=True):
        torch.testing.assert_close(image[:, 8:-8, 8:-8], pixels[0, :, 8:-8, 8:-8] + shift)


@pytest.mark.slow
def test_both_stages_save_in_half_precision_and_load(trained):
    folder, network = trained
    again = Rival.load(folder / "weights" / "rival.safetensors").network
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=2e-3, atol=1e-4)
    before = Rival.load(folder / recipe.CONTRASTIVE_WEIGHTS).network
    assert not torch.equal(before.state_dict()["words.weight"], again.state_dict()["words.weight"])


def test_rewards_do_not_depend_on_the_batch(trained, data):
    rival = Rival(trained[1])
    images = [data.open_image(item_id) for item_id in data.items["item_id"][:6]]
    captions = list(data.items["prompt"][:6])
    whole = rival.rewards(images, captions)
    single = [rival.rewards([image], [caption])[0] for image, caption in zip(images, captions, strict=True)]
    np.testing.assert_allclose(whole, single, rtol=1e-4, atol=1e-4)
    assert np.abs(rival.agreement(images, captions)).max() <= 1.0001


def test_training_uses_training_pairs_only(monkeypatch, tmp_path, data):
    used = {}
    monkeypatch.setattr(recipe, "item_pixels", lambda d: used.setdefault("splits", set(d.pairs["split"])) and None)
    with pytest.raises(TypeError):
        recipe.run(tmp_path, SHORT, SHORT, scenes=40, data=data, weights=tmp_path / "w.safetensors")
    assert used["splits"] == {"train"}


def test_card_is_written_from_the_weights(trained, data):
    folder, _ = trained
    card = rival_card.run(folder, folder / "weights" / "rival.safetensors", data=data).read_text()
    assert "| alignment |" in card and "After the first stage alone" in card
    assert (folder / "weights" / "card.json").exists()


@shipped
def test_score_reads_the_output_of_the_command(tmp_path, capsys):
    scores = tmp_path / "scores.csv"
    options = ["--data", "testbed", "--limit", "80", "--split", "test"]
    assert command.main([*options, "--output", str(scores)]) == 0
    table = pd.read_csv(scores)
    assert list(table) == ["item_id", "reward"] and table["reward"].notna().all()
    assert score.main([*options, "--scores", str(scores), "--rules", "micro-half"]) == 0


def test_bad_outputs_and_missing_weights_are_refused(tmp_path, capsys):
    assert command.main(["--output", str(tmp_path / "scores.txt")]) == 2
    assert ".csv or .parquet" in capsys.readouterr().err
    with pytest.raises(UserError, match="train rival"):
        Rival.load(tmp_path / "none.safetensors")


@shipped
def test_shipped_model_beats_chance_on_every_facet():
    data = preferences.load_pairs("testbed", split="test").select(limit=1200)
    scored = score_items(data, Rival.load().rewards)
    table = truth.accuracy(data, dict(zip(scored["item_id"], scored["reward"], strict=True))).set_index("facet")
    assert table.loc["alignment", "ci_low"] > 0.7 and table.loc["quality", "ci_low"] > 0.52
    assert (table["accuracy"] > 0.53).all() and (table["accuracy"] < table["ceiling"] + 0.06).all()


@shipped
def test_shipped_weights_are_small():
    assert WEIGHTS.stat().st_size < 3e6
