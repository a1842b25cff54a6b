"""Bounds and types of every number of a part's configuration that decides a size or a value."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from probing.errors import UserError


class Rule(Protocol):
    """What one entry of a configuration may be."""

    @property
    def required(self) -> bool: ...
    def allows(self, value: Any) -> bool: ...
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    least: int
    most: int
    required: bool = True
    or_null: bool = False

    def allows(self, value: Any) -> bool:
        return (self.or_null and value is None) or (type(value) is int and self.least <= value <= self.most)

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}{' or null' if self.or_null else ''}"


@dataclass(frozen=True)
class Wholes:
    """A list of whole numbers."""

    least: int
    most: int
    longest: int
    required: bool = True

    def allows(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or len(value) > self.longest:
            return False
        return all(type(one) is int and self.least <= one <= self.most for one in value)

    def __str__(self) -> str:
        return f"a list of at most {self.longest} whole numbers from {self.least} to {self.most}"


@dataclass(frozen=True)
class Real:
    """A finite number; zero is allowed only inside the bounds."""

    least: float
    most: float
    required: bool = True

    def allows(self, value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Text:
    """A string."""

    required: bool = True
    or_null: bool = False

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) or (self.or_null and value is None)

    def __str__(self) -> str:
        return f"a string{' or null' if self.or_null else ''}"


@dataclass(frozen=True)
class Texts:
    """A list of strings."""

    longest: int
    required: bool = True

    def allows(self, value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) <= self.longest and all(isinstance(v, str) for v in value)

    def __str__(self) -> str:
        return f"a list of at most {self.longest} strings"


@dataclass(frozen=True)
class Flag:
    """true or false."""

    required: bool = False

    def allows(self, value: Any) -> bool:
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


_CHANNELS = Whole(1, 2**18)
_LAYERS = Whole(1, 1000)
RULES: dict[str, Mapping[str, Rule]] = {
    "transformer": {
        "sample_size": Whole(1, 2**14),
        "patch_size": Whole(1, 64),
        "in_channels": Whole(1, 4096),
        "out_channels": Whole(1, 4096, required=False, or_null=True),
        "num_layers": _LAYERS,
        "attention_head_dim": Whole(1, 4096),
        "num_attention_heads": Whole(1, 1024),
        "joint_attention_dim": _CHANNELS,
        "caption_projection_dim": _CHANNELS,
        "pooled_projection_dim": _CHANNELS,
        "pos_embed_max_size": Whole(1, 4096),
        "dual_attention_layers": Wholes(0, 999, 1000, required=False),
        "qk_norm": Text(required=False, or_null=True),
    },
    "vae": {
        "in_channels": Whole(3, 3),
        "out_channels": Whole(3, 3),
        "down_block_types": Texts(8),
        "up_block_types": Texts(8),
        "block_out_channels": Wholes(1, 2**16, 8),
        "layers_per_block": Whole(1, 8),
        "latent_channels": Whole(1, 4096),
        "norm_num_groups": Whole(1, 2**16),
        "act_fn": Text(),
        "scaling_factor": Real(1e-6, 1e6),
        "shift_factor": Real(-1e6, 1e6),
        "sample_size": Whole(1, 2**16, required=False),
        "use_quant_conv": Flag(),
        "use_post_quant_conv": Flag(),
        "mid_block_add_attention": Flag(),
    },
    "clip": {
        "vocab_size": Whole(1, 2**22),
        "hidden_size": _CHANNELS,
        "intermediate_size": _CHANNELS,
        "projection_dim": _CHANNELS,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": Whole(1, 1024),
        "max_position_embeddings": Whole(1, 2**16),
        "layer_norm_eps": Real(1e-12, 0.1),
        "hidden_act": Text(),
        "eos_token_id": Whole(0, 2**22, required=False),
    },
    "t5": {
        "vocab_size": Whole(1, 2**22),
        "d_model": _CHANNELS,
        "d_kv": Whole(1, 4096),
        "d_ff": _CHANNELS,
        "num_layers": _LAYERS,
        "num_heads": Whole(1, 1024),
        "num_decoder_layers": Whole(1, 1000, required=False, or_null=True),
        "relative_attention_num_buckets": Whole(4, 2**12),
        "relative_attention_max_distance": Whole(2, 2**20, required=False),
        "layer_norm_epsilon": Real(1e-12, 0.1),
        "feed_forward_proj": Text(),
    },
    "tokenizer": {},
    "scheduler": {
        "num_train_timesteps": Whole(2, 100_000),
        "shift": Real(1e-3, 1e3),
        "base_shift": Real(-100, 100, required=False),
        "max_shift": Real(-100, 100, required=False),
        "base_image_seq_len": Whole(1, 2**24, required=False),
        "max_image_seq_len": Whole(1, 2**24, required=False),
    },
}


def check_config(path: Path, kind: str, config: Mapping[str, Any]) -> None:
    """Check the types and bounds of a part's configuration.

    Args:
        path: The file, for messages.
        kind: Kind of the part.
        config: Content of the file.

    Raises:
        UserError: An entry is missing, or is of another type or outside its bounds; the first is named.
    """
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{path} has a quantization_config, and quantised weights are not supported: give the weights in 16 or 32 "
            f"bits, such as those of the model that was quantised."
        )
    rules = RULES[kind]
    missing = [key for key, rule in rules.items() if rule.required and key not in config]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; copy the file again.")
    for key, rule in rules.items():
        if key in config and not rule.allows(config[key]):
            raise UserError(f"{path}: {key} must be {rule}, got {reprlib.repr(config[key])}; copy the file again.")
    if kind == "transformer":
        _check_transformer(path, config)
    if kind == "t5":
        exact, furthest = config["relative_attention_num_buckets"] // 4, config.get("relative_attention_max_distance")
        if furthest is not None and furthest <= exact:
            raise UserError(
                f"{path}: relative_attention_max_distance must be above a quarter of relative_attention_num_buckets = "
                f"{exact}, got {furthest}; copy the file again."
            )
    if kind == "vae" and not len(config["block_out_channels"]):
        raise UserError(f"{path}: block_out_channels must have at least 1 entry, got none; copy the file again.")


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
    if any(block >= config["num_layers"] for block in config.get("dual_attention_layers", ())):
        raise UserError(
            f"{path}: dual_attention_layers must be below num_layers = {config['num_layers']}, got "
            f"{max(config['dual_attention_layers'])}; copy the file again."
        )


def check_partners(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the widths of a pipeline's parts fit each other.

    Args:
        configs: Configuration of each part by its name; ``text_encoder_3`` only where T5 is used.

    Raises:
        UserError: Two parts do not fit; both are named.
    """
    transformer, clips = configs["transformer"], [configs["text_encoder"], configs["text_encoder_2"]]
    needed = [("pooled_projection_dim", "the text encoders' projection_dim", sum(c["projection_dim"] for c in clips))]
    needed.append(("in_channels", "the VAE's latent_channels", configs["vae"]["latent_channels"]))
    if "text_encoder_3" in configs:
        needed.append(("joint_attention_dim", "the T5 encoder's d_model", configs["text_encoder_3"]["d_model"]))
    for key, partner, value in needed:
        if transformer[key] != value:
            raise UserError(
                f"The parts of this pipeline do not fit: the transformer's {key} is {transformer[key]}, and {partner} "
                f"{value}; give parts of one model."
            )
    width = sum(clip["hidden_size"] for clip in clips)
    if width > transformer["joint_attention_dim"]:
        raise UserError(
            f"The parts of this pipeline do not fit: the CLIP encoders give {width} channels, and the transformer's "
            f"joint_attention_dim is {transformer['joint_attention_dim']}; give parts of one model."
        )


def check_clip_length(path: Path, tokenizer: Mapping[str, Any], encoders: Mapping[Path, Mapping[str, Any]]) -> int:
    """Return how many positions the CLIP tokenizer fills.

    Args:
        path: The tokenizer's configuration.
        tokenizer: Its content.
        encoders: The CLIP text encoders' configurations by path.

    Raises:
        UserError: The number is missing, or more than an encoder has positions for.
    """
    positions = min((c["max_position_embeddings"] for c in encoders.values()), default=2**16)
    length = tokenizer.get("model_max_length")
    if type(length) is not int or not 3 <= length <= positions:
        got = "nothing" if length is None else reprlib.repr(length)
        raise UserError(
            f"{path}: model_max_length must be a whole number from 3 to {positions}, the encoders' positions, got "
            f"{got}; write the model's own (77 for Stable Diffusion 3) into the file."
        )
    return length
