"""The judge: its training data and loss, and the shipped weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from probing.errors import UserError
from probing.testbed.degradations import KINDS, degrade
from probing.testbed.judge import (
    EACH,
    THING_CLASSES,
    WEIGHTS,
    WHOLE,
    Judge,
    JudgeNetwork,
    accuracy_table,
    judged_accuracy,
)
from probing.testbed.recipes import judge as recipe
from probing.testbed.recipes import judge_card
from probing.testbed.recipes.loop import Schedule
from probing.testbed.render import draw, render
from probing.testbed.scenes import ATTRIBUTES, parse, sample_scene
from probing.testbed.tensors import to_tensor

shipped = pytest.mark.skipif(not WEIGHTS.exists(), reason="the judge is not trained yet")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return recipe.LabelledScenes(tmp_path_factory.mktemp("runs"), 60)


def test_labels_match_the_caption():
    rng = np.random.default_rng(0)
    scene = parse("a small striped red star right of a large blue cross on a gray to pink background")
    _, places = draw(scene, rng)
    positions, classes, ends = recipe.label(scene, places)
    assert np.isnan(positions[2]).all() and positions[0, 0] > positions[1, 0]
    named = [[values[i] for i, values in zip(row, THING_CLASSES.values(), strict=True)] for row in classes[:2]]
    assert named == [["star", "red", "small", "striped"], ["cross", "blue", "large", "plain"]]
    assert ends.tolist() == [1, 3] and (classes[2] == -100).all()


def test_a_size_outside_the_caption_has_no_label():
    scene = parse("a red star a blue cross and a green star in a row on a white background")
    _, classes, _ = recipe.label(scene, draw(scene, np.random.default_rng(0))[1])
    assert (classes[:, list(THING_CLASSES).index("size")] == -100).all()


def test_cells_have_the_label_of_the_nearest_thing(scenes):
    _, targets = scenes.batch(40, np.random.default_rng(0))
    peaks = (targets["heights"] > 0.5).flatten(1).any(dim=1)
    assert peaks.all()
    chosen = np.random.default_rng(0).integers(60, size=40)
    for row, number in enumerate(chosen):
        for thing in range(3):
            x, y = scenes.places[number, thing]
            if not np.isnan(x):
                classes = targets["things"][row, int(y // 4), int(x // 4)].numpy()
                np.testing.assert_array_equal(classes, scenes.things[number, thing])
    assert (targets["things"][targets["heights"] < 0.4] == -100).all()


def test_scenes_are_drawn_once_and_reloaded(scenes, tmp_path):
    first = recipe.LabelledScenes(tmp_path, 60)
    reloaded = recipe.LabelledScenes(tmp_path, 60)
    np.testing.assert_array_equal(reloaded.pixels, scenes.pixels)
    np.testing.assert_array_equal(first.things, reloaded.things)
    batch, batch_again = (s.batch(8, np.random.default_rng(1))[0] for s in (scenes, reloaded))
    assert torch.equal(batch, batch_again)


@pytest.mark.slow
def test_short_training_learns_and_saves_half_precision(tmp_path):
    short = Schedule(steps=30, batch_size=16, learning_rate=2e-3, warmup=5)
    weights = tmp_path / "judge" / "judge.safetensors"
    network = recipe.run(tmp_path, short, scenes=60, weights=weights)
    again = Judge.load(weights).network
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=2e-3, atol=1e-4)
    pixels, targets = recipe.LabelledScenes(tmp_path, 60).batch(32, np.random.default_rng(9))
    torch.manual_seed(0)
    untrained, _ = recipe.judge_loss(JudgeNetwork(), pixels, targets)
    trained, _ = recipe.judge_loss(network.train(), pixels, targets)
    assert trained < 0.8 * untrained


def test_focal_loss_is_least_at_the_centres():
    heights = torch.zeros(1, 16, 16)
    heights[0, 4, 4], heights[0, 4, 5] = 0.95, 0.4
    right = torch.full_like(heights, -6.0)
    right[0, 4, 4] = 6.0
    beside, far = right.roll(1, dims=2), right.roll(5, dims=2)
    none, everywhere = torch.full_like(right, -6.0), torch.full_like(right, 6.0)
    best, near, *worse = (float(recipe.focal_loss(logits, heights)) for logits in (right, beside, far, everywhere))
    assert best < 1e-3 and near > 1 and all(near < value for value in worse)
    assert float(recipe.focal_loss(none, heights)) > 1


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="train judge"):
        Judge.load(tmp_path / "none.safetensors")


def test_each_image_has_one_caption():
    with pytest.raises(ValueError, match="one caption for each image"):
        judged_accuracy([], ["a red circle on a white background"], judge=Judge(JudgeNetwork()))


def test_attributes_of_one_caption_are_dependent():
    def table(judged, groups):
        return accuracy_table(judged, groups).set_index("attribute")

    four = [{"colour": True, "shape": False}, {"colour": True}, {"colour": False, "shape": False}, {"colour": True}]
    small = table(four, ["a", "b", "c", "d"])
    assert list(small.index) == ["colour", "shape", EACH, WHOLE]
    assert small.loc[EACH, ["accuracy", "n"]].tolist() == [3 / 6, 6]
    assert small.loc[WHOLE, ["accuracy", "n"]].tolist() == [2 / 4, 4]
    # If the attributes of a caption are all right or all wrong, two are worth no more than one.
    captions = [str(number) for number in range(40)]
    together = table([dict.fromkeys(("colour", "shape"), number % 2 == 0) for number in range(40)], captions)
    for end in ("accuracy", "ci_low", "ci_high"):
        assert together.loc[EACH, end] == pytest.approx(together.loc["colour", end])


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def renders():
    """Render scenes whose seeds are in no training data."""
    made = []
    for number in range(500):
        rng = np.random.default_rng([6_000_000, number])
        scene = sample_scene(rng)
        made.append((scene, render(scene, rng)))
    return made


@shipped
def test_shipped_judge_reads_clean_renders(judge, renders):
    images, captions = [image for _, image in renders], [scene.caption for scene, _ in renders]
    table = judged_accuracy(images, captions, judge=judge).set_index("attribute")
    assert set(table.index) == {*ATTRIBUTES, EACH, WHOLE}
    assert (table["accuracy"] > 0.98).drop(WHOLE).all()
    assert table.loc[WHOLE, "accuracy"] > 0.95
    assert ((table["ci_low"] <= table["accuracy"]) & (table["accuracy"] <= table["ci_high"])).all()
    assert (table["ci_low"] < 1).all()


@shipped
def test_shipped_judge_rejects_foreign_captions(judge, renders):
    images, captions = [image for _, image in renders], [scene.caption for scene, _ in renders]
    table = judged_accuracy(images, captions[1:] + captions[:1], judge=judge).set_index("attribute")["accuracy"]
    assert table[WHOLE] < 0.02
    assert table["background"] < 0.2 and table["colour"] < 0.3


@shipped
@pytest.mark.parametrize("kind", KINDS)
def test_shipped_judge_measures_damage(judge, renders, kind):
    rng = np.random.default_rng(0)
    strengths = rng.random(150)
    degraded = [degrade(image, kind, s, rng) for (_, image), s in zip(renders, strengths, strict=False)]
    predicted = np.array([reading.damage for reading in judge.read(degraded)])
    assert np.corrcoef(strengths, predicted)[0, 1] > 0.8
    assert np.mean([1 - reading.fidelity for reading in judge.read([image for _, image in renders[:150]])]) < 0.1


@shipped
def test_reading_does_not_depend_on_batch_or_format(judge, renders):
    images = [image for _, image in renders[:5]]
    whole, single = judge.read(images), [judge.read([image])[0] for image in images]
    assert [(r.things, r.background) for r in whole] == [(r.things, r.background) for r in single]
    enlarged = judge.read([images[0].resize((256, 256), Image.Resampling.NEAREST).convert("RGBA")])[0]
    assert len(enlarged.things) == len(whole[0].things)
    assert to_tensor(images).shape == (5, 3, 64, 64)


@shipped
@pytest.mark.slow
def test_card_is_written_from_the_weights(tmp_path):
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(WEIGHTS.read_bytes())
    card = judge_card.run(weights, clean=40, degraded=16)
    assert "accuracy on clean renders" in card.read_text() and (tmp_path / "samples.png").exists()
    assert (tmp_path / "card.json").exists()


@shipped
def test_shipped_weights_are_small():
    assert WEIGHTS.stat().st_size < 2e6
