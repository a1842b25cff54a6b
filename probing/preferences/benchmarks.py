"""The public benchmarks by name: where they are, how they are read, and how their authors score them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from probing.preferences import genai_bench, hpdv2, hpdv3, imagereward, pickapic
from probing.preferences.image_sources import ImageSource

Reader = Callable[[Path, Mapping[str, str]], tuple[pd.DataFrame, ImageSource]]


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark.

    Attributes:
        title: What people call it.
        hub: Its data set on the Hugging Face hub; None where it is not there in this form.
        patterns: Of the hub's files, by split: what must be fetched.
        read: Makes comparisons and pictures of the files of some splits.
        files: Of each split: the file, or what the names of its files begin with.
        rule: How its authors score it, of :data:`probing.statistics.RULES`.
        reported: What its authors, or the paper that brought it, report.
        randomize_sides: Whether the published order tells the choice, so that places are drawn.
        found: Where its files are got if not from the hub.
    """

    title: str
    hub: str | None
    patterns: Mapping[str, tuple[str, ...]]
    read: Reader
    files: Mapping[str, str]
    rule: str
    reported: str
    randomize_sides: bool = False
    found: str = ""


def _pickapic(version: int, suffix: str) -> Benchmark:
    files = {"train": "train", "validation": f"validation{suffix}", "test": f"test{suffix}"}
    return Benchmark(
        title=f"Pick-a-Pic v{version}" + ("" if suffix else ", all test comparisons"),
        hub=f"yuvalkirstain/pickapic_v{version}",
        patterns={split: (f"data/{name}-*.parquet",) for split, name in files.items()},
        read=pickapic.read,
        files=files,
        rule="tuned-tie",
        reported="PickScore 70.5" if (version, suffix) == (1, "_unique") else "",
    )


def _hpdv3(train: str) -> Benchmark:
    return Benchmark(
        title="HPDv3" + ("" if train == "train.json" else ", all annotations"),
        hub="MizzenAI/HPDv3",
        patterns={"train": (train, "images*"), "test": ("test.json", "images*")},
        read=hpdv3.read,
        files={"train": train, "test": "test.json"},
        rule="micro-wrong",
        reported="HPSv3 76.9",
        randomize_sides=True,
    )


def _genai_bench(name: str) -> Benchmark:
    return Benchmark(
        title="GenAI-Bench, image generation" + (", v1" if name == "test_v1" else ""),
        hub="TIGER-Lab/GenAI-Bench",
        patterns={"test": (f"image_generation/{name}-*.parquet",)},
        read=genai_bench.read,
        files={"test": name},
        rule="four-way",
        reported="Gemini 1.5 Pro 44.7, chance 25.4" if name == "test_v1" else "",
    )


BENCHMARKS: dict[str, Benchmark] = {
    "hpdv3": _hpdv3("train.json"),
    "hpdv3-all": _hpdv3("all.json"),
    "hpdv2": Benchmark(
        title="HPDv2",
        hub="ymhao/HPDv2",
        patterns={"train": ("train.json", "train.tar.gz"), "test": ("test.json", "test.tar.gz")},
        read=hpdv2.read,
        files={"train": "train.json", "test": "test.json"},
        rule="inversions",
        reported="HPSv2 83.3",
    ),
    "imagereward": Benchmark(
        title="ImageReward, test lists",
        hub=None,
        patterns={},
        read=imagereward.read_test,
        files={"test": "test.json"},
        rule="micro-wrong",
        reported="ImageReward 65.1",
        randomize_sides=True,
        found="THUDM/ImageReward on GitHub, folder `data`",
    ),
    "imagereward-db": Benchmark(
        title="ImageRewardDB",
        hub="THUDM/ImageRewardDB",
        patterns={
            split: (f"metadata-{split}.parquet", f"images/{split}/*") for split in ("train", "validation", "test")
        },
        read=imagereward.read_db,
        files={split: f"metadata-{split}.parquet" for split in ("train", "validation", "test")},
        rule="micro-wrong",
        reported="ImageReward 65.1",
        randomize_sides=True,
    ),
    "pickapic-v1": _pickapic(1, "_unique"),
    "pickapic-v2": _pickapic(2, "_unique"),
    "pickapic-v1-full": _pickapic(1, ""),
    "pickapic-v2-full": _pickapic(2, ""),
    "genai-bench": _genai_bench("test"),
    "genai-bench-v1": _genai_bench("test_v1"),
}
