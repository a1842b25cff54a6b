"""A figure as a page carries it: inside a data URI, with its caption and a description as text."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass

from matplotlib.figure import Figure

from probing.page.sections import in_words
from probing.page.sources import Drawn
from probing.plots.save import DPI, draw_figure
from probing.plots.style import house_style
from probing.plots.text import writing

_MOST_PANELS = 12
_PIXELS_AN_INCH = 96


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        name: Of the figure.
        title: What it is headed by.
        caption: What its marks mean; empty if the figure does not say.
        alt: What it shows, for those who do not see it.
        uri: The picture itself.
        width: Natural width in CSS pixels.
        height: Likewise.
    """

    name: str
    title: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int


def draw_picture(name: str, drawn: Drawn) -> Picture:
    """Draw a figure, as vectors unless a raster is lighter, the same bytes each time.

    Raises:
        NothingToDraw: The table was measured with less than the figure shows.
        UserError: The table does not hold what the figure shows.
    """
    figure = draw_figure(name, drawn.draw, drawn.table)
    caption = _take_caption(figure)
    title = _plain(figure.get_suptitle()) or in_words(name)
    width, height = figure.get_size_inches() * _PIXELS_AN_INCH
    vectors, raster = io.BytesIO(), io.BytesIO()
    with house_style(), writing(figure):
        figure.savefig(vectors, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(raster, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
    light = len(vectors.getvalue()) <= len(raster.getvalue())
    uri = data_uri("image/svg+xml", vectors.getvalue()) if light else data_uri("image/png", raster.getvalue())
    return Picture(name, title, caption, _describe(figure, title), uri, round(width), round(height))


def data_uri(kind: str, content: bytes) -> str:
    """Put bytes into an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _take_caption(figure: Figure) -> str:
    """Take the caption out of the figure: on a page it is text, which wraps, scales and can be read aloud.

    The house's figures carry it as the title of their legend, or as the label under all axes; what is no sentence names
    the legend or the axes, and stays.
    """
    said = []
    for legend in figure.legends:
        text = _plain(legend.get_title().get_text())
        if text.endswith("."):
            said.append(text)
            legend.set_title("")
    below = _plain(figure.get_supxlabel())
    if below.endswith("."):
        said.append(below)
        figure.supxlabel("")
    return " ".join(said)


def _describe(figure: Figure, title: str) -> str:
    """Name the panels and what their axes measure; the numbers are in the table beneath."""
    axes = [ax for ax in figure.axes if ax.get_visible()]
    panels = list(dict.fromkeys(text for ax in axes if (text := _plain(ax.get_title(), between=", "))))
    shown = "; ".join(panels[:_MOST_PANELS]) + (
        f"; and {len(panels) - _MOST_PANELS} more" * (len(panels) > _MOST_PANELS)
    )
    across = " and ".join(dict.fromkeys(text for ax in axes if (text := _plain(ax.get_xlabel()))))
    up = " and ".join(dict.fromkeys(text for ax in axes if (text := _plain(ax.get_ylabel()))))
    parts = [
        title.rstrip("."),
        f"Panels: {shown}" if shown else "",
        f"Horizontal: {across}" if across else "",
        f"Vertical: {up}" if up else "",
        "The numbers are in the table below",
    ]
    return ". ".join(part for part in parts if part) + "."


def _plain(text: str, between: str = " ") -> str:
    """Undo line breaks; a word broken after its hyphen grows together again."""
    return re.sub(r"\s*\n\s*", between, re.sub(r"(?<=\w)-\n\s*(?=\w)", "-", text)).strip()
