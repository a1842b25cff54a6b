"""A made-up family, in this one file: two lists of blocks over one sequence, image first, that takes 1 − σ as time.

Its transformer, VAE and text encoder are small modules with configuration keys and part names of their own; its
"tokens" of a prompt are bytes. The transformer predicts −velocity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from probing.backbones import Architecture, Backbone, BackboneSpec, Conditioning, Entry, Family, Layout, Streams
from probing.backbones.architecture import count_flops
from probing.backbones.config_rules import whole
from probing.backbones.library_parts import flow_match_scheduler
from probing.backbones.parts import Part, plain_config
from probing.errors import UserError


class JointBlock(nn.Module):
    def __init__(self, breadth: int) -> None:
        super().__init__()
        self.mix = nn.Linear(breadth, 3 * breadth)
        self.widen = nn.Sequential(nn.Linear(breadth, 2 * breadth), nn.SiLU(), nn.Linear(2 * breadth, breadth))

    def forward(self, joined: Tensor, hidden: Tensor) -> Tensor:
        query, key, value = self.mix(joined).chunk(3, dim=-1)
        scores = (query @ key.transpose(1, 2)).masked_fill(hidden.unsqueeze(1), -1e4)
        joined = joined + scores.softmax(dim=-1) @ value
        return joined + self.widen(joined)


class JointTransformer(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, planes: int, breadth: int, letters: int, early: int, late: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(planes, breadth, 2, stride=2)
        self.read = nn.Linear(letters, breadth)
        self.clock = nn.Linear(1, breadth)
        self.early_blocks = nn.ModuleList(JointBlock(breadth) for _ in range(early))
        self.late_blocks = nn.ModuleList(JointBlock(breadth) for _ in range(late))
        self.paste = nn.ConvTranspose2d(breadth, planes, 2, stride=2)

    def forward(self, picture: Tensor, letters: Tensor, padding: Tensor, time: Tensor) -> Tensor:
        image = self.cut(picture)
        rows, columns = image.shape[2:]
        image = image.flatten(2).transpose(1, 2) + self.clock(time[:, None]).unsqueeze(1)
        joined = torch.cat([image, self.read(letters)], dim=1)
        hidden = torch.cat([padding.new_zeros(image.shape[:2]), padding], dim=1)
        for block in (*self.early_blocks, *self.late_blocks):
            joined = block(joined, hidden)
        return self.paste(joined[:, : image.shape[1]].transpose(1, 2).unflatten(2, (rows, columns)))


class JointAutoencoder(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, planes: int, shrink: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, planes, shrink, stride=shrink)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.down(pixels)


class JointReader(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, letters: int) -> None:
        super().__init__()
        self.table = nn.Embedding(257, letters)

    def forward(self, codes: Tensor) -> Tensor:
        return self.table(codes)


_PARTS = (
    flow_match_scheduler(),
    Part(
        "transformer",
        "transformer",
        JointTransformer,
        rules={key: whole(1, 64) for key in ("planes", "breadth", "letters", "early", "late")},
        repeated={"early_blocks": "early", "late_blocks": "late"},
        run=lambda model: _forward(model, 2, 1),
    ),
    Part("autoencoder", "vae", JointAutoencoder, rules={"planes": whole(1, 64), "shrink": whole(1, 64)}),
    Part("reader", "text_encoder", JointReader, rules={"letters": whole(1, 64)}),
)


def _forward(model: Any, side: int, letters: int) -> Tensor:
    config = model.config
    padding = torch.zeros(1, letters, dtype=torch.bool)
    picture, text = torch.empty(1, config.planes, side, side), torch.empty(1, letters, config.letters)
    return model(picture, text, padding, torch.empty(1))


@dataclass(frozen=True)
class JointArchitecture(Architecture):
    transformer: dict[str, Any]
    autoencoder: dict[str, Any]
    text_parameters: int

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        return {"transformer": self.transformer, "autoencoder": self.autoencoder}

    @property
    def config_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.configs, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def num_blocks(self) -> int:
        return self.transformer["early"] + self.transformer["late"]

    @property
    def width(self) -> int:
        return self.transformer["breadth"]

    @property
    def text_channels(self) -> int:
        return self.transformer["letters"]

    @property
    def latent_channels(self) -> int:
        return self.transformer["planes"]

    @property
    def vae_factor(self) -> int:
        return self.autoencoder["shrink"]

    @property
    def native_resolution(self) -> int:
        return 8 * self.vae_factor

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._on_meta().parameters())

    def blocks_of(self, stream: str) -> list[int]:
        return list(range(self.num_blocks))

    def token_grid(self, resolution: int) -> tuple[int, int]:
        side, rest = divmod(resolution, 2 * self.vae_factor)
        if rest or not side:
            raise UserError(f"The resolution must be a multiple of {2 * self.vae_factor} pixels, got {resolution}.")
        return side, side

    def text_tokens(self, text_length: int) -> int:
        return text_length

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("letters",)

    def prompt_limit(self, text_length: int) -> int:
        return text_length

    def describe_text(self, text_length: int, *, use_t5: bool) -> str:
        return f"{text_length} letters"

    def check_text(self, text_length: int, *, use_t5: bool) -> None:
        return

    def forward_flops(self, resolution: int, text_tokens: int) -> int:
        return count_flops(lambda: _forward(self._on_meta(), resolution // self.vae_factor, text_tokens))

    def encoding_flops(self, resolution: int) -> int:
        return count_flops(lambda: JointAutoencoder(**self.autoencoder)(torch.empty(1, 3, resolution, resolution)))

    def matches(self, architecture: Architecture) -> bool:
        return self == architecture

    def with_transformer(self, config: Mapping[str, Any]) -> JointArchitecture:
        return replace(self, transformer=dict(config))

    def _on_meta(self) -> JointTransformer:
        with torch.device("meta"):
            return JointTransformer(**self.transformer)


class JointBackbone(Backbone):
    block_lists = ("early_blocks", "late_blocks")

    def __init__(self, spec: BackboneSpec, loaded: Mapping[str, Any], *, device: torch.device, length: int) -> None:
        self.reader, self.autoencoder, self.length = loaded.get("reader"), loaded.get("autoencoder"), length
        super().__init__(
            spec,
            transformer=loaded["transformer"],
            vae=self.autoencoder,
            text_encoders=[] if self.reader is None else [self.reader],
            scheduler=loaded["scheduler"],
            device=device,
        )

    def streams(self, block: int, output: Tensor, layout: Layout) -> Streams:
        return layout.split(output)

    def layout(self, latents: Tensor, conditioning: Conditioning) -> Layout:
        return Layout.image_first(latents.shape[2] * latents.shape[3] // 4, self.length)

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        codes = torch.full((len(prompts), self.length), 256)
        for row, prompt in enumerate(prompts):
            letters = [*f"{prompt}.".encode()][: self.length]
            codes[row, : len(letters)] = torch.tensor(letters)
        letters = self.reader(codes.to(self.device)).cpu()
        return Conditioning({"letters": letters, "padding": codes == 256}, {"letters": codes != 256})

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        return self.autoencoder(pixels.to(self.device, self.autoencoder.dtype)).float().cpu()

    def inputs(self, noisy: Tensor, conditioning: Conditioning, sigma: float) -> dict[str, Any]:
        return {
            "picture": noisy.to(self.device, self.dtype),
            "letters": conditioning.tensors["letters"].to(self.device, self.dtype),
            "padding": conditioning.tensors["padding"].to(self.device),
            "time": torch.full((len(noisy),), self.embedded_timestep(sigma), device=self.device, dtype=self.dtype),
        }

    def embedded_timestep(self, sigma: float) -> float:
        return torch.tensor(1.0 - sigma, dtype=self.dtype).item()

    def velocity(self, noisy: Tensor, conditioning: Conditioning, sigma: float) -> Tensor:
        return -self.transformer(**self.inputs(noisy, conditioning, sigma))

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.encode()) + 1 for prompt in prompts]


class JointFamily(Family):
    pipeline = "JointPipeline"
    parts = _PARTS
    text_length = 24

    def read_architecture(
        self, folder: Path, configs: Mapping[str, dict[str, Any]], *, names: Collection[str], text_parameters: int
    ) -> JointArchitecture:
        plain = {name: plain_config(configs[name]) for name in ("transformer", "autoencoder")}
        return JointArchitecture(**plain, text_parameters=text_parameters)

    def build(
        self, spec: BackboneSpec, loaded: Mapping[str, Any], folder: Path, *, device: torch.device, text_length: int
    ) -> JointBackbone:
        return JointBackbone(spec, loaded, device=device, length=text_length)


def write_joint_folder(folder: Path) -> None:
    """Write a pipeline folder of this family, with fresh weights."""
    torch.manual_seed(0)
    modules = {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "transformer": JointTransformer(planes=2, breadth=12, letters=6, early=2, late=3),
        "autoencoder": JointAutoencoder(planes=2, shrink=4),
        "reader": JointReader(letters=6),
    }
    for name, module in modules.items():
        module.save_pretrained(folder / name)
    index = {name: ["joint", type(module).__name__] for name, module in modules.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": JointFamily.pipeline, **index}))


def joint_family(folder: Path) -> Family:
    """Return the family, with an entry for a folder."""
    family = JointFamily()
    family.entries = {"joint-tiny": Entry(str(folder), resolution=32, text_length=20)}
    return family
