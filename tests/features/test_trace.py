"""The nnsight trace against plain forward hooks."""

from __future__ import annotations

import gc
import resource

import pytest
import torch

from probing.backbones import load_backbone, resolve
from probing.features.trace import BlockTrace
from tests.fakes.tiny_sd3 import BLOCKS, T5_LENGTH


def hooked(transformer, inputs):
    """What every block returns, by plain hooks, in running order."""
    outputs = []
    hooks = [
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
        for block in transformer.transformer_blocks
    ]
    with torch.inference_mode():
        transformer(**inputs)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.fixture(scope="module", params=["tiny", "testbed-xs"])
def backbone(request, tiny_folder):
    spec = resolve(str(tiny_folder) if request.param == "tiny" else request.param)
    length = T5_LENGTH if spec.architecture.has_t5 else 0
    return load_backbone(spec, device=torch.device("cpu"), compute_dtype=torch.float32, t5_length=length)


@pytest.fixture(scope="module")
def noisy(backbone):
    shape = backbone.spec.architecture.latent_shape(backbone.spec.resolution)
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def conditioning(backbone):
    return backbone.encode_prompts(["a small red circle", "a star", ""])


@pytest.fixture(scope="module")
def inputs(backbone, noisy, conditioning):
    return backbone.inputs(noisy, conditioning, 0.005)


@pytest.fixture(scope="module")
def layout(backbone, noisy, conditioning):
    return backbone.layout(noisy, conditioning)


@pytest.fixture(scope="module")
def trace(backbone):
    return BlockTrace(backbone)


def test_every_block_and_stream_equals_plain_hooks_bit_for_bit(backbone, inputs, layout, trace):
    expected = hooked(backbone.transformer, inputs)
    blocks = list(range(len(expected)))
    actual = trace.run(inputs, layout, blocks, lambda block, streams: (block, streams))
    assert [block for block, _ in actual] == blocks
    for (_, streams), (text, image) in zip(actual, expected, strict=True):
        assert torch.equal(streams["image"], image)
        assert (streams["text"] is None) == (text is None)
        assert text is None or torch.equal(streams["text"], text)
    assert actual[-1][1]["text"] is None


def test_streams_are_not_swapped(backbone, inputs, layout, trace):
    """Image and text have different token counts, so a swap would show in the shapes."""
    (streams,) = trace.run(inputs, layout, [1], lambda block, streams: streams)
    grid = backbone.spec.architecture.token_grid(backbone.spec.resolution)
    assert streams["image"].shape[1] == grid[0] * grid[1]
    assert streams["text"].shape[1] == inputs["encoder_hidden_states"].shape[1]


def test_a_single_block_is_the_right_one(backbone, inputs, layout, trace):
    expected = hooked(backbone.transformer, inputs)
    for block, (_, image) in enumerate(expected):
        (actual,) = trace.run(inputs, layout, [block], lambda block, streams: streams["image"])
        assert torch.equal(actual, image)


def test_blocks_after_the_deepest_do_not_run(backbone, inputs, layout, trace):
    ran = []
    hooks = [
        block.register_forward_pre_hook(lambda module, args, i=i: ran.append(i))
        for i, block in enumerate(backbone.transformer.transformer_blocks)
    ]
    trace.run(inputs, layout, [0, 1], lambda block, streams: None)
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1]


@pytest.mark.parametrize("blocks", [[], [1, 0], [0, 0], [-1], [99]])
def test_blocks_must_increase_within_the_model(inputs, layout, trace, blocks):
    with pytest.raises(ValueError, match="must increase"):
        trace.run(inputs, layout, blocks, lambda block, streams: None)


def test_an_error_inside_a_reduction_comes_out_as_itself(inputs, layout, trace):
    class Refused(Exception):
        pass

    def refuse(block, streams):
        raise Refused("no")

    with pytest.raises(Exception, match="no") as caught:
        trace.run(inputs, layout, [0], refuse)
    assert isinstance(caught.value, Refused) or "Refused" in str(caught.value)
    # And the next trace works as before.
    assert trace.run(inputs, layout, [0], lambda block, streams: block) == [0]


def test_memory_stays_flat_over_many_traces(inputs, layout, trace):
    def run():
        trace.run(inputs, layout, list(range(BLOCKS)), lambda block, streams: streams["image"].mean(dim=1))

    for _ in range(30):
        run()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        run()
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    # A leak of one block's tokens a trace would be far more.
    assert grown_mib < 32
