"""Stable Diffusion 3 and 3.5: its parts, its architecture, its prompts and latents, and what its blocks return."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.architecture import Architecture, Product, attention_flops, product_flops, product_parameters
from probing.backbones.base import Conditioning, Entry, Layout
from probing.backbones.config_rules import CHANNELS, HEADS, LAYERS, text, whole, wholes
from probing.backbones.families.pipeline import (
    PipelineArchitecture,
    PipelineBackbone,
    PipelineFamily,
    attention_mask,
    count_tokens,
)
from probing.backbones.library_parts import (
    autoencoder_kl,
    clip_length_of,
    clip_text_encoder,
    clip_tokenizer,
    flow_match_scheduler,
    t5_text_encoder,
    t5_tokenizer,
)
from probing.backbones.parts import Part, plain_config
from probing.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones.base import Streams

# torch is imported where it is used: a plan reads this file, and needs none of it.

_RULES = {
    "sample_size": whole(1, 2**14),
    "patch_size": whole(1, 64),
    "in_channels": whole(1, 4096),
    "out_channels": whole(1, 4096, required=False, or_null=True),
    "num_layers": LAYERS,
    "attention_head_dim": whole(1, 4096),
    "num_attention_heads": HEADS,
    "joint_attention_dim": CHANNELS,
    "caption_projection_dim": CHANNELS,
    "pooled_projection_dim": CHANNELS,
    "pos_embed_max_size": whole(1, 4096),
    "dual_attention_layers": wholes(0, 999, 1000, required=False),
    "qk_norm": text(required=False, or_null=True),
}
_TIME_CHANNELS = 256
_NORM_PARAMETERS = {None: 0, "rms_norm": 1, "layer_norm": 2, "fp32_layer_norm": 0}
"""Parameters by channel of the norm of queries and keys."""


def _check_transformer(path: Path, config: Mapping[str, Any]) -> None:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if config["caption_projection_dim"] != width:
        raise UserError(
            f"{path}: caption_projection_dim must be num_attention_heads × attention_head_dim = {width}, got "
            f"{config['caption_projection_dim']}; copy the file again."
        )
    if config.get("out_channels") not in (None, config["in_channels"]):
        raise UserError(
            f"{path}: out_channels must be in_channels = {config['in_channels']}, got {config['out_channels']}; "
            f"copy the file again."
        )
    if (norm := config.get("qk_norm")) not in _NORM_PARAMETERS:
        known = ", ".join(name or "null" for name in _NORM_PARAMETERS)
        raise UserError(f"{path}: qk_norm must be one of {known}, got {norm!r:.80}; copy the file again.")
    if any(block >= config["num_layers"] for block in config.get("dual_attention_layers", ())):
        raise UserError(
            f"{path}: dual_attention_layers must be below num_layers = {config['num_layers']}, got "
            f"{max(config['dual_attention_layers'])}; copy the file again."
        )


def _call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
    import torch

    config = model.config
    side = config.patch_size
    return model(
        hidden_states=torch.empty(1, config.in_channels, rows * side, columns * side),
        encoder_hidden_states=torch.empty(1, text_tokens, config.joint_attention_dim),
        pooled_projections=torch.empty(1, config.pooled_projection_dim),
        timestep=torch.empty(1),
    )


_WITHOUT_T5 = "leave T5 out with --no-t5"
_PARTS = (
    flow_match_scheduler(),
    clip_tokenizer("tokenizer"),
    clip_tokenizer("tokenizer_2"),
    t5_tokenizer("tokenizer_3", without=_WITHOUT_T5),
    Part(
        "transformer",
        "transformer",
        "diffusers:SD3Transformer2DModel",
        rules=_RULES,
        check=_check_transformer,
        repeated={"transformer_blocks": "num_layers"},
        run=lambda model: _call(model, 1, 1, 1),
    ),
    autoencoder_kl(),
    clip_text_encoder("text_encoder"),
    clip_text_encoder("text_encoder_2"),
    t5_text_encoder("text_encoder_3", without=_WITHOUT_T5),
)
_CLIPS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class SD3Architecture(PipelineArchitecture):
    """The configuration of a Stable Diffusion 3 pipeline; its parameters and FLOPs are closed forms.

    Attributes:
        clip_length: Positions of the CLIP part of the text (77 in all published models).
        has_t5: Whether there is a third text encoder; without it its positions are zeros, as in diffusers.
    """

    clip_length: int
    has_t5: bool
    parts = _PARTS
    block_counts = ("num_layers",)
    example_call = staticmethod(_call)

    @property
    def latent_channels(self) -> int:
        return int(self.transformer["in_channels"])

    @property
    def native_resolution(self) -> int:
        return int(self.transformer["sample_size"]) * self.vae_factor

    def blocks_of(self, stream: str) -> list[int]:
        """The last block gives no text."""
        return list(range(self.num_blocks - (stream == "text")))

    def token_grid(self, resolution: int) -> tuple[int, int]:
        side = self.vae_factor * int(self.transformer["patch_size"])
        largest = int(self.transformer["pos_embed_max_size"]) * side
        if resolution < side or resolution % side:
            raise UserError(f"The resolution must be a multiple of {side} pixels for this model, got {resolution}.")
        if resolution > largest:
            raise UserError(f"This model has positions for images up to {largest} pixels, got {resolution}.")
        return resolution // side, resolution // side

    def text_tokens(self, text_length: int) -> int:
        return self.clip_length + text_length

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("clip", "t5") if self.has_t5 and use_t5 else ("clip",)

    def prompt_limit(self, text_length: int) -> int:
        """T5 reads more, and CLIP's limit is the one that cuts prompts."""
        return self.clip_length

    def describe_text(self, text_length: int, *, use_t5: bool) -> str:
        t5 = "encoded" if self.has_t5 and use_t5 else "left out (zeros)"
        return f"{self.clip_length} CLIP, {text_length} T5" + (f" ({t5})" if text_length else "")

    def check_text(self, text_length: int, *, use_t5: bool) -> None:
        if self.has_t5 and use_t5 and text_length < 1:
            raise UserError(
                f"The T5 encoder needs at least 1 position, got --t5-length {text_length}; use --no-t5 instead."
            )

    @property
    def parameters(self) -> int:
        config = self.transformer
        per_norm = _NORM_PARAMETERS[config.get("qk_norm")] * int(config["attention_head_dim"])
        norms = 4 * self.num_blocks + 2 * len(config.get("dual_attention_layers", ()))
        return product_parameters(self._products(0, 0)) + norms * per_norm

    def forward_flops(self, resolution: int, text_tokens: int) -> int:
        image_tokens = math.prod(self.token_grid(resolution))
        joint = self.num_blocks * attention_flops(image_tokens + text_tokens, self.width)
        dual = len(self.transformer.get("dual_attention_layers", ())) * attention_flops(image_tokens, self.width)
        return product_flops(self._products(image_tokens, text_tokens)) + joint + dual

    def matches(self, architecture: Architecture) -> bool:
        return super().matches(architecture) and self.has_t5 == getattr(architecture, "has_t5", None)

    def _products(self, image_tokens: int, text_tokens: int) -> Iterator[Product]:
        """List the matrix products of one forward of one item."""
        config, width = self.transformer, self.width
        patch = int(config["patch_size"]) ** 2 * self.latent_channels
        yield image_tokens, patch, width
        for channels in (_TIME_CHANNELS, int(config["pooled_projection_dim"])):
            yield 1, channels, width
            yield 1, width, width
        yield text_tokens, self.text_channels, width
        for block in range(self.num_blocks):
            last, dual = block == self.num_blocks - 1, block in config.get("dual_attention_layers", ())
            # Modulation; queries, keys, values and outputs; the feed-forward network.
            yield 1, width, (9 if dual else 6) * width
            yield 1, width, (2 if last else 6) * width
            for tokens, layers in ((image_tokens, 8 if dual else 4), (text_tokens, 3 if last else 4)):
                yield from [(tokens, width, width)] * layers
            for tokens in (image_tokens,) if last else (image_tokens, text_tokens):
                yield tokens, width, 4 * width
                yield tokens, 4 * width, width
        yield 1, width, 2 * width
        yield image_tokens, width, patch


class SD3Backbone(PipelineBackbone):
    """A frozen ``StableDiffusion3Pipeline``.

    The text stream has the CLIP positions first, then T5's. Streams stay apart in every block.
    """

    block_lists = ("transformer_blocks",)
    even_steps = False

    def streams(self, block: int, output: tuple[Tensor | None, Tensor], layout: Layout) -> Streams:
        """A block returns (text, image), the reverse of its arguments; the last text is None."""
        text, image = output
        return {"image": image, "text": text}

    def layout(self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning) -> Layout:
        """Joint attention has the image first; no block returns the joined sequence."""
        patch = self.pipeline.transformer.config.patch_size
        image_tokens = (latents.shape[2] // patch) * (latents.shape[3] // patch)
        return Layout.image_first(image_tokens, conditioning.tensors["encoder_hidden_states"].shape[1])

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        prompts = list(prompts)
        with torch.inference_mode(), self.quiet_truncation():
            tokens, _, pooled, _ = self.pipeline.encode_prompt(
                prompt=prompts,
                prompt_2=None,
                prompt_3=None,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.text_length,
            )
            tensors = {"encoder_hidden_states": tokens.cpu(), "pooled_projections": pooled.cpu()}
            return Conditioning(tensors, self._real_tokens(prompts))

    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        return {
            "hidden_states": noisy.to(self.device, self.dtype),
            **{name: tensor.to(self.device, self.dtype) for name, tensor in conditioning.tensors.items()},
            "timestep": self.timesteps(len(noisy), sigma),
            "return_dict": False,
        }

    def timestep(self, sigma: float) -> float:
        return 1000.0 * sigma

    def velocity(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> Float[Tensor, "item channel row column"]:
        return self.transformer(**self.inputs(noisy, conditioning, sigma))[0]

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the marks of begin and end too, and return the larger count of the two CLIP tokenizers."""
        both = [count_tokens(tokenizer, prompts) for tokenizer in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)]
        return [max(counts) for counts in zip(*both, strict=True)]

    def _real_tokens(self, prompts: list[str]) -> dict[str, Tensor]:
        """Mark words, begin and end marks; CLIP pads with its end mark, so ids alone do not decide."""
        import torch

        pipeline = self.pipeline
        clip_length, t5_length = pipeline.tokenizer_max_length, self.text_length
        clip = torch.zeros(len(prompts), clip_length + t5_length, dtype=torch.bool)
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
            clip[:, :clip_length] |= attention_mask(tokenizer, prompts, clip_length)
        parts = {"clip": clip}
        if pipeline.text_encoder_3 is not None:
            parts["t5"] = torch.zeros_like(clip)
            parts["t5"][:, clip_length:] = attention_mask(pipeline.tokenizer_3, prompts, t5_length)
        return parts


class SD3Family(PipelineFamily):
    """``StableDiffusion3Pipeline``: the third text encoder is optional."""

    pipeline = "StableDiffusion3Pipeline"
    architecture = SD3Architecture
    backbone = SD3Backbone
    parts = _PARTS
    text_length = 256
    entries = {  # noqa: RUF012
        "sd3-medium": Entry("stabilityai/stable-diffusion-3-medium-diffusers", 512, architecture="sd3-medium"),
        "sd35-medium": Entry("stabilityai/stable-diffusion-3.5-medium", 512, architecture="sd35-medium"),
        "sd35-large": Entry("stabilityai/stable-diffusion-3.5-large", 512, architecture="sd35-large"),
        "sd35-large-turbo": Entry("stabilityai/stable-diffusion-3.5-large-turbo", 512, architecture="sd35-large"),
    }

    def read_architecture(
        self, folder: Path, configs: Mapping[str, dict[str, Any]], *, names: Collection[str], text_parameters: int
    ) -> SD3Architecture:
        return SD3Architecture(
            transformer=plain_config(configs["transformer"]),
            vae=plain_config(configs["vae"]),
            clip_length=_clip_length(folder, configs),
            has_t5="text_encoder_3" in names,
            text_parameters=text_parameters,
        )

    def check_fit(self, folder: Path, configs: Mapping[str, dict[str, Any]]) -> None:
        super().check_fit(folder, configs)
        if "transformer" in configs:
            _check_clip_widths(configs)
        _clip_length(folder, configs)

    def widths(self, configs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, int]]:
        """``text_encoder_3`` is missing where T5 is not used."""
        pooled = sum(configs[name]["projection_dim"] for name in _CLIPS)
        widths = [("pooled_projection_dim", "the text encoders' projection_dim", pooled)]
        widths.append(("in_channels", "the VAE's latent_channels", configs["vae"]["latent_channels"]))
        if "text_encoder_3" in configs:
            widths.append(("joint_attention_dim", "the T5 encoder's d_model", configs["text_encoder_3"]["d_model"]))
        return widths

    def tokenizers(self, pipeline: Any, text_length: int) -> list[tuple[str, str, int]]:
        lengths = (pipeline.tokenizer_max_length, pipeline.tokenizer_max_length, text_length)
        numbers = ("", "_2", "_3")
        return [(f"tokenizer{n}", f"text_encoder{n}", length) for n, length in zip(numbers, lengths, strict=True)]


def _clip_length(folder: Path, configs: Mapping[str, dict[str, Any]]) -> int:
    path = folder / "tokenizer" / "tokenizer_config.json"
    return clip_length_of(path, configs["tokenizer"], [configs[name] for name in _CLIPS])


def _check_clip_widths(configs: Mapping[str, Mapping[str, Any]]) -> None:
    transformer, width = configs["transformer"], sum(configs[name]["hidden_size"] for name in _CLIPS)
    if width > transformer["joint_attention_dim"]:
        raise UserError(
            f"The parts of this pipeline do not fit: the CLIP encoders give {width} channels, and the transformer's "
            f"joint_attention_dim is {transformer['joint_attention_dim']}; give parts of one model."
        )


FAMILY = SD3Family()
