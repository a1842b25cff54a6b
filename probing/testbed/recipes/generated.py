"""Pictures made by the family itself under the prompts of the preference data, judged, and laid out as one sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from probing.backbones import BackboneSpec, resolve
from probing.errors import UserError
from probing.testbed import preferences
from probing.testbed.generated import EVERY, FOLDER, SEED, SHEET, TABLE, make_sheet
from probing.testbed.judge import Judge
from probing.testbed.recipes import fingerprint, mmdit
from probing.testbed.recipes.assemble import FOLLOWED
from probing.testbed.recipes.card import load_pipeline
from probing.testbed.scenes import ATTRIBUTES
from probing.testbed.seen import Reading, obeys
from probing.testbed.sizes import SIZES

STEPS = (6, 12, 28)
GUIDANCE = (1.0, 2.5, 5.0)
_SEED = 4_000_000
_BATCH = 32


def plan(models: Sequence[str], steps: Sequence[int], guidance: Sequence[float], limit: int | None) -> pd.DataFrame:
    """Deal two pictures to every fourth prompt, each from a model, a number of steps and a guidance drawn at random.

    The two of a prompt are never made in the same way.

    Returns:
        One row a picture: ``item_id, prompt_id, prompt, source_model, steps, guidance, seed``.
    """
    ways = [(model, s, g) for model in models for s in steps for g in guidance]
    if len(ways) < 2:
        raise UserError("One model with one --steps and one --guidance makes equal pairs; give two of something.")
    rows = []
    for prompt in preferences.prompts(SEED)[::EVERY][:limit]:
        rng = np.random.default_rng([_SEED, prompt.index])
        for number, way in enumerate(rng.permutation(len(ways))[:2]):
            item_id = f"{prompt.prompt_id}-generated-{number}"
            rows.append((item_id, prompt.prompt_id, prompt.scene.caption, *ways[way], int(rng.integers(2**31))))
    columns = ["item_id", "prompt_id", "prompt", "source_model", "steps", "guidance", "seed"]
    return pd.DataFrame(rows, columns=columns)


def default_models() -> list[str]:
    """Name the sizes, and the later two of the weights kept along the way of one: worse pictures are of use too."""
    along = [f"testbed-{FOLLOWED}-step{step:05d}" for step in mmdit.kept(mmdit.SCHEDULE)[-2:]]
    return [*(f"testbed-{size}" for size in SIZES), *along]


@torch.inference_mode()
def make(planned: pd.DataFrame, specs: Sequence[BackboneSpec], cache: Path) -> list[Image.Image]:
    """Generate what is planned, by stock calls; what an earlier run made is read from ``cache``."""
    cache.mkdir(parents=True, exist_ok=True)
    images: dict[str, Image.Image] = {}
    bar = tqdm(total=len(planned), desc="generating", disable=None)
    for spec in specs:
        pipeline = None
        for _, rows in planned[planned["source_model"] == spec.name].groupby(["steps", "guidance"]):
            for start in range(0, len(rows), _BATCH):
                batch = rows.iloc[start : start + _BATCH]
                kept = [cache / f"{item_id}.png" for item_id in batch["item_id"]]
                if not all(path.exists() for path in kept):
                    pipeline = pipeline or load_pipeline(spec.source, spec.transformer)
                    made = pipeline(
                        list(batch["prompt"]),
                        max_sequence_length=spec.t5_length,
                        num_inference_steps=int(batch["steps"].iloc[0]),
                        guidance_scale=float(batch["guidance"].iloc[0]),
                        generator=[torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]],
                    ).images
                    for path, image in zip(kept, made, strict=True):
                        image.save(path)
                for item_id, path in zip(batch["item_id"], kept, strict=True):
                    with Image.open(path) as image:
                        images[item_id] = image.convert("RGB")
                bar.update(len(batch))
    return [images[item_id] for item_id in planned["item_id"]]


def judged(planned: pd.DataFrame, readings: Sequence[Reading]) -> pd.DataFrame:
    """Add to the plan what the judge sees: each attribute, the number wrong, fidelity, and the reward of both."""
    scenes = {prompt.prompt_id: prompt.scene for prompt in preferences.prompts(SEED)}
    rows = []
    for prompt_id, seen in zip(planned["prompt_id"], readings, strict=True):
        right = obeys(seen, scenes[prompt_id])
        wrong, strength = sum(not value for value in right.values()), round(seen.damage, 4)
        told = {name: int(right[name]) if name in right else None for name in ATTRIBUTES}
        reward = round(preferences.reward_of(wrong, strength), 4)
        rows.append(
            {
                **told,
                "things": len(seen.things),
                "wrong": wrong,
                "fidelity": round(1 - strength, 4),
                "kind": "generated",
                "strength": strength,
                "reward": reward,
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
    """Generate, judge, and write the sheet, its table, and ``card.json``; a run that was stopped goes on.

    Args:
        runs: Keeps each picture as it is made.
        models: Names of the registry, or pipeline folders.
        steps: Numbers of sampling steps.
        guidance: Scales of classifier-free guidance.
        limit: Only so many prompts.
        folder: Of the sheet.
        judge: The shipped one if None.

    Raises:
        UserError: An unknown model, too few ways to make a picture, or pictures of an earlier run with other settings
            or weights.
    """
    specs = [resolve(model) for model in models]
    planned = plan([spec.name for spec in specs], steps, guidance, limit)
    weights = {spec.name: fingerprint.of_weights(Path(spec.transformer or spec.source)) for spec in specs}
    settings = {"weights": weights, "steps": list(steps), "guidance": list(guidance), "limit": limit}
    cache = runs / "generated"
    noted = cache / "settings.json"
    if noted.exists() and json.loads(noted.read_text()) != settings:
        raise UserError(f"{cache} holds pictures made with other settings or weights ({noted}); remove that folder.")
    cache.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(settings))
    images = make(planned, specs, cache)
    table = judged(planned, (judge or Judge.load()).read(images))
    folder.mkdir(parents=True, exist_ok=True)
    make_sheet(images).save(folder / SHEET, optimize=True)
    table.to_csv(folder / TABLE, index=False)
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
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    (folder / "README.md").write_text(_text(card))
    return folder


def _text(card: dict[str, Any]) -> str:
    models = "\n".join(
        f"| {one['source_model']} | {one['n']:,} | {one['wrong']:.2f} | {one['fidelity']:.2f} | {one['reward']:.2f} |"
        for one in card["models"]
    )
    steps, scales = ", ".join(map(str, card["steps"])), ", ".join(f"{scale:g}" for scale in card["guidance"])
    return f"""# Pictures that the testbed's models made

`{SHEET}` is one sheet of {card["pictures"]:,} pictures of {card["prompts"]:,} prompts of the preference data, two a
prompt, and `{TABLE}` says of each who made it and what the judge reads in it: the items of the facet `generated`.
Steps {steps}; guidance {scales}; model, steps and guidance drawn at random, never the same twice for a prompt.

| made by | pictures | wrong attributes, mean | fidelity, mean | reward, mean |
|---|---|---|---|---|
{models}

`python -m probing.testbed.train generated` makes them from the shipped weights and their seeds. Made again on another
processor they differ in their last digits, and after many steps in what can be seen; **the sheet is the data**, and has
the same bytes everywhere, as have all other pictures of the preference data, which are rendered from integers.
"""
