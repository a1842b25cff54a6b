"""Train the VAE: 64×64 images to 16×16 latents of 8 channels, on renders, a third of them degraded.

Degraded images are part of the training data so that latents preserve degradation, as in a VAE for photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.recipes.pixels import TrainingScenes, sample_batch

SCHEDULE = Schedule(
    steps=2000, batch_size=32, learning_rate=2e-3, weight_decay=1e-4, warmup=100, average=100, precision="bfloat16"
)
_KL_WEIGHT = 1e-4


def build() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def run(folder: Path, schedule: Schedule = SCHEDULE) -> AutoencoderKL:
    """Minimise squared error + 0.1·absolute error + 1e-4·KL; then set the shift and scale of the latents."""
    scenes = TrainingScenes(folder.parent)
    torch.manual_seed(schedule.seed)
    vae = build()

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        _, pixels = scenes.batch(schedule.batch_size, rng, degraded=0.33)
        posterior = vae.encode(pixels).latent_dist
        reconstructed = vae.decode(posterior.sample()).sample
        squared = (reconstructed - pixels).square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        value = squared + 0.1 * (reconstructed - pixels).abs().mean() + _KL_WEIGHT * kl
        return value, {"psnr": float(10 * torch.log10(4 / squared.detach())), "kl": float(kl.detach())}

    train({"vae": vae}, loss, schedule, folder)
    vae.eval()
    with torch.no_grad():
        _, pixels = sample_batch(512, np.random.default_rng([schedule.seed, 2**31]))
        latents = vae.encode(pixels).latent_dist.mean
    vae.register_to_config(
        shift_factor=round(float(latents.mean()), 4), scaling_factor=round(1 / float(latents.std()), 4)
    )
    vae.save_pretrained(folder / "vae")
    return vae
