"""Measure how much of a policy's gradient is signal: ``python benchmarks/policy_signal.py``.

At the reference, before any update, each batch of pictures gives one gradient of the objective for each reward. The
part that batches share is signal, the rest is the noise of the samples: the share is the mean product of the gradients
of two different batches over the mean squared length of one, for each stochastic step and for their sum. Writes it with
its interval (jackknife over batches), and the length of the gradients, to ``policy_signal.csv``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from probing.progress import progress
from probing.testbed.policy.grpo import advantages, policy_loss
from probing.testbed.policy.rewards import JudgeReward, KeptReward, Reward, RivalReward
from probing.testbed.policy.training import Policy, PolicySettings
from probing.testbed.preferences import captions

SEED = 999


def gradients(policy: Policy, rewards: dict[str, Reward], batch: int) -> dict[str, torch.Tensor]:
    """Return the gradients of one batch for each reward: (step, parameter)."""
    settings = policy.settings
    rng = np.random.default_rng([SEED, batch])
    all_captions = captions("train")
    words = [all_captions[int(number)] for number in rng.choice(len(all_captions), settings.prompts, replace=False)]
    sampled = policy.explore(words, torch.Generator().manual_seed(batch))
    pictures = policy.batch(sampled.rollout.latents, sampled.captions, sampled.conditioning)
    advantage = {
        name: torch.from_numpy(advantages(reward(pictures), sampled.group)).float() for name, reward in rewards.items()
    }
    # LoRA's other half is multiplied by zeros before the first update.
    moved = [value for name, value in policy.parameters.items() if "lora_B" in name]
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in rewards}
    states = sampled.rollout.states
    for number in range(settings.stochastic_steps):
        step = policy.step(states[number], sampled.conditioning, number)
        densities = step.log_probability(states[number + 1])
        for name in rewards:
            loss = policy_loss(densities, densities.detach(), advantage[name], settings.clip)
            parts = torch.autograd.grad(loss, moved, retain_graph=True)
            rows[name].append(torch.cat([part.flatten() for part in parts]))
    return {name: torch.stack(of_steps) for name, of_steps in rows.items()}


def share(gradients: torch.Tensor) -> dict[str, float]:
    """Return the share of signal of (batch, parameter), its interval, and the root mean square length."""
    products = (gradients.double() @ gradients.double().T).numpy()
    every = np.ones(len(products), dtype=bool)

    def of(kept: np.ndarray) -> float:
        part = products[np.ix_(kept, kept)]
        count, squares = len(part), np.trace(part)
        return float((part.sum() - squares) / (count - 1) / squares)

    left_out = [of(np.arange(len(products)) != batch) for batch in range(len(products))]
    error = np.sqrt((len(products) - 1) * np.var(left_out))
    return {
        "value": round(of(every), 4),
        "ci_low": round(of(every) - 1.96 * error, 4),
        "ci_high": round(of(every) + 1.96 * error, 4),
        "length": float(f"{np.sqrt(np.trace(products) / len(products)):.3g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-s")
    parser.add_argument("--reward", type=Path, default=Path("cache/adaptation/testbed-s-frozen-0"), help="kept reward")
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rewards = {"latent": KeptReward(arguments.reward), "rival": RivalReward(), "judge": JudgeReward()}
    rows = []
    for stochastic in (2, PolicySettings.sampling_steps - 1):
        policy = Policy(arguments.model, PolicySettings(stochastic_steps=stochastic))
        with progress(arguments.batches, f"{stochastic} stochastic steps", "batches") as bar:
            parts = []
            for batch in range(arguments.batches):
                parts.append(gradients(policy, rewards, batch))
                bar.update(1)
        for name in rewards:
            of_batches = torch.stack([part[name] for part in parts])
            of_steps = {str(number): of_batches[:, number] for number in range(stochastic)}
            for number, part in {"all": of_batches.sum(dim=1), **of_steps}.items():
                rows.append({"reward": name, "stochastic_steps": stochastic, "step": number, **share(part)})
    table = pd.DataFrame(rows).assign(model=arguments.model, batches=arguments.batches)
    table.to_csv(arguments.output, index=False, lineterminator="\n")
    print(table[table["step"] == "all"].to_string(index=False))


if __name__ == "__main__":
    main()
