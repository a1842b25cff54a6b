"""The reward curve: pair accuracy against block, with its controls and what is derived from its cells."""

from probing.analysis.reward_curve.blocks import compare_blocks
from probing.analysis.reward_curve.comparisons import compare, describe_cell
from probing.analysis.reward_curve.curve import measure_curve
from probing.analysis.reward_curve.experiment import (
    RewardCurveSettings,
    measure_reward_curve,
    run_reward_curve,
    tables_reward_curve,
)
from probing.analysis.reward_curve.linearity import compare_probes
from probing.analysis.reward_curve.marks import headline_rows, mark_curve
from probing.analysis.reward_curve.massive import massive_activations
from probing.analysis.reward_curve.measures import measures
from probing.analysis.reward_curve.references import measure_reference
from probing.analysis.reward_curve.report import candidate_blocks, report_reward_curve
from probing.analysis.reward_curve.rewards import best_rewards

__all__ = [
    "RewardCurveSettings",
    "best_rewards",
    "candidate_blocks",
    "compare",
    "compare_blocks",
    "compare_probes",
    "describe_cell",
    "headline_rows",
    "mark_curve",
    "massive_activations",
    "measure_curve",
    "measure_reference",
    "measure_reward_curve",
    "measures",
    "report_reward_curve",
    "run_reward_curve",
    "tables_reward_curve",
]
