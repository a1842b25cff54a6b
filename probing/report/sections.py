"""Headings of the page, and the heading and question of a table."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Human preference in a frozen text-to-image transformer"
QUESTION = (
    "What does a frozen text-to-image transformer encode about whether people will like an image, in which blocks, "
    "at which noise level? Small probes on the features of every block predict which of two images of one prompt "
    "was chosen; controls show how much of that accuracy needs the trained backbone."
)


@dataclass(frozen=True)
class Section:
    """Heading of an experiment on the page, and its question in one sentence."""

    title: str
    question: str


def heading(name: str) -> str:
    """Make a heading from a file's name."""
    text = name.replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]
