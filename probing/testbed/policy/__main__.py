"""Policies trained on rewards by Flow-GRPO: Figure 2 of DiT-Reward in small, on the testbed.

``python -m probing.testbed.policy`` trains a policy for each reward and seed that is not there yet, and scores the
pictures of its evaluations: by the optimised reward, by the judge, and by the watch, whose alarms are compared with the
falls of the judge's score. The same command continues after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd

import probing
from probing.analysis.engine import MIN_PROMPTS
from probing.backbones import resolve
from probing.commands import check_output_folder, run_command
from probing.errors import UserError
from probing.options import OptionsParser
from probing.progress import progress
from probing.reward import LatentReward
from probing.reward.watch import HackingWatch
from probing.testbed.adaptation import HEAD, AdaptationOptions, backbone_store, check_store, trained_rewards
from probing.testbed.adaptation_tables import FROZEN
from probing.testbed.policy.rewards import JudgeReward, KeptReward, Reward, RivalReward
from probing.testbed.policy.tables import (
    OPTIMISED,
    falls,
    lead_times,
    samples,
    score_evaluations,
    signal_areas,
    trajectories,
    watch_training,
)
from probing.testbed.policy.training import Policy, PolicySettings, PolicyTraining
from probing.testbed.studies import save_study

REWARDS = ("latent", "adapted", "rival", "judge")
FACETS = ("alignment", "quality")
"""Facets of the watch's heads."""
ENSEMBLE = 4
"""Heads on all pairs whose spread is the watch's uncertainty; none of them is optimised."""


@dataclass(frozen=True)
class PolicyOptions:
    """Options of the command.

    Attributes:
        models: Models that are trained, separated by commas; their own weights are the references.
        settings: Of each training; its seed is the first.
        rewards: Rewards that are optimised, separated by commas: latent (frozen features), adapted (LoRA), rival (the
            baseline reward model on pixels), judge (the truth).
        seeds: Number of seeds.
        limit: Largest number of items that rewards are trained on, by whole prompt groups; default: all.
        rewards_cache: Folder of the kept rewards and their stores, which probing.testbed.adaptation makes too.
        cache: Folder of the trainings.
        output: Folder of the figures and tables.
    """

    models: tuple[str, ...] = ("testbed-s", "testbed-m")
    settings: PolicySettings = field(default_factory=PolicySettings)
    rewards: tuple[str, ...] = REWARDS
    seeds: int = 3
    limit: int | None = None
    rewards_cache: Path = Path("cache/adaptation")
    cache: Path = Path("cache/policy")
    output: Path = Path("figures")


PARSER = OptionsParser("probing.testbed.policy", PolicyOptions, __doc__)


def run(options: PolicyOptions) -> None:
    if unknown := [name for name in options.rewards if name not in REWARDS]:
        raise UserError(f"Unknown reward {unknown[0]!r}; choose of {', '.join(REWARDS)}.")
    if options.seeds < 1 or not options.rewards or not options.models:
        raise UserError(
            f"Got {options.seeds} seeds, {len(options.rewards)} rewards and {len(options.models)} models, expected at "
            f"least 1 of each."
        )
    if len(set(options.models)) < len(options.models) or len(options.models) > 2:
        raise UserError(f"Got the models {', '.join(options.models)}, expected one, or two different ones.")
    for model in options.models:
        resolve(model)
    if options.settings.evaluated < MIN_PROMPTS:
        raise UserError(f"Got {options.settings.evaluated} evaluated captions, expected at least {MIN_PROMPTS}.")
    check_output_folder(options.output)
    tables: dict[str, list[pd.DataFrame]] = {}
    for model in options.models:
        for name, table in _trainings(model, options).items():
            tables.setdefault(name, []).append(table.assign(model=model))
    _report({name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}, options)


def _trainings(model: str, options: PolicyOptions) -> dict[str, pd.DataFrame]:
    """Run the trainings of a model that are not there yet; return the tables of all."""
    heads, ensemble = watch_heads(model, options)
    kept = kept_rewards(model, options)
    made: dict[str, Callable[[], Reward]] = {"judge": JudgeReward, "rival": RivalReward}
    rewards = {name: made[name]() if name in made else KeptReward(kept[name]) for name in options.rewards}
    folders: dict[tuple[str, int], Path] = {}
    for seed in range(options.settings.seed, options.settings.seed + options.seeds):
        for name, reward in rewards.items():
            folders[name, seed] = options.cache / f"{model}-{name}-{seed}"
            policy = Policy(model, replace(options.settings, seed=seed))
            PolicyTraining(policy, reward, folders[name, seed]).run()
    policy, parts, checks = Policy(model, options.settings), [], []
    with progress(len(folders), f"{model}: evaluations", "trainings") as bar:
        for (name, seed), folder in folders.items():
            scores = score_evaluations(policy, folder, rewards)
            parts.append(scores.assign(reward=name, seed=seed))
            watched = watch_training(policy, folder, scores, name, partial(HackingWatch, heads, ensemble))
            checks.append(watched.assign(reward=name, seed=seed))
            bar.update(1)
    scores = pd.concat(parts, ignore_index=True)
    watched = pd.concat(checks, ignore_index=True).merge(falls(scores), on=["reward", "seed", "update"])
    first = {name: folders[name, options.settings.seed] for name in rewards}
    return {
        "policy": trajectories(scores),
        "policy_samples": samples(policy, first, 5),
        "hacking_watch": watched,
        "hacking_leads": lead_times(watched),
        "hacking_signals": signal_areas(watched),
    }


def _report(tables: Mapping[str, pd.DataFrame], options: PolicyOptions) -> None:
    curves = tables["policy"]
    last = curves[curves["update"] == curves["update"].max()]
    columns = ["model", "reward", "metric", "change", "ci_low", "ci_high", "least", "most"]
    print(last[last["metric"].isin((OPTIMISED, "judge", "alignment", "fidelity"))][columns].to_string(index=False))
    for name in ("hacking_leads", "hacking_signals"):
        print(tables[name].to_string(index=False))
    print(save_study(tables, options.output, PARSER.command(options)))


def watch_heads(model: str, options: PolicyOptions) -> tuple[dict[str, LatentReward], list[LatentReward]]:
    """Train the heads of the watch that are not there yet: one a facet, and an ensemble with other seeds."""
    folder, store = options.rewards_cache / "watch", _preferences(model, options)[1]
    plans: dict[str, tuple[str | None, int]] = {name: (name, 0) for name in FACETS}
    plans |= {f"all-{seed}": (None, seed) for seed in range(1, 1 + ENSEMBLE)}
    heads = {}
    for name, (facet, seed) in plans.items():
        path = folder / f"{model}-{name}"
        if not path.exists():
            options_of_head = {**HEAD, "seed": str(seed)}
            probing.train_reward(store, preset="dit-reward", facet=facet, options=options_of_head).save(path)
        heads[name] = LatentReward.load(path)
        check_store(heads[name], store, options.rewards_cache)
    return {name: heads[name] for name in FACETS}, [head for name, head in heads.items() if name not in FACETS]


def kept_rewards(model: str, options: PolicyOptions) -> dict[str, Path]:
    """Train the latent rewards that are asked for and not there yet: a frozen head, and an adapted backbone."""
    asked = {"latent": FROZEN, "adapted": "lora"}
    asked = {name: how for name, how in asked.items() if name in options.rewards}
    if not asked:
        return {}
    data, store, adaptation = _preferences(model, options)
    for _, reward in trained_rewards(model, store, data, 0, adaptation):
        check_store(reward, store, options.rewards_cache)
    return {name: options.rewards_cache / f"{model}-{how}-0" for name, how in asked.items()}


def _preferences(
    model: str, options: PolicyOptions
) -> tuple[probing.PreferenceData, probing.FeatureStore, AdaptationOptions]:
    """Return the pairs that rewards are trained on, their features, and where the rewards lie."""
    how = ("lora",) if "adapted" in options.rewards else ()
    adaptation = AdaptationOptions(models=(model,), how=how, limit=options.limit, cache=options.rewards_cache)
    data = probing.load_pairs("testbed", limit=options.limit)
    return data, backbone_store(model, FROZEN, data, adaptation), adaptation


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
