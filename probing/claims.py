"""Check that every number with an interval in a text is in a table: ``python -m probing.claims README.md docs``.

A claim is an interval ``[low, high]``, with the number before it if there is one near. It is backed if a row of a table
rounds to it, in shares or in percent, with either sign: "10.5 points [7.1, 14.0] worse" is the row −0.105.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.commands import OK, run_command
from probing.errors import UserError
from probing.options import OptionsParser, Positional

_NUMBER = r"[-+−]?\d+(?:\.\d+)?"
_INTERVAL = re.compile(rf"\[({_NUMBER})%?, ({_NUMBER})%?\]")
_BEFORE = re.compile(rf"({_NUMBER})%?(?:\s[^\d\[\]|;]{{0,24}})?\s*$")
_COLUMNS = (
    ("value", "ci_low", "ci_high"),
    ("accuracy", "ci_low", "ci_high"),
    ("difference", "ci_low", "ci_high"),
    ("difference", "difference_low", "difference_high"),
    ("gain", "gain_low", "gain_high"),
    ("own_gain", "own_gain_low", "own_gain_high"),
    ("value", "sizes_low", "sizes_high"),
    ("effect", "ci_low", "ci_high"),
    ("damage", "damage_low", "damage_high"),
    ("reading", "reading_low", "reading_high"),
    ("correlation", "ci_low", "ci_high"),
    ("change", "ci_low", "ci_high"),
    ("change", "change_low", "change_high"),
    ("judge", "judge_low", "judge_high"),
)
"""Columns of an estimate and its interval, in any table."""


@dataclass(frozen=True)
class ClaimsOptions:
    """Options of the command.

    Attributes:
        texts: Markdown files, notebooks, or folders of them.
        tables: Folder with CSV tables or card.json files; may be repeated.
    """

    texts: Positional[tuple[Path, ...]] = (Path("README.md"), Path("docs"))
    tables: tuple[Path, ...] = (Path("figures"), Path("benchmarks"), Path("probing/testbed/weights"))


PARSER = OptionsParser("probing.claims", ClaimsOptions, __doc__)


class Claim(NamedTuple):
    """An interval in a text, with its estimate (None without one), as printed."""

    file: Path
    line: int
    estimate: str | None
    low: str
    high: str

    def __str__(self) -> str:
        before = f"{self.estimate} " if self.estimate else ""
        return f"{self.file}:{self.line}: {before}[{self.low}, {self.high}]"


def find_claims(file: Path) -> list[Claim]:
    """Find the intervals of a Markdown file, or of the Markdown cells of a notebook."""
    text = file.read_text()
    if file.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    # Code is no claim, and a line may end within one.
    text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL)
    claims = []
    for match in _INTERVAL.finditer(text):
        before = _BEFORE.search(text[max(0, match.start() - 40) : match.start()])
        line = text.count("\n", 0, match.start()) + 1
        claims.append(Claim(file, line, before[1] if before else None, match[1], match[2]))
    return claims


def read_rows(folders: Sequence[Path]) -> Float[np.ndarray, "row 3"]:
    """Read every estimate with its interval from the CSV tables and the cards of some folders."""
    rows = [np.empty((0, 3))]
    for folder in folders:
        for path in sorted(folder.rglob("*.csv")):
            table = pd.read_csv(path, low_memory=False)
            for names in _COLUMNS:
                if set(names) <= set(table):
                    rows.append(table[list(names)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float))
        for path in sorted(folder.rglob("card.json")):
            rows += [np.array([row]) for row in _rows_of(json.loads(path.read_text()))]
    found = np.concatenate(rows)
    return found[np.isfinite(found[:, 1:]).all(axis=1)]


def _rows_of(value: Any) -> Iterator[list[float]]:
    if isinstance(value, dict):
        for names in _COLUMNS:
            if set(names) <= set(value) and all(isinstance(value[name], int | float) for name in names):
                yield [float(value[name]) for name in names]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _rows_of(part)


def is_backed(claim: Claim, rows: Float[np.ndarray, "row 3"]) -> bool:
    """Return whether some row rounds to a claim."""
    printed = [claim.estimate, claim.low, claim.high]
    columns = [column for column, text in enumerate(printed) if text is not None]
    texts = [text.replace("−", "-") for text in printed if text is not None]
    numbers = np.array([float(text) for text in texts])
    reach = np.array([0.5 * 10.0 ** -len(text.partition(".")[2]) for text in texts]) + 1e-9
    mirrored = -rows[:, [0, 2, 1]]
    return any(
        bool((np.abs(scale * table[:, columns] - numbers) <= reach).all(axis=1).any())
        for table in (rows, mirrored)
        for scale in (1.0, 100.0)
    )


def run(options: ClaimsOptions) -> int:
    files = [file for path in options.texts for file in _texts(path)]
    if not files:
        raise UserError("There is no text to check; give Markdown files, notebooks, or folders of them.")
    rows = read_rows(options.tables)
    if not len(rows):
        raise UserError(
            f"There is no table with intervals in {', '.join(map(str, options.tables))}; give other --tables."
        )
    claims = [claim for file in files for claim in find_claims(file)]
    wrong = [claim for claim in claims if not is_backed(claim, rows)]
    for claim in wrong:
        print(f"{claim}: no table has this")
    print(f"{len(claims) - len(wrong)} of {len(claims)} intervals in {len(files)} texts are in {len(rows):,} rows.")
    return 1 if wrong else OK


def _texts(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in (".md", ".ipynb"))
    if not path.is_file():
        raise UserError(f"There is no file {path}; give a Markdown file, a notebook, or a folder.")
    return [path]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
