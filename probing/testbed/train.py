"""Train the testbed's models from scratch: ``python -m probing.testbed.train RECIPE``.

Backbones: vae, text, then mmdit and assemble for each size and seed, or family for all of them; then card. Judge:
judge, judge-card. Generated images for the preference data: generated. Baseline reward model: rival, rival-card.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from probing.commands import CommandParser, numbers, run_command, words
from probing.testbed.sizes import SIZES

RECIPES = (
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
)


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.testbed.train", description=__doc__)
    add = parser.add_argument
    add("recipe", choices=RECIPES, help="what to train or write, in this order; unpack replaces vae and text")
    add("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and logs (default: %(default)s)")
    add("--size", default="xs", choices=SIZES, help="size of the MMDiT (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the MMDiT's training (default: %(default)s)")
    add("--encoder", choices=["text_encoder", "text_encoder_2", "text_encoder_3"], help="train only this text encoder")
    add("--stop-after", type=int, metavar="STEP", help="stop the MMDiT after this step, with a checkpoint")
    add("--device", default="cpu", help="device of the MMDiT: auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--jobs", type=int, default=1, help="family: simultaneous trainings (default: %(default)s)")
    add("--compile", action="store_true", help="compile the MMDiT's forward: slower start, faster steps")
    add("--threads", type=int, help="CPU threads (default: all)")
    add(
        "--models",
        type=words,
        help="generated: comma-separated names or folders (default: all sizes and two checkpoints)",
    )
    add("--steps", type=numbers, help="generated: comma-separated numbers of sampling steps")
    add("--guidance", type=numbers, help="generated: comma-separated guidance scales")
    add("--limit", type=int, metavar="PROMPTS", help="generated: number of prompts (default: all)")
    add("--output", type=Path, help="folder of weights (default: that of the package)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    functions = {"judge": _judge, "judge-card": _judge, "rival": _rival, "rival-card": _rival}
    functions |= {"generated": _generated, "family": _family}
    functions.get(arguments.recipe, _backbone)(arguments)


def _backbone(arguments: argparse.Namespace) -> None:
    runs: Path = arguments.runs
    if arguments.recipe == "unpack":
        from probing.testbed.recipes import assemble

        assemble.unpack((arguments.output or assemble.WEIGHTS) / arguments.size, runs)
        print(f"VAE, text encoders and tokenizers: {runs}")
    elif arguments.recipe == "vae":
        from probing.testbed.recipes import vae

        vae.run(runs / "vae")
    elif arguments.recipe == "text":
        from probing.testbed.recipes import text

        for name in [arguments.encoder] if arguments.encoder else [*text.WIDTHS, "text_encoder_3"]:
            if name in text.WIDTHS:
                text.run_clip(runs / name, name)
            else:
                text.run_t5(runs / name)
    elif arguments.recipe == "mmdit":
        from probing.backbones import pick_device
        from probing.testbed.recipes import mmdit

        schedule = replace(mmdit.SCHEDULE, seed=arguments.seed)
        device, compiled = pick_device(arguments.device), arguments.compile
        mmdit.run(runs, arguments.size, schedule, stop_after=arguments.stop_after, device=device, compiled=compiled)
    elif arguments.recipe == "assemble":
        from probing.testbed.recipes import assemble

        for folder in assemble.run(runs, arguments.size, arguments.seed, arguments.output or assemble.WEIGHTS):
            print(f"Weights: {folder}")
    else:
        from probing.testbed.recipes import card

        print(f"Card: {card.run(runs, arguments.size, arguments.output or card.WEIGHTS)}")


def _family(arguments: argparse.Namespace) -> None:
    from probing.backbones import pick_device
    from probing.testbed.recipes import assemble, family

    device = pick_device(arguments.device)
    options = ["--device", str(device), *(["--compile"] if arguments.compile else [])]
    options += ["--threads", str(arguments.threads)] if arguments.threads else []
    weights = arguments.output or assemble.WEIGHTS
    for folder in family.run(arguments.runs, weights, jobs=arguments.jobs, device=device, options=options):
        print(f"Weights: {folder}")
    print("Next:    python -m probing.testbed.train card --size SIZE, for each size; then generated, rival")


def _judge(arguments: argparse.Namespace) -> None:
    from probing.testbed.judge import WEIGHTS
    from probing.testbed.recipes import judge, judge_card

    weights = arguments.output / "judge" / WEIGHTS.name if arguments.output else WEIGHTS
    if arguments.recipe == "judge":
        judge.run(arguments.runs, weights=weights)
        print(f"Weights: {weights}")
    else:
        print(f"Card: {judge_card.run(weights)}")


def _generated(arguments: argparse.Namespace) -> None:
    from probing.testbed.recipes import generated

    folder = arguments.output / "generated" if arguments.output else generated.FOLDER
    written = generated.run(
        arguments.runs,
        arguments.models or generated.default_models(),
        steps=[int(steps) for steps in arguments.steps or generated.STEPS],
        guidance=arguments.guidance or generated.GUIDANCE,
        limit=arguments.limit,
        folder=folder,
    )
    print(f"Images: {written}")


def _rival(arguments: argparse.Namespace) -> None:
    from probing.testbed.recipes import rival, rival_card
    from probing.testbed.rival import WEIGHTS

    weights = arguments.output / "rival" / WEIGHTS.name if arguments.output else WEIGHTS
    if arguments.recipe == "rival":
        rival.run(arguments.runs, weights=weights)
        print(f"Weights: {weights}")
    else:
        print(f"Card: {rival_card.run(arguments.runs, weights)}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
