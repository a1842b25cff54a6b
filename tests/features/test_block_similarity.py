"""Streamed similarities against tokens that plain hooks read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.backbones import load_backbone, resolve
from probing.backbones.sampling import denoise
from probing.errors import UserError
from probing.features import ExtractionSettings, make_plan
from probing.features.block_similarity import block_similarities, keep_streams
from probing.features.noise import item_noise
from probing.features.reading import check_steps, read_images, read_trajectories
from probing.features.token_similarity import MEASURES
from probing.preferences import prepare
from tests.fakes.tiny_sd3 import BLOCKS, T5_LENGTH
from tests.features.test_extraction import make_data
from tests.features.test_trace import hooked

SIGMAS = (0.005, 0.6)
STEPS, GUIDANCE, READ_AT = 4, 3.0, (0, 2, 3)


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    cpu = torch.device("cpu")
    return load_backbone(resolve(str(tiny_folder)), device=cpu, compute_dtype=torch.float32, t5_length=T5_LENGTH)


@pytest.fixture(scope="module")
def data():
    return make_data()


def plan_of(backbone, data, **changed):
    settings = ExtractionSettings(
        **{
            "sigmas": SIGMAS,
            "streams": ("image", "text"),
            "reductions": ("tokens",),
            "resolution": 16,
            "batch_size": 5,
            "t5_length": T5_LENGTH,
            **changed,
        }
    )
    return make_plan(backbone.spec, settings, items=len(data.items), prompts=4)


@pytest.fixture(scope="module")
def by_hooks(backbone, data):
    """Every item's outputs of every block, one item a forward, by plain hooks."""
    actual = {}
    for row in data.items.itertuples():
        pixels = np.asarray(prepare(data.open_image(row.item_id), 16))
        x0 = backbone.encode_images(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)
        noise = torch.from_numpy(item_noise(0, row.item_id, tuple(x0.shape[1:])))[None]
        conditioning = backbone.encode_prompts([row.prompt])
        for sigma in SIGMAS:
            inputs = backbone.inputs((1 - sigma) * x0 + sigma * noise, conditioning, sigma)
            actual[row.item_id, sigma] = hooked(backbone.transformer, inputs), conditioning.parts
    return actual


def similarities(backbone, data, measures, streams=("image", "text"), **changed):
    readings = read_images(plan_of(backbone, data, **changed), backbone, data, data.items, keep_streams(streams))
    return {one.site: one for one in block_similarities(readings, measures)}


def test_matrices_are_those_of_tokens_read_by_hooks(backbone, data, by_hooks):
    actual = similarities(backbone, data, ["cosine", "cka"])
    assert len(actual) == len(SIGMAS) * 3 * 2
    for site, one in actual.items():
        assert site.source == "images" and site.step is None
        # "a square" has three T5 tokens, and CKA needs four.
        short = {"prompt2"} if (site.part, site.measure) == ("t5", "cka") else set()
        assert set(one.prompt_ids) == {"prompt0", "prompt1", "prompt2", "prompt3"} - short and set(one.items) == {3}
        for prompt_id, matrix in zip(one.prompt_ids, one.values, strict=True):
            matrices = []
            for item_id in data.items.loc[data.items["prompt_id"] == prompt_id, "item_id"]:
                outputs, parts = by_hooks[item_id, site.sigma]
                if site.stream == "image":
                    tokens = torch.stack([image[0] for _, image in outputs])
                else:
                    tokens = torch.stack([text[0, parts[site.part][0]] for text, _ in outputs[:-1]])
                matrices.append(MEASURES[site.measure](tokens).numpy())
            np.testing.assert_allclose(matrix, np.mean(matrices, axis=0), atol=2e-4)


def test_blocks_are_named_and_the_last_has_no_text(backbone, data):
    actual = similarities(backbone, data, ["cosine"])
    assert {one.blocks for site, one in actual.items() if site.stream == "image"} == {tuple(range(BLOCKS))}
    assert {one.blocks for site, one in actual.items() if site.stream == "text"} == {tuple(range(BLOCKS - 1))}
    some = similarities(backbone, data, ["cosine"], streams=["image"], blocks=(1, 3))
    whole = next(one for site, one in actual.items() if site.stream == "image")
    part = next(iter(some.values()))
    assert part.blocks == (1, 3)
    np.testing.assert_allclose(part.values, whole.values[:, [1, 3]][:, :, [1, 3]], atol=1e-6)


def test_batch_size_and_order_do_not_matter(backbone, data):
    one = similarities(backbone, data, ["cka"], streams=["image"])
    other = similarities(backbone, make_data(order=np.arange(12)[::-1]), ["cka"], streams=["image"], batch_size=2)
    for site, matrices in one.items():
        order = [list(other[site].prompt_ids).index(p) for p in matrices.prompt_ids]
        np.testing.assert_allclose(matrices.values, other[site].values[order], atol=1e-4)


def test_parts_with_too_few_tokens_are_left_out(backbone, data):
    actual = similarities(backbone, data, ["knn"], streams=["image", "text"], sigmas=(0.005,))
    assert {site.stream for site in actual} == {"image"}


def test_a_trajectory_is_read_with_the_prompt(backbone, data):
    prompts = data.items.drop_duplicates("prompt_id")[["prompt_id", "prompt"]].reset_index(drop=True)
    plan = plan_of(backbone, data, batch_size=3)
    readings = list(
        read_trajectories(
            plan, backbone, prompts, keep_streams(["image"]), steps=STEPS, guidance=GUIDANCE, read_at=READ_AT
        )
    )
    assert [(r.step, len(r.rows)) for r in readings] == [(0, 3), (2, 3), (3, 3), (0, 1), (2, 1), (3, 1)]
    conditioning, empty = backbone.encode_prompts(prompts["prompt"].tolist()), backbone.encode_prompts([""])
    noise = torch.from_numpy(np.stack([item_noise(0, p, (4, 8, 8)) for p in prompts["prompt_id"]]))
    states = {s.step: s for s in denoise(backbone, noise, conditioning, empty, steps=STEPS, guidance=GUIDANCE)}
    for reading in readings:
        state = states[reading.step]
        assert reading.sigma == state.sigma
        expected = hooked(backbone.transformer, backbone.inputs(state.latents, conditioning, state.sigma))
        for (block, streams), (_, image) in zip(reading.blocks, expected, strict=True):
            torch.testing.assert_close(streams["image"], image[reading.rows.index], msg=str(block))


def test_sites_of_a_trajectory_have_steps(backbone, data):
    prompts = data.items.drop_duplicates("prompt_id")
    readings = read_trajectories(
        plan_of(backbone, data), backbone, prompts, keep_streams(["image"]), steps=STEPS, guidance=1.0, read_at=(3,)
    )
    done = []
    (one,) = block_similarities(readings, ["cosine"], advance=done.append)
    assert one.site.source == "trajectory" and one.site.step == 3 and sum(done) == 4
    assert set(one.items) == {1}


def test_memory_does_not_grow_with_items(backbone, data):
    """Readings are freed one by one: never more than two batches of tokens are alive."""
    import gc
    import weakref

    alive, most = weakref.WeakSet(), 0

    def counted():
        nonlocal most
        for reading in read_images(
            plan_of(backbone, data, batch_size=2), backbone, data, data.items.head(8), keep_streams(["image"])
        ):
            alive.add(reading)
            gc.collect()
            most = max(most, len(alive))
            yield reading

    block_similarities(counted(), ["cosine"])
    assert most <= 2


def test_steps_that_the_trajectory_lacks():
    with pytest.raises(UserError, match="40 steps can be read at steps 0 … 39, got 0, 40"):
        check_steps(40, [0, 40])
    with pytest.raises(UserError, match="got none"):
        check_steps(40, [])
