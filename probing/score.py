"""Score rewards against people's choices by every published rule: ``python -m probing.score --scores FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from probing.analysis.scoring import score_by_rules
from probing.commands import check_output_file, run_command
from probing.data_options import DataOptions
from probing.errors import UserError
from probing.options import OptionsParser
from probing.preferences import BENCHMARKS
from probing.preferences.rewards import read_rewards
from probing.statistics import RULES
from probing.table_files import write_csv, write_parquet


@dataclass(frozen=True)
class ScoreOptions:
    """Options of the command.

    Attributes:
        data: Pairs.
        split: Split whose pairs are scored; pairs of validation tune thresholds.
        scores: Rewards: .csv, .parquet or .jsonl with item_id (or prompt and image) and reward.
        rules: Scoring rules; default: all.
        partial: Leave out pairs whose items have no reward.
        output: Write the table too, as .csv or .parquet.
        list_items: Write the items that need a reward as .csv, and stop.
    """

    data: DataOptions = field(default_factory=DataOptions)
    split: str = "test"
    scores: Path | None = None
    rules: tuple[str, ...] | None = None
    partial: bool = False
    output: Path | None = None
    list_items: Path | None = None


PARSER = OptionsParser("probing.score", ScoreOptions, f"{__doc__} Rules: {', '.join(RULES)}.")


def run(options: ScoreOptions) -> None:
    if (options.scores is None) == (options.list_items is None):
        raise UserError("Give --scores, a file of rewards, or --list-items, where to write the items that need one.")
    if options.output is not None and options.output.suffix not in (".csv", ".parquet"):
        raise UserError(f"--output is a .csv or .parquet file, got {options.output}.")
    for option, path in (("--output", options.output), ("--list-items", options.list_items)):
        if path is not None:
            check_output_file(path, option)
    # Some rules tune a threshold on the validation pairs.
    data = options.data.load((options.split, "validation"))
    if options.list_items is not None:
        write_csv(options.list_items, data.items[["item_id", "prompt", "image"]])
        print(f"{len(data.items):,} items: {options.list_items}\nAdd a column reward, and give it as --scores.")
        return
    assert options.scores is not None
    table = score_by_rules(
        data, read_rewards(options.scores), rules=options.rules, split=options.split, partial=options.partial
    )
    _report(options.data.data, table)
    if options.output is not None:
        write = write_csv if options.output.suffix == ".csv" else write_parquet
        write(options.output, table)
        print(f"Table:    {options.output}")


def _report(data: str, table: pd.DataFrame) -> None:
    author_rule = BENCHMARKS[data].rule if data in BENCHMARKS else None
    width = max(len(rule) for rule in table["rule"])
    for facet, rows in table.groupby("facet", sort=False):
        print(f"{data}, {rows['split'].iloc[0]}, facet {facet}; value [95% interval over prompts]")
        for row in rows.to_dict("records"):
            mark = "*" if row["rule"] == author_rule else " "
            if pd.isna(row["value"]):
                print(f" {mark} {row['rule']:<{width}}  not applicable: {row['note']}")
                continue
            scale, unit = (1, "") if row["rule"] in ("kendall", "spearman") else (100, "%")
            low, high = scale * row["ci_low"], scale * row["ci_high"]
            digits = 1 if scale == 100 else 3
            print(
                f" {mark} {row['rule']:<{width}}  {scale * row['value']:.{digits}f}{unit} [{low:.{digits}f}, "
                f"{high:.{digits}f}]  {row['n_pairs']:,} pairs of {row['n_prompts']:,} prompts"
                + (f"; {row['note']}" if row["note"] else "")
            )
    if author_rule:
        print(" * the rule of the benchmark's authors")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
