"""Train the text encoders: two CLIPs on images and captions, and a T5 encoder on captions.

Like real CLIPs, these learn which words match an image and little of their order (Yuksekgonul et al. 2023). The T5
encoder is trained to answer questions about positions.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from probing.testbed.recipes.contrast import contrastive_loss
from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.recipes.pixels import TrainingScenes
from probing.testbed.scenes import COLOURS, PLACES, SHAPES, SIZES, TEXTURES, Scene, places_of, sample_scene, vocabulary

CAPTION_LENGTH = 22
"""Positions of the CLIP part, start and end tokens included; the longest caption takes 21."""
T5_LENGTH = 20
"""Positions of the T5 part, end token included; the longest caption takes 20."""
T5_WIDTH = 160

SCHEDULE = Schedule(steps=1200, batch_size=160, learning_rate=1e-3, weight_decay=0.02, warmup=100)
T5_SCHEDULE = Schedule(steps=1000, batch_size=256, learning_rate=2e-3, weight_decay=0.02, warmup=100)
_MASKED = 0.3
"""Fraction of masked words."""
_QUESTIONS: dict[str, tuple[str | None, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": (None, *SIZES),
    "texture": TEXTURES,
}
"""Attributes of the thing at a place, with the possible answers."""
WIDTHS = {"text_encoder": (64, 3, 4), "text_encoder_2": (96, 4, 6)}
"""Width (and width of the projection), layers and heads of the two CLIPs."""


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Make a CLIP tokenizer in which each word of the captions is one token; other text falls back to letters.

    Token ids differ from one training of the tokenizer to the next, because ties are broken arbitrarily. If the folder
    holds a tokenizer, load it, so that all encoders of a run share one.
    """
    if (folder / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = Whitespace()
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    trainer = BpeTrainer(vocab_size=4096, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator([*vocabulary(), *letters], trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [" ".join(merge) for merge in model["merges"]]
    tokens = [*sorted(model["vocab"], key=model["vocab"].get), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CAPTION_LENGTH)
    for word in vocabulary():
        if len(tokenizer(word)["input_ids"]) != 3:
            raise AssertionError(f"{word!r} is not one token: {tokenizer.tokenize(word)}")
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_encoder(name: str, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Build an untrained CLIP text encoder, one of :data:`WIDTHS`."""
    width, layers, heads = WIDTHS[name]
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CAPTION_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # The default suits widths near a thousand.
        initializer_factor=5.0,
    )
    return CLIPTextModelWithProjection(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return token ids (caption, 22)."""
    ids = tokenizer(captions, padding="max_length", max_length=CAPTION_LENGTH, truncation=True, return_tensors="pt")
    return ids["input_ids"]


class PictureTower(nn.Module):
    """A small convolutional network, 64×64 pixels to a unit vector; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, stride=4)]
        for inside, outside in ((32, 64), (64, 96), (96, 128)):
            layers += [nn.GroupNorm(8, inside), nn.GELU(), nn.Conv2d(inside, outside, 3, stride=2, padding=1)]
        layers += [nn.GroupNorm(8, 128), nn.GELU(), nn.Flatten(), nn.Linear(128 * 4, 256), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(256, width))
        self.scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.layers(pixels), dim=-1)


def build_t5_tokenizer() -> T5Tokenizer:
    """Make a T5 tokenizer in which each word of the captions is one piece; other text falls back to letters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<extra_id_0>", 0.0), ("▁", -2.0)]
    letters = [(chr(c), -8.0) for c in range(ord("!"), ord("~") + 1)]
    words = [(f"▁{word}", -1.0) for word in vocabulary()]
    return T5Tokenizer(vocab=[*special, *words, *letters], extra_ids=1, model_max_length=T5_LENGTH)


def build_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Build an untrained T5 encoder."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=T5_WIDTH,
        d_kv=32,
        d_ff=2 * T5_WIDTH,
        num_layers=2,
        num_heads=5,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
    )
    return T5EncoderModel(config)


def tokenize_t5(tokenizer: T5Tokenizer, captions: list[str]) -> Tensor:
    """Return token ids (caption, 20)."""
    ids = tokenizer(captions, padding="max_length", max_length=T5_LENGTH, truncation=True, return_tensors="pt")
    return ids["input_ids"]


class QuestionHead(nn.Module):
    """Answers questions about captions with one attention layer on their features; used in training only.

    A question is a place; the answers are the attributes of the thing there. One attention layer cannot combine words,
    so the encoder must store the place of a thing at each of its words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.questions = nn.Embedding(len(PLACES) * len(_QUESTIONS), T5_WIDTH)
        self.look = nn.MultiheadAttention(T5_WIDTH, 5, batch_first=True)
        self.answers = nn.ModuleDict({name: nn.Linear(T5_WIDTH, len(values)) for name, values in _QUESTIONS.items()})

    def forward(self, features: Tensor, padding: Tensor, places: Tensor) -> dict[str, Tensor]:
        """Return logits (caption, answer) of each attribute at one place of each caption.

        Args:
            features: (caption, position, width).
            padding: (caption, position), true at positions without a word.
            places: (caption,), indices into :data:`probing.testbed.scenes.PLACES`.
        """
        numbers = places[:, None] * len(_QUESTIONS) + torch.arange(len(_QUESTIONS), device=places.device)
        answers, _ = self.look(
            self.questions(numbers), features, features, key_padding_mask=padding, need_weights=False
        )
        return {name: head(answers[:, number]) for number, (name, head) in enumerate(self.answers.items())}


def sample_question(scene: Scene, rng: np.random.Generator) -> tuple[int, list[int]]:
    """Choose a place with a thing; return the index of the place and those of the right answers."""
    number = int(rng.integers(len(scene.things)))
    thing = scene.things[number]
    answers = [values.index(getattr(thing, name)) for name, values in _QUESTIONS.items()]
    return PLACES.index(places_of(scene)[number]), answers


def run_t5(folder: Path, schedule: Schedule = T5_SCHEDULE) -> T5EncoderModel:
    """Train the T5 encoder on two tasks: predict masked words, and answer which thing is at a place.

    T5 too is trained on several tasks at once (Raffel et al. 2020).
    """
    torch.manual_seed(schedule.seed + len(WIDTHS))
    tokenizer = build_t5_tokenizer()
    encoder = build_t5(tokenizer)
    word_head, question_head = nn.Linear(T5_WIDTH, len(tokenizer)), QuestionHead()
    mask_id = tokenizer.convert_tokens_to_ids("<extra_id_0>")

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        scenes = [sample_scene(rng) for _ in range(schedule.batch_size)]
        ids = tokenize_t5(tokenizer, [scene.caption for scene in scenes])
        padding = ids == tokenizer.pad_token_id
        masked = torch.from_numpy(rng.random(ids.shape) < _MASKED) & ~padding
        logits = word_head(encoder(ids.masked_fill(masked, mask_id)).last_hidden_state[masked])
        restored = (logits.argmax(dim=-1) == ids[masked]).float().mean()
        places, right = map(torch.tensor, zip(*(sample_question(scene, rng) for scene in scenes), strict=True))
        answers = question_head(encoder(ids).last_hidden_state, padding, places).values()
        answered = [answer.argmax(dim=-1) == right[:, number] for number, answer in enumerate(answers)]
        question_loss = sum(F.cross_entropy(answer, right[:, number]) for number, answer in enumerate(answers))
        numbers = {"restored": float(restored), "answered": float(torch.stack(answered).float().mean())}
        return F.cross_entropy(logits, ids[masked]) + question_loss, numbers

    train({"encoder": encoder, "head": word_head, "reader": question_head}, loss, schedule, folder)
    encoder.eval().save_pretrained(folder / "text_encoder_3")
    tokenizer.save_pretrained(folder / "tokenizer")
    return encoder


def run_clip(folder: Path, name: str, schedule: Schedule = SCHEDULE) -> CLIPTextModelWithProjection:
    """Train one CLIP text encoder with :func:`probing.testbed.recipes.contrast.contrastive_loss`."""
    scenes = TrainingScenes(folder.parent)
    torch.manual_seed(schedule.seed + list(WIDTHS).index(name))
    tokenizer = build_tokenizer(folder.parent / "tokenizer")
    encoder = build_encoder(name, tokenizer)
    tower = PictureTower(WIDTHS[name][0])

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        captions, pixels = scenes.batch(schedule.batch_size, rng)
        texts = F.normalize(encoder(tokenize(tokenizer, captions)).text_embeds, dim=-1)
        logits = tower.scale.clamp(max=4.6).exp() * texts @ tower(pixels).T
        value, retrieved = contrastive_loss(logits, captions)
        return value, {"retrieved": float(retrieved)}

    train({"encoder": encoder, "tower": tower}, loss, schedule, folder)
    encoder.eval().save_pretrained(folder / name)
    return encoder
