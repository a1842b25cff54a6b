"""The baseline reward model ``testbed-rival``: an image–text model without diffusion, the testbed's counterpart of HPS.

``python -m probing.testbed.rival --output scores.csv`` writes its reward of every item, for ``probing.score``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from probing.commands import check_output_file, run_command
from probing.data_options import DataOptions
from probing.errors import UserError
from probing.options import OptionsParser
from probing.preferences import PreferenceData
from probing.progress import progress
from probing.shipped import WEIGHTS as SHIPPED
from probing.table_files import write_csv, write_parquet
from probing.testbed.scenes import vocabulary
from probing.testbed.tensors import to_tensor

WEIGHTS = SHIPPED / "rival" / "rival.safetensors"
WIDTH = 96
"""Width of the joint space of images and captions."""
LENGTH = 22
"""Positions of a caption: one summary position, then the words."""
GAIN = 8.0
"""Factor of the cosine in a reward. The one of the contrastive loss is many times larger and overconfident."""
_BATCH = 256


class RivalNetwork(nn.Module):
    """An image encoder, a caption encoder, and a scorer on both."""

    def __init__(self, width: int = WIDTH, layers: int = 3) -> None:
        super().__init__()
        stride: list[nn.Module] = []
        for inside, outside in ((3, 24), (24, 48), (48, 96), (96, 96)):
            stride += [
                nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(),
            ]
            if outside == 48 or inside == 96:
                stride += [nn.Conv2d(outside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.picture = nn.Sequential(*stride, nn.Flatten(), nn.Linear(96 * 16, width))
        self.words = nn.Embedding(len(vocabulary()) + 2, width, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.caption = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.scale = nn.Parameter(torch.tensor(2.66))
        self.scorer = nn.Sequential(nn.Linear(2 * width, 64), nn.GELU(), nn.Linear(64, 1))

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (image, 3, 64, 64) in [−1, 1] as unit vectors (image, 96)."""
        return F.normalize(self.picture(pixels.contiguous(memory_format=torch.channels_last)).float(), dim=-1)

    def encode_text(self, words: Tensor) -> Tensor:
        """Encode word ids (caption, 22), 0 for padding, as unit vectors (caption, 96)."""
        states = self.caption(self.words(words) + self.places, src_key_padding_mask=words == 0)
        return F.normalize(states[:, 0].float(), dim=-1)

    def score(self, images: Tensor, texts: Tensor) -> Tensor:
        """Compute rewards: the scaled cosine, plus an MLP on the elementwise product and the image vector."""
        product = WIDTH**0.5 * images * texts
        residual = self.scorer(torch.cat([product, WIDTH**0.5 * images], dim=-1))[:, 0]
        return GAIN * (images * texts).sum(dim=-1) + residual.float()

    def temperature(self) -> Tensor:
        """Return the factor of cosines in the contrastive loss (Radford et al. 2021), at most 100."""
        return self.scale.clamp(max=4.6).exp()


def word_ids(captions: Sequence[str]) -> Tensor:
    """Convert captions to word ids (caption, 22): a summary position, the words, then zeros.

    Raises:
        UserError: A word or a length that is not in the grammar of the scenes.
    """
    id_of = {word: number for number, word in enumerate(vocabulary(), start=2)}
    ids = torch.zeros(len(captions), LENGTH, dtype=torch.long)
    ids[:, 0] = 1
    for row, caption in enumerate(captions):
        words = caption.split()
        unknown = [word for word in words if word not in id_of]
        if unknown or len(words) >= LENGTH:
            reason = f"the word {unknown[0]!r}" if unknown else f"{len(words)} words"
            raise UserError(
                f"testbed-rival supports only the testbed's captions, but {caption!r} has {reason}; use --data testbed."
            )
        ids[row, 1 : len(words) + 1] = torch.tensor([id_of[word] for word in words])
    return ids


class Rival:
    """The baseline reward model: scores images with captions.

    Args:
        network: Trained; switched to evaluation mode.
    """

    def __init__(self, network: RivalNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Rival:
        """Load weights, by default the shipped ones.

        Raises:
            UserError: The file is missing.
        """
        if not path.exists():
            raise UserError(f"The weights {path} are missing; run python -m probing.testbed.train rival first.")
        network = RivalNetwork()
        state = load_file(path)
        network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
        return cls(network)

    @torch.inference_mode()
    def rewards(self, images: Sequence[Image.Image], captions: Sequence[str]) -> np.ndarray:
        """Compute the rewards (image,) of images, each with its caption."""
        return self.network.score(*self._encode(images, captions)).numpy()

    @torch.inference_mode()
    def agreement(self, images: Sequence[Image.Image], captions: Sequence[str]) -> np.ndarray:
        """Compute the cosines (image,) of images and their captions: the reward after the contrastive stage."""
        image_vectors, text_vectors = self._encode(images, captions)
        return (image_vectors * text_vectors).sum(dim=-1).numpy()

    def _encode(self, images: Sequence[Image.Image], captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.network.encode_images(to_tensor(images)), self.network.encode_text(word_ids(captions))


def score_items(data: PreferenceData, score: Callable[[list[Image.Image], list[str]], np.ndarray]) -> pd.DataFrame:
    """Score every item of some data.

    Args:
        data: The data.
        score: Scores images and captions, such as :meth:`Rival.rewards`.

    Returns:
        ``item_id, reward``.
    """
    rewards = []
    with progress(len(data.items), "scoring", "items") as bar:
        for start in range(0, len(data.items), _BATCH):
            batch = data.items.iloc[start : start + _BATCH]
            images = [data.open_image(item_id) for item_id in batch["item_id"]]
            rewards.append(score(images, list(batch["prompt"])))
            bar.update(len(batch))
    return pd.DataFrame({"item_id": data.items["item_id"], "reward": np.concatenate(rewards).astype(float)})


@dataclass(frozen=True)
class RivalOptions:
    """Options of the command.

    Attributes:
        output: File to write, .csv or .parquet, with the columns item_id and reward.
        data: Pairs and pictures.
        split: Split of the data, train or test; default: both.
    """

    output: Path
    data: DataOptions = field(default_factory=DataOptions)
    split: str | None = None


PARSER = OptionsParser(
    "probing.testbed.rival", RivalOptions, "Score every item with the baseline reward model testbed-rival."
)


def run(options: RivalOptions) -> None:
    if options.output.suffix not in (".csv", ".parquet"):
        raise UserError(f"--output must be a .csv or .parquet file, got {options.output}.")
    check_output_file(options.output)
    table = score_items(options.data.load(options.split), Rival.load().rewards)
    write = write_csv if options.output.suffix == ".csv" else write_parquet
    write(options.output, table)
    print(f"{len(table):,} rewards: {options.output}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
