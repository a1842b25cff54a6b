"""The contract of a family of text-to-image transformers.

A family is one file that subclasses :class:`probing.backbones.architecture.Architecture`, :class:`Backbone` and
:class:`Family`, and one line in :mod:`probing.backbones.families`. Code outside that file uses these classes only.
"""

from __future__ import annotations

import importlib.resources
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtyping import Bool, Float, Int, Shaped

from probing.backbones.architecture import Architecture
from probing.backbones.parts import Part, is_absent
from probing.backbones.placement import WeightPlaces, is_placed
from probing.backbones.tuning import UNCHANGED, Tuning
from probing.errors import UserError

Stage = Literal["text_encoders", "vae", "transformer"]
"""Modules of a backbone that are needed on the device at the same time."""
STAGES: frozenset[Stage] = frozenset(get_args(Stage))
RandomInit = bool | Literal["all"]
"""Whether weights are fresh: those of the transformer, or of all parts."""
if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Positions = slice | Int[Tensor, "item token"]
    Streams = dict[str, Tensor | None]
    """``image`` and ``text`` tokens of a block's output, (item, token, channel); None where the block gives none."""
else:

    def __getattr__(name: str) -> Any:
        """Make ``Streams`` when it is used: a plan reads this file, and torch takes seconds to import."""
        if name != "Streams":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from torch import Tensor

        return dict[str, Tensor | None]


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name: where its files are, how it is built, how it is called by default.

    Attributes:
        name: Registry name, or the folder's name.
        source: Hub id or folder.
        architecture: What it is before weights are loaded.
        resolution: Default side of the images, in pixels.
        t5_length: Default positions of the text part whose length can be chosen (T5's in SD3).
        tuning: Weights that change its transformer.
        packaged: Name of the file in ``configs`` that describes it, if there is one.
        family: Loads it.
    """

    name: str
    source: str
    architecture: Architecture
    resolution: int
    t5_length: int
    tuning: Tuning = UNCHANGED
    packaged: str | None = None
    family: Family = field(kw_only=True)


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, as the transformer takes them.

    Attributes:
        tensors: By name, a row a prompt; lists of different lengths are padded.
        parts: For each part of the text, which positions of the text stream hold real tokens: False at padding. A
            text encoder that is left out has no part.
    """

    tensors: dict[str, Shaped[Tensor, "prompt ..."]]
    parts: dict[str, Bool[Tensor, "prompt token"]]

    def rows(self, index: Int[Tensor, " row"]) -> Conditioning:
        """Select rows, in the order of ``index``."""
        return Conditioning(*({name: t[index] for name, t in group.items()} for group in (self.tensors, self.parts)))

    def to(self, device: torch.device) -> Conditioning:
        """Move to a device."""
        return Conditioning(
            *({name: t.to(device) for name, t in group.items()} for group in (self.tensors, self.parts))
        )

    @staticmethod
    def concatenate(pieces: Sequence[Conditioning]) -> Conditioning:
        """Join the rows of several conditionings of one backbone."""
        import torch

        first = pieces[0]
        return Conditioning(
            {name: torch.cat([piece.tensors[name] for piece in pieces]) for name in first.tensors},
            {name: torch.cat([piece.parts[name] for piece in pieces]) for name in first.parts},
        )


@dataclass(frozen=True)
class Layout:
    """Where image and text tokens lie in a sequence that joins them.

    Attributes:
        image: Positions of the image's tokens: one slice for all items, or positions by item.
        text: Positions of the text's tokens, in the order of :attr:`Conditioning.parts`; where items have texts of
            different lengths, padding points at any position.
    """

    image: Positions
    text: Positions

    @classmethod
    def image_first(cls, image_tokens: int, text_tokens: int) -> Layout:
        """Lay the text behind the image, in every item at the same position."""
        return cls(slice(0, image_tokens), slice(image_tokens, image_tokens + text_tokens))

    @classmethod
    def text_first(cls, image_tokens: int, text_tokens: int) -> Layout:
        """Lay the image behind the text, in every item at the same position."""
        return cls(slice(text_tokens, text_tokens + image_tokens), slice(0, text_tokens))

    def split(self, joined: Float[Tensor, "item position channel"]) -> Streams:
        """Split a joined sequence into its streams."""
        return {"image": _take(joined, self.image), "text": _take(joined, self.text)}


def _take(joined: Tensor, positions: Positions) -> Tensor:
    if isinstance(positions, slice):
        return joined[:, positions]
    return joined.gather(1, positions.to(joined.device).unsqueeze(-1).expand(-1, -1, joined.shape[2]))


class Backbone(ABC):
    """A frozen pipeline, read part by part.

    Its modules rest in host memory; :meth:`on_device` brings some to the accelerator for as long as they are needed.

    Attributes:
        spec: What it was loaded from.
        transformer: The module whose blocks are read.
        scheduler: The pipeline's own; it decides the noise levels of denoising, and no feature of given latents.
        device: Where forwards run.
        block_lists: Attribute paths of the transformer's lists of blocks, in running order; blocks are numbered
            through them.
        parts: A digest of each part's files (see :func:`probing.backbones.identity.part_digests`).
        revision: 16 hexadecimal characters over all of them.
        scheduler_digest: Digest of the scheduler's configuration.
        guidance: The guidance that is embedded, for a transformer that embeds one; None for the others.
    """

    block_lists: tuple[str, ...]
    guidance: float | None
    parts: dict[str, str]
    revision: str
    scheduler_digest: str

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        transformer: nn.Module,
        vae: nn.Module | None,
        text_encoders: Sequence[nn.Module],
        scheduler: Any,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.transformer: Any = transformer
        self.scheduler = scheduler
        self.device = device
        self.guidance = spec.architecture.guidance
        self._modules: dict[Stage, list[nn.Module]] = {
            "text_encoders": list(text_encoders),
            "vae": [] if vae is None else [vae],
            "transformer": [transformer],
        }
        self._held: set[Stage] = set()
        for modules in self._modules.values():
            for module in modules:
                module.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the transformer's weights, in which forwards are computed."""
        return self.transformer.dtype

    def place(self, places: WeightPlaces) -> None:
        """Give text encoders and transformer their places; the VAE is small and moves whole."""
        # It holds the folder of weights on disk, which goes with it.
        self._places = places
        for stage in ("text_encoders", "transformer"):
            for module in self._modules[stage]:
                places.place(module)

    @contextmanager
    def on_device(self, stage: Stage) -> Iterator[None]:
        """Hold the modules of one stage in accelerator memory for the time of a ``with`` block.

        Raises:
            UserError: They were not loaded, for what they encode was kept, and it has gone since.
        """
        if not self._modules[stage]:
            raise UserError(
                f"What the {stage} of {self.spec.name} encode was kept, and has been removed since this command began; "
                f"give the same command again."
            )
        if self.device.type == "cpu" or stage in self._held:
            # A ``with`` block around this one holds them.
            yield
            return
        modules = [module for module in self._modules[stage] if not is_placed(module)]
        try:
            self._held.add(stage)
            for module in modules:
                module.to(self.device)
            yield
        finally:
            self._held.discard(stage)
            for module in modules:
                module.to("cpu")
            if self.device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    @abstractmethod
    def streams(self, block: int, output: Any, layout: Layout) -> Streams:
        """Name the streams of what a block returns.

        Args:
            block: 0-indexed, through all lists.
            output: What the block returned.
            layout: Of the forward.
        """

    @abstractmethod
    def layout(self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning) -> Layout:
        """Return where image and text tokens lie in joined sequences of one forward."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts as a stock call of the pipeline does; needs ``text_encoders`` on the device.

        Returns:
            Conditioning in host memory.
        """

    @abstractmethod
    def encode_images(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image channel row column"]:
        """Encode pixels in [−1, 1] to x0, in the space where noise is added; needs ``vae`` on the device.

        Returns:
            Latents in host memory, float32.
        """

    @abstractmethod
    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        """Return the keyword arguments of one forward of the transformer at noise level ``sigma``."""

    def add_lora(self, path: Path, scale: float) -> None:
        """Add a LoRA to the transformer.

        Args:
            path: Its file or folder.
            scale: Its factor.

        Raises:
            UserError: It does not fit, or the family takes none.
        """
        raise UserError(f"{self.spec.name} takes no LoRA; merge it, and give the result by --transformer.")

    @abstractmethod
    def embedded_timestep(self, sigma: float) -> float:
        """Return the number that the transformer's time embedding really gets at a noise level."""

    def embed_time(self, dtype: Literal["float32", "model"]) -> None:
        """Choose the type in which the timestep is embedded; a family that always embeds it in float32 ignores it."""
        return

    @abstractmethod
    def velocity(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> Float[Tensor, "item channel row column"]:
        """Predict dx/dσ = ε − x0, as the pipeline hands it to its scheduler; needs ``transformer`` on the device."""

    def set_timesteps(self, scheduler: Any, steps: int, image_tokens: int) -> None:
        """Set a sampler's noise levels as the pipeline's own call does.

        Args:
            scheduler: A copy of :attr:`scheduler`.
            steps: Forwards of the sampler.
            image_tokens: Tokens of one image.
        """
        scheduler.set_timesteps(steps, device=self.device)

    def packed(self, latents: Float[Tensor, "item channel row column"]) -> Tensor:
        """Return latents in the form that the pipeline's scheduler steps."""
        return latents

    @abstractmethod
    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the tokens of each prompt before truncation; compare with :meth:`Architecture.prompt_limit`."""


@dataclass(frozen=True)
class Entry:
    """A backbone that has a registry name.

    Attributes:
        source: Where ``from_pretrained`` finds it: a hub id, or a folder.
        resolution: Default side of the images in pixels; None takes the model's native one.
        text_length: Default positions of the text part whose length can be chosen; None takes the family's.
        architecture: Name of the file in ``configs`` that describes it; None reads the folder.
        transformer: Folder of another transformer than the pipeline's.
    """

    source: str
    resolution: int | None = None
    text_length: int | None = None
    architecture: str | None = None
    transformer: str | None = None


class Family(ABC):
    """One class of pipelines: its parts, and how they become a backbone.

    Attributes:
        pipeline: Class name in ``model_index.json``.
        parts: Parts that are used, in the order in which they are checked and loaded.
        text_length: Default positions of the text part whose length can be chosen.
        entries: Backbones by registry name.
    """

    pipeline: str
    parts: tuple[Part, ...]
    text_length: int = 0
    entries: Mapping[str, Entry] = {}

    @abstractmethod
    def read_architecture(
        self, folder: Path, configs: Mapping[str, dict[str, Any]], *, names: Collection[str], text_parameters: int
    ) -> Architecture:
        """Describe the pipeline in a folder.

        Args:
            folder: For messages.
            configs: Checked configurations by part; a missing folder of an optional part has none.
            names: Parts that the folder's index gives.
            text_parameters: Parameters of all text encoders together.

        Raises:
            UserError: The configurations describe no pipeline.
        """

    def packaged_architecture(self, name: str) -> Architecture:
        """Describe a pipeline from its file in ``configs``, without a folder."""
        described = importlib.resources.files("probing.backbones") / "configs" / f"{name}.json"
        return self.architecture_from(json.loads(described.read_text()))

    def architecture_from(self, described: dict[str, Any]) -> Architecture:
        """Build an architecture from the content of a file in ``configs``."""
        raise NotImplementedError(f"{type(self).__name__} has no packaged configurations.")

    def check_fit(self, folder: Path, configs: Mapping[str, dict[str, Any]]) -> None:
        """Check that the parts of a folder fit each other; the transformer's configuration may be missing.

        Raises:
            UserError: Two parts do not fit; both are named.
        """
        return

    def download(self, source: str, left_out: Collection[str]) -> Path:
        """Download a pipeline of the hub without some of its parts, and return its folder."""
        raise OSError(f"{self.pipeline} is loaded from folders only")

    @abstractmethod
    def build(
        self, spec: BackboneSpec, loaded: Mapping[str, Any], folder: Path, *, device: torch.device, text_length: int
    ) -> Backbone:
        """Make a backbone of loaded parts.

        Args:
            spec: What was requested.
            loaded: Modules, tokenizers and scheduler by part; optional parts that are left out are missing, and so may
                be the VAE or all text encoders where nothing is encoded.
            folder: Where they were loaded from, for messages.
            device: Where forwards will run.
            text_length: Positions of the text part whose length can be chosen.

        Raises:
            UserError: Two parts do not work together.
        """

    @property
    def transformer(self) -> Part:
        return next(part for part in self.parts if part.kind == "transformer")

    def present_parts(self, index: Mapping[str, Any]) -> tuple[Part, ...]:
        """Return the parts that an index gives."""
        return tuple(part for part in self.parts if not is_absent(index.get(part.name)))
