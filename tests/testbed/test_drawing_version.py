"""The version of drawn images changes with everything that affects the drawing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from probing.testbed import preferences, shortcut

SOURCES = Path(preferences.__file__).parent


@pytest.fixture
def version(tmp_path, monkeypatch):
    """Compute the version from a copy of the sources that a test may edit."""
    for source in SOURCES.glob("*.py"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(preferences, "__file__", str(tmp_path / "preferences.py"))
    return preferences.drawing_version.__wrapped__


@pytest.mark.parametrize("name", ["render.py", "scenes.py", "degradations.py", "preferences.py", "shortcut.py"])
def test_edited_source_changes_the_version(version, tmp_path, name):
    before = version(0)
    assert before == version(0) == preferences.drawing_version(0)
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert version(0) != before


def test_seed_sheet_and_libraries_change_the_version(version, monkeypatch):
    versions = {version(0), version(1)}
    monkeypatch.setattr(preferences.generated, "digest", lambda: "other")
    versions.add(version(0))
    monkeypatch.setattr(preferences.PIL, "__version__", "0")
    versions.add(version(0))
    assert len(versions) == 4


def test_both_data_sets_stamp_their_images():
    stamps = {data.stamp_of(data.items["item_id"].iloc[0]) for data in (preferences.load(), shortcut.load())}
    assert None not in stamps and len(stamps) == 2
    again = preferences.load(split="test")
    assert again.stamp_of("p02000-right") == preferences.load().stamp_of("p02000-right")
