"""The recipes: steps that resume, conditioning that equals the stock call's, schedules as stated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import nn

from probing.backbones import resolve
from probing.testbed.recipes import assemble, mmdit, text, vae
from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.scenes import vocabulary

SCHEDULE = Schedule(steps=30, batch_size=4, learning_rate=0.05, warmup=5, average=5)


def make_problem():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(rng):
        x = torch.from_numpy(rng.standard_normal((SCHEDULE.batch_size, 3))).float()
        # Dropout-like randomness of torch must resume too.
        noise = 0.1 * torch.randn(SCHEDULE.batch_size)
        value = (model(x)[:, 0] - x.sum(dim=1) + noise).square().mean()
        return value, {}

    return model, loss


@pytest.mark.parametrize("stop", [1, 7, 29])
def test_a_resumed_training_ends_in_the_same_weights(tmp_path, stop):
    model, loss = make_problem()
    train({"model": model}, loss, SCHEDULE, tmp_path / "whole")
    cut, loss = make_problem()
    train({"model": cut}, loss, SCHEDULE, tmp_path / "cut", stop_after=stop)
    again, loss = make_problem()
    nn.init.zeros_(again.weight)
    train({"model": again}, loss, SCHEDULE, tmp_path / "cut")
    assert torch.equal(again.weight, model.weight)
    assert torch.equal(again.bias, model.bias)


def test_another_schedule_may_not_resume(tmp_path):
    model, loss = make_problem()
    train({"model": model}, loss, SCHEDULE, tmp_path, stop_after=10)
    with pytest.raises(ValueError, match="another schedule"):
        train({"model": model}, loss, replace(SCHEDULE, learning_rate=0.1), tmp_path)
    with pytest.raises(ValueError, match="another schedule"):
        train({"model": model}, loss, replace(SCHEDULE, steps=60), tmp_path)


def test_a_plateau_can_be_made_longer_before_its_descent(tmp_path):
    plateau = replace(SCHEDULE, shape="plateau")
    long, loss = make_problem()
    train({"model": long}, loss, replace(plateau, steps=40), tmp_path / "long")
    model, loss = make_problem()
    train({"model": model}, loss, plateau, tmp_path / "grown", stop_after=20)
    train({"model": model}, loss, replace(plateau, steps=40), tmp_path / "grown")
    assert torch.equal(model.weight, long.weight)
    late, loss = make_problem()
    train({"model": late}, loss, plateau, tmp_path / "late", stop_after=28)
    with pytest.raises(ValueError, match="another schedule"):
        train({"model": late}, loss, replace(plateau, steps=40), tmp_path / "late")


def test_rates():
    assert SCHEDULE.rate_at(0) == pytest.approx(0.01)
    assert SCHEDULE.rate_at(5) == pytest.approx(0.05)
    assert SCHEDULE.rate_at(30) == pytest.approx(0.0005)
    plateau = replace(SCHEDULE, shape="plateau")
    assert [plateau.rate_at(step) for step in (10, 24, 27, 30)] == pytest.approx([0.05, 0.05, 0.025, 0.0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two steps of every encoder's recipe: enough to see that it runs and saves."""
    folder = tmp_path_factory.mktemp("runs")
    short = Schedule(steps=2, batch_size=4, learning_rate=1e-3, warmup=1)
    for name in text.WIDTHS:
        text.run_clip(folder / name, name, short)
    text.run_t5(folder / "text_encoder_3", short)
    vae.run(folder / "vae", short)
    return folder


def test_training_sees_the_text_of_a_stock_call(runs, tmp_path):
    said = mmdit.Captions(runs)
    captions = ["a small red circle on a white background", "", "three large green crosses on a pink background"]
    tokens, pooled = said.encode(captions)
    stock = StableDiffusion3Pipeline(
        transformer=mmdit.build("xs"), scheduler=None, vae=None,
        text_encoder=said.clips[0], tokenizer=said.tokenizer, text_encoder_2=said.clips[1], tokenizer_2=said.tokenizer,
        text_encoder_3=said.t5, tokenizer_3=said.t5_tokenizer,
    )  # fmt: skip
    with torch.no_grad():
        expected, _, expected_pooled, _ = stock.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_LENGTH
        )
    assert torch.equal(tokens, expected)
    assert torch.equal(pooled, expected_pooled)
    assert tokens.shape[1] == text.CAPTION_LENGTH + text.T5_LENGTH


def test_the_assembled_folder_says_what_training_heard(runs, tmp_path):
    """Loaded back by a call without a dtype, every tokenizer and encoder gives what the MMDiT was trained on."""
    captions = ["a small red circle on a white background", "", "three large green crosses on a pink background"]
    mmdit.build("xs").save_pretrained(runs / "mmdit-xs" / "transformer")
    assemble.run(runs, "xs", tmp_path / "folder")
    loaded = StableDiffusion3Pipeline.from_pretrained(tmp_path / "folder")
    with torch.no_grad():
        tokens, _, pooled, _ = loaded.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_LENGTH
        )
    expected, expected_pooled = mmdit.Captions(runs).encode(captions)
    assert tokens.dtype == torch.float32
    # Half precision on disk is the only difference.
    torch.testing.assert_close(tokens, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    torch.testing.assert_close(pooled, expected_pooled, rtol=1e-2, atol=1e-2 * float(expected_pooled.abs().max()))


def test_every_word_is_one_token(tmp_path):
    clip, t5 = text.build_tokenizer(tmp_path), text.build_t5_tokenizer()
    for word in vocabulary():
        assert len(clip(word)["input_ids"]) == 3
        assert len(t5(word)["input_ids"]) == 2
    assert t5.unk_token_id not in t5("a teapot")["input_ids"]


def test_the_vae_is_scaled_to_unit_latents(runs):
    from diffusers import AutoencoderKL

    config = AutoencoderKL.from_pretrained(runs / "vae" / "vae").config
    assert config.scaling_factor > 0
    assert config.shift_factor is not None


def test_the_shipped_folder_is_light_and_in_half_precision():
    from pathlib import Path

    from safetensors import safe_open

    files = list(Path(resolve("testbed-xs").source).rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 15e6
    for file in files:
        with safe_open(file, framework="pt") as weights:
            assert {str(weights.get_tensor(key).dtype) for key in weights.keys()} == {"torch.float16"}  # noqa: SIM118
