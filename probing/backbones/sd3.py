"""Stable Diffusion 3 and 3.5: prompts to conditioning, images to latents, and how its blocks answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probing.backbones.log_lines import dropped_log_lines
from probing.backbones.registry import BackboneSpec
from probing.backbones.stock import StableDiffusion3Pipeline

Part = Literal["text_encoders", "vae", "transformer"]


@dataclass(frozen=True)
class Conditioning:
    """What the transformer is told of prompts.

    Attributes:
        encoder_hidden_states: Token features, CLIP positions first, then T5's.
        pooled_projections: One vector a prompt.
        parts: For each text encoder part (``clip``, ``t5``) which positions hold its real tokens; padding is
            False everywhere. A part without an encoder is not there.
    """

    encoder_hidden_states: Float[Tensor, "prompt token channel"]
    pooled_projections: Float[Tensor, "prompt pooled"]
    parts: dict[str, Bool[Tensor, "prompt token"]]

    def rows(self, index: Tensor) -> Conditioning:
        return Conditioning(
            self.encoder_hidden_states[index],
            self.pooled_projections[index],
            {part: mask[index] for part, mask in self.parts.items()},
        )

    def to(self, device: torch.device) -> Conditioning:
        return Conditioning(
            self.encoder_hidden_states.to(device),
            self.pooled_projections.to(device),
            {part: mask.to(device) for part, mask in self.parts.items()},
        )


class SD3Backbone:
    """A frozen ``StableDiffusion3Pipeline``, read part by part.

    Its parts rest in host memory; :meth:`on_device` brings one to the accelerator for as long as it is needed.

    Attributes:
        parts: A digest of each part's files (see :func:`probing.backbones.identity.part_digests`).
        revision: 16 hexadecimal characters over all of them.
        scheduler_digest: That of the scheduler's configuration, which decides trajectories only.
    """

    parts: dict[str, str]
    revision: str
    scheduler_digest: str

    def __init__(
        self, spec: BackboneSpec, pipeline: StableDiffusion3Pipeline, *, device: torch.device, t5_length: int
    ) -> None:
        self.spec = spec
        self.pipeline = pipeline
        self.device = device
        self.t5_length = t5_length
        for module in (*self._modules("text_encoders"), *self._modules("vae"), *self._modules("transformer")):
            module.eval().requires_grad_(False)

    @property
    def transformer(self) -> nn.Module:
        return self.pipeline.transformer

    @property
    def blocks_path(self) -> str:
        """Where in the transformer the list of blocks is."""
        return "transformer_blocks"

    @staticmethod
    def streams_of(output: tuple[Tensor | None, Tensor]) -> dict[str, Tensor | None]:
        """Name what a block returns. It is (text, image), the reverse of its arguments; the last text is None."""
        text, image = output
        return {"image": image, "text": text}

    @contextmanager
    def on_device(self, part: Part) -> Iterator[None]:
        """Hold one part in accelerator memory for the time of a ``with`` block."""
        if self.device.type == "cpu":
            yield
            return
        modules = self._modules(part)
        try:
            for module in modules:
                module.to(self.device)
            yield
        finally:
            for module in modules:
                module.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts as a stock call of the pipeline does; needs ``text_encoders`` on the device.

        Returns:
            Conditioning in host memory.
        """
        prompts = list(prompts)
        with _quiet_truncation():
            tokens, _, pooled, _ = self.pipeline.encode_prompt(
                prompt=prompts,
                prompt_2=None,
                prompt_3=None,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.t5_length,
            )
        return Conditioning(tokens.cpu(), pooled.cpu(), self._real_tokens(prompts))

    @torch.inference_mode()
    def encode_images(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image channel row column"]:
        """Encode pixels in [−1, 1] to shifted and scaled latents x0 (the posterior's mode); needs ``vae``.

        Returns:
            Latents in host memory, float32.
        """
        vae = self.pipeline.vae
        latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
        return ((latents - vae.config.shift_factor) * vae.config.scaling_factor).float().cpu()

    def transformer_inputs(
        self, noisy_latents: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        """Arguments of one forward at noise level ``sigma``; the timestep is 1000·sigma, exactly."""
        dtype = self.pipeline.transformer.dtype
        return {
            "hidden_states": noisy_latents.to(self.device, dtype),
            "encoder_hidden_states": conditioning.encoder_hidden_states.to(self.device, dtype),
            "pooled_projections": conditioning.pooled_projections.to(self.device, dtype),
            "timestep": torch.full((len(noisy_latents),), 1000.0 * sigma, device=self.device),
            "return_dict": False,
        }

    def clip_tokens_of(self, prompts: Sequence[str]) -> list[int]:
        """Count the CLIP tokens of each prompt before truncation, with the marks of begin and end.

        Returns:
            For each prompt the larger count of the two CLIP tokenizers; the model reads at most
            ``spec.architecture.clip_length``.
        """
        if not prompts:
            return []
        lengths = [
            [len(ids) for ids in tokenizer(list(prompts), return_attention_mask=False, verbose=False)["input_ids"]]
            for tokenizer in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)
        ]
        return [max(both) for both in zip(*lengths, strict=True)]

    def _modules(self, part: Part) -> list[nn.Module]:
        names = {
            "text_encoders": ("text_encoder", "text_encoder_2", "text_encoder_3"),
            "vae": ("vae",),
            "transformer": ("transformer",),
        }[part]
        return [module for name in names if (module := getattr(self.pipeline, name)) is not None]

    def _real_tokens(self, prompts: list[str]) -> dict[str, Tensor]:
        """Mark the positions that hold words, begin and end marks; CLIP pads with its end mark, so ids do not tell."""
        pipeline = self.pipeline
        clip_length, t5_length = pipeline.tokenizer_max_length, self.t5_length
        clip = torch.zeros(len(prompts), clip_length + t5_length, dtype=torch.bool)
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
            clip[:, :clip_length] |= _attention_mask(tokenizer, prompts, clip_length)
        parts = {"clip": clip}
        if pipeline.text_encoder_3 is not None:
            parts["t5"] = torch.zeros_like(clip)
            parts["t5"][:, clip_length:] = _attention_mask(pipeline.tokenizer_3, prompts, t5_length)
        return parts


@contextmanager
def _quiet_truncation() -> Iterator[None]:
    """Drop the libraries' lines on prompts that are cut; :meth:`SD3Backbone.clip_tokens_of` counts them instead."""
    pipelines = StableDiffusion3Pipeline.__module__
    with (
        dropped_log_lines(pipelines, "part of your input was truncated"),
        dropped_log_lines("transformers.tokenization_utils_base", "Token indices sequence length is longer"),
    ):
        yield


def _attention_mask(tokenizer, prompts: list[str], length: int) -> Tensor:
    encoded = tokenizer(
        prompts,
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
        return_attention_mask=True,
    )
    return encoded["attention_mask"].bool()
