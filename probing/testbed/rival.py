"""The discriminative rival: an image–text model that scores pictures without any diffusion; the testbed's HPS.

``python -m probing.testbed.rival --output scores.csv`` writes its reward of every item, as ``probing.score`` takes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from probing.commands import CommandParser, check_output_file, run_command
from probing.data_options import add_data_options, load_data
from probing.errors import UserError
from probing.files import write_csv, write_parquet
from probing.preferences import PreferenceData
from probing.testbed.scenes import vocabulary
from probing.testbed.tensors import to_tensor

WEIGHTS = Path(__file__).parent / "weights" / "rival" / "rival.safetensors"
WIDTH = 96
"""Of the space that pictures and captions share."""
LENGTH = 22
"""Words of a caption, and one position that sums it up."""
GAIN = 8.0
"""Of agreement in a reward; the temperature of contrast, many times that, would make it far too sure of choices."""
_BATCH = 256


class RivalNetwork(nn.Module):
    """A picture tower, a caption tower, and a scorer on top of both."""

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

    def see(self, pixels: Tensor) -> Tensor:
        """Map pixels (image, 3, 64, 64) in [−1, 1] to unit vectors (image, 96)."""
        return F.normalize(self.picture(pixels.contiguous(memory_format=torch.channels_last)).float(), dim=-1)

    def hear(self, words: Tensor) -> Tensor:
        """Map word numbers (caption, 22), 0 where there is none, to unit vectors (caption, 96)."""
        states = self.caption(self.words(words) + self.places, src_key_padding_mask=words == 0)
        return F.normalize(states[:, 0].float(), dim=-1)

    def score(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Reward pictures under captions: their agreement, and what an MLP adds of it and of the picture."""
        agreement = WIDTH**0.5 * seen * heard
        more = self.scorer(torch.cat([agreement, WIDTH**0.5 * seen], dim=-1))[:, 0]
        return GAIN * (seen * heard).sum(dim=-1) + more.float()

    def temperature(self) -> Tensor:
        """By which cosines are multiplied (Radford et al. 2021); at most 100."""
        return self.scale.clamp(max=4.6).exp()


def number_words(captions: Sequence[str]) -> Tensor:
    """Number the words of captions of the scenes' grammar: (caption, 22), first a summing position, 0 after the end.

    Raises:
        UserError: A word or a length that no caption has.
    """
    number_of = {word: number for number, word in enumerate(vocabulary(), start=2)}
    numbers = torch.zeros(len(captions), LENGTH, dtype=torch.long)
    numbers[:, 0] = 1
    for row, caption in enumerate(captions):
        words = caption.split()
        unknown = [word for word in words if word not in number_of]
        if unknown or len(words) >= LENGTH:
            said = f"the word {unknown[0]!r}" if unknown else f"{len(words)} words"
            raise UserError(
                f"The rival knows the testbed's captions alone, and {caption!r} has {said}; use --data testbed."
            )
        numbers[row, 1 : len(words) + 1] = torch.tensor([number_of[word] for word in words])
    return numbers


class Rival:
    """Scores pictures under captions.

    Args:
        network: Trained; it is put in evaluation mode.
    """

    def __init__(self, network: RivalNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Rival:
        """Load the shipped weights, or others.

        Raises:
            UserError: They are not there.
        """
        if not path.exists():
            raise UserError(f"There are no weights {path}; train them with python -m probing.testbed.train rival.")
        network = RivalNetwork()
        state = load_file(path)
        network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
        return cls(network)

    @torch.inference_mode()
    def rewards(self, images: Sequence[Image.Image], captions: Sequence[str]) -> np.ndarray:
        """Score RGB images (image,), each under its caption."""
        network = self.network
        seen, heard = network.see(to_tensor(images)), network.hear(number_words(captions))
        return network.score(seen, heard).numpy()

    @torch.inference_mode()
    def agreement(self, images: Sequence[Image.Image], captions: Sequence[str]) -> np.ndarray:
        """Cosines of RGB images and their captions (image,): all that it knows before it hears of choices."""
        seen, heard = self.network.see(to_tensor(images)), self.network.hear(number_words(captions))
        return (seen * heard).sum(dim=-1).numpy()


def score_items(data: PreferenceData, score: Callable[[list[Image.Image], list[str]], np.ndarray]) -> pd.DataFrame:
    """Score every item of some data by :meth:`Rival.rewards` or the like: ``item_id, reward``."""
    rewards = []
    for start in tqdm(range(0, len(data.items), _BATCH), desc="scoring", disable=None):
        batch = data.items.iloc[start : start + _BATCH]
        images = [data.open_image(item_id) for item_id in batch["item_id"]]
        rewards.append(score(images, list(batch["prompt"])))
    return pd.DataFrame({"item_id": data.items["item_id"], "reward": np.concatenate(rewards).astype(float)})


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.testbed.rival", description="Score every item by the testbed's image–text model.")
    add_data_options(parser)
    parser.add_argument("--split", help="train or test; both if not given")
    parser.add_argument("--output", type=Path, required=True, help="a .csv or .parquet of item_id and reward")
    return parser


def run(arguments: argparse.Namespace) -> None:
    if arguments.output.suffix not in (".csv", ".parquet"):
        raise UserError(f"--output is a .csv or .parquet file, got {arguments.output}.")
    check_output_file(arguments.output)
    table = score_items(load_data(arguments, split=arguments.split), Rival.load().rewards)
    write = write_csv if arguments.output.suffix == ".csv" else write_parquet
    write(arguments.output, table)
    print(f"{len(table):,} rewards: {arguments.output}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
