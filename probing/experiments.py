"""The registry of experiments: what each asks, the function that answers, its tables and its figures.

Functions are named as ``module:function`` and imported when they are used. Adding an experiment takes its module in
``probing/analysis``, its figure in ``probing/plots``, and one entry here.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from probing.errors import UserError

Input = Literal["stores", "model", "data"]


@dataclass(frozen=True)
class FigureSpec:
    """A figure of an experiment.

    Attributes:
        name: Name of the figure's files.
        table: Name of the table that it is drawn from.
        draw: Function from the table to the figure.
        join: Function that adds the tables ``beside`` to the figure's table; empty without one.
        beside: Names of those tables; each is optional.
    """

    name: str
    table: str
    draw: str
    join: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        name: Name in commands.
        question: The question that it answers.
        module: Module in ``probing.analysis``; ``run_NAME(context, settings)`` returns the tables.
        settings: Name of the settings' class in that module.
        tables: Names of the tables; the first is the main one.
        figures: Its figures; the first is the main one.
        inputs: What it needs: stores, model, data.
        stores: Help for the stores.
        all_stores: The results are about all stores; else about the trained one.
        opens_pictures: It opens the data's pictures, always or on request.
    """

    name: str
    question: str
    module: str
    settings: str
    tables: tuple[str, ...]
    figures: tuple[FigureSpec, ...]
    inputs: tuple[Input, ...] = ("stores",)
    stores: str = "feature store"
    all_stores: bool = False
    opens_pictures: bool = False

    @property
    def key(self) -> str:
        """The name as a Python identifier."""
        return self.name.replace("-", "_")

    @property
    def run(self) -> Callable[..., Mapping[str, Any]]:
        return resolve(f"{self.module}:run_{self.key}")

    @property
    def settings_class(self) -> type:
        return resolve(f"{self.module}:{self.settings}")

    def hook(self, kind: str) -> Callable[..., Any] | None:
        """Return an optional function of the module, ``KIND_NAME``; None if there is none.

        ``identify(context, settings)`` returns the identity of the tables, ``options(context, settings)`` further
        options of the identity, ``tables(settings)`` the names of the tables, ``describe(context, settings)`` the plan,
        and ``report(tables)`` lines of a summary.
        """
        return getattr(pkgutil.resolve_name(self.module), f"{kind}_{self.key}", None)


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "reward-curve",
            "How well can people's choices be read from each block, beside every control?",
            "probing.analysis.reward_curve",
            "RewardCurveSettings",
            (
                "reward_curve",
                "comparisons",
                "outcomes",
                "margins",
                "measures",
                "blocks",
                "massive",
                "rewards",
                "linearity",
            ),
            (
                FigureSpec(
                    "reward_curves",
                    "reward_curve",
                    "probing.plots:figure_reward_curves",
                    "probing.analysis.reward_curve:mark_curve",
                    ("measures", "stages"),
                ),
                FigureSpec("comparisons", "comparisons", "probing.plots:figure_comparisons"),
            ),
            stores="feature store of the trained backbone; and one of random weights as a control",
        ),
        Experiment(
            "similarity",
            "How alike are the blocks, and which stages do they form?",
            "probing.analysis.similarity",
            "SimilaritySettings",
            ("similarity", "trajectory_similarity", "stages", "stage_similarity", "similarity_by_prompt"),
            (
                FigureSpec("image_similarity", "similarity", "probing.plots:figure_image_similarity"),
                FigureSpec(
                    "trajectory_similarity", "trajectory_similarity", "probing.plots:figure_trajectory_similarity"
                ),
                FigureSpec("stage_similarity", "stage_similarity", "probing.plots:figure_stage_similarity"),
            ),
            inputs=("model", "data"),
            opens_pictures=True,
        ),
        Experiment(
            "token-maps",
            "Which image tokens carry a probe's margin?",
            "probing.analysis.token_maps",
            "TokenMapSettings",
            ("token_maps",),
            (FigureSpec("token_maps", "token_maps", "probing.plots:figure_token_maps"),),
            inputs=("stores", "model", "data"),
            opens_pictures=True,
            stores="feature store with the mean of image tokens",
        ),
        Experiment(
            "combinations",
            "Do several blocks together read more than the best one, and is it their stages or their width?",
            "probing.analysis.combinations",
            "CombinationSettings",
            ("combinations",),
            (FigureSpec("combinations", "combinations", "probing.plots:figure_combinations"),),
            stores="feature store; several for several models",
            all_stores=True,
        ),
        Experiment(
            "noise",
            "Which noise level is best, what do several levels or draws add, and how far does a new draw move a reward?",
            "probing.analysis.noise",
            "NoiseSettings",
            ("noise",),
            (
                FigureSpec("noise", "noise", "probing.plots:figure_noise"),
                FigureSpec("noise_draws", "noise", "probing.plots:figure_noise_draws"),
            ),
            stores="feature store; further ones of another seed, or of shared pair noise, are other draws of the noise",
        ),
        Experiment(
            "scaling",
            "Does accuracy rise with parameters, FLOPs and training steps?",
            "probing.analysis.scaling",
            "ScalingSettings",
            ("scaling",),
            (
                FigureSpec("scaling", "scaling", "probing.plots:figure_scaling"),
                FigureSpec("depth_curves", "scaling", "probing.plots:figure_depth_curves"),
            ),
            stores="feature store; one a model",
        ),
        Experiment(
            "controls",
            "How much of the best accuracy remains without a trained backbone, without the prompt, or from shortcuts?",
            "probing.analysis.controls",
            "ControlSettings",
            ("controls",),
            (FigureSpec("controls", "controls", "probing.plots:figure_controls"),),
            stores="feature store of the trained backbone, and any of random weights, foreign prompts, empty prompts",
            opens_pictures=True,
        ),
    )
}
"""All experiments by name, in the order of the page."""

FIGURES: dict[str, FigureSpec] = {
    figure.name: figure for experiment in EXPERIMENTS.values() for figure in experiment.figures
}
"""All figures by name."""


def experiment_of(name: str) -> Experiment:
    """Return an experiment by name.

    Raises:
        UserError: There is none of this name.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"Unknown experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def resolve(name: str) -> Any:
    """Import a function by ``module:name``."""
    return pkgutil.resolve_name(name)
