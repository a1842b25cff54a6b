"""Policies trained on rewards by Flow-GRPO: Figure 2 of DiT-Reward in small, on the testbed.

``python -m probing.testbed.policy`` trains a policy for each reward and seed that is not there yet, and judges the
pictures of its evaluations: what the optimised reward says along the training, what the judge says, and whether the
watch raises an alarm before the judge falls. An interrupted command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import probing
from probing.commands import check_output_folder, run_command
from probing.errors import UserError
from probing.options import OptionsParser
from probing.reward import LatentReward
from probing.testbed.adaptation import AdaptationOptions, backbone_store, trained_rewards
from probing.testbed.adaptation_tables import FROZEN
from probing.testbed.policy.rewards import KeptReward, Reward, RivalReward, judge_reward
from probing.testbed.policy.training import Policy, PolicySettings, PolicyTraining

REWARDS = ("latent", "adapted", "rival", "judge")


@dataclass(frozen=True)
class PolicyOptions:
    """Options of the command.

    Attributes:
        settings: Of each training; its seed is the first.
        rewards: Rewards that are optimised, separated by commas: latent (frozen features), adapted (LoRA), rival (the
            baseline reward model on pixels), judge (the truth).
        seeds: Number of seeds.
        rewards_cache: Folder of the kept rewards and their stores, which probing.testbed.adaptation makes too.
        cache: Folder of the trainings.
        output: Folder of the figures and tables.
    """

    settings: PolicySettings = field(default_factory=PolicySettings)
    rewards: tuple[str, ...] = REWARDS
    seeds: int = 3
    rewards_cache: Path = Path("cache/adaptation")
    cache: Path = Path("cache/policy")
    output: Path = Path("figures")


PARSER = OptionsParser("probing.testbed.policy", PolicyOptions, __doc__)


def run(options: PolicyOptions) -> None:
    if unknown := [name for name in options.rewards if name not in REWARDS]:
        raise UserError(f"Unknown reward {unknown[0]!r}; choose of {', '.join(REWARDS)}.")
    check_output_folder(options.output)
    kept = kept_rewards(options)
    for seed in range(options.settings.seed, options.settings.seed + options.seeds):
        for name in options.rewards:
            train(name, seed, kept, options)


def train(name: str, seed: int, kept: Mapping[str, LatentReward], options: PolicyOptions) -> None:
    """Train a policy, unless it is trained already."""
    settings = replace(options.settings, seed=seed)
    folder = options.cache / f"{settings.model}-{name}-{seed}"
    made: dict[str, Callable[[], Reward]] = {"judge": lambda: judge_reward, "rival": RivalReward}
    reward = made[name]() if name in made else KeptReward(kept[name])
    identity = kept[name].manifest.to_json() if name in kept else name
    PolicyTraining(Policy(settings), reward, identity, folder).run()


def kept_rewards(options: PolicyOptions) -> dict[str, LatentReward]:
    """Train the latent rewards that are asked for and not there yet: a frozen head, and an adapted backbone."""
    asked = [name for name in ("latent", "adapted") if name in options.rewards]
    if not asked:
        return {}
    how = ("lora",) if "adapted" in asked else ()
    model = options.settings.model
    adaptation = AdaptationOptions(models=(model,), how=how, cache=options.rewards_cache)
    data = probing.load_pairs("testbed")
    store = backbone_store(model, FROZEN, data, adaptation)
    found = dict(trained_rewards(model, store, data, 0, adaptation))
    return {name: found[FROZEN if name == "latent" else "lora"] for name in asked}


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
