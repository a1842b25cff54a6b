"""The sampler against a stock call of the pipeline, state by state."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from probing.backbones import load_backbone, resolve
from probing.backbones.sampling import denoise
from probing.errors import UserError
from tests.fakes.tiny_sd3 import T5_LENGTH

PROMPTS = ["a small red circle", "a star"]
STEPS = 5


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    cpu = torch.device("cpu")
    return load_backbone(resolve(str(tiny_folder)), device=cpu, compute_dtype=torch.float32, t5_length=T5_LENGTH)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def stock_states(folder, noise, guidance, **config):
    """Latents, timesteps and sigmas of a stock call, by its own callback."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder)
    pipeline.scheduler = pipeline.scheduler.from_config(pipeline.scheduler.config, **config)
    pipeline.set_progress_bar_config(disable=True)
    states, timesteps = [noise], []

    def keep(pipeline, step, timestep, tensors):
        states.append(tensors["latents"])
        timesteps.append(float(timestep))
        return {}

    pipeline(
        PROMPTS,
        height=16,
        width=16,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        max_sequence_length=T5_LENGTH,
        output_type="latent",
        callback_on_step_end=keep,
    )
    return states, timesteps


def states_of(backbone, noise, guidance):
    conditioning, empty = backbone.encode_prompts(PROMPTS), backbone.encode_prompts([""])
    return list(denoise(backbone, noise, conditioning, empty, steps=STEPS, guidance=guidance))


@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_every_state_is_the_stock_calls(tiny_folder, backbone, noise, guidance):
    expected, timesteps = stock_states(tiny_folder, noise, guidance)
    actual = states_of(backbone, noise, guidance)
    assert [state.step for state in actual] == list(range(STEPS + 1)) and actual[-1].sigma == 0.0
    assert [1000 * state.sigma for state in actual[:-1]] == pytest.approx(timesteps)
    for state, latents in zip(actual, expected, strict=True):
        torch.testing.assert_close(state.latents, latents)
    # The scheduler's own shift of 3 is in the levels.
    assert actual[1].sigma > 1 - 1 / STEPS


def test_guidance_and_prompts_matter(backbone, noise):
    plain, guided = states_of(backbone, noise, 1.0), states_of(backbone, noise, 4.5)
    assert not torch.allclose(plain[-1].latents, guided[-1].latents)


def test_a_shift_by_token_count_is_the_stock_calls(tiny_folder, noise):
    config = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}
    cpu = torch.device("cpu")
    moved = load_backbone(resolve(str(tiny_folder)), device=cpu, compute_dtype=torch.float32, t5_length=T5_LENGTH)
    moved.scheduler = moved.scheduler.from_config(moved.pipeline.scheduler.config, **config)
    expected, timesteps = stock_states(tiny_folder, noise, 4.5, **config)
    actual = states_of(moved, noise, 4.5)
    assert [1000 * state.sigma for state in actual[:-1]] == pytest.approx(timesteps)
    torch.testing.assert_close(actual[-1].latents, expected[-1])


def test_two_trajectories_at_once_do_not_disturb_each_other(backbone, noise):
    alone = states_of(backbone, noise, 4.5)
    conditioning, empty = backbone.encode_prompts(PROMPTS), backbone.encode_prompts([""])
    pair = [denoise(backbone, noise, conditioning, empty, steps=STEPS, guidance=4.5) for _ in range(2)]
    for expected, one, other in zip(alone, *pair, strict=True):
        assert torch.equal(one.latents, expected.latents) and torch.equal(other.latents, expected.latents)


def test_states_are_computed_on_request(backbone, noise):
    calls = []
    hook = backbone.transformer.register_forward_pre_hook(lambda module, args: calls.append(1))
    conditioning, empty = backbone.encode_prompts(PROMPTS), backbone.encode_prompts([""])
    states = denoise(backbone, noise, conditioning, empty, steps=STEPS, guidance=4.5)
    assert next(states).step == 0 and not calls
    assert next(states).step == 1 and len(calls) == 1
    hook.remove()


def test_a_trajectory_has_a_step(backbone, noise):
    conditioning = backbone.encode_prompts(PROMPTS)
    with pytest.raises(UserError, match="at least 1 step, got 0"):
        next(denoise(backbone, noise, conditioning, conditioning, steps=0))
