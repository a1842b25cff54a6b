"""Copy what the site shows into ``build/site-source``, in the repository's own folders: ``make docs`` runs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "build" / "site-source"
SHOWN = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs", "notebooks", "figures", "benchmarks", "probing")
SUFFIXES = {".md", ".ipynb", ".png", ".csv"}


def main() -> None:
    shutil.rmtree(SOURCE, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "--", *SHOWN], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if Path(name).suffix in SUFFIXES:
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, SOURCE / name)


if __name__ == "__main__":
    main()
