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
        join: Function that selects the figure's rows of the table, or adds the tables ``beside``; empty without one.
        beside: Names of those tables; each is optional.
    """

    name: str
    table: str
    draw: str
    join: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of an experiment, with its heading on the page and the question that it answers."""

    name: str
    title: str
    question: str


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        name: Name in commands.
        question: The question that it answers.
        module: Module in ``probing.analysis``; ``run_NAME(context, settings)`` returns the tables.
        settings: Name of the settings' class in that module.
        tables: Its tables; the first is the main one.
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
    tables: tuple[Table, ...]
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
    def table_names(self) -> tuple[str, ...]:
        return tuple(table.name for table in self.tables)

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


@dataclass(frozen=True)
class Study:
    """What is measured where the truth is known; a command of its own writes the tables and figures.

    Attributes:
        command: Module of the command.
        tables: Tables with a figure.
        figures: One a table, of its name.
    """

    command: str
    tables: tuple[Table, ...]
    figures: tuple[FigureSpec, ...]


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "reward-curve",
            "How well can people's choices be read from each block, beside every control?",
            "probing.analysis.reward_curve",
            "RewardCurveSettings",
            tables=(
                Table(
                    "reward_curve",
                    "Reward curve",
                    "How often does a probe on each block pick the chosen image, at which noise level?",
                ),
                Table(
                    "comparisons",
                    "Comparisons with the controls",
                    "Is the trained backbone better than the same architecture with random weights, and than the "
                    "latents alone?",
                ),
                Table(
                    "linearity", "Linearity", "Does a network predict more than a linear probe on the same features?"
                ),
                Table(
                    "measures",
                    "Beyond accuracy",
                    "How many bits do the margins carry, are they calibrated, and which blocks may be the best of "
                    "their curve?",
                ),
                Table("blocks", "Blocks", "Which blocks differ from the best block of their curve?"),
                Table(
                    "massive", "Massive activations", "In which blocks are a few channels far larger than all others?"
                ),
                Table("rewards", "Rewards", "What reward does the best probe of each facet give every held-out item?"),
                Table("outcomes", "Outcomes", "Which test pairs does each cell order correctly?"),
                Table("margins", "Margins", "What margin does each cell give every test pair?"),
            ),
            figures=(
                FigureSpec(
                    "reward_curves",
                    "reward_curve",
                    "probing.plots:figure_reward_curves",
                    "probing.analysis.reward_curve:mark_curve",
                    ("measures", "stages"),
                ),
                FigureSpec(
                    "headline",
                    "reward_curve",
                    "probing.plots:figure_headline",
                    "probing.analysis.reward_curve:headline_rows",
                ),
                FigureSpec("comparisons", "comparisons", "probing.plots:figure_comparisons"),
            ),
            stores="feature store of the trained backbone; and one of random weights as a control",
        ),
        Experiment(
            "controls",
            "How much of the best accuracy remains without a trained backbone, without the prompt, or from shortcuts?",
            "probing.analysis.controls",
            "ControlSettings",
            tables=(
                Table(
                    "controls",
                    "Controls",
                    "How much of the best accuracy remains without a trained backbone, without the prompt, or with "
                    "image statistics alone?",
                ),
            ),
            figures=(FigureSpec("controls", "controls", "probing.plots:figure_controls"),),
            stores="feature store of the trained backbone, and any of random weights, foreign prompts, empty prompts",
            opens_pictures=True,
        ),
        Experiment(
            "noise",
            "Which noise level is best, what do several levels or draws add, and how far does a draw move a reward?",
            "probing.analysis.noise",
            "NoiseSettings",
            tables=(
                Table(
                    "noise",
                    "Noise",
                    "Which noise level is best for which block, and what do several levels or draws add?",
                ),
            ),
            figures=(
                FigureSpec("noise", "noise", "probing.plots:figure_noise"),
                FigureSpec("noise_draws", "noise", "probing.plots:figure_noise_draws"),
            ),
            stores="feature store; further ones of another seed, or of shared pair noise, are other draws of the noise",
        ),
        Experiment(
            "similarity",
            "How alike are the blocks, and which stages do they form?",
            "probing.analysis.similarity",
            "SimilaritySettings",
            tables=(
                Table(
                    "similarity",
                    "Block similarity",
                    "Which blocks hold similar features, and how much does it vary by prompt?",
                ),
                Table(
                    "trajectory_similarity",
                    "Block similarity while denoising",
                    "Does the similarity of blocks change along a denoising trajectory?",
                ),
                Table(
                    "stage_similarity", "Similarity within and across stages", "Are blocks more similar within a stage?"
                ),
                Table(
                    "stages",
                    "Stages",
                    "Into which runs of similar blocks does the depth divide, and how stable are they?",
                ),
                Table(
                    "similarity_by_prompt",
                    "Block similarity by prompt",
                    "How similar are the blocks on each prompt's images?",
                ),
            ),
            figures=(
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
            "combinations",
            "Do several blocks together read more than the best one, and is it their stages or their width?",
            "probing.analysis.combinations",
            "CombinationSettings",
            tables=(
                Table(
                    "combinations",
                    "Combinations of blocks",
                    "Do blocks of different stages predict more together, or is it the wider head?",
                ),
            ),
            figures=(FigureSpec("combinations", "combinations", "probing.plots:figure_combinations"),),
            stores="feature store; several for several models",
            all_stores=True,
        ),
        Experiment(
            "scaling",
            "Does accuracy rise with parameters, FLOPs and training steps?",
            "probing.analysis.scaling",
            "ScalingSettings",
            tables=(Table("scaling", "Scaling", "Does accuracy rise with parameters, compute and training steps?"),),
            figures=(
                FigureSpec("scaling", "scaling", "probing.plots:figure_scaling"),
                FigureSpec("depth_curves", "scaling", "probing.plots:figure_depth_curves"),
            ),
            stores="feature store; one a model",
        ),
        Experiment(
            "factorial",
            "How much do head, stream, noise level and model each move accuracy, and does one change another's effect?",
            "probing.analysis.factorial",
            "FactorialSettings",
            tables=(
                Table(
                    "factorial",
                    "Factorial design",
                    "How much do head, stream, noise level and model move accuracy, alone and together?",
                ),
            ),
            figures=(
                FigureSpec("factorial", "factorial", "probing.plots:figure_factorial"),
                FigureSpec(
                    "factorial_effects",
                    "factorial",
                    "probing.plots:figure_factorial_effects",
                    "probing.analysis.factorial:effect_rows",
                ),
            ),
            stores="feature store of trained weights; several for several models",
            all_stores=True,
        ),
        Experiment(
            "token-maps",
            "Which image tokens carry a probe's margin?",
            "probing.analysis.token_maps",
            "TokenMapSettings",
            tables=(Table("token_maps", "Token maps", "Which regions of an image contribute to its reward?"),),
            figures=(FigureSpec("token_maps", "token_maps", "probing.plots:figure_token_maps"),),
            inputs=("stores", "model", "data"),
            stores="feature store with the mean of image tokens",
            opens_pictures=True,
        ),
        Experiment(
            "heat-maps",
            "Do a probe's token maps lie where the fault is marked?",
            "probing.analysis.heat_maps",
            "HeatMapSettings",
            tables=(
                Table(
                    "heat_maps",
                    "Token maps and heat maps of faults",
                    "Within a picture, are the tokens that lower the reward those that are marked?",
                ),
                Table("heat_map_examples", "Examples", "What do both maps look like, from the best to the worst?"),
            ),
            figures=(
                FigureSpec("heat_maps", "heat_maps", "probing.plots:figure_heat_maps"),
                FigureSpec("heat_map_examples", "heat_map_examples", "probing.plots:figure_heat_map_examples"),
            ),
            inputs=("stores", "model", "data"),
            stores="feature store with the mean of image tokens; stores of random weights are its control",
            opens_pictures=True,
        ),
    )
}
"""All experiments by name, in the order of the page and of ``reproduce``."""

STUDIES: tuple[Study, ...] = (
    Study(
        "probing.testbed.adaptation",
        tables=(
            Table("adaptation", "Adapted backbones", "How much better is a reward whose backbone is trained too?"),
            Table(
                "adaptation_curves",
                "Reward curves of adapted backbones",
                "In which blocks does adaptation change what can be read?",
            ),
        ),
        figures=(
            FigureSpec("adaptation", "adaptation", "probing.plots:figure_adaptation"),
            FigureSpec("adaptation_curves", "adaptation_curves", "probing.plots:figure_adaptation_curves"),
        ),
    ),
    Study(
        "probing.testbed.causal",
        tables=(
            Table(
                "causal_curve",
                "Readable against used",
                "Does steering along what can be read in a block change generated pictures?",
            ),
            Table("dose_response", "Dose and response", "How does the effect of steering grow with its length?"),
        ),
        figures=(
            FigureSpec("causal_curve", "causal_curve", "probing.plots:figure_causal_curve"),
            FigureSpec("dose_response", "dose_response", "probing.plots:figure_dose_response"),
        ),
    ),
    Study(
        "probing.testbed.policy",
        tables=(
            Table("policy", "Policies", "What does training on a reward do to the judged pictures?"),
            Table("policy_samples", "Pictures of policies", "What do the pictures look like, before and after?"),
            Table(
                "hacking_watch",
                "Hacking watch",
                "Does a watch on the policy's pictures raise an alarm when the true reward falls?",
            ),
        ),
        figures=(
            FigureSpec("policy", "policy", "probing.plots:figure_policy"),
            FigureSpec("policy_samples", "policy_samples", "probing.plots:figure_policy_samples"),
            FigureSpec("hacking_watch", "hacking_watch", "probing.plots:figure_hacking_watch"),
        ),
    ),
)
"""Studies that need the testbed's truth; figures and the page show those whose tables are there."""


def experiments_and_studies() -> tuple[Experiment | Study, ...]:
    """Return all that has tables and figures, in the order of the page."""
    return (*EXPERIMENTS.values(), *STUDIES)


FIGURES: dict[str, FigureSpec] = {
    figure.name: figure for source in experiments_and_studies() for figure in source.figures
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
