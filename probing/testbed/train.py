"""Train the testbed from nothing: ``python -m probing.testbed.train {vae,text,mmdit,assemble,card,judge,rival}``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m probing.testbed.train", description=__doc__)
    parser.add_argument(
        "recipe",
        choices=["vae", "text", "mmdit", "assemble", "card", "judge", "rival"],
        help="what to train, in this order",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and logs (default: %(default)s)")
    parser.add_argument("--size", default="xs", help="size of the MMDiT (default: %(default)s)")
    parser.add_argument(
        "--encoder", choices=["text_encoder", "text_encoder_2", "text_encoder_3"], help="train one text encoder alone"
    )
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="stop the MMDiT early, with a checkpoint")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument(
        "--output", type=Path, help="assemble and card: the pipeline folder (default: the project's weights)"
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

        mmdit.run(runs, arguments.size, stop_after=arguments.stop_after)
    elif arguments.recipe == "judge":
        from probing.testbed.recipes import judge

        judge.run(runs)
    elif arguments.recipe == "rival":
        from probing.testbed.recipes import rival

        rival.run(runs)
    else:
        from probing.testbed.recipes import assemble, card

        folder = arguments.output or assemble.WEIGHTS / arguments.size
        if arguments.recipe == "assemble":
            assemble.run(runs, arguments.size, folder)
            print(f"Weights: {folder}")
        else:
            print(f"Card: {card.run(runs, folder, arguments.size)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
