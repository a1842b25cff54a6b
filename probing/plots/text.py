"""Names in figures: drawn literally, in fonts that have their characters, never read as markup."""

from __future__ import annotations

import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

LONGEST = 60
"""Most characters of a name in a figure."""
_LINE = 38
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK TC",
    "Noto Sans CJK KR",
    "Noto Sans JP",
    "Noto Sans SC",
    "Source Han Sans",
    "Source Han Sans JP",
    "Source Han Sans SC",
    "IPAexGothic",
    "IPAGothic",
    "TakaoGothic",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "Yu Gothic",
    "Meiryo",
    "Malgun Gothic",
    "NanumGothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Segoe UI Symbol",
    "Symbola",
)
_GLYPH = re.compile(r"Glyph (\d+) ")
_missing: ContextVar[set[str] | None] = ContextVar("missing", default=None)


@cache
def fonts() -> list[str]:
    """List the installed fonts in the order of search for a character; the first has Latin and Greek."""
    installed = set(font_manager.fontManager.get_font_names())
    return [name for name in _FONTS if name in installed]


def shown_name(text: object, longest: int = LONGEST) -> str:
    """Write a name that a user gave (a facet, model, reward, stage) for a figure.

    White space becomes single spaces, other control characters a replacement character; a long name is cut in its
    middle and wrapped.
    """
    shown = " ".join(_visible(str(text)).split())
    if len(shown) > longest:
        end = longest // 3
        shown = f"{shown[: longest - end - 1]}…{shown[-end:]}"
    return shown if len(shown) <= _LINE else textwrap.fill(shown, _LINE, break_on_hyphens=False)


def shown_names(texts: pd.Series, longest: int = LONGEST) -> str:
    """Write several names with commas: each once, without those that are missing."""
    return ", ".join(shown_name(text, longest) for text in texts.dropna().unique())


@contextmanager
def missing_characters() -> Iterator[set[str]]:
    """Collect the characters that no font has, from all figures that are written inside."""
    characters: set[str] = set()
    token = _missing.set(characters)
    try:
        yield characters
    finally:
        _missing.reset(token)


def missing_line(characters: set[str]) -> str:
    """Write one line about characters that no font has."""
    more = f" and {len(characters) - 12} more" if len(characters) > 12 else ""
    shown = " ".join(sorted(characters)[:12]) + more
    return f"No font on this machine has {shown}: drawn as boxes; install a font that has them, such as Noto Sans CJK."


@contextmanager
def writing(figure: Figure) -> Iterator[None]:
    """Prepare a figure's text for a file, and report missing characters once instead of once a character."""
    for text in figure.findobj(Text):
        shown = _visible(text.get_text())
        if shown != text.get_text():
            text.set_text(shown)
    characters: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=r"Glyph \d+ ")
        yield
    for warning in caught:
        if match := _GLYPH.match(str(warning.message)):
            characters.add(chr(int(match[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    collected = _missing.get()
    if collected is not None:
        collected |= characters
    elif characters:
        warnings.warn(missing_line(characters), stacklevel=3)


def _visible(text: str) -> str:
    """Replace control characters and lone surrogates, which no font or file has; line breaks stay."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(one: str) -> str:
    # str.isprintable is False for characters that are newer than this Python, but fonts may have them.
    if one == "\n" or not (
        unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or _is_invisible(one) or one in "\ufffe\uffff"
    ):
        return one
    return "" if _is_invisible(one) else " " if one.isspace() else "\ufffd"


def _is_invisible(one: str) -> bool:
    """Return whether it is a joiner or a direction of writing, which have no glyph."""
    return any(first <= one <= last for first, last in ("\u200b\u200f", "\u202a\u202e", "\u2060\u2069", "\ufeff\ufeff"))


def plain_text() -> dict[Any, Any]:
    """Return matplotlib settings that draw ``$`` as a dollar and search every font."""
    return {"text.parse_math": False, "font.family": fonts() or mpl.rcParams["font.family"]}
