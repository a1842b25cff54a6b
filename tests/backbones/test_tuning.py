"""Fine-tuned transformers as single files, and LoRAs: against weights that are changed by hand."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

import probing
from probing.backbones import load_backbone, part_digests, resolve
from probing.backbones.check import check_backbone
from probing.backbones.tuning import Tuning
from probing.errors import UserError
from probing.extract import PARSER
from probing.reward import AdaptSettings, adapt
from tests.backbones.model_folders import weights_path
from tests.fakes.tiny_pipelines import TINY, write
from tests.features.test_extraction import make_data

CPU = torch.device("cpu")
TARGETS = r"\w+\.1\.(attn|attention)\.(to_q|to_v|add_k_proj|to_out\.0)"
ORIGINAL = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
    "transformer_blocks": "joint_blocks",
    ".attn.to_out.0": ".x_block.attn.proj",
    ".attn.to_add_out": ".context_block.attn.proj",
    ".attn2.to_out.0": ".x_block.attn2.proj",
    ".attn.norm_q": ".x_block.attn.ln_q",
    ".attn.norm_k": ".x_block.attn.ln_k",
    ".attn.norm_added_q": ".context_block.attn.ln_q",
    ".attn.norm_added_k": ".context_block.attn.ln_k",
    ".attn2.norm_q": ".x_block.attn2.ln_q",
    ".attn2.norm_k": ".x_block.attn2.ln_k",
    ".norm1.linear": ".x_block.adaLN_modulation.1",
    ".norm1_context.linear": ".context_block.adaLN_modulation.1",
    ".ff.net.0.proj": ".x_block.mlp.fc1",
    ".ff.net.2": ".x_block.mlp.fc2",
    ".ff_context.net.0.proj": ".context_block.mlp.fc1",
    ".ff_context.net.2": ".context_block.mlp.fc2",
}
"""Names of diffusers, and of the checkpoints of Stability AI."""


def original_names(state, last_block):
    """Write an SD3 transformer's weights as its authors do: queries, keys and values in one, shift before scale."""
    out = {}
    for name, tensor in state.items():
        fused = re.sub(r"\.(attn2?)\.to_q\.", r".x_block.\1.qkv.", name).replace(
            ".attn.add_q_proj.", ".context_block.attn.qkv."
        )
        if re.search(r"\.(to_k|to_v|add_k_proj|add_v_proj)\.", name):
            continue
        if fused != name:
            keys = [name.replace("_q", letter) for letter in ("_q", "_k", "_v")]
            tensor = torch.cat([state[key] for key in keys])
        if name.startswith(("norm_out", f"transformer_blocks.{last_block}.norm1_context")):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        for here, there in ORIGINAL.items():
            fused = fused.replace(here, there)
        out[f"model.diffusion_model.{fused}"] = tensor.contiguous()
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write("sd3", tmp_path_factory.mktemp("model"))


def state_of(folder):
    return load_file(weights_path(folder, "transformer"))


def loaded(folder, **tuning):
    # Longer than any chat template.
    options = {"device": CPU, "compute_dtype": torch.float32, "t5_length": 40}
    return load_backbone(resolve(str(folder), Tuning(**tuning)), **options)


def digests(folder, **tuning):
    return part_digests(resolve(str(folder), Tuning(**tuning)), random_init=False, seed=0, use_t5=True)


def features(folder, output, **how):
    size = {"resolution": 32, "t5_length": 40}
    store = probing.extract(folder, make_data(), output=output, sigmas=[0.3], device="cpu", **size, **how)
    return torch.from_numpy(store.read("image", "mean", 0.3, store.blocks[-1]))


def write_lora(pipeline_class, transformer, path, *, seed=0, of_peft=False):
    """Write a LoRA in the form of diffusers or of peft, and return the transformer with its products added by hand."""
    torch.manual_seed(seed)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False)
    plain, adapted = copy.deepcopy(transformer), copy.deepcopy(transformer)
    if of_peft:
        model = get_peft_model(adapted, config)
        model.save_pretrained(path)
        products = {k.removeprefix("base_model.model."): v for k, v in get_peft_model_state_dict(model).items()}
    else:
        inject_adapter_in_model(config, adapted)
        products = get_peft_model_state_dict(adapted)
        metadata = {"transformer_lora_adapter_metadata": config.to_dict()}
        pipeline_class.save_lora_weights(path, transformer_lora_layers=products, **metadata)
    downs = [name for name in products if "lora_A" in name]
    assert len(downs) > 2
    with torch.no_grad():
        for down in downs:
            layer = plain.get_submodule(down.split(".lora_A")[0])
            layer.weight += 6 / 3 * products[down.replace("lora_A", "lora_B")] @ products[down]
    return plain


@pytest.mark.parametrize("naming", ["diffusers", "original"])
def test_a_single_file_is_the_folder_whose_weights_it_holds(folder, tmp_path, naming):
    state = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in state_of(folder).items()}
    state["pos_embed.pos_embed"] = state_of(folder)["pos_embed.pos_embed"]
    last = max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks"))
    path = tmp_path / "tuned.safetensors"
    save_file(original_names(state, last) if naming == "original" else state, path)
    spec = resolve(str(folder), Tuning(transformer=path))
    assert spec.name == "sd3+tuned"
    backbone = loaded(folder, transformer=path)
    got = backbone.transformer.state_dict()
    assert set(got) == set(state) and all(torch.equal(got[name], state[name]) for name in state)
    assert {part for part in backbone.parts if backbone.parts[part] != loaded(folder).parts[part]} == {"transformer"}
    assert digests(folder, transformer=path) == backbone.parts
    assert not [outcome for outcome in check_backbone(backbone) if outcome.problem]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("sd3", "flux") else pytest.mark.slow) for n in TINY]
)
@pytest.mark.parametrize("of_peft", [False, True], ids=["diffusers", "peft"])
def test_a_lora_is_its_product_added_to_the_weights(name, of_peft, tmp_path):
    folder = write(name, tmp_path)
    frozen = loaded(folder)
    merged = write_lora(type(frozen.pipeline), frozen.transformer, tmp_path / "lora", of_peft=of_peft)
    merged.save_pretrained(tmp_path / "merged")
    plain = features(folder, tmp_path / "plain.zarr")
    by_hand = features(folder, tmp_path / "merged.zarr", transformer=tmp_path / "merged")
    added = features(folder, tmp_path / "added.zarr", lora=tmp_path / "lora")
    assert (added - by_hand).norm() < 1e-5 * by_hand.norm()
    assert (added - plain).norm() > 1e-3 * plain.norm()
    unchanged = features(folder, tmp_path / "zero.zarr", lora=tmp_path / "lora", lora_scale=0.0)
    assert (unchanged - plain).norm() < 1e-6 * plain.norm()
    backbone = loaded(folder, lora=tmp_path / "lora", lora_scale=0.5)
    assert not [outcome for outcome in check_backbone(backbone) if outcome.problem]
    assert set(backbone.parts) == {*frozen.parts, "lora"} and backbone.spec.name == f"{name}+lora-0.5"


def test_two_loras_of_one_name_and_two_scales_are_two_models(folder, tmp_path):
    frozen = loaded(folder)
    for seed in (0, 1):
        write_lora(type(frozen.pipeline), frozen.transformer, tmp_path / str(seed) / "lora", seed=seed)
    ids = [digests(folder, lora=tmp_path / str(seed) / "lora", lora_scale=s) for seed in (0, 1) for s in (1.0, 0.5)]
    assert len({found["lora"] for found in ids}) == 4 and len({found["transformer"] for found in ids}) == 1
    settings = {"output": tmp_path / "s.zarr", "resolution": 32, "t5_length": 12, "device": "cpu"}
    probing.extract(folder, make_data(), lora=tmp_path / "0" / "lora", **settings)
    with pytest.raises(UserError, match="lora"):
        probing.extract(folder, make_data(), lora=tmp_path / "1" / "lora", **settings)


def test_a_reward_of_a_lora_scores_with_it_and_refuses_to_do_without(folder, tmp_path):
    frozen = loaded(folder)
    write_lora(type(frozen.pipeline), frozen.transformer, tmp_path / "lora")
    data = probing.load_pairs("testbed", where="facet == 'quality'", limit=96)
    how = {"resolution": 16, "t5_length": 12, "device": "cpu", "output": tmp_path / "s.zarr"}
    store = probing.extract(folder, data, lora=tmp_path / "lora", **how)
    kept = probing.train_reward(store, blocks=[1], probe="logistic")
    kept.save(tmp_path / "reward")
    with pytest.raises(UserError, match="merge the LoRA"):
        adapt(kept, data, AdaptSettings(epochs=1))
    scores = kept.score_data(data)
    again = probing.LatentReward.load(tmp_path / "reward", model=folder, lora=tmp_path / "lora", device="cpu")
    assert again.score_data(data).equals(scores)
    for changed in ({}, {"lora": tmp_path / "lora", "lora_scale": 2.0}):
        with pytest.raises(UserError, match="lora of .* differ"):
            probing.LatentReward.load(tmp_path / "reward", model=folder, device="cpu", **changed).score_data(data)


def test_the_command_takes_both(folder):
    words = ["--model", str(folder), "--transformer", "a.safetensors", "--lora", "b", "--lora-scale", "0.7"]
    options, _ = PARSER.parse(words)
    assert options.tuning == Tuning(Path("a.safetensors"), Path("b"), 0.7)


def refused(folder, match, **tuning):
    with pytest.raises(UserError, match=match) as caught:
        loaded(folder, **tuning)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def test_wrong_single_files_get_a_sentence(folder, tmp_path):
    state = state_of(folder)
    path = tmp_path / "t.safetensors"
    refused(folder, "no transformer .*t.safetensors", transformer=path)
    (tmp_path / "t.gguf").write_bytes(b"GGUF")
    refused(folder, "is no .safetensors file", transformer=tmp_path / "t.gguf")
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    refused(folder, "damaged or cut short", transformer=path)
    save_file({**state, "extra.weight": torch.zeros(2)}, path)
    refused(folder, "cannot be loaded", transformer=path)
    save_file({name: tensor for name, tensor in state.items() if "proj_out" not in name}, path)
    refused(folder, "cannot be loaded", transformer=path)
    save_file({name: tensor[..., :1].contiguous() for name, tensor in state.items()}, path)
    refused(folder, "cannot be loaded", transformer=path)
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()}, path)
    refused(folder, "not quantised", transformer=path)
    save_file({"stranger": torch.zeros(2)}, path)
    refused(folder, "cannot be loaded", transformer=path)


def test_wrong_loras_get_a_sentence(folder, tmp_path):
    refused(folder, "There is no LoRA", lora=tmp_path / "absent.safetensors")
    (tmp_path / "empty").mkdir()
    refused(folder, "holds no pytorch_lora_weights", lora=tmp_path / "empty")
    path = tmp_path / "l.safetensors"
    save_file(state_of(folder), path)
    refused(folder, "is no LoRA", lora=path)
    save_file({"text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(2, 2)}, path)
    refused(folder, "changes a text encoder", lora=path)
    pair = {"lora_A.weight": torch.zeros(2, 7), "lora_B.weight": torch.zeros(7, 2)}
    for layer in ("transformer_blocks.0.attn.to_q", "transformer_blocks.77.attn.to_q", "nowhere"):
        save_file({f"transformer.{layer}.{name}": tensor for name, tensor in pair.items()}, path)
        refused(folder, "does not fit SD3Transformer2DModel", lora=path)
    good = {"lora_A.weight": torch.zeros(2, 32), "lora_B.weight": torch.zeros(32, 2)}
    names = {f"transformer.transformer_blocks.0.attn.to_q.{name}": tensor for name, tensor in good.items()}
    odd = {f"transformer.transformer_blocks.77.attn.to_q.{name}": tensor.clone() for name, tensor in good.items()}
    save_file(names | odd, path)
    refused(folder, "does not fit SD3Transformer2DModel", lora=path)


def test_a_lora_needs_trained_weights_and_a_family_that_takes_one(folder, tmp_path):
    frozen = loaded(folder)
    write_lora(type(frozen.pipeline), frozen.transformer, tmp_path / "lora")
    spec = resolve(str(folder), Tuning(lora=tmp_path / "lora"))
    with pytest.raises(UserError, match="leave --lora or --random-init out"):
        load_backbone(spec, device=CPU, compute_dtype=torch.float32, random_init=True, t5_length=12)
