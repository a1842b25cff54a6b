"""Blank pictures, for tests of what stands around figures: rendering is most of the time of a page."""

from __future__ import annotations

import io

import pytest
from matplotlib.figure import Figure
from PIL import Image

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'


def blank(kind: str) -> bytes:
    if kind != "png":
        return SVG if kind == "svg" else b"%PDF-1.4\n"
    picture = io.BytesIO()
    Image.new("RGB", (1, 1)).save(picture, "png")
    return picture.getvalue()


def savefig(self: Figure, file: io.BytesIO, *, format: str, **options: object) -> None:
    file.write(blank(format))


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build every figure, and write a blank picture of it."""
    monkeypatch.setattr(Figure, "savefig", savefig)
