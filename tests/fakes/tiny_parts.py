"""Small tokenizers, text encoders and VAEs of the real classes, shared by the tiny pipelines."""

from __future__ import annotations

import json
from typing import Any

from diffusers import AutoencoderKL
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from probing.shipped import WEIGHTS
from probing.testbed.recipes.text import CAPTION_LENGTH

WORDS = ["a", "small", "red", "green", "circle", "square", "on", "white", "background", "star"]


def vae(cls: type = AutoencoderKL, **options: Any) -> Any:
    """Return a VAE of two levels and four channels."""
    return cls(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        **options,
    )


def shifted_vae() -> AutoencoderKL:
    """Return one without products around its latents, whose shift and scale show when they are missing."""
    return vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=1.5)


def clip(cls: type = CLIPTextModel, width: int = 16) -> tuple[Any, Any]:
    """Return the testbed's CLIP tokenizer and a text encoder: one that is trained anew has other ids each time."""
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "xs" / "tokenizer", local_files_only=True)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CAPTION_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=10.0,
    )
    return tokenizer, cls(config)


def t5(width: int = 48) -> tuple[Any, Any]:
    """Return a T5 tokenizer and encoder."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokenizer = T5Tokenizer(vocab=special + [(f"▁{word}", -1.0) for word in WORDS], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, is_gated_act=True
    )
    return tokenizer, T5EncoderModel(config)


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


def qwen2_tokenizer(texts: list[str]) -> Qwen2Tokenizer:
    """Train a byte-level tokenizer with the special tokens and the chat template of Qwen's."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, BpeTrainer(special_tokens=special, initial_alphabet=alphabet, min_frequency=1))
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    made = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, additional_special_tokens=special[1:])
    made.chat_template = TEMPLATE
    return made


def qwen3(cls: type, width: int, layers: int) -> tuple[Any, Any]:
    """Return a tokenizer and a Qwen3 model of a class."""
    tokenizer = qwen2_tokenizer([" ".join(WORDS), "user assistant think"])
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer, cls(config)


def mistral3(width: int, layers: int) -> tuple[Any, Any]:
    """Return a tokenizer without a class of its own, and a small Mistral 3."""
    special = ["<pad>", "<s>", "</s>", "[INST]", "[/INST]"]
    trained = Tokenizer(BPE())
    trained.pre_tokenizer, trained.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(special_tokens=special, initial_alphabet=ByteLevel.alphabet(), min_frequency=1)
    trained.train_from_iterator([" ".join(WORDS)], trainer)
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, padding_side="left", **marks)
    tokenizer.chat_template = (
        "<s>{% for message in messages if message.role == 'user' %}[INST]{% for piece in message.content %}"
        "{{ piece.text }}{% endfor %}[/INST]{% endfor %}"
    )
    shared = {"intermediate_size": 32, "num_attention_heads": 2, "head_dim": 8, "initializer_range": 0.3}
    text = {"vocab_size": len(tokenizer), "hidden_size": width, "num_hidden_layers": layers, "num_key_value_heads": 1}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    config = Mistral3Config(
        text_config={**shared, **text, "model_type": "mistral", "pad_token_id": 0},
        vision_config={**shared, **vision, "model_type": "pixtral"},
    )
    return tokenizer, Mistral3ForConditionalGeneration(config)


def qwen25_vl(template: str) -> tuple[Any, Any]:
    """Return a tokenizer whose words are those of the template, and a small Qwen2.5-VL."""
    tokenizer = qwen2_tokenizer([template, " ".join(WORDS)])
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return tokenizer, Qwen2_5_VLForConditionalGeneration(config)
