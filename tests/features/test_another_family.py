"""A family from user code, one file and one registering line, works everywhere unchanged."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import probing
from probing.backbones import Layout, families, load_backbone, model_names, part_digests, register_family, resolve
from probing.errors import UserError
from probing.features import ExtractionSettings, extract, make_plan
from probing.features.block_similarity import measure
from probing.features.noise import add_noise, item_noise
from probing.features.similarity_plan import SimilarityPlan
from probing.features.tokens import check_same_model, read_image_tokens, settings_of
from probing.preferences import prepare
from tests.fakes.joint_family import joint_family, write_joint_folder
from tests.features.test_extraction import make_data

CPU = torch.device("cpu")
BLOCKS, IMAGE_TOKENS, LENGTH, BATCH = 5, 16, 20, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "joint"
    write_joint_folder(folder)
    return folder


@pytest.fixture(scope="module")
def spec(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
        register_family(joint_family(folder))
        yield resolve("joint-tiny")


@pytest.fixture(scope="module")
def backbone(spec):
    return load_backbone(spec, device=CPU, compute_dtype=torch.float32)


@pytest.fixture(scope="module")
def plan(spec):
    settings = ExtractionSettings(
        sigmas=(0.005, 0.6),
        streams=("image", "text"),
        reductions=("mean", "std", "grid4", "tokens"),
        resolution=32,
        batch_size=BATCH,
        t5_length=LENGTH,
    )
    return make_plan(spec, settings, items=12, prompts=4)


@pytest.fixture(scope="module")
def store(plan, backbone, tmp_path_factory):
    return extract(plan, backbone, make_data(), tmp_path_factory.mktemp("stores") / "joint.zarr").store


def test_an_unregistered_family_is_refused(folder):
    with pytest.raises(
        UserError, match="holds a JointPipeline, and supported are: StableDiffusion3Pipeline.*says how to add"
    ):
        resolve(str(folder))


def test_it_is_resolved_by_name_and_by_path(spec, folder):
    assert "joint-tiny" in model_names()
    assert resolve(str(folder)) == spec
    assert (spec.resolution, spec.t5_length, spec.architecture.num_blocks) == (32, LENGTH, BLOCKS)
    digests = part_digests(spec, random_init=False, seed=0, use_t5=True)
    assert set(digests) == {"transformer", "autoencoder", "reader"}


def test_its_plan_counts_tokens_and_costs(plan, spec):
    assert (plan.image_tokens, plan.text_tokens) == (IMAGE_TOKENS, LENGTH)
    assert {spec.name: spec.blocks for spec in plan.arrays}["features/text/mean_letters"] == tuple(range(BLOCKS))
    assert "5 blocks × 12 channels" in plan.describe() and "16 image at 32², 20 letters" in plan.describe()
    assert plan.forward_flops > 0 and plan.host_bytes > 0


def test_its_folder_is_checked_strictly(folder, spec, tmp_path):
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "joint"))
    config = copy / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"late": 3', '"late": 4'))
    with pytest.raises(UserError, match="late = 4, and its weights hold 3 blocks"):
        resolve(str(copy))


def hooked(backbone, plan, items, prompts, sigma):
    """Output of every block for a batch, by plain forward hooks, with everything else by hand."""
    data, outputs = make_data(), []
    pixels = np.stack([np.asarray(prepare(data.open_image(item), 32)) for item in items])
    latents = backbone.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1.0))
    noise = torch.from_numpy(np.stack([item_noise(0, item, (2, 8, 8)) for item in items]))
    conditioning = backbone.encode_prompts(prompts)
    transformer = backbone.transformer
    blocks = [*transformer.early_blocks, *transformer.late_blocks]
    hooks = [block.register_forward_hook(lambda module, args, output: outputs.append(output)) for block in blocks]
    with torch.inference_mode():
        transformer(
            picture=add_noise(latents, noise, sigma),
            letters=conditioning.tensors["letters"],
            padding=conditioning.tensors["padding"],
            time=torch.full((len(items),), 1 - sigma),
        )
    for hook in hooks:
        hook.remove()
    return outputs


def test_features_equal_plain_hooks_bit_for_bit(backbone, plan, store):
    """Blocks of both lists, numbered through; the image first, real letters of the text only."""
    items = store.item_ids.tolist()
    prompts = make_data().items.set_index("item_id").loc[items, "prompt"].tolist()
    for sigma in store.sigmas:
        for start in range(0, len(items), BATCH):
            batch = slice(start, start + BATCH)
            outputs = hooked(backbone, plan, items[batch], prompts[batch], sigma)
            assert len(outputs) == BLOCKS
            for block, joined in enumerate(outputs):
                image, text = joined[:, :IMAGE_TOKENS], joined[:, IMAGE_TOKENS:]
                np.testing.assert_array_equal(store.read("image", "mean", sigma, block)[batch], image.mean(1).numpy())
                tokens = store.read("image", "tokens", sigma, block)[batch]
                np.testing.assert_array_equal(tokens, image.half().float().numpy())
                tokens = store.read("text", "tokens", sigma, block)[batch]
                np.testing.assert_array_equal(tokens, text.half().float().numpy())
                for row, prompt in enumerate(prompts[batch]):
                    real = text[row, : len(prompt) + 1]
                    mean = store.read("text", "mean_letters", sigma, block)[start + row]
                    np.testing.assert_allclose(mean, real.mean(0).numpy(), rtol=1e-5, atol=1e-6)


def test_padding_is_excluded(spec, plan, store, tmp_path):
    """A longer text part adds padding only: means of prompts that were not cut stay."""
    settings = replace(plan.settings, t5_length=LENGTH + 9, reductions=("mean", "std", "max"))
    longer = load_backbone(spec, device=CPU, compute_dtype=torch.float32, t5_length=LENGTH + 9)
    wide = extract(make_plan(spec, settings, items=12, prompts=4), longer, make_data(), tmp_path / "wide.zarr").store
    lengths = store.read_column("prompt_clip_tokens")
    assert sorted(set(lengths.tolist())) == [9, 19, 29, 37] and store.attributes["clip_tokens"] == LENGTH
    whole = lengths <= LENGTH
    for block in range(BLOCKS):
        for reduction in ("mean_letters", "std_letters"):
            one, other = (s.read("text", reduction, 0.6, block)[whole] for s in (store, wide))
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.25, 1.0])
def test_the_embedded_time_is_one_minus_sigma(backbone, sigma):
    times = []
    hook = backbone.transformer.clock.register_forward_hook(lambda module, args, output: times.append(args[0]))
    noisy, conditioning = torch.ones(1, 2, 8, 8), backbone.encode_prompts(["a star"])
    velocity = backbone.velocity(noisy, conditioning, sigma)
    hook.remove()
    assert times[0].item() == backbone.embedded_timestep(sigma) == 1 - sigma
    assert torch.equal(velocity, -backbone.transformer(**backbone.inputs(noisy, conditioning, sigma)))


def test_similarity_of_images_and_trajectories(spec, backbone, plan):
    similarity = SimilarityPlan(plan, ("cosine", "cka"), read_at=(0, 2), steps=3)
    matrices = measure(similarity, backbone, make_data())
    assert {(m.site.source, m.site.stream, m.site.part) for m in matrices} == {
        (source, *stream) for source in ("images", "trajectory") for stream in (("image", "all"), ("text", "letters"))
    }
    for matrix in matrices:
        assert matrix.blocks == tuple(range(BLOCKS))
        np.testing.assert_allclose(np.diagonal(matrix.values, axis1=1, axis2=2), 1, atol=1e-4)


def test_tokens_read_on_demand_are_the_stores(spec, backbone, store):
    settings = settings_of(store.attributes)
    check_same_model(store.attributes, backbone)
    items = store.item_ids[:BATCH].tolist()
    tokens = read_image_tokens(spec, backbone, make_data(), items, settings, sigma=0.6, block=3)
    np.testing.assert_array_equal(
        tokens.astype(np.float16).astype(np.float32), store.read("image", "tokens", 0.6, 3)[:BATCH]
    )


def test_fresh_weights_are_another_model(spec, backbone):
    fresh = load_backbone(spec, device=CPU, compute_dtype=torch.float32, random_init=True)
    assert {name for name in fresh.parts if fresh.parts[name] != backbone.parts[name]} == {"transformer"}


def test_a_layout_takes_positions_by_item():
    """Two items whose texts begin at different positions, text padding pointing anywhere."""
    joined = torch.arange(2 * 6 * 1).reshape(2, 6, 1).float()
    layout = Layout(torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[3, 4, 0], [0, 1, 2]]))
    streams = layout.split(joined)
    assert streams["image"].flatten().tolist() == [0, 1, 2, 9, 10, 11]
    assert streams["text"].flatten().tolist() == [3, 4, 0, 6, 7, 8]
    streams = Layout.text_first(4, 2).split(joined)
    assert streams["image"][0].flatten().tolist() == [2, 3, 4, 5] and streams["text"][0].flatten().tolist() == [0, 1]


def test_keys_of_a_family_are_named_in_its_file_alone():
    keys = (
        "joint_attention_dim|pos_embed_max_size|pooled_projection|caption_projection_dim|dual_attention|"
        "(text_encoder|tokenizer)_[23]|SD3[A-Z]|StableDiffusion|transformer_blocks|num_attention_heads"
    )
    package = Path(next(iter(probing.__path__)))
    named = {
        path.relative_to(package).as_posix()
        for room in ("backbones", "features")
        for path in (package / room).rglob("*.py")
        if re.search(keys, path.read_text())
    }
    # CLIP's configuration has heads too.
    outside = {name for name in named if not name.startswith("backbones/families/")}
    assert outside <= {"backbones/library_parts.py"}
    assert "backbones/families/__init__.py" not in named
