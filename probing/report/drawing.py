"""A figure on the page: a data URI, with its caption and a description as text."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass

from matplotlib.figure import Figure

from probing.plots.style import house_style
from probing.plots.text import writing
from probing.report.sections import heading
from probing.report.sources import FigureInput

DPI = 200
_MAX_PANELS = 12
_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        name: Name of the figure.
        title: Title of the figure.
        caption: Meaning of its marks; empty if the figure has no caption.
        alt: Description for readers who cannot see it.
        uri: The picture as a data URI.
        width: Natural width in CSS pixels.
        height: Natural height in CSS pixels.
    """

    name: str
    title: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int


def draw_picture(inputs: FigureInput) -> Picture:
    """Draw a figure as SVG, or as PNG if that is smaller; the same table gives the same bytes.

    Raises:
        NothingToDraw: The table was measured with less than the figure shows.
        UserError: The table does not hold what the figure shows.
    """
    figure = inputs.figure
    caption = _take_caption(figure)
    title = _plain(figure.get_suptitle()) or heading(inputs.name)
    width, height = figure.get_size_inches() * _PIXELS_PER_INCH
    vectors, raster = io.BytesIO(), io.BytesIO()
    with house_style(), writing(figure):
        figure.savefig(vectors, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(raster, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
    uri = min(data_uri("image/svg+xml", vectors.getvalue()), data_uri("image/png", raster.getvalue()), key=len)
    return Picture(inputs.name, title, caption, _describe(figure, title), uri, round(width), round(height))


def data_uri(media_type: str, content: bytes) -> str:
    """Encode bytes as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _take_caption(figure: Figure) -> str:
    """Take the caption out of the figure: on a page it is text, which wraps, scales and can be read aloud.

    The caption is the title of a legend or the label below all axes, if it ends like a sentence; other text there
    names the legend or the axes, and stays.
    """
    sentences = []
    for legend in figure.legends:
        text = _plain(legend.get_title().get_text())
        if text.endswith("."):
            sentences.append(text)
            legend.set_title("")
    below = _plain(figure.get_supxlabel())
    if below.endswith("."):
        sentences.append(below)
        figure.supxlabel("")
    return " ".join(sentences)


def _describe(figure: Figure, title: str) -> str:
    """Name the panels and what their axes measure; the numbers are in the table below the figure."""
    axes = [ax for ax in figure.axes if ax.get_visible()]
    panels = list(dict.fromkeys(text for ax in axes if (text := _plain(ax.get_title(), between=", "))))
    more = f"; and {len(panels) - _MAX_PANELS} more" if len(panels) > _MAX_PANELS else ""
    horizontal = " and ".join(dict.fromkeys(text for ax in axes if (text := _plain(ax.get_xlabel()))))
    vertical = " and ".join(dict.fromkeys(text for ax in axes if (text := _plain(ax.get_ylabel()))))
    parts = [
        title.rstrip("."),
        f"Panels: {'; '.join(panels[:_MAX_PANELS])}{more}" if panels else "",
        f"Horizontal: {horizontal}" if horizontal else "",
        f"Vertical: {vertical}" if vertical else "",
        "The numbers are in the table below",
    ]
    return ". ".join(part for part in parts if part) + "."


def _plain(text: str, between: str = " ") -> str:
    """Undo line breaks, and join a word that was broken after its hyphen."""
    return re.sub(r"\s*\n\s*", between, re.sub(r"(?<=\w)-\n\s*(?=\w)", "-", text)).strip()
