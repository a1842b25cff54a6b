"""Probe what frozen text-to-image transformers know of human preferences, block by block.

The public names are those of :data:`__all__`; each is imported when it is first used. Whatever a command or a notebook
does is one call of these functions.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probing.analysis.engine import Recipe, Run, Sites
    from probing.analysis.scoring import score_by_rules as score_rewards
    from probing.api.extraction import extract, plan_extraction
    from probing.api.figures import draw_figures
    from probing.api.measuring import (
        combinations,
        controls,
        factorial,
        heat_maps,
        measure,
        noise,
        reward_curve,
        scaling,
        similarity,
        token_maps,
    )
    from probing.api.result import Result
    from probing.backbones import load_backbone, model_names, register_family
    from probing.errors import UserError
    from probing.experiments import EXPERIMENTS
    from probing.features import FeatureStore
    from probing.preferences import PreferenceData, load_pairs, split_pairs
    from probing.preferences.audit import audit as audit_pairs
    from probing.reward import LatentReward, train_reward

# Otherwise MKL rounds by the number of threads, and by where weights lie in memory: a store would depend on both. It is
# read at the first product, and costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if sys.argv[:1] == ["-m"]:
    # Python sets this name while it searches for the module of ``python -m probing.X``: a command is starting.
    from probing.interrupts import exit_at_signals

    exit_at_signals()

_SOURCES = {
    "EXPERIMENTS": "probing.experiments:EXPERIMENTS",
    "FeatureStore": "probing.features:FeatureStore",
    "LatentReward": "probing.reward:LatentReward",
    "PreferenceData": "probing.preferences:PreferenceData",
    "Recipe": "probing.analysis.engine:Recipe",
    "Result": "probing.api.result:Result",
    "Run": "probing.analysis.engine:Run",
    "Sites": "probing.analysis.engine:Sites",
    "UserError": "probing.errors:UserError",
    "audit_pairs": "probing.preferences.audit:audit",
    "combinations": "probing.api.measuring:combinations",
    "controls": "probing.api.measuring:controls",
    "draw_figures": "probing.api.figures:draw_figures",
    "extract": "probing.api.extraction:extract",
    "factorial": "probing.api.measuring:factorial",
    "load_backbone": "probing.backbones:load_backbone",
    "load_pairs": "probing.preferences:load_pairs",
    "measure": "probing.api.measuring:measure",
    "model_names": "probing.backbones:model_names",
    "noise": "probing.api.measuring:noise",
    "plan_extraction": "probing.api.extraction:plan_extraction",
    "register_family": "probing.backbones:register_family",
    "reward_curve": "probing.api.measuring:reward_curve",
    "scaling": "probing.api.measuring:scaling",
    "score_rewards": "probing.analysis.scoring:score_by_rules",
    "similarity": "probing.api.measuring:similarity",
    "split_pairs": "probing.preferences:split_pairs",
    "train_reward": "probing.reward:train_reward",
    "heat_maps": "probing.api.measuring:heat_maps",
    "token_maps": "probing.api.measuring:token_maps",
}

__all__ = [
    "EXPERIMENTS",
    "FeatureStore",
    "LatentReward",
    "PreferenceData",
    "Recipe",
    "Result",
    "Run",
    "Sites",
    "UserError",
    "audit_pairs",
    "combinations",
    "controls",
    "draw_figures",
    "extract",
    "factorial",
    "heat_maps",
    "load_backbone",
    "load_pairs",
    "measure",
    "model_names",
    "noise",
    "plan_extraction",
    "register_family",
    "reward_curve",
    "scaling",
    "score_rewards",
    "similarity",
    "split_pairs",
    "token_maps",
    "train_reward",
]


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'probing' has no attribute {name!r}")
    value = pkgutil.resolve_name(_SOURCES[name])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps a public function when a command of the same name, such as ``probing.extract``, is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _SOURCES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
