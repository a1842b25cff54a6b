"""Names, folders, and what is read before weights are loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.backbones import resolve
from probing.backbones.architecture import count_flops
from probing.backbones.families.sd3 import SD3Architecture
from probing.backbones.tuning import Tuning
from probing.errors import UserError


@pytest.mark.parametrize(
    ("name", "blocks", "width", "billions", "teraflops"),
    # Published parameter counts (2.5 and 8.1 B with their text projections); FLOPs counted by hand for 333 text
    # tokens at 512²: two per multiply-add of every matrix product.
    [("sd35-medium", 24, 1536, 2.24, 2.44), ("sd35-large", 38, 2432, 8.06, 7.98), ("sd3-medium", 24, 1536, 2.03, 2.11)],
)
def test_published_architectures(name, blocks, width, billions, teraflops):
    architecture = resolve(name).architecture
    assert (architecture.num_blocks, architecture.width) == (blocks, width)
    assert architecture.parameters / 1e9 == pytest.approx(billions, rel=5e-3)
    assert architecture.forward_flops(512, 333) / 1e12 == pytest.approx(teraflops, rel=5e-3)
    assert architecture.token_grid(512) == (32, 32)
    assert architecture.native_resolution == 1024


def test_flops_of_the_matrix_products_by_hand():
    """Count every matrix product of a small model's forward in closed form."""
    architecture = resolve("testbed-xs").architecture
    d, layers, text, image, joint = 64, 6, 42, 64, 160
    per_token = lambda n, k: 2 * n * d * k  # noqa: E731 - n tokens through a d×k matrix
    total = 2 * image * (4 * 8) * d + 2 * text * joint * d + 2 * d * (256 + joint + 2 * d)
    for block in range(layers):
        last = block == layers - 1
        for tokens, modulation, cut in ((image, 6, False), (text, 2 if last else 6, last)):
            total += 2 * d * modulation * d + per_token(tokens, 3 * d)
            total += 0 if cut else per_token(tokens, d) + 2 * per_token(tokens, 4 * d)
        total += 2 * 2 * (image + text) ** 2 * d
    total += 2 * d * 2 * d + per_token(image, 4 * 8)
    assert architecture.forward_flops(64, text) == pytest.approx(total, rel=1e-3)


def test_a_folder_is_described_without_loading_it(tiny_folder):
    spec = resolve(str(tiny_folder))
    assert spec.architecture.has_t5
    assert spec.resolution == 16
    model = SD3Transformer2DModel.from_pretrained(tiny_folder / "transformer")
    assert spec.architecture.parameters == sum(p.numel() for p in model.parameters())


def test_a_registered_folder_keeps_its_settings_when_given_by_path():
    by_name = resolve("testbed-xs")
    assert resolve(by_name.source) == by_name
    assert by_name.t5_length == 20


@pytest.mark.parametrize("known", ["sd35-medium", "sd35-large", "sd3-medium"])
@pytest.mark.parametrize("written_by_an_older_version", [False, True])
def test_a_folder_with_a_known_configuration_takes_the_names_settings(
    tiny_folder, tmp_path, known, written_by_an_older_version
):
    by_name = resolve(known)
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for part in ("transformer", "vae"):
        config = {"_class_name": {"transformer": "SD3Transformer2DModel", "vae": "AutoencoderKL"}[part]}
        config |= getattr(by_name.architecture, part)
        if written_by_an_older_version:
            defaults = {"dual_attention_layers": [], "qk_norm": None, "mid_block_add_attention": True}
            config = {key: value for key, value in config.items() if defaults.get(key, ...) != value}
        (folder / part / "config.json").write_text(json.dumps(config))
    by_path = resolve(str(folder))
    assert (by_path.resolution, by_path.t5_length) == (by_name.resolution, by_name.t5_length) == (512, 256)
    assert (by_path.name, by_path.source) == ("copy", str(folder))
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 1.0}))
    assert resolve(str(folder)).resolution == 1024


def test_a_copy_of_a_registered_folder_takes_its_settings(tmp_path):
    by_name = resolve("testbed-xs")
    shutil.copytree(by_name.source, tmp_path / "copy")
    by_path = resolve(str(tmp_path / "copy"))
    assert (by_path.resolution, by_path.t5_length) == (by_name.resolution, 20)
    assert (by_path.name, by_path.architecture) == ("copy", by_name.architecture)


def test_another_transformer_takes_the_place_of_the_pipelines_own(tiny_folder, tmp_path):
    config = json.loads((tiny_folder / "transformer" / "config.json").read_text()) | {"num_layers": 5}
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.json").write_text(json.dumps(config))
    spec = resolve(str(tiny_folder), Tuning(tmp_path / "tuned"))
    assert spec.name == f"{tiny_folder.name}+tuned"
    assert spec.architecture.num_blocks == 5
    assert spec.architecture.vae == resolve(str(tiny_folder)).architecture.vae
    (tmp_path / "tuned" / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DModel"}))
    with pytest.raises(UserError, match="UNet2DModel, and supported are: SD3Transformer2DModel"):
        resolve(str(tiny_folder), Tuning(tmp_path / "tuned"))


def test_unknown_names_show_near_ones():
    with pytest.raises(UserError, match="did you mean sd35-medium"):
        resolve("sd3.5-medium")


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"model_index\.json"):
        resolve(str(tmp_path))


def test_an_unsupported_family_is_named(tiny_folder, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(tiny_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "PixArtAlphaPipeline"}))
    with pytest.raises(UserError, match="PixArtAlphaPipeline"):
        resolve(str(folder))
    (folder / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="no valid JSON"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("resolution", "message"), [(100, "multiple of 16"), (8, "multiple of 16"), (6160, "up to 6144")]
)
def test_resolutions_that_the_model_cannot_take(resolution, message):
    with pytest.raises(UserError, match=message):
        resolve("sd35-medium").architecture.token_grid(resolution)


def counted(architecture, resolution, text_tokens):
    """Parameters, FLOPs of a forward and FLOPs of an encoding, by PyTorch's counter on the real classes."""
    with torch.device("meta"):
        model = SD3Transformer2DModel.from_config(architecture.transformer).eval()
    config, side = model.config, resolution // architecture.vae_factor
    inputs = {
        "hidden_states": torch.empty(1, config.in_channels, side, side, device="meta"),
        "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim, device="meta"),
        "pooled_projections": torch.empty(1, config.pooled_projection_dim, device="meta"),
        "timestep": torch.empty(1, device="meta"),
    }
    pixels = (1, 3, resolution, resolution)
    return (
        sum(parameter.numel() for parameter in model.parameters()),
        count_flops(lambda: model(**inputs)),
        count_flops(lambda: AutoencoderKL.from_config(architecture.vae).encode(torch.empty(pixels))),
    )


@pytest.mark.parametrize("name", ["sd35-medium", pytest.param("sd3-medium", marks=pytest.mark.slow), "testbed-m"])
def test_closed_forms_equal_the_counter_on_known_models(name):
    architecture = resolve(name).architecture
    resolution = 64 if "testbed" in name else 256
    actual = (
        architecture.parameters,
        architecture.forward_flops(resolution, 42),
        architecture.encoding_flops(resolution),
    )
    assert actual == counted(architecture, resolution, 42)


@settings(max_examples=6)
@given(data=st.data())
def test_closed_forms_equal_the_counter(data):
    check_closed_forms(data)


@pytest.mark.slow
@settings(max_examples=100)
@given(data=st.data())
def test_many_closed_forms_equal_the_counter(data):
    check_closed_forms(data)


def check_closed_forms(data):
    draw = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    layers, heads, width = draw(1, 2, 3), draw(1, 2), draw(8, 16)
    channels, levels = draw(4, 8), draw(1, 2, 3)
    transformer = {
        "sample_size": 16,
        "patch_size": draw(1, 2),
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": layers,
        "attention_head_dim": width,
        "num_attention_heads": heads,
        "joint_attention_dim": draw(8, 24),
        "caption_projection_dim": heads * width,
        "pooled_projection_dim": draw(8, 24),
        "pos_embed_max_size": 32,
        "dual_attention_layers": sorted(data.draw(st.sets(st.integers(0, layers - 1)))),
        "qk_norm": draw(None, "rms_norm", "layer_norm", "fp32_layer_norm"),
    }
    vae = {
        "down_block_types": [draw("DownEncoderBlock2D", "AttnDownEncoderBlock2D") for _ in range(levels)],
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [draw(8, 16) for _ in range(levels)],
        "layers_per_block": draw(1, 2),
        "norm_num_groups": 4,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": channels,
        "use_quant_conv": draw(True, False),
        "mid_block_add_attention": draw(True, False),
    }
    architecture = SD3Architecture(transformer, vae, clip_length=7, has_t5=False, text_parameters=0)
    actual = architecture.parameters, architecture.forward_flops(32, 9), architecture.encoding_flops(32)
    assert actual == counted(architecture, 32, 9)
