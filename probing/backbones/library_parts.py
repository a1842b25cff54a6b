"""Parts that several families share: the classes of diffusers and transformers, with rules for their configurations."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probing.backbones.architecture import Product, attention_flops, product_flops
from probing.backbones.config_rules import CHANNELS, HEADS, LAYERS, flag, real, text, texts, whole, wholes
from probing.backbones.parts import Part
from probing.errors import UserError


def flow_match_scheduler(name: str = "scheduler") -> Part:
    """Return the part of a ``FlowMatchEulerDiscreteScheduler``."""
    rules = {
        "num_train_timesteps": whole(2, 100_000),
        "shift": real(1e-3, 1e3),
        "base_shift": real(-100, 100, required=False),
        "max_shift": real(-100, 100, required=False),
        "base_image_seq_len": whole(1, 2**24, required=False),
        "max_image_seq_len": whole(1, 2**24, required=False),
    }
    return Part(name, "scheduler", "diffusers:FlowMatchEulerDiscreteScheduler", rules=rules)


def autoencoder_kl(name: str = "vae") -> Part:
    """Return the part of an ``AutoencoderKL``."""
    rules = {
        "in_channels": whole(3, 3),
        "out_channels": whole(3, 3),
        "down_block_types": texts(8),
        "up_block_types": texts(8),
        "block_out_channels": wholes(1, 2**16, 8),
        "layers_per_block": whole(1, 8),
        "latent_channels": whole(1, 4096),
        "norm_num_groups": whole(1, 2**16),
        "act_fn": text(),
        "scaling_factor": real(1e-6, 1e6),
        "shift_factor": real(-1e6, 1e6),
        "sample_size": whole(1, 2**16, required=False),
        "use_quant_conv": flag(),
        "use_post_quant_conv": flag(),
        "mid_block_add_attention": flag(),
    }

    def check(path: Path, config: Mapping[str, Any]) -> None:
        if not len(config["block_out_channels"]):
            raise UserError(f"{path}: block_out_channels must have at least 1 entry, got none; copy the file again.")

    def run(model: Any) -> None:
        import torch

        side = 2 ** len(model.config.block_out_channels)
        model.encode(torch.empty(1, 3, side, side)).latent_dist.mode()

    repeated = {"encoder.down_blocks.0.resnets": "layers_per_block"}
    return Part(name, "vae", "diffusers:AutoencoderKL", rules=rules, check=check, repeated=repeated, run=run)


def autoencoder_kl_flops(config: Mapping[str, Any], resolution: int) -> int:
    """Count the floating-point operations of encoding one square image by an ``AutoencoderKL``."""
    widths, latents = list(config["block_out_channels"]), 2 * int(config["latent_channels"])
    products: list[Product] = [(resolution**2, 9 * int(config["in_channels"]), widths[0])]
    attentions: list[tuple[int, int]] = []
    pixels, inputs = resolution**2, widths[0]
    for level, (kind, width) in enumerate(zip(config["down_block_types"], widths, strict=True)):
        for _ in range(int(config["layers_per_block"])):
            products += _residual(pixels, inputs, width)
            inputs = width
            attentions += [(pixels, width)] if kind.startswith("Attn") else []
        if level < len(widths) - 1:
            pixels //= 4
            products.append((pixels, 9 * width, width))
    products += 2 * _residual(pixels, inputs, inputs)
    attentions += [(pixels, inputs)] if config.get("mid_block_add_attention", True) else []
    products.append((pixels, 9 * inputs, latents))
    products += [(pixels, latents, latents)] if config.get("use_quant_conv", True) else []
    for tokens, width in attentions:
        products += [(tokens, width, width)] * 4
    return product_flops(products) + sum(attention_flops(tokens, width) for tokens, width in attentions)


def _residual(pixels: int, inputs: int, outputs: int) -> list[Product]:
    """List the convolutions of a residual block, each as a matrix product."""
    shortcut = [(pixels, inputs, outputs)] if inputs != outputs else []
    return [(pixels, 9 * inputs, outputs), (pixels, 9 * outputs, outputs), *shortcut]


_CLIP_RULES = {
    "vocab_size": whole(1, 2**22),
    "hidden_size": CHANNELS,
    "intermediate_size": CHANNELS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": whole(1, 2**16),
    "layer_norm_eps": real(1e-12, 0.1),
    "hidden_act": text(),
    "eos_token_id": whole(0, 2**22, required=False),
}


def clip_text_model(name: str) -> Part:
    """Return the part of a ``CLIPTextModel``, whose pooled output is used."""

    def run(model: Any) -> None:
        import torch

        assert model(torch.zeros(1, 3, dtype=torch.long)).pooler_output.shape[-1] == model.config.hidden_size

    return Part(
        name,
        "text_encoder",
        "transformers:CLIPTextModel",
        rules=_CLIP_RULES,
        renames={r"^text_model\.": ""},
        repeated={"encoder.layers": "num_hidden_layers"},
        run=run,
    )


def clip_text_encoder(name: str) -> Part:
    """Return the part of a ``CLIPTextModelWithProjection``."""
    rules = {**_CLIP_RULES, "projection_dim": CHANNELS}

    def run(model: Any) -> None:
        import torch

        output = model(torch.zeros(1, 3, dtype=torch.long), output_hidden_states=True)
        assert output[0].shape[-1] == model.config.projection_dim
        assert output.hidden_states[-2].shape[-1] == model.config.hidden_size

    repeated = {"text_model.encoder.layers": "num_hidden_layers"}
    return Part(
        name, "text_encoder", "transformers:CLIPTextModelWithProjection", rules=rules, repeated=repeated, run=run
    )


def t5_text_encoder(name: str, *, without: str = "") -> Part:
    """Return the part of a ``T5EncoderModel``; ``without`` as in :class:`probing.backbones.parts.Part`."""
    rules = {
        "vocab_size": whole(1, 2**22),
        "d_model": CHANNELS,
        "d_kv": whole(1, 4096),
        "d_ff": CHANNELS,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "num_decoder_layers": whole(1, 1000, required=False, or_null=True),
        "relative_attention_num_buckets": whole(4, 2**12),
        "relative_attention_max_distance": whole(2, 2**20, required=False),
        "layer_norm_epsilon": real(1e-12, 0.1),
        "feed_forward_proj": text(),
    }

    def check(path: Path, config: Mapping[str, Any]) -> None:
        exact, furthest = config["relative_attention_num_buckets"] // 4, config.get("relative_attention_max_distance")
        if furthest is not None and furthest <= exact:
            raise UserError(
                f"{path}: relative_attention_max_distance must be above a quarter of relative_attention_num_buckets = "
                f"{exact}, got {furthest}; copy the file again."
            )

    def run(model: Any) -> None:
        import torch

        assert model(torch.zeros(1, 3, dtype=torch.long))[0].shape[-1] == model.config.d_model

    repeated = {"encoder.block": "num_layers"}
    return Part(
        name,
        "text_encoder",
        "transformers:T5EncoderModel",
        rules=rules,
        check=check,
        repeated=repeated,
        run=run,
        without=without,
    )


def _language_model(name: str, source: str, renames: Mapping[str, str], *, repeated: str = "") -> Part:
    def run(model: Any) -> None:
        import torch

        output = model(torch.zeros(1, 3, dtype=torch.long), output_hidden_states=True)
        assert output.hidden_states[-1].shape[-1] == model.config.get_text_config().hidden_size

    return Part(
        name,
        "text_encoder",
        source,
        rules=_LANGUAGE_RULES if repeated else {},
        renames=renames,
        repeated={repeated: "num_hidden_layers"} if repeated else {},
        run=run,
    )


_LANGUAGE_RULES = {
    "vocab_size": whole(1, 2**22),
    "hidden_size": CHANNELS,
    "intermediate_size": CHANNELS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": whole(1, 4096, required=False),
}


def qwen3(name: str, model: str) -> Part:
    """Return the part of a ``Qwen3Model`` or ``Qwen3ForCausalLM``, by the name of the class."""
    if model == "Qwen3Model":
        return _language_model(name, f"transformers:{model}", {r"^model\.": ""}, repeated="layers")
    return _language_model(name, f"transformers:{model}", {}, repeated="model.layers")


def qwen25_vl(name: str) -> Part:
    """Return the part of a ``Qwen2_5_VLForConditionalGeneration``, whose words alone are used."""
    # Published weights have the names of an earlier version of the library.
    renames = {r"^visual\.": "model.visual.", r"^model\.(?!language_model|visual)": "model.language_model."}
    return _language_model(name, "transformers:Qwen2_5_VLForConditionalGeneration", renames)


def mistral3(name: str) -> Part:
    """Return the part of a ``Mistral3ForConditionalGeneration``, whose words alone are used."""
    renames = {
        r"^language_model\.model\.": "model.language_model.",
        r"^language_model\.lm_head": "lm_head",
        r"^(vision_tower|multi_modal_projector)\.": r"model.\1.",
    }
    return _language_model(name, "transformers:Mistral3ForConditionalGeneration", renames)


def width_of(config: Mapping[str, Any]) -> int:
    """Return the width of a language model, of which a model of pictures and words keeps its own configuration."""
    return int({**config, **(config.get("text_config") or {})}["hidden_size"])


def qwen2_tokenizer(name: str) -> Part:
    """Return the part of a ``Qwen2Tokenizer``."""
    return Part(name, "tokenizer", "transformers:Qwen2Tokenizer", ("Qwen2TokenizerFast",))


def fast_tokenizer(name: str, *further: str) -> Part:
    """Return the part of a tokenizer of no class of its own; ``further`` are names that an index may give it."""
    return Part(name, "tokenizer", "transformers:PreTrainedTokenizerFast", ("TokenizersBackend", *further))


def clip_tokenizer(name: str) -> Part:
    """Return the part of a ``CLIPTokenizer``."""
    return Part(name, "tokenizer", "transformers:CLIPTokenizer", ("CLIPTokenizerFast",))


def t5_tokenizer(name: str, *, without: str = "") -> Part:
    """Return the part of a ``T5Tokenizer``; ``without`` as in :class:`probing.backbones.parts.Part`."""
    return Part(name, "tokenizer", "transformers:T5Tokenizer", ("T5TokenizerFast",), without=without)


def clip_length_of(path: Path, tokenizer: Mapping[str, Any], encoders: list[Mapping[str, Any]]) -> int:
    """Return how many positions a CLIP tokenizer fills.

    Args:
        path: The tokenizer's configuration file, for messages.
        tokenizer: Its content.
        encoders: Configurations of the CLIP text encoders.

    Raises:
        UserError: The number is missing, or more than an encoder has positions for.
    """
    positions = min((config["max_position_embeddings"] for config in encoders), default=2**16)
    length = tokenizer.get("model_max_length")
    if type(length) is not int or not 3 <= length <= positions:
        got = "nothing" if length is None else reprlib.repr(length)
        raise UserError(
            f"{path}: model_max_length must be a whole number from 3 to {positions}, the encoders' positions, got "
            f"{got}; write the model's own (77 for published CLIP models) into the file."
        )
    return length


def check_tokenizer(path: Path, tokenizer: Any, encoder: Any, length: int) -> None:
    """Tokenize one prompt as a pipeline does.

    Raises:
        UserError: It fails, or gives tokens that the text encoder has no row for.
    """
    try:
        prompts = ["a", ""]
        ids = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        tokenizer.batch_decode(tokenizer(prompts, padding="longest", return_tensors="pt").input_ids)
        shape, largest = tuple(ids["input_ids"].shape), max(tokenizer.get_vocab().values(), default=0)
    except Exception as error:  # The libraries raise all kinds for files that were edited or damaged.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"The tokenizer in {path} does not work ({reason}); copy the folder again.") from error
    rows = encoder.config.get_text_config().vocab_size
    if shape != (2, length) or largest >= rows:
        raise UserError(
            f"The tokenizer in {path} does not fit its text encoder (tokens up to {largest} for "
            f"{rows} rows); copy both folders again."
        )
