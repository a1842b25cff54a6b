"""Generate images for prompts of the preference data with the testbed's models, judge them, and write one sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from probing.backbones import BackboneSpec, resolve
from probing.errors import UserError
from probing.files import write_text
from probing.progress import progress
from probing.table_files import write_csv
from probing.testbed import preferences
from probing.testbed.caption_check import Reading, check_caption
from probing.testbed.generated import EVERY, FOLDER, SEED, SHEET, TABLE, make_sheet
from probing.testbed.judge import Judge
from probing.testbed.recipes import fingerprint, mmdit
from probing.testbed.recipes.assemble import FOLLOWED
from probing.testbed.recipes.card import load_pipeline
from probing.testbed.recipes.cards import render_card, write_card
from probing.testbed.scenes import ATTRIBUTES
from probing.testbed.sizes import SIZES

STEPS = (6, 12, 28)
GUIDANCE = (1.0, 2.5, 5.0)
_SEED = 4_000_000
_BATCH = 32


def plan(models: Sequence[str], steps: Sequence[int], guidance: Sequence[float], limit: int | None) -> pd.DataFrame:
    """Plan two images for every fourth prompt: draw a model, a number of steps and a guidance for each.

    The two images of a prompt differ in at least one of the three.

    Returns:
        One row for each image: ``item_id, prompt_id, prompt, source_model, steps, guidance, seed``.

    Raises:
        UserError: There is only one combination.
    """
    combinations = [(model, s, g) for model in models for s in steps for g in guidance]
    if len(combinations) < 2:
        raise UserError(
            "One model with one --steps and one --guidance gives pairs without a difference; give at least two values "
            "of one of them."
        )
    rows = []
    for prompt in preferences.prompts(SEED)[::EVERY][:limit]:
        rng = np.random.default_rng([_SEED, prompt.index])
        for number, choice in enumerate(rng.permutation(len(combinations))[:2]):
            item_id = f"{prompt.prompt_id}-generated-{number}"
            rows.append(
                (item_id, prompt.prompt_id, prompt.scene.caption, *combinations[choice], int(rng.integers(2**31)))
            )
    columns = ["item_id", "prompt_id", "prompt", "source_model", "steps", "guidance", "seed"]
    return pd.DataFrame(rows, columns=columns)


def default_models() -> list[str]:
    """List all sizes, and the last two checkpoints along one training, which give images of lower quality."""
    checkpoints = [f"testbed-{FOLLOWED}-step{step:05d}" for step in mmdit.checkpoint_steps(mmdit.SCHEDULE)[-2:]]
    return [*(f"testbed-{size}" for size in SIZES), *checkpoints]


@torch.inference_mode()
def generate(planned: pd.DataFrame, specs: Sequence[BackboneSpec], cache: Path) -> list[Image.Image]:
    """Generate the planned images by stock calls; images that are in ``cache`` are read."""
    cache.mkdir(parents=True, exist_ok=True)
    images: dict[str, Image.Image] = {}
    with progress(len(planned), "generating", "images") as bar:
        for spec in specs:
            pipeline = None
            for _, rows in planned[planned["source_model"] == spec.name].groupby(["steps", "guidance"]):
                for start in range(0, len(rows), _BATCH):
                    batch = rows.iloc[start : start + _BATCH]
                    paths = [cache / f"{item_id}.png" for item_id in batch["item_id"]]
                    if not all(path.exists() for path in paths):
                        pipeline = pipeline or load_pipeline(spec.source, spec.tuning.transformer)
                        _generate_batch(pipeline, batch, spec.t5_length, paths)
                    for item_id, path in zip(batch["item_id"], paths, strict=True):
                        with Image.open(path) as image:
                            images[item_id] = image.convert("RGB")
                    bar.update(len(batch))
    return [images[item_id] for item_id in planned["item_id"]]


def _generate_batch(pipeline: Any, batch: pd.DataFrame, t5_length: int, paths: Sequence[Path]) -> None:
    images = pipeline(
        list(batch["prompt"]),
        max_sequence_length=t5_length,
        num_inference_steps=int(batch["steps"].iloc[0]),
        guidance_scale=float(batch["guidance"].iloc[0]),
        generator=[torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]],
    ).images
    for path, image in zip(paths, images, strict=True):
        image.save(path)


def judged(planned: pd.DataFrame, readings: Sequence[Reading]) -> pd.DataFrame:
    """Add the judge's result to the plan: each attribute, the number of wrong ones, fidelity, and the reward."""
    scenes = {prompt.prompt_id: prompt.scene for prompt in preferences.prompts(SEED)}
    rows = []
    for prompt_id, reading in zip(planned["prompt_id"], readings, strict=True):
        right = check_caption(reading, scenes[prompt_id])
        wrong, strength = sum(not value for value in right.values()), round(reading.damage, 4)
        rows.append(
            {
                **{name: int(right[name]) if name in right else None for name in ATTRIBUTES},
                "things": len(reading.things),
                "wrong": wrong,
                "fidelity": round(1 - strength, 4),
                "kind": "generated",
                "strength": strength,
                "reward": round(preferences.reward_of(wrong, strength), 4),
            }
        )
    table = pd.DataFrame(rows, index=planned.index)
    return pd.concat([planned, table.astype(dict.fromkeys(ATTRIBUTES, "Int64"))], axis=1)


def run(
    runs: Path,
    models: Sequence[str],
    *,
    steps: Sequence[int] = STEPS,
    guidance: Sequence[float] = GUIDANCE,
    limit: int | None = None,
    folder: Path = FOLDER,
    judge: Judge | None = None,
) -> Path:
    """Generate and judge images; write the sheet, its table, and the card. An interrupted run resumes.

    Args:
        runs: Receives the single images.
        models: Names of the registry, or pipeline folders.
        steps: Numbers of sampling steps.
        guidance: Scales of classifier-free guidance.
        limit: Number of prompts; all if None.
        folder: Receives the sheet.
        judge: The shipped one if None.

    Returns:
        ``folder``.

    Raises:
        UserError: An unknown model, too few combinations, or ``runs`` holds images made with other settings or weights.
    """
    specs = [resolve(model) for model in models]
    planned = plan([spec.name for spec in specs], steps, guidance, limit)
    weights = {spec.name: fingerprint.of_weights(Path(spec.tuning.transformer or spec.source)) for spec in specs}
    settings = {"weights": weights, "steps": list(steps), "guidance": list(guidance), "limit": limit}
    cache = runs / "generated"
    record = cache / "settings.json"
    if record.exists() and json.loads(record.read_text()) != settings:
        raise UserError(f"{cache} holds images made with other settings or weights ({record}); remove that folder.")
    write_text(record, json.dumps(settings))
    images = generate(planned, specs, cache)
    table = judged(planned, (judge or Judge.load()).read(images))
    folder.mkdir(parents=True, exist_ok=True)
    make_sheet(images).save(folder / SHEET, optimize=True)
    write_csv(folder / TABLE, table)
    by_model = table.groupby("source_model").agg(
        n=("reward", "size"), wrong=("wrong", "mean"), fidelity=("fidelity", "mean"), reward=("reward", "mean")
    )
    card = {
        "pictures": len(table),
        "prompts": int(table["prompt_id"].nunique()),
        "steps": list(steps),
        "guidance": list(guidance),
        "weights": weights,
        "sheet_bytes": (folder / SHEET).stat().st_size,
        "models": by_model.reset_index().round(4).to_dict("records"),
    }
    write_card(folder, "generated_card", card, sheet=SHEET, table=TABLE)
    return folder


def render_readme(card: dict[str, Any]) -> str:
    """Render ``README.md`` from the content of ``card.json``."""
    return render_card("generated_card", card, sheet=SHEET, table=TABLE)
