"""Train the testbed's models from scratch: ``python -m probing.testbed.train RECIPE``.

Backbones: vae, text, then mmdit and assemble for each size and seed, or family for all of them; then card. Judge:
judge, judge-card. Generated images for the preference data: generated. Baseline reward model: rival, rival-card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from probing.commands import run_command
from probing.errors import UserError
from probing.options import OptionsParser, Positional
from probing.shipped import WEIGHTS
from probing.testbed.sizes import SIZES

Recipe = Literal[
    "unpack",
    "vae",
    "text",
    "mmdit",
    "assemble",
    "family",
    "judge",
    "judge-card",
    "card",
    "generated",
    "rival",
    "rival-card",
]


@dataclass(frozen=True)
class TrainOptions:
    """Options of the command.

    Attributes:
        recipe: What to train or write, in this order; unpack replaces vae and text.
        runs: Folder of checkpoints and logs.
        size: Size of the MMDiT.
        seed: Seed of the MMDiT's training.
        encoder: Train only this text encoder.
        stop_after: Stop the MMDiT after this step, with a checkpoint.
        device: Device of the MMDiT: auto, cpu, cuda, cuda:1, mps.
        jobs: For family: simultaneous trainings.
        compile: Compile the MMDiT's forward: slower start, faster steps.
        threads: CPU threads; default: all.
        models: For generated: names or folders; default: all sizes and two checkpoints.
        steps: For generated: numbers of sampling steps.
        guidance: For generated: guidance scales.
        limit: For generated: number of prompts; default: all.
        output: Folder of weights; default: that of the package.
    """

    recipe: Positional[Recipe]
    runs: Path = Path("runs")
    size: str = "xs"
    seed: int = 0
    encoder: Literal["text_encoder", "text_encoder_2", "text_encoder_3"] | None = None
    stop_after: int | None = None
    device: str = "cpu"
    jobs: int = 1
    compile: bool = False
    threads: int | None = None
    models: tuple[str, ...] | None = None
    steps: tuple[int, ...] | None = None
    guidance: tuple[float, ...] | None = None
    limit: int | None = None
    output: Path | None = None


PARSER = OptionsParser("probing.testbed.train", TrainOptions, __doc__)


def run(options: TrainOptions) -> None:
    if options.size not in SIZES:
        raise UserError(f"Unknown size {options.size!r}; choose one of {', '.join(SIZES)}.")
    if options.threads:
        torch.set_num_threads(options.threads)
    functions = {"judge": _judge, "judge-card": _judge, "rival": _rival, "rival-card": _rival}
    functions |= {"generated": _generated, "family": _family}
    functions.get(options.recipe, _backbone)(options)


def _backbone(options: TrainOptions) -> None:
    runs: Path = options.runs
    if options.recipe == "unpack":
        from probing.testbed.recipes import assemble

        assemble.unpack((options.output or WEIGHTS) / options.size, runs)
        print(f"VAE, text encoders and tokenizers: {runs}")
    elif options.recipe == "vae":
        from probing.testbed.recipes import vae

        vae.run(runs / "vae")
    elif options.recipe == "text":
        from probing.testbed.recipes import text

        for name in [options.encoder] if options.encoder else [*text.WIDTHS, "text_encoder_3"]:
            if name in text.WIDTHS:
                text.run_clip(runs / name, name)
            else:
                text.run_t5(runs / name)
    elif options.recipe == "mmdit":
        from probing.backbones import pick_device
        from probing.testbed.recipes import mmdit

        schedule = replace(mmdit.SCHEDULE, seed=options.seed)
        device, compiled = pick_device(options.device), options.compile
        mmdit.run(runs, options.size, schedule, stop_after=options.stop_after, device=device, compiled=compiled)
    elif options.recipe == "assemble":
        from probing.testbed.recipes import assemble

        for folder in assemble.run(runs, options.size, options.seed, options.output or WEIGHTS):
            print(f"Weights: {folder}")
    else:
        from probing.testbed.recipes import card

        print(f"Card: {card.run(runs, options.size, options.output or WEIGHTS)}")


def _family(options: TrainOptions) -> None:
    from probing.backbones import pick_device
    from probing.testbed.recipes import family

    device = pick_device(options.device)
    arguments = ["--device", str(device), *(["--compile"] if options.compile else [])]
    arguments += ["--threads", str(options.threads)] if options.threads else []
    weights = options.output or WEIGHTS
    for folder in family.run(options.runs, weights, jobs=options.jobs, device=device, options=arguments):
        print(f"Weights: {folder}")
    print("Next:    python -m probing.testbed.train card --size SIZE, for each size; then generated, rival")


def _judge(options: TrainOptions) -> None:
    from probing.testbed.judge import WEIGHTS
    from probing.testbed.recipes import judge, judge_card

    weights = options.output / "judge" / WEIGHTS.name if options.output else WEIGHTS
    if options.recipe == "judge":
        judge.run(options.runs, weights=weights)
        print(f"Weights: {weights}")
    else:
        print(f"Card: {judge_card.run(weights)}")


def _generated(options: TrainOptions) -> None:
    from probing.testbed.generated import FOLDER
    from probing.testbed.recipes import generated

    folder = options.output / "generated" if options.output else FOLDER
    written = generated.run(
        options.runs,
        options.models or generated.default_models(),
        steps=options.steps or generated.STEPS,
        guidance=options.guidance or generated.GUIDANCE,
        limit=options.limit,
        folder=folder,
    )
    print(f"Images: {written}")


def _rival(options: TrainOptions) -> None:
    from probing.testbed.recipes import rival, rival_card
    from probing.testbed.rival import WEIGHTS

    weights = options.output / "rival" / WEIGHTS.name if options.output else WEIGHTS
    if options.recipe == "rival":
        rival.run(options.runs, weights=weights)
        print(f"Weights: {weights}")
    else:
        print(f"Card: {rival_card.run(options.runs, weights)}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
