"""One HTML page that holds all it shows: text, tables, and pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

_STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e5e5e5; }
th { font-weight: 600; }
img { max-width: 100%; } figure { margin: .8rem 0; } figcaption { font-size: .85rem; color: #555; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; } .pictures figure { width: 17.5rem; margin: 0; }
.pictures img { width: 8.5rem; image-rendering: pixelated; }
.missing { color: #a33; }
nav a { margin-right: 1rem; }
"""


class Page:
    """Gathers sections; :meth:`write` makes the file."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str) -> None:
        anchor = title.lower().replace(" ", "-")
        self._sections.append(f'<a href="#{anchor}">{html.escape(title)}</a>')
        self._parts.append(f'<h2 id="{anchor}">{html.escape(title)}</h2>')

    def heading(self, title: str) -> None:
        self._parts.append(f"<h3>{html.escape(title)}</h3>")

    def say(self, text: str) -> None:
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def miss(self, text: str) -> None:
        """Say that something is not there."""
        self._parts.append(f'<p class="missing">{html.escape(text)}</p>')

    def table(self, table: pd.DataFrame) -> None:
        self._parts.append(table.to_html(index=False, border=0, na_rep="–", escape=True))

    def figure(self, figure: Figure, caption: str) -> None:
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=130, metadata={"Software": None})
        self._picture(drawn.getvalue(), caption)

    def file(self, path: Path, caption: str) -> None:
        """Show a PNG file."""
        self._picture(path.read_bytes(), caption)

    def pictures(self, groups: Sequence[tuple[Sequence[Image.Image], str]]) -> None:
        """Show small pictures, some side by side over each caption."""
        shown = []
        for images, caption in groups:
            inside = "".join(f'<img src="{_embed(_png(image))}" alt=""> ' for image in images)
            shown.append(f"<figure>{inside}<figcaption>{html.escape(caption)}</figcaption></figure>")
        self._parts.append(f'<div class="pictures">{"".join(shown)}</div>')

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f"<title>{html.escape(self.title)}</title>\n"
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(self.title)}</h1>\n"
            f"<nav>{''.join(self._sections)}</nav>\n" + "\n".join(self._parts) + "\n</body>\n</html>\n"
        )

    def _picture(self, data: bytes, caption: str) -> None:
        said = html.escape(caption)
        self._parts.append(f'<figure><img src="{_embed(data)}" alt="{said}"><figcaption>{said}</figcaption></figure>')


def _png(image: Image.Image) -> bytes:
    drawn = BytesIO()
    image.save(drawn, format="PNG")
    return drawn.getvalue()


def _embed(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
