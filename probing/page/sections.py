"""What each experiment asks, and the order in which the page tells them. A new experiment needs one entry here."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "What a frozen text-to-image transformer knows of preferences"
ASKED = (
    "What does a frozen text-to-image transformer know about whether people will like an image, where in its depth, "
    "at which noise level, and is that knowledge used? Small probes read the features of every block and say which of "
    "two images of one prompt was chosen; controls beside them say what that is worth."
)


@dataclass(frozen=True)
class Section:
    """An experiment as the page tells it.

    Attributes:
        title: Heading.
        question: What was asked, in one sentence.
    """

    title: str
    question: str


SECTIONS: dict[str, Section] = {
    "reward_curve": Section(
        "Reward curve", "How often does a probe on each block pick the image that was chosen, at which noise level?"
    ),
    "comparisons": Section(
        "Comparisons with the controls",
        "Is the trained backbone better than the same architecture with fresh weights, and than the bare latents?",
    ),
    "controls": Section(
        "Controls and floors",
        "How much of the best accuracy can be had without a trained backbone, without the prompt, or from looks?",
    ),
    "noise": Section(
        "Noise", "Which noise level suits which block, and what do several levels or draws know together?"
    ),
    "similarity": Section("Block similarity", "Which blocks hold alike features, and how steadily over prompts?"),
    "trajectory_similarity": Section(
        "Block similarity while denoising", "Does the likeness of blocks change along a denoising trajectory?"
    ),
    "stage_similarity": Section("Stages", "Into which runs of similar blocks does the depth fall?"),
    "stages": Section(
        "Stages found", "Into which runs of similar blocks does the depth fall, and how stable are they?"
    ),
    "combinations": Section(
        "Combinations of blocks", "Do blocks of different stages know more together, or is it the wider head?"
    ),
    "scaling": Section("Scaling", "Does accuracy grow with parameters, compute and training steps?"),
    "token_maps": Section("Token maps", "Which regions of an image carry its reward?"),
    "linearity": Section("Linearity", "Is the knowledge linear, or does a network read more from the same features?"),
    "measures": Section(
        "Beyond accuracy",
        "How many bits do the margins carry, are they calibrated, and which blocks may be the best of their curve?",
    ),
    "massive": Section("Massive activations", "Where do a few channels dwarf all the others?"),
    "similarity_by_prompt": Section("Block similarity by prompt", "How alike are the blocks on each prompt's images?"),
    "rewards": Section("Rewards", "What reward does the best probe of each facet give every item that was held out?"),
    "outcomes": Section("Outcomes", "Which test pair did each cell get right?"),
    "margins": Section("Margins", "How far apart did each cell place the two images of every test pair?"),
}
"""By table, in the page's order. Tables without an entry are shown after these, under their own names."""


def section_of(table: str) -> Section:
    """Give a table's entry, or one made of its name."""
    return SECTIONS.get(table) or Section(in_words(table), "")


def place_of(table: str) -> int:
    """Give a table's place in the order; those without an entry are last."""
    names = list(SECTIONS)
    return names.index(table) if table in SECTIONS else len(names)


def in_words(name: str) -> str:
    """Make a heading of a file's name."""
    said = name.replace("_", " ").replace("-", " ").strip()
    return said[:1].upper() + said[1:]
