"""The result of an audit, and its report for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

Severity = Literal["ok", "note", "warning", "leak"]
_EXAMPLES_SHOWN = 5
_CELL_WIDTH = 60


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Its name, which is also that of the file of its cases.
        severity: ``ok``, ``note`` (worth knowing), ``warning`` (mend it or say it), or ``leak`` (a split is no split).
        said: One sentence with the numbers.
        cases: The records it is about, one a row; empty where there are none.
    """

    check: str
    severity: Severity
    said: str
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
        """Whether a prompt or picture stands on two sides of a split."""
        return any(finding.severity == "leak" for finding in self.findings)

    def write(self, folder: Path) -> Path:
        """Write ``report.md``, ``findings.csv`` and each finding's cases as ``CHECK.csv``; return the report."""
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(
            [(f.check, f.severity, f.said, len(f.cases)) for f in self.findings],
            columns=["check", "severity", "said", "cases"],
        )
        table.to_csv(folder / "findings.csv", index=False)
        for finding in self.findings:
            cases = folder / f"{finding.check}.csv"
            # A file of an earlier audit would speak of what has been mended.
            cases.unlink(missing_ok=True)
            if len(finding.cases):
                finding.cases.to_csv(cases, index=False)
        report = folder / "report.md"
        report.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")
        return report

    def summary(self) -> str:
        """One line a finding."""
        width = max(len(finding.check) for finding in self.findings)
        return "\n".join(f"{f.severity:>7}  {f.check:<{width}}  {f.said}" for f in self.findings)

    def _lines(self) -> Iterator[str]:
        yield f"# Audit of {self.data}\n"
        of_splits = ", ".join(f"{count:,} {split}" for split, count in self.pairs.items())
        yield f"{self.items:,} items of {self.prompts:,} prompts; pairs: {of_splits}.\n"
        verdict = "**A split leaks.**" if self.leaks else "No split leaks, as far as these checks see."
        yield f"{verdict}\n"
        yield "| check | severity | found |\n|---|---|---|"
        for finding in self.findings:
            yield f"| {finding.check} | {finding.severity} | {_cell(finding.said, width=None)} |"
        for finding in self.findings:
            if len(finding.cases) == 0:
                continue
            yield f"\n## {finding.check}\n\n{finding.said}\n"
            yield f"| {' | '.join(map(str, finding.cases))} |\n|{'---|' * finding.cases.shape[1]}"
            for row in finding.cases.head(_EXAMPLES_SHOWN).itertuples(index=False):
                yield f"| {' | '.join(_cell(value) for value in row)} |"
            if len(finding.cases) > _EXAMPLES_SHOWN:
                yield f"\nThe first {_EXAMPLES_SHOWN} of {len(finding.cases):,}; all are in `{finding.check}.csv`."


def _cell(value: object, width: int | None = _CELL_WIDTH) -> str:
    said = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    if width is not None and len(said) > width:
        said = f"{said[: width - 1]}…"
    return said.replace("|", "\\|")
