"""Train the testbed from nothing: ``python -m probing.testbed.train {vae,text,mmdit,assemble,card}``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from probing.testbed.recipes.mmdit import SIZES


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m probing.testbed.train", description=__doc__)
    parser.add_argument(
        "recipe", choices=["vae", "text", "mmdit", "assemble", "card"], help="what to train, in this order"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and logs (default: %(default)s)")
    parser.add_argument("--size", default="xs", choices=SIZES, help="size of the MMDiT (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the MMDiT's training (default: %(default)s)")
    parser.add_argument(
        "--encoder", choices=["text_encoder", "text_encoder_2", "text_encoder_3"], help="train one text encoder alone"
    )
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="stop the MMDiT early, with a checkpoint")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument(
        "--output", type=Path, help="assemble and card: the folder of all weights (default: the project's)"
    )
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    runs: Path = arguments.runs
    if arguments.recipe == "vae":
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
        from probing.testbed.recipes import mmdit

        schedule = replace(mmdit.SCHEDULE, seed=arguments.seed)
        mmdit.run(runs, arguments.size, schedule, stop_after=arguments.stop_after)
    elif arguments.recipe == "assemble":
        from probing.testbed.recipes import assemble

        for folder in assemble.run(runs, arguments.size, arguments.seed, arguments.output or assemble.WEIGHTS):
            print(f"Weights: {folder}")
    else:
        from probing.testbed.recipes import card

        print(f"Card: {card.run(runs, arguments.size, arguments.output or card.WEIGHTS)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
