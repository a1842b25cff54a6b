"""Z-Image: blocks for the image alone, the text alone, then both in one sequence; told 1 − σ, it predicts −v."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.base import Conditioning, Entry, Layout
from probing.backbones.config_rules import CHANNELS, HEADS, LAYERS, flag, real, whole, wholes
from probing.backbones.families.pipeline import (
    PipelineArchitecture,
    PipelineBackbone,
    PipelineFamily,
    count_tokens,
    fill_text,
)
from probing.backbones.library_parts import autoencoder_kl, flow_match_scheduler, qwen2_tokenizer, qwen3, width_of
from probing.backbones.parts import Part

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from probing.backbones.base import BackboneSpec, Streams

_MULTIPLE = 32
"""Each side of the sequence is padded to a multiple of it, by learned tokens."""
_RULES = {
    "all_patch_size": wholes(2, 2, 1, required=False),
    "all_f_patch_size": wholes(1, 1, 1, required=False),
    "in_channels": whole(1, 4096),
    "dim": CHANNELS,
    "n_layers": LAYERS,
    "n_refiner_layers": LAYERS,
    "n_heads": HEADS,
    "n_kv_heads": HEADS,
    "norm_eps": real(1e-12, 0.1, required=False),
    "qk_norm": flag(),
    "cap_feat_dim": CHANNELS,
    "rope_theta": real(1, 1e9, required=False),
    "t_scale": real(1e-3, 1e6, required=False),
    "axes_dims": wholes(2, 4096, 3, required=False),
    "axes_lens": wholes(1, 2**20, 3, required=False),
}


def _call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
    import torch

    picture = torch.empty(model.config.in_channels, 1, 2 * rows, 2 * columns)
    return model(x=[picture], t=torch.ones(1), cap_feats=[torch.empty(text_tokens, model.config.cap_feat_dim)])


_PARTS = (
    flow_match_scheduler(),
    qwen2_tokenizer("tokenizer"),
    Part(
        "transformer",
        "transformer",
        "diffusers:ZImageTransformer2DModel",
        rules=_RULES,
        repeated={"noise_refiner": "n_refiner_layers", "context_refiner": "n_refiner_layers", "layers": "n_layers"},
        run=lambda model: _call(model, 1, 1, 1),
    ),
    autoencoder_kl(),
    qwen3("text_encoder", "Qwen3Model"),
)


@dataclass(frozen=True)
class ZImageArchitecture(PipelineArchitecture):
    """The configuration of a Z-Image pipeline."""

    parts = _PARTS
    block_counts = ("n_refiner_layers", "n_refiner_layers", "n_layers")
    example_call = staticmethod(_call)

    @property
    def width(self) -> int:
        return int(self.transformer["dim"])

    @property
    def text_channels(self) -> int:
        return int(self.transformer["cap_feat_dim"])

    def blocks_of(self, stream: str) -> list[int]:
        """Refiners of the other stream come first (for the text) or second (for the image)."""
        refiners = int(self.transformer["n_refiner_layers"])
        other = range(refiners) if stream == "text" else range(refiners, 2 * refiners)
        return [block for block in range(self.num_blocks) if block not in other]

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("qwen",)


class ZImageBackbone(PipelineBackbone):
    """A frozen ``ZImagePipeline``.

    Learned padding fills the image, and the text behind it, to a multiple of 32 tokens; it belongs to no stream.
    """

    block_lists = ("noise_refiner", "context_refiner", "layers")

    def __init__(self, spec: BackboneSpec, pipeline: Any, *, device: torch.device, text_length: int) -> None:
        super().__init__(spec, pipeline, device=device, text_length=text_length)
        self.time_scale = float(pipeline.transformer.config.t_scale)
        self._refiners = int(pipeline.transformer.config.n_refiner_layers)

    def streams(self, block: int, output: Tensor, layout: Layout) -> Streams:
        """A block returns one tensor: of the image, of the text, or of the image with the text behind it."""
        assert isinstance(layout.image, slice) and isinstance(layout.text, slice)
        if block < self._refiners:
            return {"image": output[:, layout.image], "text": None}
        if block < 2 * self._refiners:
            return {"image": None, "text": fill_text(output, self.text_length)}
        return {"image": output[:, layout.image], "text": fill_text(output[:, layout.text], self.text_length)}

    def layout(self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning) -> Layout:
        """All images of a forward have one size, so that every text begins at the same place."""
        image_tokens = latents.shape[2] * latents.shape[3] // 4
        start = -(-image_tokens // _MULTIPLE) * _MULTIPLE
        return Layout(slice(0, image_tokens), slice(start, start + self.text_length))

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        with torch.inference_mode():
            # The pipeline writes its template into the list.
            lists, _ = self.pipeline.encode_prompt(
                list(prompts),
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.text_length,
            )
            tokens = torch.cat([fill_text(words[None], self.text_length) for words in lists]).cpu()
            real = torch.tensor([[i < len(words) for i in range(self.text_length)] for words in lists])
        return Conditioning({"cap_feats": tokens}, {"qwen": real})

    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        words, real = conditioning.tensors["cap_feats"], conditioning.parts["qwen"]
        return {
            "x": list(noisy.to(self.device, self.dtype).unsqueeze(2).unbind()),
            "t": self.timesteps(len(noisy), sigma),
            "cap_feats": [item[mask].to(self.device, self.dtype) for item, mask in zip(words, real, strict=True)],
            "return_dict": False,
        }

    def timestep(self, sigma: float) -> float:
        return 1.0 - sigma

    def velocity(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> Float[Tensor, "item channel row column"]:
        import torch

        return -torch.stack(self.transformer(**self.inputs(noisy, conditioning, sigma))[0]).squeeze(2)

    def stock_options(self) -> dict[str, Any]:
        return {**super().stock_options(), "guidance_scale": 0.0}

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the tokens of a prompt with its chat template."""
        tokenizer = self.pipeline.tokenizer
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            for prompt in prompts
        ]
        return count_tokens(tokenizer, texts)


class ZImageFamily(PipelineFamily):
    """``ZImagePipeline``."""

    pipeline = "ZImagePipeline"
    architecture = ZImageArchitecture
    backbone = ZImageBackbone
    parts = _PARTS
    text_length = 512
    entries = {  # noqa: RUF012
        "z-image": Entry("Tongyi-MAI/Z-Image", 1024, architecture="z-image"),
        "z-image-turbo": Entry("Tongyi-MAI/Z-Image-Turbo", 1024, architecture="z-image"),
    }

    def widths(self, configs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, int]]:
        return [
            ("cap_feat_dim", "the text encoder's hidden_size", width_of(configs["text_encoder"])),
            ("in_channels", "the VAE's latent_channels", configs["vae"]["latent_channels"]),
        ]


FAMILY = ZImageFamily()
