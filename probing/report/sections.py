"""Headings and questions of the page's sections, in the page's order. A new experiment needs one entry here."""

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


SECTIONS: dict[str, Section] = {
    "reward_curve": Section(
        "Reward curve", "How often does a probe on each block pick the chosen image, at which noise level?"
    ),
    "comparisons": Section(
        "Comparisons with the controls",
        "Is the trained backbone better than the same architecture with fresh weights, and than the latents alone?",
    ),
    "controls": Section(
        "Controls",
        "How much of the best accuracy remains without a trained backbone, without the prompt, or with image "
        "statistics alone?",
    ),
    "noise": Section("Noise", "Which noise level is best for which block, and what do several levels or draws add?"),
    "similarity": Section(
        "Block similarity", "Which blocks hold similar features, and how much does it vary by prompt?"
    ),
    "trajectory_similarity": Section(
        "Block similarity while denoising", "Does the similarity of blocks change along a denoising trajectory?"
    ),
    "stage_similarity": Section("Similarity within and across stages", "Are blocks more similar within a stage?"),
    "stages": Section("Stages", "Into which runs of similar blocks does the depth divide, and how stable are they?"),
    "combinations": Section(
        "Combinations of blocks", "Do blocks of different stages predict more together, or is it the wider head?"
    ),
    "scaling": Section("Scaling", "Does accuracy rise with parameters, compute and training steps?"),
    "token_maps": Section("Token maps", "Which regions of an image contribute to its reward?"),
    "linearity": Section("Linearity", "Does a network predict more than a linear probe on the same features?"),
    "measures": Section(
        "Beyond accuracy",
        "How many bits do the margins carry, are they calibrated, and which blocks may be the best of their curve?",
    ),
    "massive": Section("Massive activations", "In which blocks are a few channels far larger than all others?"),
    "similarity_by_prompt": Section(
        "Block similarity by prompt", "How similar are the blocks on each prompt's images?"
    ),
    "rewards": Section("Rewards", "What reward does the best probe of each facet give every held-out item?"),
    "outcomes": Section("Outcomes", "Which test pairs does each cell order correctly?"),
    "margins": Section("Margins", "What margin does each cell give every test pair?"),
}
"""By table. Tables without an entry come after these, under their own names."""


def section_of(table: str) -> Section:
    """Return a table's entry, or one made from its name."""
    return SECTIONS.get(table) or Section(heading(table), "")


def position_of(table: str) -> int:
    """Return a table's position on the page; tables without an entry come last."""
    return list(SECTIONS).index(table) if table in SECTIONS else len(SECTIONS)


def heading(name: str) -> str:
    """Make a heading from a file's name."""
    text = name.replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]
