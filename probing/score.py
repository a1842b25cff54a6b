"""Score rewards against people's choices by every published rule: ``python -m probing.score --scores FILE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probing.analysis.scoring import score_by_rules
from probing.commands import CommandParser, check_output_file, run_command, words
from probing.data_options import add_data_options, load_data
from probing.errors import UserError
from probing.files import write_csv, write_parquet
from probing.preferences import BENCHMARKS
from probing.preferences.rewards import read_rewards
from probing.statistics import RULES


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.score", description=__doc__)
    add = parser.add_argument
    add_data_options(parser)
    add("--split", default="test", help="whose pairs are scored; those of validation tune thresholds")
    add("--scores", type=Path, help="rewards, a .csv, .parquet or .jsonl of item_id (or prompt and image) and reward")
    add("--rules", type=words, help=f"with commas, of {', '.join(RULES)}; all if not given")
    add("--partial", action="store_true", help="leave out pairs whose items have no reward")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--output", type=Path, help="write the table too, as .csv or .parquet")
    add("--list-items", type=Path, metavar="FILE", help="write the items that want a reward as .csv, and stop")
    return parser


def run(arguments: argparse.Namespace) -> None:
    if (arguments.scores is None) == (arguments.list_items is None):
        raise UserError("Give --scores, a file of rewards, or --list-items, where to write the items that want one.")
    if arguments.output is not None and arguments.output.suffix not in (".csv", ".parquet"):
        raise UserError(f"--output is a .csv or .parquet file, got {arguments.output}.")
    for option, path in (("--output", arguments.output), ("--list-items", arguments.list_items)):
        if path is not None:
            check_output_file(path, option)
    # Some rules tune a threshold on the validation pairs.
    wanted = load_data(arguments, split=(arguments.split, "validation"))
    if arguments.list_items is not None:
        write_csv(arguments.list_items, wanted.items[["item_id", "prompt", "image"]])
        print(f"{len(wanted.items):,} items: {arguments.list_items}\nAdd a column reward, and give it as --scores.")
        return
    table = score_by_rules(
        wanted,
        read_rewards(arguments.scores),
        rules=arguments.rules,
        split=arguments.split,
        partial=arguments.partial,
        seed=arguments.seed,
    )
    _report(arguments.data, table)
    if arguments.output is not None:
        write = write_csv if arguments.output.suffix == ".csv" else write_parquet
        write(arguments.output, table)
        print(f"Table:    {arguments.output}")


def _report(data: str, table: pd.DataFrame) -> None:
    own = BENCHMARKS[data].rule if data in BENCHMARKS else None
    width = max(len(rule) for rule in table["rule"])
    for facet, rows in table.groupby("facet", sort=False):
        print(f"{data}, {rows['split'].iloc[0]}, facet {facet}; value [95% interval over prompts]")
        for row in rows.to_dict("records"):
            mark = "*" if row["rule"] == own else " "
            if pd.isna(row["value"]):
                print(f" {mark} {row['rule']:<{width}}  not asked: {row['note']}")
                continue
            scale, unit = (1, "") if row["rule"] in ("kendall", "spearman") else (100, "%")
            low, high = scale * row["ci_low"], scale * row["ci_high"]
            digits = 1 if scale == 100 else 3
            print(
                f" {mark} {row['rule']:<{width}}  {scale * row['value']:.{digits}f}{unit} [{low:.{digits}f}, "
                f"{high:.{digits}f}]  {row['n_pairs']:,} pairs of {row['n_prompts']:,} prompts"
                + (f"; {row['note']}" if row["note"] else "")
            )
    if own:
        print(" * the rule of the benchmark's authors")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
