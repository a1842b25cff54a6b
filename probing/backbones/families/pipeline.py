"""What the families of diffusers pipelines share: two configurations, and one pipeline object."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float

from probing.backbones.architecture import Architecture, count_flops
from probing.backbones.base import Backbone, BackboneSpec, Family
from probing.backbones.library_parts import autoencoder_kl_flops, check_tokenizer
from probing.backbones.log_lines import dropped_log_lines, quiet_imports
from probing.backbones.parts import Part, plain_config
from probing.backbones.tuning import add_lora
from probing.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# torch is imported where it is used: a plan reads these files.


@dataclass(frozen=True)
class PipelineArchitecture(Architecture):
    """The configurations of a pipeline's transformer and VAE.

    A family that states no closed forms has its parameters and FLOPs counted on the meta device.

    Attributes:
        transformer: Configuration of the transformer.
        vae: Configuration of the VAE.
        text_parameters: Parameters of all text encoders together.
        parts: Of the family.
        block_counts: Entries of the transformer's configuration that count its blocks, in running order.
    """

    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_parameters: int
    parts: ClassVar[tuple[Part, ...]]
    block_counts: ClassVar[tuple[str, ...]]

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        return {"transformer": self.transformer, "vae": self.vae}

    @property
    def config_hash(self) -> str:
        return hashlib.sha256(json.dumps([self.transformer, self.vae], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def num_blocks(self) -> int:
        return sum(int(self.transformer[name]) for name in self.block_counts)

    @property
    def width(self) -> int:
        return int(self.transformer["num_attention_heads"]) * int(self.transformer["attention_head_dim"])

    @property
    def text_channels(self) -> int:
        return int(self.transformer["joint_attention_dim"])

    @property
    def latent_channels(self) -> int:
        return int(self.vae["latent_channels"])

    @property
    def vae_factor(self) -> int:
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def native_resolution(self) -> int:
        return 1024

    @property
    def vae_width(self) -> int:
        return int(self.vae.get("block_out_channels", [self.vae.get("base_dim", 128)])[0])

    def blocks_of(self, stream: str) -> list[int]:
        return list(range(self.num_blocks))

    def token_grid(self, resolution: int) -> tuple[int, int]:
        side = self.vae_factor * self.token_side
        if resolution < side or resolution % side:
            raise UserError(f"The resolution must be a multiple of {side} pixels for this model, got {resolution}.")
        return resolution // side, resolution // side

    def text_tokens(self, text_length: int) -> int:
        return text_length

    def prompt_limit(self, text_length: int) -> int:
        return text_length

    def describe_text(self, text_length: int, *, use_t5: bool) -> str:
        return f"{text_length} text"

    def check_text(self, text_length: int, *, use_t5: bool) -> None:
        if text_length < 1:
            raise UserError(f"The text encoder needs at least 1 position, got --t5-length {text_length}.")

    @property
    def parameters(self) -> int:
        return _count_parameters(self._part("transformer"), json.dumps(self.transformer))

    def forward_flops(self, resolution: int, text_tokens: int) -> int:
        rows, columns = self.token_grid(resolution)
        return count_flops(lambda: self.example_call(self._on_meta("transformer"), rows, columns, text_tokens))

    def encoding_flops(self, resolution: int) -> int:
        return autoencoder_kl_flops(self.vae, resolution)

    def matches(self, architecture: Architecture) -> bool:
        if type(self) is not type(architecture):
            return False
        assert isinstance(architecture, PipelineArchitecture)
        unused = ("sample_size", "force_upcast", "latents_mean", "latents_std")
        pair = (self, architecture)
        vaes = [{k: v for k, v in _filled(self._part("vae").model, a.vae).items() if k not in unused} for a in pair]
        transformers = [_filled(self._part("transformer").model, a.transformer) for a in pair]
        return vaes[0] == vaes[1] and transformers[0] == transformers[1]

    def with_transformer(self, config: Mapping[str, Any]) -> Self:
        return replace(self, transformer=dict(config))

    @staticmethod
    @abstractmethod
    def example_call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
        """Call a transformer once, for one item with this grid of image tokens."""

    def _part(self, kind: str) -> Part:
        return next(part for part in self.parts if part.kind == kind)

    def _on_meta(self, kind: str) -> Any:
        import torch

        part = self._part(kind)
        with torch.device("meta"):
            return part.model.from_config(self.configs[part.name]).eval()


@lru_cache(maxsize=64)
def _count_parameters(part: Part, config: str) -> int:
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in part.model.from_config(json.loads(config)).parameters())


def _filled(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """Give entries that a configuration leaves out the defaults of the class."""
    parameters = inspect.signature(cls).parameters.items()
    default = {key: p.default for key, p in parameters if p.default is not p.empty}
    values = {key: config.get(key, value) for key, value in default.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


class PipelineBackbone(Backbone):
    """A frozen diffusers pipeline.

    Attributes:
        pipeline: The pipeline; its own call is what the adapter is checked against.
        text_length: Positions of the text part whose length can be chosen.
        time_projection: Attribute path of the ``Timesteps`` that the timestep goes through, in a transformer that first
            rounds it to the type of its weights; empty for one that does not. There, the exact timestep in float32
            takes the place of the rounded one.
        time_scale: What the transformer multiplies the timestep by before that module.
        even_steps: Whether the pipeline gives its scheduler noise levels in equal steps from 1, or their number only.
    """

    time_projection: ClassVar[str] = ""
    time_scale: float = 1.0
    even_steps: ClassVar[bool] = True

    def __init__(self, spec: BackboneSpec, pipeline: Any, *, device: torch.device, text_length: int) -> None:
        encoders = [getattr(pipeline, part.name) for part in spec.family.parts if part.kind == "text_encoder"]
        super().__init__(
            spec,
            transformer=pipeline.transformer,
            vae=pipeline.vae,
            text_encoders=[encoder for encoder in encoders if encoder is not None],
            scheduler=pipeline.scheduler,
            device=device,
        )
        self.pipeline = pipeline
        self.text_length = text_length
        self._exact_time: list[Any] = []

    def embed_time(self, dtype: Literal["float32", "model"]) -> None:
        """Embed the exact timestep, or what is left of it in the type of the weights, as the stock pipeline does."""
        while self._exact_time:
            self._exact_time.pop().remove()
        if dtype == "float32" and self.time_projection:
            projection = attrgetter(self.time_projection)(self.transformer)
            self._exact_time += _embed_time_exactly(self.transformer, projection, self.time_scale)

    def add_lora(self, path: Path, scale: float) -> None:
        add_lora(self.pipeline, path, scale)

    def embedded_timestep(self, sigma: float) -> float:
        """The timestep in float32, in which the embedding of time is made; or as the transformer rounds it before."""
        if self.time_projection and not self._exact_time:
            import torch

            return float(torch.tensor(self.timestep(sigma)).to(self.dtype) * self.time_scale)
        return float(np.float32(self.time_scale) * np.float32(self.timestep(sigma)))

    @abstractmethod
    def timestep(self, sigma: float) -> float:
        """Return the timestep that the transformer is called with."""

    def timesteps(self, items: int, sigma: float) -> Float[Tensor, " item"]:
        """Return the timestep of each item of a batch, in float32."""
        import torch

        return torch.full((items,), self.timestep(sigma), device=self.device)

    def set_timesteps(self, scheduler: Any, steps: int, image_tokens: int) -> None:
        shift = {"mu": self.shift(steps, image_tokens)} if scheduler.config.get("use_dynamic_shifting") else {}
        if self.even_steps:
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=self.device, **shift)
        else:
            scheduler.set_timesteps(steps, device=self.device, **shift)

    def shift(self, steps: int, image_tokens: int) -> float:
        """Return the shift of noise levels by the number of tokens, where the scheduler's configuration has one."""
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        config = self.scheduler.config
        return float(
            calculate_shift(
                image_tokens,
                config.get("base_image_seq_len", 256),
                config.get("max_image_seq_len", 4096),
                config.get("base_shift", 0.5),
                config.get("max_shift", 1.15),
            )
        )

    def encode_to_mode(self, pixels: Float[Tensor, "image 3 height width"]) -> Tensor:
        """Return the mode of the VAE's posterior, on the device, before any shift or scale."""
        vae = self.pipeline.vae
        return vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()

    def encode_images(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image channel row column"]:
        """Return the posterior's mode, shifted and scaled."""
        import torch

        config = self.pipeline.vae.config
        with torch.inference_mode():
            return ((self.encode_to_mode(pixels) - config.shift_factor) * config.scaling_factor).float().cpu()

    def stock_options(self) -> dict[str, Any]:
        """Return the options with which a call of the pipeline makes the same forward, without an empty prompt."""
        return {"guidance_scale": 1.0, "max_sequence_length": self.text_length}

    @contextmanager
    def quiet_truncation(self) -> Iterator[None]:
        """Drop the libraries' lines on prompts that are cut; :meth:`prompt_tokens` counts them instead."""
        with (
            dropped_log_lines(type(self.pipeline).__module__, "part of your input was truncated"),
            dropped_log_lines("transformers.tokenization_utils_base", "Token indices sequence length is longer"),
        ):
            yield


def _embed_time_exactly(transformer: Any, projection: Any, scale: float) -> list[Any]:
    """Give a module the timestep that its transformer was called with, before it is rounded; return the hooks."""
    exact: list[Tensor] = []

    def remember(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        exact[:] = [kwargs["timestep"].float() * scale]

    def replace_first(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        # A second call in the same forward embeds the guidance.
        return (exact.pop(),) if exact else None

    return [
        transformer.register_forward_pre_hook(remember, with_kwargs=True),
        projection.register_forward_pre_hook(replace_first),
    ]


def fill_text(tokens: Float[Tensor, "item token channel"], length: int) -> Float[Tensor, "item length channel"]:
    """Cut text tokens, or fill them up with zeros, to one length."""
    import torch

    filled: Tensor = torch.nn.functional.pad(tokens, (0, 0, 0, length - tokens.shape[1]))
    return filled


def attention_mask(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Mark the real tokens of prompts that are cut and padded to one length."""
    encoded = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
        return_attention_mask=True,
    )
    return encoded["attention_mask"].bool()


def count_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[int]:
    """Count the tokens of each prompt, begin and end marks too, without cutting any."""
    if not prompts:
        return []
    return [len(ids) for ids in tokenizer(list(prompts), return_attention_mask=False, verbose=False)["input_ids"]]


class PipelineFamily(Family):
    """A class of diffusers pipelines.

    Attributes:
        architecture: Class of its architectures.
        backbone: Class of its backbones.
    """

    architecture: type[PipelineArchitecture]
    backbone: type[PipelineBackbone]

    def read_architecture(
        self, folder: Path, configs: Mapping[str, dict[str, Any]], *, names: Collection[str], text_parameters: int
    ) -> PipelineArchitecture:
        return self.architecture(
            transformer=plain_config(configs["transformer"]),
            vae=plain_config(configs["vae"]),
            text_parameters=text_parameters,
        )

    def check_fit(self, folder: Path, configs: Mapping[str, dict[str, Any]]) -> None:
        for key, partner, value in self.widths(configs) if "transformer" in configs else ():
            if (here := configs["transformer"][key]) != value:
                raise UserError(
                    f"The parts of this pipeline do not fit: the transformer's {key} is {here}, and {partner} {value}; "
                    f"give parts of one model."
                )

    @abstractmethod
    def widths(self, configs: Mapping[str, dict[str, Any]]) -> Sequence[tuple[str, str, int]]:
        """List entries of the transformer's configuration that another part decides: entry, what decides it, value."""

    def architecture_from(self, described: dict[str, Any]) -> PipelineArchitecture:
        return self.architecture(**{key: v for key, v in described.items() if key not in ("encoders", "scheduler")})

    def download(self, source: str, left_out: Collection[str]) -> Path:
        absent = dict.fromkeys(left_out)
        return Path(self.pipeline_class.download(source, use_safetensors=True, **absent))

    def build(
        self, spec: BackboneSpec, loaded: Mapping[str, Any], folder: Path, *, device: torch.device, text_length: int
    ) -> PipelineBackbone:
        absent = {part.name: None for part in self.parts if part.has_weights or part.is_optional}
        pipeline = self.pipeline_class(**{**absent, **loaded})
        pipeline.set_progress_bar_config(disable=True)
        for name, encoder_name, length in self.tokenizers(pipeline, text_length):
            tokenizer, encoder = getattr(pipeline, name), getattr(pipeline, encoder_name)
            if tokenizer is not None and encoder is not None:
                check_tokenizer(folder / name, tokenizer, encoder, length)
        return self.backbone(spec, pipeline, device=device, text_length=text_length)

    def tokenizers(self, pipeline: Any, text_length: int) -> Sequence[tuple[str, str, int]]:
        """List each tokenizer, its encoder, and the length that it pads to."""
        return [("tokenizer", "text_encoder", text_length)]

    @property
    def pipeline_class(self) -> Any:
        """The diffusers class."""
        with quiet_imports():
            import diffusers

            return getattr(diffusers, self.pipeline)
