"""The SD3 adapter against the stock pipeline."""

from __future__ import annotations

import logging
import time

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from probing.backbones import device_type, load_backbone, pick_compute_dtype, pick_device, resolve
from probing.backbones.tuning import Tuning
from probing.errors import UserError
from probing.testbed.recipes.text import CAPTION_LENGTH
from tests.backbones.model_folders import copied, edit_json, load
from tests.fakes.tiny_sd3 import BLOCKS, T5_LENGTH

CPU = torch.device("cpu")
PROMPTS = ["a small red circle", "", "a small green square on a white background"]


@pytest.fixture(scope="module")
def stock(tiny_folder):
    return StableDiffusion3Pipeline.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    return load_backbone(resolve(str(tiny_folder)), device=CPU, compute_dtype=torch.float32, t5_length=T5_LENGTH)


def test_conditioning_is_the_stock_call(stock, backbone):
    conditioning = backbone.encode_prompts(PROMPTS)
    with torch.inference_mode():
        tokens, _, pooled, _ = stock.encode_prompt(
            PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH
        )
    assert torch.equal(conditioning.tensors["encoder_hidden_states"], tokens)
    assert torch.equal(conditioning.tensors["pooled_projections"], pooled)


def test_real_tokens_are_marked(stock, backbone):
    parts = backbone.encode_prompts(PROMPTS).parts
    clip_length = stock.tokenizer_max_length
    for row, prompt in enumerate(PROMPTS):
        clip_tokens = len(stock.tokenizer(prompt)["input_ids"])
        t5_tokens = len(stock.tokenizer_3(prompt)["input_ids"])
        assert parts["clip"][row].tolist() == [i < clip_tokens for i in range(clip_length)] + [False] * T5_LENGTH
        assert parts["t5"][row].tolist() == [False] * clip_length + [i < t5_tokens for i in range(T5_LENGTH)]


def test_leaving_t5_out_gives_zeros_as_in_the_stock_call(tiny_folder):
    without = load_backbone(
        resolve(str(tiny_folder)), device=CPU, compute_dtype=torch.float32, t5_length=T5_LENGTH, use_t5=False
    )
    conditioning = without.encode_prompts(PROMPTS)
    assert set(conditioning.parts) == {"clip"}
    assert conditioning.tensors["encoder_hidden_states"][:, -T5_LENGTH:].abs().max() == 0
    assert conditioning.parts["clip"][:, -T5_LENGTH:].sum() == 0


def test_latents_are_shifted_and_scaled(stock, backbone):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        raw = stock.vae.encode(pixels).latent_dist.mode()
    expected = (raw - 0.1) * 1.5
    torch.testing.assert_close(backbone.encode_images(pixels), expected)
    # The way back is the one the pipeline takes before it decodes.
    torch.testing.assert_close(expected / stock.vae.config.scaling_factor + stock.vae.config.shift_factor, raw)


@pytest.mark.parametrize("sigma", [0.0, 0.005, 0.37, 1.0])
def test_timestep_is_a_thousand_sigma_exactly(backbone, sigma):
    conditioning = backbone.encode_prompts(["a star"])
    inputs = backbone.inputs(torch.zeros(1, 4, 8, 8), conditioning, sigma)
    assert inputs["timestep"].item() == pytest.approx(1000 * sigma, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_embedded_timestep_is_the_one_reported(tiny_folder, dtype):
    """σ = 0.75 in bfloat16 would be embedded as 752."""
    backbone = load_backbone(resolve(str(tiny_folder)), device=CPU, compute_dtype=dtype, t5_length=T5_LENGTH)
    timesteps = []
    embedding = backbone.transformer.time_text_embed.time_proj
    embedding.register_forward_hook(lambda module, args, output: timesteps.append(args[0].item()))
    with torch.inference_mode():
        backbone.velocity(torch.zeros(1, 4, 8, 8), backbone.encode_prompts(["a star"]), 0.75)
    assert timesteps == [backbone.embedded_timestep(0.75)] == [750.0]


def test_random_init_changes_the_transformer_alone(tiny_folder, backbone):
    spec = resolve(str(tiny_folder))
    fresh = [
        load_backbone(spec, device=CPU, compute_dtype=torch.float32, random_init=True, seed=seed, t5_length=T5_LENGTH)
        for seed in (0, 0, 1)
    ]
    prints = [b.revision for b in fresh]
    assert prints[0] == prints[1] != prints[2]
    assert backbone.revision not in prints
    assert torch.equal(
        fresh[0].encode_prompts(PROMPTS).tensors["encoder_hidden_states"],
        backbone.encode_prompts(PROMPTS).tensors["encoder_hidden_states"],
    )
    assert sum(p.numel() for p in fresh[0].transformer.parameters()) == spec.architecture.parameters


def test_another_transformer_is_loaded_in_the_place_of_the_pipelines_own(tiny_folder, tmp_path, backbone):
    spec = resolve(str(tiny_folder))
    fresh = load_backbone(spec, device=CPU, compute_dtype=torch.float32, random_init=True, t5_length=T5_LENGTH)
    fresh.transformer.save_pretrained(tmp_path / "tuned")
    tuned = load_backbone(
        resolve(str(tiny_folder), Tuning(tmp_path / "tuned")),
        device=CPU,
        compute_dtype=torch.float32,
        t5_length=T5_LENGTH,
    )
    assert len({b.revision for b in (tuned, fresh, backbone)}) == 3
    weights = tuned.transformer.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in fresh.transformer.state_dict().items())


def test_random_init_leaves_the_callers_generator_alone(tiny_folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_backbone(resolve(str(tiny_folder)), device=CPU, compute_dtype=torch.float32, random_init=True, t5_length=4)
    assert torch.equal(torch.rand(3), expected)


def test_a_truncated_prompt_keeps_as_many_tokens_as_the_model_reads(backbone):
    parts = backbone.encode_prompts(["a small red circle " * 20]).parts
    assert parts["clip"].sum() == CAPTION_LENGTH
    assert parts["t5"].sum() == T5_LENGTH


LONG = "a small red circle on a white background " * 20


@pytest.fixture
def log_lines():
    """Lines of the libraries' loggers, which do not propagate."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield lines
    for logger in loggers:
        logger.removeHandler(handler)


def test_prompts_that_are_cut_are_not_logged(tiny_folder, log_lines):
    fresh = load_backbone(resolve(str(tiny_folder)), device=CPU, compute_dtype=torch.float32, t5_length=T5_LENGTH)
    fresh.encode_prompts([LONG, "a star", LONG])
    fresh.prompt_tokens([LONG])
    assert log_lines == []
    # The same line of another caller is logged as before.
    fresh.pipeline.encode_prompt(LONG, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_LENGTH)
    assert any("was truncated" in line for line in log_lines)


def test_prompt_tokens_are_counted_before_truncation(stock, backbone):
    prompts = [*PROMPTS, LONG, "circle"]
    expected = [max(len(t(p)["input_ids"]) for t in (stock.tokenizer, stock.tokenizer_2)) for p in prompts]
    assert backbone.prompt_tokens(prompts) == expected
    # A begin and an end mark around each prompt, even an empty one.
    assert expected[1] == 2 and expected[3] > CAPTION_LENGTH
    assert backbone.prompt_tokens([]) == []


def test_prompt_tokens_are_the_larger_count_of_both_tokenizers(tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path / "model")
    # Without merges every letter is a token.
    edit_json(folder / "tokenizer_2" / "tokenizer.json", lambda content: content["model"].update(merges=[]))
    backbone = load(folder)
    second = [len(backbone.pipeline.tokenizer_2(prompt)["input_ids"]) for prompt in PROMPTS]
    assert second[0] > len(backbone.pipeline.tokenizer(PROMPTS[0])["input_ids"])
    assert backbone.prompt_tokens(PROMPTS) == second


def test_thousands_of_prompts_are_counted_in_seconds(backbone):
    start = time.monotonic()
    assert len(backbone.prompt_tokens([LONG] * 3000)) == 3000
    assert time.monotonic() - start < 20


def test_missing_weights_name_three_ways_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf auth login.*folder.*testbed-xs"):
        load_backbone(resolve("sd35-medium"), device=CPU, compute_dtype=torch.float32)


def test_t5_needs_a_position(tiny_folder):
    with pytest.raises(UserError, match="--no-t5"):
        load_backbone(resolve(str(tiny_folder)), device=CPU, compute_dtype=torch.float32, t5_length=0)


def test_devices_and_dtypes():
    assert pick_device("cpu") == CPU and device_type("cpu") == "cpu"
    assert device_type() == pick_device().type
    with pytest.raises(UserError, match="not on this machine"):
        pick_device("cuda:99")
    assert pick_compute_dtype("auto", CPU) == torch.float32
    with pytest.raises(UserError, match="float32"):
        pick_compute_dtype("float16", CPU)


def test_only_the_last_block_gives_no_text(backbone):
    architecture = backbone.spec.architecture
    assert architecture.blocks_of("image") == list(range(BLOCKS))
    assert architecture.blocks_of("text") == list(range(BLOCKS - 1))
    flags = [block.context_pre_only for block in backbone.transformer.transformer_blocks]
    assert flags == [False] * (BLOCKS - 1) + [True]


def test_a_name_is_enough_to_load(tiny_folder):
    backbone = load_backbone(str(tiny_folder), device="cpu", compute_dtype="float32", t5_length=T5_LENGTH)
    assert backbone.device == CPU and backbone.dtype == torch.float32
    with pytest.raises(UserError, match="sd35-medium"):
        load_backbone("sd35-medum")


def test_parts_that_are_held_stay_on_the_device(tiny_folder, monkeypatch):
    backbone = load_backbone(str(tiny_folder), device="cpu", compute_dtype="float32", t5_length=T5_LENGTH)
    moved = []
    monkeypatch.setattr(backbone, "device", torch.device("meta"))
    monkeypatch.setattr(backbone.transformer, "to", lambda device: moved.append(str(device)))
    with backbone.on_device("transformer"):
        with backbone.on_device("transformer"):
            assert moved == ["meta"]
        assert moved == ["meta"]
    assert moved == ["meta", "cpu"]
    with backbone.on_device("transformer"):
        pass
    assert moved == ["meta", "cpu", "meta", "cpu"]
