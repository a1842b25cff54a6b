"""Policies trained on rewards by Flow-GRPO: Figure 2 of DiT-Reward in small, on the testbed.

``python -m probing.testbed.policy`` trains a policy for each reward and seed that is not there yet, and judges the
pictures of its evaluations: what the optimised reward says along the training, what the judge says, and whether the
watch raises an alarm before the judge falls. An interrupted command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd

import probing
from probing.commands import check_output_folder, run_command
from probing.errors import UserError
from probing.options import OptionsParser
from probing.plots import figure_hacking_watch, figure_policy, figure_policy_samples, save_figure
from probing.reward import LatentReward
from probing.reward.watch import HackingWatch
from probing.table_files import write_csv
from probing.testbed.adaptation import HEAD, AdaptationOptions, backbone_store, trained_rewards
from probing.testbed.adaptation_tables import FROZEN
from probing.testbed.policy.rewards import KeptReward, Reward, RivalReward, judge_reward
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

REWARDS = ("latent", "adapted", "rival", "judge")
FACETS = ("alignment", "quality")
"""Facets of the watch's heads."""
ENSEMBLE = 4
"""Heads on all pairs whose spread is the watch's uncertainty; none of them is optimised."""


@dataclass(frozen=True)
class PolicyOptions:
    """Options of the command.

    Attributes:
        settings: Of each training; its seed is the first.
        rewards: Rewards that are optimised, separated by commas: latent (frozen features), adapted (LoRA), rival (the
            baseline reward model on pixels), judge (the truth).
        seeds: Number of seeds.
        limit: Largest number of items that rewards are trained on, by whole prompt groups; default: all.
        rewards_cache: Folder of the kept rewards and their stores, which probing.testbed.adaptation makes too.
        cache: Folder of the trainings.
        output: Folder of the figures and tables.
    """

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
    check_output_folder(options.output)
    kept = kept_rewards(options)
    made: dict[str, Callable[[], Reward]] = {"judge": lambda: judge_reward, "rival": RivalReward}
    rewards = {name: made[name]() if name in made else KeptReward(kept[name]) for name in options.rewards}
    folders: dict[tuple[str, int], Path] = {}
    for seed in range(options.settings.seed, options.settings.seed + options.seeds):
        for name, reward in rewards.items():
            settings = replace(options.settings, seed=seed)
            folders[name, seed] = options.cache / f"{settings.model}-{name}-{seed}"
            identity = kept[name].manifest.to_json() if name in kept else name
            PolicyTraining(Policy(settings), reward, identity, folders[name, seed]).run()
    _report(folders, rewards, options)


def _report(folders: Mapping[tuple[str, int], Path], rewards: Mapping[str, Reward], options: PolicyOptions) -> None:
    policy, parts, checks = Policy(options.settings), [], []
    heads, ensemble = watch_heads(options)
    make_watch = partial(HackingWatch, heads, ensemble)
    for (name, seed), folder in folders.items():
        scores = score_evaluations(policy, folder, rewards)
        parts.append(scores.assign(reward=name, seed=seed))
        checks.append(watch_training(policy, folder, scores, name, make_watch).assign(reward=name, seed=seed))
    scores = pd.concat(parts, ignore_index=True)
    model = options.settings.model
    curves = trajectories(scores).assign(model=model)
    keys = ["reward", "seed", "update"]
    watched = pd.concat(checks, ignore_index=True).merge(falls(scores), on=keys).assign(model=model)
    leads, areas = lead_times(watched).assign(model=model), signal_areas(watched).assign(model=model)
    pictures = samples(policy, {name: folders[name, options.settings.seed] for name in rewards}, 8).assign(model=model)

    command = {"command": "python -m probing.testbed.policy", "data": "testbed"}
    for name, draw, table in (
        ("policy", figure_policy, curves),
        ("policy_samples", figure_policy_samples, pictures),
        ("hacking_watch", figure_hacking_watch, watched),
    ):
        save_figure(draw(table), table, options.output, name, provenance=command)
    write_csv(options.output / "hacking_leads.csv", leads)
    write_csv(options.output / "hacking_signals.csv", areas)
    last = curves[curves["update"] == curves["update"].max()]
    columns = ["reward", "metric", "change", "ci_low", "ci_high", "least", "most"]
    print(last[last["metric"].isin((OPTIMISED, "judge", "alignment", "fidelity"))][columns].to_string(index=False))
    print(leads.to_string(index=False))
    print(areas.to_string(index=False))
    print(
        f"Figures: policy, policy_samples, hacking_watch; tables: hacking_leads.csv, hacking_signals.csv; "
        f"in {options.output}"
    )


def watch_heads(options: PolicyOptions) -> tuple[dict[str, LatentReward], list[LatentReward]]:
    """Train the heads of the watch that are not there yet: one a facet, and an ensemble with other seeds."""
    model, folder = options.settings.model, options.rewards_cache / "watch"
    store = _preferences(options)[1]
    plans: dict[str, tuple[str | None, int]] = {name: (name, 0) for name in FACETS}
    plans |= {f"all-{seed}": (None, seed) for seed in range(1, 1 + ENSEMBLE)}
    heads = {}
    for name, (facet, seed) in plans.items():
        path = folder / f"{model}-{name}"
        if not path.exists():
            options_of_head = {**HEAD, "seed": str(seed)}
            probing.train_reward(store, preset="dit-reward", facet=facet, options=options_of_head).save(path)
        heads[name] = LatentReward.load(path)
    return {name: heads[name] for name in FACETS}, [head for name, head in heads.items() if name not in FACETS]


def kept_rewards(options: PolicyOptions) -> dict[str, LatentReward]:
    """Train the latent rewards that are asked for and not there yet: a frozen head, and an adapted backbone."""
    asked = [name for name in ("latent", "adapted") if name in options.rewards]
    if not asked:
        return {}
    data, store, adaptation = _preferences(options)
    found = dict(trained_rewards(options.settings.model, store, data, 0, adaptation))
    return {name: found[FROZEN if name == "latent" else "lora"] for name in asked}


def _preferences(options: PolicyOptions) -> tuple[probing.PreferenceData, probing.FeatureStore, AdaptationOptions]:
    """Return the pairs that rewards are trained on, their features, and where the rewards lie."""
    model, how = options.settings.model, ("lora",) if "adapted" in options.rewards else ()
    adaptation = AdaptationOptions(models=(model,), how=how, limit=options.limit, cache=options.rewards_cache)
    data = probing.load_pairs("testbed", limit=options.limit)
    return data, backbone_store(model, FROZEN, data, adaptation), adaptation


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
