"""The shipped models follow captions in a stock call, and larger models have a lower held-out loss."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, T5EncoderModel

from probing.backbones import resolve
from probing.shipped import WEIGHTS
from probing.testbed.judge import EACH
from probing.testbed.recipes import text
from probing.testbed.recipes.assemble import TRAININGS
from probing.testbed.recipes.mmdit import RECORD
from probing.testbed.scenes import BACKGROUNDS, COLOURS, SHAPES, places_of, sample_scene
from probing.testbed.sizes import SIZES, is_along


@pytest.fixture(scope="module")
def pictures():
    """Generate a large circle for each of the 24 combinations of colour and background."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(resolve("testbed-xs").source)
    pipeline.set_progress_bar_config(disable=True)
    combinations = [(colour, background) for colour in COLOURS for background in BACKGROUNDS]
    captions = [f"a large {colour} circle on a {background} background" for colour, background in combinations]
    images = pipeline(
        captions,
        max_sequence_length=16,
        num_inference_steps=20,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    return list(zip(combinations, 255 * images, strict=True))


def nearest(pixel, palette):
    return min(palette, key=lambda name: np.abs(np.asarray(palette[name]) - pixel).sum())


@pytest.mark.slow
def test_backgrounds_match_captions(pictures):
    right = [nearest(np.median(image.reshape(-1, 3), axis=0), BACKGROUNDS) == bg for (_, bg), image in pictures]
    # Chance is 6 of 24.
    assert sum(right) >= 21


def test_colours_match_captions(pictures):
    right = 0
    for (colour, _), image in pictures:
        background = np.median(image.reshape(-1, 3), axis=0)
        thing = image[np.abs(image - background).sum(-1) > 150]
        right += len(thing) > 100 and nearest(np.median(thing, axis=0), COLOURS) == colour
    # Chance is 4 of 24.
    assert right >= 18


def test_t5_encodes_the_place_of_a_thing_at_its_word():
    """Left or right depends on relation and order together; a linear probe on one word decodes it."""
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "xs" / "tokenizer_3")
    encoder = T5EncoderModel.from_pretrained(WEIGHTS / "xs" / "text_encoder_3").eval()
    rng = np.random.default_rng(0)
    scenes = [scene for scene in (sample_scene(rng) for _ in range(4_000)) if scene.relation in ("left of", "right of")]
    which = rng.integers(2, size=len(scenes))
    words = [[n for n, w in enumerate(scene.caption.split()) if w in SHAPES] for scene in scenes]
    with torch.inference_mode():
        features = encoder(text.tokenize_t5(tokenizer, [scene.caption for scene in scenes])).last_hidden_state
    states = np.stack([row[at[thing]] for row, at, thing in zip(features.numpy(), words, which, strict=True)])
    left = np.array([places_of(scene)[thing] == "left" for scene, thing in zip(scenes, which, strict=True)])
    half = len(scenes) // 2
    probe = LogisticRegression(max_iter=2000).fit(states[:half], left[:half])
    # Chance is one half: one of the two things is chosen at random.
    assert half > 150 and probe.score(states[half:], left[half:]) > 0.95


@pytest.mark.parametrize("size", SIZES)
def test_stock_call_generates_from_every_folder(size):
    pipeline = StableDiffusion3Pipeline.from_pretrained(WEIGHTS / size)
    pipeline.set_progress_bar_config(disable=True)
    white, black = pipeline(
        ["a large red circle on a white background", "a large red circle on a black background"],
        max_sequence_length=20,
        num_inference_steps=6,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    assert white.shape == (64, 64, 3)
    assert np.median(white) > 0.7 and np.median(black) < 0.3


def test_all_weights_share_one_schedule():
    """Except for the seed; checkpoints along a training have fewer steps."""
    records = {path.parent.name: json.loads(path.read_text()) for path in WEIGHTS.rglob(RECORD)}
    assert set(records) == {path.name for path in (WEIGHTS / TRAININGS).iterdir()} | set(SIZES)
    schedules = [{**record["schedule"], "seed": 0} for record in records.values()]
    assert all(schedule == schedules[0] for schedule in schedules)
    for name, record in records.items():
        assert record["steps"] == (int(name[-5:]) if is_along(name) else record["schedule"]["steps"])


def test_held_out_loss_falls_with_size():
    """The differences exceed both intervals together, after the same number of steps."""
    cards = [json.loads((WEIGHTS / size / "card.json").read_text()) for size in SIZES]
    assert len({card["steps"] for card in cards}) == 1
    assert [card["parameters"] for card in cards] == sorted(card["parameters"] for card in cards)
    means = [card["held_out_loss"][-1] for card in cards]
    assert all(mean["sigma"] is None for mean in means)
    for small, large in pairwise(means):
        assert large["loss"] + large["half_width"] < small["loss"] - small["half_width"]


def test_match_with_captions_grows_with_size():
    """All sizes beat chance, and the intervals of the smallest and the largest do not overlap."""
    cards = [json.loads((WEIGHTS / size / "card.json").read_text()) for size in SIZES]
    judged, chance = (
        [next(row for row in card[table] if row["attribute"] == EACH) for card in cards]
        for table in ("judged", "chance")
    )
    assert all(small["accuracy"] < large["accuracy"] for small, large in pairwise(judged))
    assert judged[0]["ci_high"] < judged[-1]["ci_low"]
    assert all(row["ci_low"] > baseline["ci_high"] for row, baseline in zip(judged, chance, strict=True))


def test_shipped_weights_are_small_and_in_half_precision():
    distinct = {}
    for path in WEIGHTS.rglob("*.safetensors"):
        assert path.stat().st_size <= 15e6
        distinct[hashlib.sha256(path.read_bytes()).hexdigest()] = path.stat().st_size
        with safe_open(path, framework="pt") as weights:
            dtypes = {weights.get_tensor(key).dtype for key in weights.keys()}  # noqa: SIM118
            assert {dtype for dtype in dtypes if dtype.is_floating_point} == {torch.float16}
    assert sum(distinct.values()) <= 60e6
