"""Every family through plan, extraction and store, on tiny pipelines of the real classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import probing
from probing.backbones import load_backbone, model_names, resolve
from probing.backbones.families import families
from probing.backbones.sampling import denoise
from probing.errors import UserError
from probing.features.noise import add_noise, item_noise
from probing.preferences import prepare
from tests.fakes.tiny_pipelines import TINY, write
from tests.features.test_extraction import make_data

CPU = torch.device("cpu")
LENGTH, RESOLUTION, BATCH = 40, 16, 5
PARAMETERS = {
    "sd35-medium": 2.243e9,
    "flux1-dev": 11.90e9,
    "qwen-image": 20.43e9,
    "z-image": 6.15e9,
    "flux2-klein-4b": 3.88e9,
    "flux2-klein-9b": 9.08e9,
    "flux2-dev": 32.2e9,
    "chroma1-hd": 8.90e9,
}
"""As published, to three or four figures."""


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.slow) if n == "flux2-dev" else n for n in TINY]
)
def folder(request, tmp_path_factory):
    return write(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(resolve(str(folder)), device=CPU, compute_dtype=torch.float32, t5_length=LENGTH)


SETTINGS = {
    "sigmas": (0.005, 0.6),
    "streams": ("image", "text"),
    "reductions": ("mean", "grid4", "tokens"),
    "resolution": RESOLUTION,
    "batch_size": BATCH,
    "t5_length": LENGTH,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    # Four tokens a side, of 4 pixels (or of 8, in a family whose latents are patches).
    output = tmp_path_factory.mktemp("stores") / "s.zarr"
    return probing.extract(folder, make_data(), output=output, **SETTINGS, keep_inputs=1)


def test_features_are_those_of_plain_hooks(backbone, store):
    """The pipeline's parts by hand, one batch, every block: means of image tokens and of words, and all tokens."""
    data, items = make_data(), store.item_ids[:BATCH].tolist()
    prompts = data.items.set_index("item_id").loc[items, "prompt"].tolist()
    pixels = np.stack([np.asarray(prepare(data.open_image(item), RESOLUTION)) for item in items])
    with torch.inference_mode():
        latents = backbone.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
        noise = torch.from_numpy(np.stack([item_noise(0, item, tuple(latents.shape[1:])) for item in items]))
        conditioning = backbone.encode_prompts(prompts)
        noisy, outputs = add_noise(latents, noise, 0.6), []
        blocks = [block for path in backbone.block_lists for block in backbone.transformer.get_submodule(path)]
        hooks = [block.register_forward_hook(lambda module, args, output: outputs.append(output)) for block in blocks]
        layout = backbone.layout(noisy, conditioning)
        backbone.transformer(**backbone.inputs(noisy, conditioning, 0.6))
        for hook in hooks:
            hook.remove()
    architecture = backbone.spec.architecture
    ((part, words),) = [(name, mask) for name, mask in conditioning.parts.items() if name != "clip"]
    for block, output in enumerate(outputs):
        streams = backbone.streams(block, output, layout)
        if block in architecture.blocks_of("image"):
            image = streams["image"].numpy()
            np.testing.assert_allclose(store.read("image", "mean", 0.6, block)[:BATCH], image.mean(1), atol=2e-5)
            tokens = store.read("image", "tokens", 0.6, block)[:BATCH]
            np.testing.assert_allclose(tokens, image, atol=1e-2, rtol=1e-2)
        if block in architecture.blocks_of("text"):
            text = streams["text"].numpy()
            for row in range(BATCH):
                mean = store.read("text", f"mean_{part}", 0.6, block)[row]
                np.testing.assert_allclose(mean, text[row][words[row].numpy()].mean(0), atol=5e-5)


def test_kept_words_and_latents_give_the_same_store(folder, store, tmp_path):
    """The second extraction loads neither VAE nor text encoders."""
    encoded = store.path.parent / "encoded"
    assert encoded.is_dir()
    again = probing.extract(folder, make_data(), output=store.path.parent / "again.zarr", **SETTINGS, keep_inputs=1)
    for stream, reduction in store.arrays():
        block = store.blocks_of(stream)[-1]
        np.testing.assert_array_equal(
            store.read(stream, reduction, 0.6, block), again.read(stream, reduction, 0.6, block)
        )


def test_the_plan_counts_what_is_there(backbone):
    architecture = backbone.spec.architecture
    assert architecture.parameters == sum(p.numel() for p in backbone.transformer.parameters())
    conditioning = backbone.encode_prompts(["a star"])
    noisy = torch.zeros(1, *architecture.latent_shape(RESOLUTION))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.transformer(**backbone.inputs(noisy, conditioning, 0.5))
    tokens = architecture.text_tokens(LENGTH)
    counted = architecture.forward_flops(RESOLUTION, tokens)
    # Where padding is cut off, the plan counts a prompt of full length.
    assert counted >= counter.get_total_flops() > 0.3 * counted
    assert architecture.encoding_flops(RESOLUTION) > 0


@pytest.mark.parametrize("name", PARAMETERS)
def test_packaged_configurations_have_the_published_size(name):
    assert resolve(name).architecture.parameters == pytest.approx(PARAMETERS[name], rel=2e-3)


def test_every_packaged_configuration_is_of_a_registered_model():
    configs = Path(next(iter(probing.__path__))) / "backbones" / "configs"
    used = {entry.architecture for family in families() for entry in family.entries.values()}
    assert {path.stem for path in configs.glob("*.json")} == used
    assert {"flux1-dev", "flux1-schnell", "qwen-image", "z-image-turbo", "chroma1-hd"} <= set(model_names())


def test_parts_that_do_not_fit_are_named(folder, tmp_path):
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = copy / "vae" / "config.json"
    content = json.loads(config.read_text())
    key = "z_dim" if "z_dim" in content else "latent_channels"
    config.write_text(json.dumps({**content, key: content[key] * 2}))
    with pytest.raises(UserError, match="parts of this pipeline do not fit: the transformer's in_channels is"):
        load_backbone(resolve(str(copy)), device=CPU, compute_dtype=torch.float32, t5_length=LENGTH)


def test_a_resolution_that_gives_no_whole_tokens_is_refused_with_the_multiple(backbone):
    architecture = backbone.spec.architecture
    side = next(side for side in range(1, 64) if _grid(architecture, side) == (1, 1))
    with pytest.raises(UserError, match=f"multiple of {side} pixels for this model, got {2 * side + 1}"):
        architecture.token_grid(2 * side + 1)


def _grid(architecture, side):
    try:
        return architecture.token_grid(side)
    except UserError:
        return None


def test_fresh_weights_leave_the_other_parts(folder, backbone):
    spec = resolve(str(folder))
    fresh = load_backbone(spec, device=CPU, compute_dtype=torch.float32, t5_length=LENGTH, random_init=True)
    assert {name for name in fresh.parts if fresh.parts[name] != backbone.parts[name]} == {"transformer"}


def test_a_trajectory_is_the_stock_pipelines(backbone):
    """Every step's latents, by the pipeline's own callback."""
    prompts, steps, pipeline = ["a small red circle", "a star"], 3, backbone.pipeline
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *backbone.spec.architecture.latent_shape(RESOLUTION), generator=generator)
    expected = []

    def keep(pipeline, step, timestep, tensors):
        expected.append(tensors["latents"])
        return {}

    def drawn(shape, **options):
        return noise.reshape(shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[type(pipeline).__module__], "randn_tensor", drawn)
        pipeline(
            prompt=list(prompts),
            height=RESOLUTION,
            width=RESOLUTION,
            num_inference_steps=steps,
            output_type="latent",
            callback_on_step_end=keep,
            **backbone.stock_options(),
        )
    conditioning, empty = backbone.encode_prompts(prompts), backbone.encode_prompts([""])
    states = list(denoise(backbone, noise, conditioning, empty, steps=steps, guidance=1.0))
    assert len(states) == steps + 1
    for state, latents in zip(states[1:], expected, strict=True):
        torch.testing.assert_close(backbone.packed(state.latents), latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.301, 0.75])
def test_time_is_exact_unless_asked_for_as_the_weights_round_it(folder, sigma):
    """In bfloat16 some transformers embed 752 for σ = 0.75."""
    spec = resolve(str(folder))
    seen = {}
    for time_dtype in ("float32", "model"):
        backbone = load_backbone(
            spec, device=CPU, compute_dtype=torch.bfloat16, t5_length=LENGTH, time_dtype=time_dtype
        )
        noisy = torch.zeros(1, *spec.architecture.latent_shape(RESOLUTION))
        modules = [m for m in backbone.transformer.modules() if type(m).__name__ in ("Timesteps", "TimestepEmbedder")]
        given = []
        hook = modules[0].register_forward_pre_hook(lambda module, args, given=given: given.append(args[0]))
        with torch.no_grad():
            backbone.velocity(noisy, backbone.encode_prompts(["a star"]), sigma)
        hook.remove()
        seen[time_dtype] = given[0].item()
        assert seen[time_dtype] == backbone.embedded_timestep(sigma)
    exact = load_backbone(spec, device=CPU, compute_dtype=torch.float32, t5_length=LENGTH).embedded_timestep(sigma)
    assert seen["float32"] == exact
    if backbone.time_scale == 1000 and backbone.time_projection and sigma == 0.75:
        assert seen["model"] == 752
    elif sigma == 0.301:
        assert (seen["model"] != exact) == bool(backbone.time_projection)


def test_guidance_is_a_setting_where_it_is_embedded(folder, tmp_path):
    spec = resolve(str(folder))
    if spec.architecture.guidance is None:
        with pytest.raises(UserError, match="embeds no guidance; leave --guidance out"):
            probing.extract(folder, make_data(), output=tmp_path / "s.zarr", **{**SETTINGS, "guidance": 2.0})
        return
    assert spec.architecture.guidance == (4.0 if "flux2" in spec.name else 3.5)
    read = {**SETTINGS, "sigmas": (0.6,), "reductions": ("mean",), "streams": ("image",)}
    usual = probing.extract(folder, make_data(), output=tmp_path / "usual.zarr", **read)
    other = probing.extract(folder, make_data(), output=tmp_path / "other.zarr", **read, guidance=1.0)
    assert (usual.attributes["guidance"], other.attributes["guidance"]) == (spec.architecture.guidance, 1.0)
    assert not np.allclose(usual.read("image", "mean", 0.6, 4), other.read("image", "mean", 0.6, 4))
    with pytest.raises(UserError, match=r"guidance was (3\.5|4\.0) and is now 2\.0"):
        probing.extract(folder, make_data(), output=tmp_path / "usual.zarr", **read, guidance=2.0)


def test_the_store_records_what_was_embedded(backbone, store):
    assert store.attributes["embedded_timesteps"] == [backbone.embedded_timestep(sigma) for sigma in store.sigmas]


def test_the_store_records_its_kinds_of_block(backbone, store):
    lists = dict(store.attributes["block_lists"])
    assert list(lists) == list(backbone.block_lists) and sum(lists.values()) == store.num_blocks
