"""Small tokenizers and text encoders of the real classes, shared by the tiny pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from probing.testbed.recipes.text import CAPTION_LENGTH, build_tokenizer

WORDS = ["a", "small", "red", "green", "circle", "square", "on", "white", "background", "star"]


def clip(folder: Path, cls: type = CLIPTextModel, width: int = 16) -> tuple[Any, Any]:
    """Return a CLIP tokenizer and text encoder; the tokenizer's files go through ``folder``."""
    tokenizer = build_tokenizer(folder / "clip-tokenizer")
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
