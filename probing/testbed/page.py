"""One self-contained HTML page: text, tables, and images inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from probing.files import write_text
from probing.report.drawing import data_uri


class Page:
    """Collects the sections of a page; :meth:`write` renders them."""

    def __init__(self, title: str, lead: str) -> None:
        self.title, self.lead = title, lead
        self._sections: list[dict[str, Any]] = []

    def section(self, title: str) -> None:
        """Begin a section; all later parts belong to it."""
        self._sections.append({"title": title, "anchor": title.lower().replace(" ", "-"), "parts": []})

    def heading(self, title: str) -> None:
        self._add("heading", text=title)

    def paragraph(self, text: str) -> None:
        self._add("paragraph", text=text)

    def missing(self, text: str) -> None:
        """Name something that is missing, and the command that makes it."""
        self._add("missing", text=text)

    def table(self, table: pd.DataFrame) -> None:
        self._add("table", table=Markup(table.to_html(index=False, border=0, na_rep="–", escape=True)))

    def figure(self, figure: Figure, caption: str) -> None:
        content = BytesIO()
        figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
        self._add("figure", text=caption, image=data_uri("image/png", content.getvalue()))

    def image_file(self, path: Path, caption: str) -> None:
        """Show a PNG file."""
        self._add("figure", text=caption, image=data_uri("image/png", path.read_bytes()))

    def image_groups(self, groups: Sequence[tuple[Sequence[Image.Image], str]]) -> None:
        """Show groups of small images, each group side by side over its caption."""
        self._add("image_groups", groups=[([_png(image) for image in images], caption) for images, caption in groups])

    def write(self, path: Path) -> None:
        """Write the page as one file."""
        style = (resources.files("probing.report") / "page.css").read_text(encoding="utf-8")
        text = _template().render(title=self.title, lead=self.lead, sections=self._sections, style=Markup(style))
        write_text(path, text)

    def _add(self, kind: str, **content: Any) -> None:
        self._sections[-1]["parts"].append({"kind": kind, **content})


def _png(image: Image.Image) -> str:
    content = BytesIO()
    image.save(content, format="PNG")
    return data_uri("image/png", content.getvalue())


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja")
