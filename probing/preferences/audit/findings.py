"""The findings of an audit, and their report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

Severity = Literal["ok", "note", "warning", "leak"]
_EXAMPLES = 5
_CELL_WIDTH = 60


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check, and of the file of its cases.
        severity: ``ok``, ``note``, ``warning`` (fix or report it), or ``leak`` (training and test data overlap).
        statement: One sentence with the numbers.
        cases: The affected records, one a row; empty if there are none.
    """

    check: str
    severity: Severity
    statement: str
    cases: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Audit:
    """All findings on one data set."""

    data: str
    items: int
    prompts: int
    pairs: dict[str, int]
    findings: list[Finding]

    @property
    def leaks(self) -> bool:
        """Whether a prompt or picture is in two splits."""
        return any(finding.severity == "leak" for finding in self.findings)

    def write(self, folder: Path) -> Path:
        """Write ``report.md``, ``findings.csv`` and each finding's cases as ``CHECK.csv``; return the report's path."""
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(
            [(f.check, f.severity, f.statement, len(f.cases)) for f in self.findings],
            columns=["check", "severity", "statement", "cases"],
        )
        table.to_csv(folder / "findings.csv", index=False)
        for finding in self.findings:
            cases = folder / f"{finding.check}.csv"
            # Remove the cases of an earlier audit.
            cases.unlink(missing_ok=True)
            if len(finding.cases):
                finding.cases.to_csv(cases, index=False)
        report = folder / "report.md"
        report.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")
        return report

    def summary(self) -> str:
        """Format one line a finding."""
        width = max(len(finding.check) for finding in self.findings)
        return "\n".join(f"{f.severity:>7}  {f.check:<{width}}  {f.statement}" for f in self.findings)

    def _lines(self) -> Iterator[str]:
        yield f"# Audit of {self.data}\n"
        counts = ", ".join(f"{count:,} {split}" for split, count in self.pairs.items())
        yield f"{self.items:,} items of {self.prompts:,} prompts; pairs: {counts}.\n"
        yield "**A split leaks.**\n" if self.leaks else "These checks find no leak between splits.\n"
        yield "| check | severity | result |\n|---|---|---|"
        for finding in self.findings:
            yield f"| {finding.check} | {finding.severity} | {_cell(finding.statement, width=None)} |"
        for finding in self.findings:
            if len(finding.cases) == 0:
                continue
            yield f"\n## {finding.check}\n\n{finding.statement}\n"
            yield f"| {' | '.join(map(str, finding.cases))} |\n|{'---|' * finding.cases.shape[1]}"
            for row in finding.cases.head(_EXAMPLES).itertuples(index=False):
                yield f"| {' | '.join(_cell(value) for value in row)} |"
            if len(finding.cases) > _EXAMPLES:
                yield f"\nThe first {_EXAMPLES} of {len(finding.cases):,}; all are in `{finding.check}.csv`."


def _cell(value: object, width: int | None = _CELL_WIDTH) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    if width is not None and len(text) > width:
        text = f"{text[: width - 1]}…"
    return text.replace("|", "\\|")
