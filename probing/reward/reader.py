"""Run the backbone of a reward as far as its deepest block, and apply the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from probing.analysis.engine import Site
from probing.backbones import Backbone, Conditioning, Streams, pick_device, resolve
from probing.backbones.tuning import Tuning
from probing.errors import UserError
from probing.features import ExtractionSettings
from probing.features.inputs import encode_prompts, stack_pixels
from probing.features.loading import load_for
from probing.features.memory import FittingBatches, sentence_for_full_memory
from probing.features.noise import add_noise, item_noise
from probing.features.reading import Masks
from probing.features.reductions import reduce_image, reduce_text
from probing.features.settings import images_at_once
from probing.features.tokens import settings_of
from probing.features.trace import BlockTrace
from probing.preferences import prepare
from probing.preferences.images import ImageFolder
from probing.probes import Probe
from probing.probes._modules import reward_module
from probing.reward.adapter import Adapter, apply_adapter
from probing.reward.features import side_by_side, wants_tokens
from probing.reward.manifest import Manifest


class RewardReader:
    """A loaded backbone with a head.

    Args:
        backbone: Loaded.
        probe: Fitted on the sites, side by side.
        sites: In the order of the head's input.
        settings: Of the extraction that the head was trained on.
    """

    def __init__(self, backbone: Backbone, probe: Probe, sites: Sequence[Site], settings: ExtractionSettings) -> None:
        self.backbone, self._sites, self._settings = backbone, tuple(sites), settings
        # The head stays on the host: it is small beside the backbone, and computes in float64.
        self.probe, self.head, self._tokens = probe, reward_module(probe), wants_tokens(probe)
        self._trace = BlockTrace(backbone)
        architecture = backbone.spec.architecture
        self._shape = tuple(architecture.latent_shape(settings.resolution))
        self._grid = architecture.token_grid(settings.resolution)
        self._reference: Conditioning | None = None

    @classmethod
    def open(
        cls, probe: Probe, manifest: Manifest, model: str, tuning: Tuning, device: str, adapter: Adapter | None = None
    ) -> RewardReader:
        """Load the backbone of a reward, with its adapter if it has one.

        Raises:
            UserError: It is not here, or is another one than the reward was trained on.
        """
        settings = settings_of(manifest.extraction)
        expected = manifest.backbone
        settings = replace(settings, random_init=expected.random_init, seed=expected.seed)
        backbone = load_for(resolve(model, tuning), settings, device=pick_device(device))
        changed = sorted(
            name for name in {*expected.parts, *backbone.parts} if expected.parts.get(name) != backbone.parts.get(name)
        )
        if changed:
            raise UserError(
                f"The reward was trained on {expected.name} (revision {expected.revision}), and {', '.join(changed)} "
                f"of {model} differ; give that backbone as model."
            )
        if adapter is not None:
            apply_adapter(backbone.transformer, *adapter)
        return cls(backbone, probe, manifest.sites, settings)

    def encode_images(self, pictures: Sequence[Image.Image | str | Path]) -> Float[Tensor, "item channel row column"]:
        """Encode pictures to latents, in batches.

        Raises:
            UserError: A picture cannot be opened.
        """
        settings, parts = self._settings, []
        size = images_at_once(settings.batch_size, settings.resolution)
        with sentence_for_full_memory(self.backbone, settings.resolution), self.backbone.on_device("vae"):
            for start in range(0, len(pictures), size):
                batch = pictures[start : start + size]
                opened = [
                    p if isinstance(p, Image.Image) else ImageFolder(Path(), archives=False).open(str(p), str(p))
                    for p in batch
                ]
                squares = [prepare(p, settings.resolution, settings.resize, settings.background) for p in opened]
                parts.append(self.backbone.encode_images(stack_pixels([np.asarray(square) for square in squares])))
        return torch.cat(parts).contiguous()

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, each different one once."""
        conditioning, row_of = encode_prompts(self.backbone, prompts)
        return conditioning.rows(row_of)

    def encode_reference(self) -> None:
        """Encode the empty prompt, whose form :meth:`conditioning_of` compares with."""
        self._reference = self.encode_prompts([""])

    def conditioning_of(
        self, prompt_embeds: Float[Tensor, "item token channel"], pooled: Float[Tensor, "item channel"]
    ) -> Conditioning:
        """Take prompts that the backbone's own pipeline has encoded.

        Raises:
            UserError: Embeddings of other widths than this backbone's.
        """
        assert self._reference is not None, "encode_reference comes first"
        expected = self._reference.tensors
        if set(expected) != {"encoder_hidden_states", "pooled_projections"}:
            raise UserError(f"{self.backbone.spec.name} takes no embeddings of this form; send prompts.")
        for name, given in (("encoder_hidden_states", prompt_embeds), ("pooled_projections", pooled)):
            if given.shape[-1] != expected[name].shape[-1]:
                raise UserError(
                    f"Got {name} of {given.shape[-1]} channels, expected {expected[name].shape[-1]} as "
                    f"{self.backbone.spec.name} has; encode the prompt with its text encoders."
                )
        tensors = {"encoder_hidden_states": prompt_embeds, "pooled_projections": pooled}
        return Conditioning({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}, {})

    def check_latents(self, latents: Tensor) -> Float[Tensor, "item channel row column"]:
        """Return latents as float32 in host memory.

        Raises:
            UserError: They have another shape than the reward's resolution gives, or are not finite.
        """
        if latents.ndim != 4 or tuple(latents.shape[1:]) != self._shape or not len(latents):
            expected = ", ".join(map(str, self._shape))
            raise UserError(
                f"Got latents of shape {tuple(latents.shape)}, expected (item, {expected}): the reward reads pictures "
                f"of {self._settings.resolution}²."
            )
        if not torch.isfinite(latents).all():
            raise UserError("Got latents that are not finite; check the sampler.")
        return latents.detach().float().cpu()

    def rewards(
        self,
        latents: Float[Tensor, "item channel row column"],
        conditioning: Conditioning,
        keys: Sequence[str],
        seed: int,
    ) -> Float[np.ndarray, " item"]:
        """Return rewards before calibration."""
        with sentence_for_full_memory(self.backbone, self._settings.resolution):
            fitting = FittingBatches()
            parts = [
                part
                for batch in self._batches(len(latents))
                for _, part in fitting.run(
                    batch,
                    lambda rows: self._rewards(latents[rows], conditioning.rows(_numbers(rows)), keys[rows], seed),
                )
            ]
        return torch.cat(parts).numpy()

    def rewards_and_gradients(
        self,
        latents: Float[Tensor, "item channel row column"],
        conditioning: Conditioning,
        keys: Sequence[str],
        seed: int,
    ) -> tuple[Float[np.ndarray, " item"], Float[Tensor, "item channel row column"]]:
        """Return rewards before calibration, and the gradient of each by its latents."""
        return self._with_gradients(
            latents,
            lambda rows, clean: self._rewards(
                clean, conditioning.rows(_numbers(rows)), keys[rows], seed, gradients=True
            ),
        )

    def noisy_rewards_and_gradients(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> tuple[Float[np.ndarray, " item"], Float[Tensor, "item channel row column"]]:
        """Return rewards of latents that are noisy already, and their gradients; all sites are read in one forward."""

        def score(rows: slice, given: Tensor) -> Float[Tensor, " item"]:
            words = conditioning.rows(_numbers(rows)).to(self.backbone.device)
            features = self._read(given, words, sigma, self._sites, gradients=True)
            return self.head(side_by_side(features, self._sites, tokens=self._tokens).cpu())

        return self._with_gradients(noisy, score)

    def _with_gradients(
        self, latents: Float[Tensor, "item channel row column"], score: Callable[[slice, Tensor], Tensor]
    ) -> tuple[Float[np.ndarray, " item"], Float[Tensor, "item channel row column"]]:
        rewards, gradients, fitting = [], [], FittingBatches()

        def both(rows: slice) -> tuple[Tensor, Tensor]:
            given = latents[rows].clone().requires_grad_(True)
            # The weights stay on the device until the gradient has passed them.
            with torch.enable_grad(), self.backbone.on_device("transformer"):
                values = score(rows, given)
                # Items share nothing, so the gradient of the sum holds each one's own.
                (gradient,) = torch.autograd.grad(values.sum(), given)
            return values.detach(), gradient

        with torch.inference_mode(False), sentence_for_full_memory(self.backbone, self._settings.resolution):
            for batch in self._batches(len(latents)):
                for _, (values, gradient) in fitting.run(batch, both):
                    rewards.append(values)
                    gradients.append(gradient)
        return torch.cat(rewards).numpy(), torch.cat(gradients)

    def _rewards(
        self,
        latents: Float[Tensor, "item channel row column"],
        conditioning: Conditioning,
        keys: Sequence[str],
        seed: int,
        *,
        gradients: bool = False,
    ) -> Float[Tensor, " item"]:
        with self.backbone.on_device("transformer"):
            return self.rewards_of(latents, conditioning, self._noise(keys, seed), gradients=gradients)

    def rewards_of(
        self,
        latents: Float[Tensor, "item channel row column"],
        conditioning: Conditioning,
        noise: Float[Tensor, "item channel row column"],
        *,
        gradients: bool = False,
    ) -> Float[Tensor, " item"]:
        """Return rewards before calibration, in one forward a noise level; the transformer must be on the device.

        Args:
            latents: Clean.
            conditioning: A row an item.
            noise: ε of each item.
            gradients: Keep what gradients by latents and weights need.
        """
        features = self._features_of(latents, conditioning, noise, self._sites, gradients)
        joined = side_by_side(features, self._sites, tokens=self._tokens).cpu()
        with torch.set_grad_enabled(gradients):
            rewards: Float[Tensor, " item"] = self.head(joined)
        return rewards

    def features(
        self,
        latents: Float[Tensor, "item channel row column"],
        conditioning: Conditioning,
        keys: Sequence[str],
        seed: int,
        sites: Sequence[Site],
    ) -> dict[Site, Float[Tensor, "item ..."]]:
        """Read any sites of the backbone with the noise of :meth:`rewards`: several heads share the forwards."""

        def read(rows: slice) -> dict[Site, Tensor]:
            words = conditioning.rows(_numbers(rows))
            return self._features_of(latents[rows], words, self._noise(keys[rows], seed), sites, gradients=False)

        fitting = FittingBatches()
        with sentence_for_full_memory(self.backbone, self._settings.resolution), self.backbone.on_device("transformer"):
            parts = [part for batch in self._batches(len(latents)) for _, part in fitting.run(batch, read)]
        return {site: torch.cat([part[site].cpu() for part in parts]) for site in sites}

    def _features_of(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, sites: Sequence[Site], gradients: bool
    ) -> dict[Site, Tensor]:
        conditioning = conditioning.to(self.backbone.device)
        features: dict[Site, Tensor] = {}
        for sigma in dict.fromkeys(site.sigma for site in sites):
            of_sigma = [site for site in sites if site.sigma == sigma]
            features |= self._read(add_noise(latents, noise, sigma), conditioning, sigma, of_sigma, gradients)
        return features

    def _noise(self, keys: Sequence[str], seed: int) -> Float[Tensor, "item channel row column"]:
        return torch.from_numpy(np.stack([item_noise(seed, key, self._shape) for key in keys]))

    def _read(
        self, noisy: Tensor, conditioning: Conditioning, sigma: float, sites: Sequence[Site], gradients: bool
    ) -> dict[Site, Tensor]:
        """Read sites of one noise level in one forward, which stops after the deepest block."""
        blocks = sorted({site.block for site in sites})
        inputs, layout = self.backbone.inputs(noisy, conditioning, sigma), self.backbone.layout(noisy, conditioning)

        def reduce(block: int, streams: Streams) -> dict[Site, Tensor]:
            return self._reduce(streams, conditioning.parts, [site for site in sites if site.block == block])

        read = self._trace.run(inputs, layout, blocks, reduce, gradients=gradients)
        return {site: value for of_block in read for site, value in of_block.items()}

    def _reduce(self, streams: Streams, masks: Masks, sites: Sequence[Site]) -> dict[Site, Tensor]:
        reduced: dict[tuple[str, str], Tensor] = {}
        for stream in {site.stream for site in sites}:
            tokens = streams[stream]
            assert tokens is not None, "a store has no site without tokens"
            names = list(dict.fromkeys(site.reduction.split("_")[0] for site in sites if site.stream == stream))
            image = stream == "image"
            values = reduce_image(tokens, self._grid, names) if image else reduce_text(tokens, masks, names)
            reduced |= {(stream, name): value for name, value in values.items()}
        return {site: reduced[site.stream, site.reduction] for site in sites}

    def _batches(self, items: int) -> list[slice]:
        size = self._settings.batch_size
        return [slice(start, min(start + size, items)) for start in range(0, items, size)]


def _numbers(rows: slice) -> Int[Tensor, " row"]:
    return torch.arange(rows.start, rows.stop)
