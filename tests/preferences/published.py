"""Tiny data sets written to disk exactly as their authors publish them: every field, every file, every folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WORDS = ("small", "red", "green", "circle", "square", "star", "white")
MODELS = ("flux", "sd2", "sdxl", "real")


def picture(number: int) -> Image.Image:
    """Noise that is unlike all others."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8))


def png(number: int) -> bytes:
    stream = BytesIO()
    picture(number).save(stream, "PNG")
    return stream.getvalue()


def prompt(number: int) -> str:
    """A prompt of words that the tiny text encoders know, and a unique number."""
    rng = np.random.default_rng(number)
    return f"a {' '.join(rng.choice(WORDS, 3))} on a background {number}"


class Pictures:
    """Writes pictures below a folder; each name is new."""

    def __init__(self, root: Path) -> None:
        self.root, self.numbers = root, itertools.count()

    def write(self, pattern: str) -> str:
        number = next(self.numbers)
        name = pattern.format(number)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
        return name


def write(name: str, root: Path, prompts: int = 6) -> Path:
    """Write a benchmark's files under ``root``; as many prompts in each split.

    Args:
        name: Of :data:`probing.preferences.BENCHMARKS`.
        root: Folder; it is what ``--data-root`` takes.
        prompts: In each split.
    """
    root.mkdir(parents=True, exist_ok=True)
    WRITERS[name](root, prompts)
    return root


def hpdv3(root: Path, prompts: int, train: str = "train.json") -> None:
    """Published values, and what derivatives make of them: texts of lists and numbers, ``null`` as a text."""
    pictures = Pictures(root)
    votes = [([12, 7], 0.9999), (None, None), ("[8, 1]", "0.98"), ("null", "null")]
    for file, first in ((train, 0), ("test.json", 1000)):
        records = []
        for number in range(prompts):
            record = {"prompt": prompt(first + number)}
            if file != "test.json":
                record |= dict(zip(("choice_dist", "confidence"), votes[number % 4], strict=True))
            for side in ("1", "2"):
                record[f"path{side}"] = pictures.write("images/uuid_{}.png")
            record |= {"model1": MODELS[number % 4], "model2": MODELS[(number + 1) % 4]}
            records.append(record)
        (root / file).write_text(json.dumps(records))


def hpdv2(root: Path, prompts: int) -> None:
    pictures = Pictures(root)
    train = [
        {
            "human_preference": [1, 0] if number % 3 else [0, 1],
            "prompt": prompt(number),
            "file_path": [pictures.write("train/{:06d}.png").removeprefix("train/") for _ in range(2)],
            "user_hash": f"user{number}",
        }
        for number in range(prompts)
    ]
    test = []
    for number in range(prompts):
        rng = np.random.default_rng(number)
        # People disagree; what they agree on has ties now and then.
        ranks = rng.permutation(9) + 1
        ranks = np.where(ranks == 9, 8, ranks)
        test.append(
            {
                "prompt": prompt(1000 + number),
                "image_path": [pictures.write("test/{:06d}.png").removeprefix("test/") for _ in range(9)],
                "rank": ranks.tolist(),
                "raw_annotations": [
                    {"rank": (rng.permutation(9) + 1).tolist(), "user_hash": f"user{user}"} for user in range(3)
                ],
            }
        )
    (root / "train.json").write_text(json.dumps(train))
    (root / "test.json").write_text(json.dumps(test))


def imagereward(root: Path, prompts: int) -> None:
    pictures = Pictures(root)
    records = []
    for number in range(prompts):
        size = 4 + number % 6
        names = [pictures.write("test_images/{}.png").removeprefix("test_images/") for _ in range(size)]
        ranking = [1 + (number + position) % 5 for position in range(size)]
        records.append({"id": f"{number:06d}-0001", "prompt": prompt(number), "generations": names, "ranking": ranking})
    (root / "test.json").write_text(json.dumps(records))


def imagereward_db(root: Path, prompts: int) -> None:
    pictures = Pictures(root)
    for first, split in ((0, "train"), (1000, "validation"), (2000, "test")):
        rows = []
        for number in range(first, first + prompts):
            rng = np.random.default_rng(number)
            size = 4 + number % 3
            for rank in rng.permutation(size) + 1:
                image = pictures.write(f"images/{split}/{split}_1/{{}}.png")
                rows.append(
                    {
                        "image_path": image,
                        "prompt_id": f"{number:06d}-0005",
                        "prompt": prompt(number),
                        "classification": "Abstract",
                        "image_amount_in_total": size,
                        "rank": int(rank),
                        "overall_rating": int(rng.integers(1, 8)),
                        "image_text_alignment_rating": int(rng.integers(1, 8)),
                        "fidelity_rating": int(rng.integers(1, 8)),
                    }
                )
        pd.DataFrame(rows).to_parquet(root / f"metadata-{split}.parquet", index=False)


def pickapic(root: Path, prompts: int, version: int, suffix: str) -> None:
    """Two comparisons a prompt that share a picture; one in five is a tie, one in ten has no label."""
    numbers = itertools.count()
    (root / "data").mkdir()
    for first, name in ((0, "train"), (1000, f"validation{suffix}"), (2000, f"test{suffix}")):
        rows = []
        for number in range(first, first + prompts):
            shown = [next(numbers) for _ in range(3)]
            for position, (one, other) in enumerate(((shown[0], shown[1]), (shown[1], shown[2]))):
                kind = 2 * number + position
                label = 0.5 if kind % 5 == 4 else float(kind % 2)
                best = "tie" if label == 0.5 else f"uid-{one if label else other}"
                rows.append(
                    {
                        "are_different": True,
                        "best_image_uid": best,
                        "caption": prompt(number),
                        "created_at": pd.Timestamp("2023-02-01 10:00:00"),
                        "has_label": kind % 10 != 7,
                        "image_0_uid": f"uid-{one}",
                        "image_0_url": f"https://example.org/{one}.png",
                        "image_1_uid": f"uid-{other}",
                        "image_1_url": f"https://example.org/{other}.png",
                        "jpg_0": png(one),
                        "jpg_1": png(other),
                        "label_0": label,
                        "label_1": 1.0 - label,
                        "model_0": MODELS[kind % 4],
                        "model_1": MODELS[(kind + 1) % 4],
                        "ranking_id": 10_000 * version + kind,
                        "user_id": kind % 7,
                        "num_example_per_prompt": 2,
                        "__index_level_0__": kind,
                    }
                )
        # Two files a split, small row groups, as large data sets have.
        half = len(rows) // 2
        for part, some in enumerate((rows[:half], rows[half:])):
            table = pa.Table.from_pandas(pd.DataFrame(some), preserve_index=False)
            pq.write_table(table, root / "data" / f"{name}-{part:05d}-of-00002-abcdef.parquet", row_group_size=3)


def genai_bench(root: Path, prompts: int, name: str) -> None:
    (root / "image_generation").mkdir()
    votes = ["leftvote", "rightvote", "tievote", "bothbad_vote"]
    numbers = itertools.count()
    rows = [
        {
            "prompt": prompt(number),
            "left_model": MODELS[number % 4],
            "right_model": MODELS[(number + 1) % 4],
            **{f"{side}_image": {"bytes": png(next(numbers)), "path": None} for side in ("left", "right")},
            # Half of the votes name a side.
            "vote_type": votes[number % 2] if number % 4 < 2 else votes[number // 2 % 4],
        }
        for number in range(prompts)
    ]
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    pq.write_table(table, root / "image_generation" / f"{name}-00000-of-00001.parquet", row_group_size=4)


def hpdv3pp(root: Path, prompts: int) -> None:
    """Both facets share prompts and pictures; rollouts show pictures of the pairs without their prompts."""
    pictures = Pictures(root)
    rollouts = []
    for first, split in ((0, "train"), (1000, "test")):
        (root / split).mkdir()
        names = [
            [pictures.write("images/{:06d}.png").removeprefix("images/") for _ in range(3)] for _ in range(prompts)
        ]
        for end, (better, worse) in (("aes", (0, 1)), ("tf", (2, 0))):
            records = [
                {"path1": names[number][better], "path2": names[number][worse], "prompt": prompt(first + number)}
                for number in range(prompts)
            ]
            (root / split / f"{split}_{end}.json").write_text(json.dumps(records))
        for number, group in enumerate(names):
            rollouts += [
                {
                    "group_id": f"{split}{number}",
                    "source": "grpo",
                    "tier": "a",
                    "iter_step": 100 * step,
                    "capability": 0.1 * step,
                    "iter_norm": step / 2,
                    "level": min(step, 1),
                    "image_path": name,
                    "ogd_std": 0.5,
                }
                for step, name in enumerate(group)
            ]
    (root / "rollout.json").write_text(json.dumps(rollouts))


def mmrb2(root: Path, prompts: int) -> None:
    (root / "t2i").mkdir()
    numbers = itertools.count()
    rows = [
        {
            "pair_id": f"t2i_{number}",
            "prompt_text": prompt(number),
            "prompt_images": [],
            **{f"response_{side}_text": "" for side in "ab"},
            **{f"response_{side}_images": [{"bytes": png(next(numbers)), "path": None}] for side in "ab"},
            "chosen": "AB"[number % 2],
            "prompt_source": "people",
            **{f"response_{side}_model": MODELS[(number + (side == "b")) % 4] for side in "ab"},
            "human_annotations": json.dumps([{"choice": "A"}]),
            "prompt_metadata": "{}",
        }
        for number in range(prompts)
    ]
    _write_rows(root / "t2i" / "test-00000-of-00001.parquet", rows)


def open_image_preferences(root: Path, prompts: int) -> None:
    (root / "data").mkdir()
    numbers = itertools.count()
    rows = [
        {
            "prompt": prompt(number),
            **{side: {"bytes": png(next(numbers)), "path": None} for side in ("chosen", "rejected")},
            "chosen_model": MODELS[number % 2],
            "rejected_model": MODELS[1 - number % 2],
            "category": "Anime",
            "evolution": "quality",
        }
        for number in range(3 * prompts)
    ]
    _write_rows(root / "data" / "train-00000-of-00001.parquet", rows)


DIMENSIONS = (
    *("symmetry", "richness", "color", "detail realism", "safety", "body", "lighting", "background", "emotion"),
    *("main object", "face", "hands", "clarity", "composition", "unity", "light distinction", "color brightness"),
    "environment",
)
"""Eighteen, as published; not all names were known to us."""
Columns = Callable[[np.random.Generator], dict[str, Any]]


def rated(
    root: Path,
    prompts: int,
    columns: Callable[[np.random.Generator], dict[str, Any]],
    names: Sequence[str] = ("train",),
) -> None:
    """Three pictures a prompt, each with the columns that a generator gives."""
    (root / "data").mkdir()
    for first, name in enumerate(names):
        rows = [
            {
                "image": {"bytes": png(10_000 * first + number), "path": None},
                "prompt": prompt(1000 * first + number // 3),
                **columns(np.random.default_rng([first, number])),
            }
            for number in range(9 * prompts)
        ]
        _write_rows(root / "data" / f"{name}-00000-of-00001.parquet", rows)


def vision_grades(rng: np.random.Generator) -> dict[str, Any]:
    grades: dict[str, int | None] = {name: int(rng.integers(-2, 3)) for name in DIMENSIONS}
    grades["hands"] = None if rng.random() < 0.3 else grades["hands"]
    asked = [int(name != "face" or rng.random() > 0.3) for name in DIMENSIONS]
    return {"internal_id": int(rng.integers(1 << 30)), "url": "", "annotation": grades, "meta_mask": asked}


def rapidata_scores(rng: np.random.Generator) -> dict[str, Any]:
    scores = {f"{facet}_score": float(rng.random()) for facet in ("alignment", "coherence", "style")}
    asked = rng.random() > 0.4
    return {
        "word_scores": json.dumps([["red", 0.2], ["[No_mistakes]", 0.5]]),
        **{f"{name}_norm": value for name, value in scores.items()},
        **scores,
        "alignment_heatmap": rng.random((4, 5)).astype(np.float16).tolist() if asked else None,
        "coherence_heatmap": rng.random((4, 5)).astype(np.float16).tolist(),
    }


def rich_scores(rng: np.random.Generator) -> dict[str, Any]:
    grey = BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(grey, "PNG")
    return {
        "filename": f"train/{rng.integers(1 << 30)}.png",
        **{f"{name}_score": float(rng.integers(0, 5) / 4) for name in ("aesthetics", "artifact", "misalignment")},
        "overall_score": 0.0,
        "artifact_map": {"bytes": grey.getvalue(), "path": None},
        "misalignment_map": {"bytes": grey.getvalue(), "path": None},
        "prompt_misalignment_label": "1 0 1",
    }


RATED_MODELS = ("DALLE_3", "DeepFloyd_I_XL_v1", "Midjourney_6", "SDXL_2_1", "SDXL_Base", "SDXL_Turbo")


def genai_bench_1600(root: Path, prompts: int) -> None:
    (root / "data").mkdir()
    numbers = itertools.count()
    rows = []
    for number in range(prompts):
        rng = np.random.default_rng(number)
        rows.append(
            {
                "Index": f"{number:05d}",
                "Prompt": prompt(number),
                "Tags": {"basic": ["attribute"], "advanced": ["counting"]},
                "HumanRating": {model: rng.integers(1, 6, 3).tolist() for model in RATED_MODELS},
                **{model: {"bytes": png(next(numbers)), "path": None} for model in RATED_MODELS},
            }
        )
    _write_rows(root / "data" / "train-00000-of-00001.parquet", rows)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "hpdv3": hpdv3,
    "hpdv3-all": lambda root, prompts: hpdv3(root, prompts, "all.json"),
    "hpdv2": hpdv2,
    "imagereward": imagereward,
    "imagereward-db": imagereward_db,
    "pickapic-v1": lambda root, prompts: pickapic(root, prompts, 1, "_unique"),
    "pickapic-v2": lambda root, prompts: pickapic(root, prompts, 2, "_unique"),
    "pickapic-v1-full": lambda root, prompts: pickapic(root, prompts, 1, ""),
    "pickapic-v2-full": lambda root, prompts: pickapic(root, prompts, 2, ""),
    "genai-bench": lambda root, prompts: genai_bench(root, prompts, "test"),
    "genai-bench-v1": lambda root, prompts: genai_bench(root, prompts, "test_v1"),
    "genai-bench-1600": genai_bench_1600,
    "hpdv3pp": hpdv3pp,
    "hpdv3pp-rollout": hpdv3pp,
    "mmrb2": mmrb2,
    "open-image-preferences": open_image_preferences,
    "visionreward": lambda root, prompts: rated(root, prompts, vision_grades),
    "rapidata": lambda root, prompts: rated(root, prompts, rapidata_scores),
    "richhf": lambda root, prompts: rated(root, prompts, rich_scores, ("train", "dev", "test")),
}
