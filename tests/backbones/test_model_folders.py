"""A model folder is loaded as it is, or refused in one sentence that names the fault and the fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from probing.backbones import load_backbone, resolve
from probing.backbones.families.sd3 import FAMILY
from probing.backbones.folder_files import weight_files
from probing.backbones.part_weights import check_weights
from probing.errors import UserError
from tests.backbones.model_folders import (
    WEIGHTED,
    config_path,
    copied,
    edit_config,
    edit_json,
    edit_weights,
    load,
    refused,
    weights_path,
)
from tests.fakes.tiny_sd3 import T5_LENGTH

ONE_OF = {
    "transformer": "proj_out.bias",
    "vae": "encoder.conv_in.bias",
    "text_encoder": "text_projection.weight",
    "text_encoder_2": "text_projection.weight",
    "text_encoder_3": "encoder.final_layer_norm.weight",
}
PROMPTS = ["a small red circle", "a star"]


QUICK = ("transformer", "text_encoder_3")
PARTS = [part if part in QUICK else pytest.param(part, marks=pytest.mark.slow) for part in WEIGHTED]
"""Parts with weights; the fast tests take one of each library."""


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return copied(tiny_folder, tmp_path / "model")


@pytest.mark.parametrize("part", PARTS)
def test_missing_tensors_are_named(folder, part):
    edit_weights(folder, part, lambda tensors: tensors.pop(ONE_OF[part]))
    refused(folder, rf"{part} in .*lack {ONE_OF[part]}")


@pytest.mark.parametrize("part", PARTS)
def test_unexpected_tensors_are_named(folder, part):
    edit_weights(folder, part, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
    refused(folder, rf"{part} in .*unexpected extra\.weight")


@pytest.mark.parametrize("part", PARTS)
def test_other_shapes_are_named(folder, part):
    edit_weights(folder, part, lambda tensors: tensors.update({ONE_OF[part]: torch.zeros(3)}))
    refused(folder, rf"{part} in .*{ONE_OF[part]} has the shape \[3\]")


@pytest.mark.parametrize("part", PARTS)
def test_other_types_are_named(folder, part):
    change = lambda tensors: tensors.update({ONE_OF[part]: tensors[ONE_OF[part]].to(torch.int8)})  # noqa: E731
    edit_weights(folder, part, change)
    refused(folder, rf"{part} in .*{ONE_OF[part]} has the type I8")


def test_a_replacing_transformer_is_loaded_strictly(folder, tmp_path):
    tuned = tmp_path / "tuned"
    shutil.copytree(folder / "transformer", tuned)
    shutil.move(tuned, tmp_path / "other" / "transformer")
    edit_weights(tmp_path / "other", "transformer", lambda tensors: tensors.pop("proj_out.bias"))
    refused(folder, r"transformer in .*other.*lack proj_out\.bias", tmp_path / "other" / "transformer")


def test_a_tied_tensor_may_be_left_out(folder, tiny_folder):
    """T5's embedding is stored once or twice; the result is one."""
    edit_weights(folder, "text_encoder_3", lambda t: t.update({"encoder.embed_tokens.weight": t["shared.weight"] + 0}))
    both = load(folder).encode_prompts(PROMPTS).tensors["encoder_hidden_states"]
    edit_weights(folder, "text_encoder_3", lambda t: t.pop("shared.weight"))
    alone = load(folder).encode_prompts(PROMPTS).tensors["encoder_hidden_states"]
    assert torch.equal(both, load(tiny_folder).encode_prompts(PROMPTS).tensors["encoder_hidden_states"])
    assert torch.equal(alone, both)


def test_position_ids_of_older_files_are_ignored(folder, tiny_folder):
    ids = {"text_model.embeddings.position_ids": torch.arange(22)[None]}
    edit_weights(folder, "text_encoder", lambda tensors: tensors.update(ids))
    expected = load(tiny_folder).encode_prompts(PROMPTS)
    assert torch.equal(
        load(folder).encode_prompts(PROMPTS).tensors["encoder_hidden_states"], expected.tensors["encoder_hidden_states"]
    )


@pytest.mark.parametrize("random_init", [False, True])
@pytest.mark.parametrize("seed", [2**80, 2**63, -1])
def test_seeds_out_of_range(folder, seed, random_init):
    with pytest.raises(UserError, match=rf"A seed must be a whole number from 0 to {2**63 - 1}, got {seed}"):
        load(folder, random_init=random_init, seed=seed)


@pytest.mark.parametrize("content", [b"[1, 2]", b"null", b"3", b'"x"'])
@pytest.mark.parametrize("name", ["model_index.json", "vae/config.json", "tokenizer/tokenizer_config.json"])
def test_json_that_is_no_object(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, rf"{name} holds a JSON \w+, and an object is needed")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no valid JSON"),
        (b"{", "no valid JSON"),
        (b"\xff\xfe\x00{}", "no valid JSON"),
        (bytes(range(256)), "no valid JSON"),
        (b'{"num_layers": NaN}', "it holds NaN"),
        (b'{"num_layers": -Infinity}', "it holds -Infinity"),
        (b'{"num_layers": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": ' * 30 + b"1" + b"}" * 30, "nested too deeply"),
        (b" " * (16 * 2**20 + 1), "at most"),
    ],
)
@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json", "text_encoder_2/config.json"])
def test_json_that_is_damaged(folder, name, content, match):
    (folder / name).write_bytes(content)
    refused(folder, f"{name}.*{match}")


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"garbage" * 100, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}", None])
@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_garbage_or_cut_short(folder, part, content):
    path = weights_path(folder, part)
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    refused(folder, rf"{path.name} (is damaged or cut short|holds no tensors).*copy the file again")


def test_a_header_that_claims_too_much(folder):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = weights_path(folder, "vae")
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    refused(folder, "is damaged or cut short")


def test_a_git_lfs_pointer(folder):
    weights_path(folder, "vae").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(folder, "git lfs pull")


@pytest.mark.parametrize("part", [*WEIGHTED, "tokenizer_2", "scheduler"])
def test_missing_files_are_named(folder, part):
    config_path(folder, part).unlink()
    refused(folder, rf"{part}.*\.json is missing")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
def test_missing_weights_are_named(folder, part):
    weights_path(folder, part).unlink()
    refused(folder, rf"{part}.*safetensors is missing: copy the model folder again")


@pytest.mark.parametrize("what", ["folder", "weights"])
def test_a_folder_without_t5_names_the_option(folder, tiny_folder, what):
    path = folder / "text_encoder_3" if what == "folder" else weights_path(folder, "text_encoder_3")
    shutil.rmtree(path) if what == "folder" else path.unlink()
    refused(folder, r"text_encoder_3.* is missing: copy it, or leave T5 out with --no-t5")
    actual, expected = (load(f, use_t5=False).encode_prompts(PROMPTS) for f in (folder, tiny_folder))
    assert torch.equal(actual.tensors["encoder_hidden_states"], expected.tensors["encoder_hidden_states"])


def test_an_index_without_t5(folder, tiny_folder):
    nothing = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    edit_json(folder / "model_index.json", lambda index: index.update(nothing))
    assert not resolve(str(folder)).architecture.has_t5
    actual, expected = load(folder).encode_prompts(PROMPTS), load(tiny_folder, use_t5=False).encode_prompts(PROMPTS)
    assert torch.equal(actual.tensors["encoder_hidden_states"], expected.tensors["encoder_hidden_states"])
    edit_json(folder / "model_index.json", lambda index: index.update(tokenizer_3=["transformers", "T5Tokenizer"]))
    refused(folder, "only one of text_encoder_3 and tokenizer_3")


@pytest.mark.parametrize("index", [{}, {"_class_name": ["a", "b"]}, {"_class_name": "PixArtAlphaPipeline"}])
def test_an_index_of_another_pipeline(folder, index):
    (folder / "model_index.json").write_text(json.dumps(index))
    refused(folder, "supported are: StableDiffusion3Pipeline")


@pytest.mark.parametrize(
    ("part", "entry", "match"),
    [
        ("vae", ["diffusers", "AutoencoderTiny"], "'AutoencoderTiny' as vae, and supported is: AutoencoderKL"),
        ("text_encoder", ["transformers", "CLIPTextModel"], "supported is: CLIPTextModelWithProjection"),
        ("transformer", ["os", "system"], "'system' as transformer"),
        ("tokenizer", None, "has no tokenizer, which"),
        ("scheduler", "x", "'x' as scheduler"),
        ("vae", [], r"\[\] as vae"),
        ("vae", ["diffusers", {"a": 1}], "as vae"),
    ],
)
def test_classes_that_are_not_supported(folder, part, entry, match):
    edit_json(folder / "model_index.json", lambda index: index.update({part: entry}))
    refused(folder, match)


@pytest.mark.parametrize("part", PARTS)
def test_weights_of_16_bits_alone_are_loaded(tiny_folder, tmp_path, part):
    plain, half = (copied(tiny_folder, tmp_path / name) for name in ("plain", "half"))
    for folder in (plain, half):
        edit_weights(folder, part, lambda tensors: {name: t.half() for name, t in tensors.items()})
    path = weights_path(half, part)
    path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    expected, actual = load(plain), load(half)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for one, other in zip(_outputs(expected, noise), _outputs(actual, noise), strict=True):
        assert torch.equal(one, other)


def _outputs(backbone, noise):
    conditioning = backbone.encode_prompts(PROMPTS[:1])
    with torch.inference_mode():
        velocity = backbone.transformer(**backbone.inputs(noise, conditioning, 0.5))[0]
    pixels = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    return [
        conditioning.tensors["encoder_hidden_states"],
        conditioning.tensors["pooled_projections"],
        velocity,
        backbone.encode_images(pixels),
    ]


@pytest.mark.parametrize("part", ["transformer", pytest.param("vae", marks=pytest.mark.slow), "text_encoder_3"])
@pytest.mark.parametrize("variant", [None, pytest.param("fp16", marks=pytest.mark.slow)])
def test_shards(tiny_folder, tmp_path, part, variant):
    folder = copied(tiny_folder, tmp_path / "model")
    backbone = load(tiny_folder)
    module = getattr(backbone.pipeline, part)
    shutil.rmtree(folder / part)
    module.save_pretrained(
        folder / part, max_shard_size="100KB" if part != "text_encoder_3" else "20KB", variant=variant
    )
    assert len(list((folder / part).glob("*-of-*"))) > 1
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for one, other in zip(_outputs(backbone, noise), _outputs(load(folder), noise), strict=True):
        assert torch.equal(one, other)
    shard = sorted((folder / part).glob("*-of-*"))[0]
    index = next((folder / part).glob("*index*"))
    edit_json(index, lambda content: content["weight_map"].pop(next(iter(content["weight_map"]))))
    refused(folder, "is only in one of them|is missing")
    edit_json(index, lambda content: content["weight_map"].update(x="../../x.safetensors"))
    refused(folder, "no safetensors file of its folder")
    edit_json(index, lambda content: content.update(weight_map=[1]))
    refused(folder, "has no weight_map")
    (folder / part / shard.name).unlink()
    with pytest.raises(UserError):
        load(folder)


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_pickled_weights_are_refused(folder, part):
    path = weights_path(folder, part)
    path.unlink()
    torch.save({}, path.with_name("pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"))
    refused(folder, r"pickled \.bin files only.*save_pretrained")


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_weights_of_a_compiled_model(folder, part):
    edit_weights(folder, part, lambda tensors: {f"_orig_mod.{name}": t for name, t in tensors.items()})
    refused(folder, r"compiled model \(its keys begin with _orig_mod\.\): save model\._orig_mod by save_pretrained")


@pytest.mark.parametrize("name", ["vae/config.json", "vae/diffusion_pytorch_model.safetensors", "vae"])
def test_loops_of_links(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path)
    refused(folder, "is missing")


@pytest.mark.parametrize("name", ["vae/config.json", "tokenizer/tokenizer_config.json"])
def test_pipes_are_no_files(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, rf"{name} is missing")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/x", "a\0b", "", "/dev/null"])
def test_paths_that_are_no_folders(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Unknown model|model_index\.json is missing") as caught:
        resolve(name)
    assert len(str(caught.value)) < 1000


def test_a_tokenizer_of_a_larger_vocabulary(folder):
    def grow(content):
        content["added_tokens"].append({**content["added_tokens"][0], "id": 5000, "content": "<|new|>"})

    edit_json(folder / "tokenizer_2" / "tokenizer.json", grow)
    with pytest.raises(UserError, match="does not fit its text encoder"):
        load(folder)


def test_a_tokenizer_that_is_garbage(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer in .*cannot be loaded"):
        load(folder)


def test_random_init_needs_no_weights_of_the_transformer(folder):
    weights_path(folder, "transformer").unlink()
    backbone = load(folder, random_init=True)
    assert len(backbone.transformer.transformer_blocks) == 4


def test_a_folder_of_a_known_model_with_another_configuration(folder, tiny_folder):
    spec = resolve(str(tiny_folder))
    edit_config(folder, "vae", scaling_factor=0.5)
    moved = type(spec)(**{**vars(spec), "source": str(folder)})
    with pytest.raises(UserError, match=r"vae in .* has scaling_factor = 0\.5, and the registered model has 1\.5"):
        load_backbone(moved, device=torch.device("cpu"), compute_dtype=torch.float32, t5_length=T5_LENGTH)


@pytest.mark.slow
def test_no_environment_is_set_and_nothing_is_printed(tiny_folder):
    """From the import of the package to the encoding of a prompt that is cut."""
    script = f"""if True:
        import os
        before = dict(os.environ)
        import torch
        import probing.backbones.sampling
        from probing.backbones import load_backbone, resolve
        spec = resolve({str(tiny_folder)!r})
        backbone = load_backbone(spec, device=torch.device("cpu"), compute_dtype=torch.float32, t5_length={T5_LENGTH})
        assert before == dict(os.environ)
        backbone.encode_prompts(["a small red circle " * 20])
        backbone.prompt_tokens(["a small red circle " * 20])
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TRANSFORMERS", "DIFFUSERS"))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_empty_file_of_weights_has_no_tensors(folder):
    save_file({}, weights_path(folder, "vae"))
    refused(folder, "holds no tensors")


def test_attention_of_older_vae_files(tmp_path):
    """Names of older diffusers versions are read as diffusers reads them."""
    settings = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    vae = AutoencoderKL(**settings, block_out_channels=(8,), norm_num_groups=4, shift_factor=0.0)
    vae.save_pretrained(tmp_path / "vae")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        renamed = {}
        for name, tensor in tensors.items():
            for new, older in old.items():
                name = name.replace(f"attentions.0.{new}.", f"attentions.0.{older}.")
            renamed[name] = tensor
        return renamed

    edit_weights(tmp_path, "vae", rename)
    part = next(part for part in FAMILY.parts if part.name == "vae")
    check_weights(tmp_path / "vae", part, {"layers_per_block": 1}, weight_files(tmp_path / "vae", part))
    loaded = AutoencoderKL.from_pretrained(tmp_path / "vae").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in vae.state_dict().items())
    edit_weights(tmp_path, "vae", lambda tensors: tensors.pop("encoder.mid_block.attentions.0.query.weight"))
    with pytest.raises(UserError, match=r"lack encoder\.mid_block\.attentions\.0\.to_q\.weight"):
        check_weights(tmp_path / "vae", part, {"layers_per_block": 1}, weight_files(tmp_path / "vae", part))
