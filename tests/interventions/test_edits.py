"""Edits of blocks in every family: one has its effect on its rows alone, and a patched run is the donor's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.backbones import load_backbone, resolve
from probing.backbones.sampling import denoise
from probing.errors import UserError
from probing.features.trace import BlockTrace
from probing.interventions import Eraser, combine, erase, patch, steer
from tests.fakes.tiny_pipelines import TINY, write

CPU, LENGTH, SIGMA, ITEMS = torch.device("cpu"), 40, 0.6, 3
TEXT_IS_COPIED = ("qwen-image", "z-image")
"""Their texts are brought to one length, in a tensor of their own."""


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.slow) if n == "flux2-dev" else n for n in TINY]
)
def backbone(request, tmp_path_factory):
    folder = write(request.param, tmp_path_factory.mktemp(request.param))
    return load_backbone(resolve(str(folder)), device=CPU, compute_dtype=torch.float32, t5_length=LENGTH)


@pytest.fixture(scope="module")
def trace(backbone):
    return BlockTrace(backbone)


@pytest.fixture(scope="module")
def given(backbone):
    """Noisy latents of three items, and one prompt for all of them."""
    shape = backbone.spec.architecture.latent_shape(32)
    noisy = torch.randn(ITEMS, *shape, generator=torch.Generator().manual_seed(0))
    return noisy, backbone.encode_prompts(["a small red circle"]).rows(torch.zeros(ITEMS, dtype=torch.long))


def blocks_of(backbone, stream):
    return list(backbone.spec.architecture.blocks_of(stream))


def tokens_of(backbone, trace, given, blocks, edits=None):
    """All streams of some blocks."""
    noisy, words = given
    inputs, layout = backbone.inputs(noisy, words, SIGMA), backbone.layout(noisy, words)

    def kept(block, streams):
        return {name: None if tokens is None else tokens.clone() for name, tokens in streams.items()}

    return dict(zip(blocks, trace.run(inputs, layout, blocks, kept, edits=edits), strict=True))


def test_an_edit_that_changes_nothing_changes_nothing_bit_for_bit(backbone, trace, given):
    plain = backbone.velocity(*given, SIGMA)
    blocks = blocks_of(backbone, "image")
    same = {block: lambda streams: {"image": streams["image"].clone()} for block in blocks}
    assert torch.equal(trace.velocity(*given, SIGMA, {}), plain)
    assert torch.equal(trace.velocity(*given, SIGMA, same), plain)
    read = tokens_of(backbone, trace, given, blocks)
    edited = tokens_of(backbone, trace, given, blocks, same)
    assert all(torch.equal(read[block]["image"], edited[block]["image"]) for block in blocks)


def test_steering_is_what_a_plain_hook_does_on_its_rows_alone(backbone, trace, given):
    block = blocks_of(backbone, "image")[1]
    width = tokens_of(backbone, trace, given, [block])[block]["image"].shape[2]
    direction = torch.randn(width, generator=torch.Generator().manual_seed(1))
    steered = trace.velocity(*given, SIGMA, {block: steer(direction, 2.0, rows=slice(1, 2))})
    layout = backbone.layout(*given)

    def hook(module, arguments, output):
        backbone.streams(block, output, layout)["image"][1] += 2.0 * direction

    modules = [m for path in backbone.block_lists for m in backbone.transformer.get_submodule(path)]
    handle = modules[block].register_forward_hook(hook)
    with torch.inference_mode():
        expected = backbone.velocity(*given, SIGMA)
    handle.remove()
    plain = backbone.velocity(*given, SIGMA)
    assert torch.equal(steered, expected)
    assert torch.equal(steered[[0, 2]], plain[[0, 2]]) and not torch.allclose(steered[1], plain[1], atol=1e-4)
    # The backbone is as it was.
    assert torch.equal(backbone.velocity(*given, SIGMA), plain)


def test_a_run_whose_streams_are_patched_is_the_donors_from_there_on(backbone, trace, given):
    noisy, words = given
    other = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(2))
    block = [b for b in blocks_of(backbone, "image") if b < backbone.spec.architecture.num_blocks - 1][-1]
    tokens = tokens_of(backbone, trace, (other, words), [block])[block]
    image, text = (patch(tokens[name], stream=name) for name in ("image", "text"))
    if backbone.spec.name in TEXT_IS_COPIED:
        with pytest.raises(UserError, match="gives a copy of the text tokens of block .*; edit the image stream"):
            trace.velocity(noisy, words, SIGMA, {block: combine(image, text)})
        assert not torch.allclose(
            trace.velocity(noisy, words, SIGMA, {block: image}), backbone.velocity(noisy, words, SIGMA), atol=1e-4
        )
        return
    patched = trace.velocity(noisy, words, SIGMA, {block: combine(image, text)})
    assert torch.equal(patched, backbone.velocity(other, words, SIGMA))


def test_erasing_removes_a_direction_and_leaves_the_rest(backbone, trace, given):
    block = blocks_of(backbone, "image")[0]
    width = tokens_of(backbone, trace, given, [block])[block]["image"].shape[2]
    direction = np.random.default_rng(3).normal(size=width)
    direction /= np.linalg.norm(direction)
    eraser = Eraser(np.outer(direction, direction), np.zeros(width))
    before = tokens_of(backbone, trace, given, [block])[block]["image"].numpy()
    after = tokens_of(backbone, trace, given, [block], {block: erase(eraser)})[block]["image"].numpy()
    np.testing.assert_allclose(after @ direction, 0, atol=1e-5)
    np.testing.assert_allclose(after, eraser.apply(before.reshape(-1, width)).reshape(before.shape), atol=1e-5)


def test_a_trajectory_is_edited_at_some_steps(backbone, trace, given):
    noisy, words = given
    block = blocks_of(backbone, "image")[0]
    width = tokens_of(backbone, trace, given, [block])[block]["image"].shape[2]
    push, active = steer(torch.randn(width, generator=torch.Generator().manual_seed(4)), 3.0), []

    empty = words.rows(torch.tensor([0]))

    def velocity(latents, conditioning, sigma):
        return trace.velocity(latents, conditioning, sigma, {block: push} if active[-1] else {})

    def final(steps):
        for state in denoise(
            backbone, noisy, words, words.rows(torch.tensor([0])), steps=3, guidance=1.0, velocity=velocity
        ):
            active.append(state.step in steps)
        return state.latents

    plain = [*denoise(backbone, noisy, words, empty, steps=3, guidance=1.0)][-1].latents
    assert torch.equal(final(()), plain)
    assert not torch.allclose(final((1,)), plain, atol=1e-4)


def test_streams_that_are_not_there_and_other_shapes_get_a_sentence(backbone, trace, given):
    architecture = backbone.spec.architecture
    without = [b for b in range(architecture.num_blocks) if b not in architecture.blocks_of("text")]
    for block in without[:1]:
        with pytest.raises(UserError, match=f"Block {block} has no text stream"):
            trace.velocity(*given, SIGMA, {block: steer(torch.ones(8), 1.0, stream="text")})
    block = blocks_of(backbone, "image")[0]
    with pytest.raises(UserError, match=r"returned image tokens of shape \(1,\), expected"):
        trace.velocity(*given, SIGMA, {block: lambda streams: {"image": torch.ones(1)}})
