"""Flow-GRPO (Liu et al. 2025, arXiv 2505.05470) on a testbed model; an interrupted training goes on."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor, nn

from probing.backbones import Backbone, Conditioning, load_backbone, pick_device
from probing.errors import UserError
from probing.files import write_bytes
from probing.progress import progress
from probing.reward import AdapterSettings
from probing.reward.adapter import add_adapter
from probing.table_files import write_csv
from probing.testbed.policy.flow_sde import NOISE_LEVEL, Rollout, Step, rollout, sde_step
from probing.testbed.policy.grpo import advantages, divergence, policy_loss
from probing.testbed.policy.rewards import Batch, Reward
from probing.testbed.preferences import captions

LOG = "log.csv"
"""File of a training: a row an update."""
_STATE = "state.pt"
_EVALUATION_SEED = 5_000_000
_AT_ONCE = 48


@dataclass(frozen=True)
class PolicySettings:
    """Settings of one training.

    Attributes:
        updates: Batches of trajectories; each gives two steps of the optimizer, as published.
        prompts: Captions of a batch.
        group: Pictures of each caption.
        sampling_steps: Forwards of a trajectory.
        stochastic_steps: First steps of a trajectory, which are stochastic; the others are deterministic. Two are
            Flow-GRPO-Fast: the noise of later steps changes the reward too.
        trained_steps: Stochastic steps of each trajectory that are trained, drawn anew for each batch.
        guidance: Of sampling and training; 1 reads no empty prompt.
        noise_level: Of the stochastic sampler.
        learning_rate: Of AdamW.
        beta: Weight of the distance from the reference.
        clip: Largest change of the ratio of densities.
        rank: Of LoRA.
        seed: Of LoRA's initial weights, captions and noise.
        evaluate_every: Updates between two evaluations.
        evaluated: Captions of an evaluation, none of them trained on.
        evaluation_steps: Forwards of a trajectory in an evaluation, which is deterministic.
    """

    updates: int = 80
    prompts: int = 8
    group: int = 8
    sampling_steps: int = 8
    stochastic_steps: int = 2
    trained_steps: int = 2
    guidance: float = 1.0
    noise_level: float = NOISE_LEVEL
    learning_rate: float = 5e-4
    beta: float = 0.01
    clip: float = 1e-3
    rank: int = 16
    seed: int = 0
    evaluate_every: int = 8
    evaluated: int = 192
    evaluation_steps: int = 12

    def __post_init__(self) -> None:
        if self.prompts % 2 or self.prompts < 2 or self.group < 2:
            raise UserError(
                f"Got {self.prompts} prompts of {self.group} pictures, expected an even number of prompts, and at "
                f"least 2 pictures of each."
            )
        counts = self.updates, self.evaluate_every, self.evaluation_steps, self.rank
        if min(counts) < 1 or self.evaluated < 2:
            raise UserError(
                f"Got {self.updates} updates, an evaluation of {self.evaluated} captions every {self.evaluate_every}, "
                f"{self.evaluation_steps} steps of an evaluation and rank {self.rank}, expected at least 1 of each, "
                f"and 2 captions."
            )
        if self.noise_level <= 0 or self.clip <= 0 or self.beta < 0 or self.guidance < 1:
            raise UserError(
                f"Got noise level {self.noise_level:g}, clip {self.clip:g}, beta {self.beta:g} and guidance "
                f"{self.guidance:g}, expected above 0, above 0, at least 0 and at least 1."
            )
        if not 1 <= self.trained_steps <= self.stochastic_steps < self.sampling_steps:
            raise UserError(
                f"Got {self.trained_steps} trained of {self.stochastic_steps} stochastic of {self.sampling_steps} "
                f"steps, expected at least 1 trained, no more than are stochastic, and fewer than all: the last is "
                f"deterministic; give --stochastic-steps and --trained-steps."
            )


@dataclass(frozen=True)
class Sampled:
    """Trajectories of a batch, a group of pictures for each caption.

    Attributes:
        rollout: States and densities.
        captions: Of each picture.
        group: Number of each picture's caption in the batch.
        conditioning: The captions, encoded.
    """

    rollout: Rollout
    captions: list[str]
    group: np.ndarray
    conditioning: Conditioning


class Policy:
    """A backbone with LoRA, whose own weights stay the reference.

    Args:
        model: Name of the backbone.
        settings: Of the training.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
    """

    def __init__(self, model: str, settings: PolicySettings, device: str = "auto") -> None:
        self.model, self.settings = model, settings
        self.backbone: Backbone = load_backbone(model, device=pick_device(device), compute_dtype=torch.float32)
        torch.manual_seed(settings.seed)
        adapter = AdapterSettings(rank=settings.rank, alpha=2.0 * settings.rank)
        self.parameters: dict[str, nn.Parameter] = add_adapter(self.backbone.transformer, adapter)
        with self.backbone.on_device("text_encoders"):
            self._empty = _plain(self.backbone.encode_prompts([""]))

    def encode(self, captions: Sequence[str]) -> Conditioning:
        """Encode captions, outside of inference mode: gradients pass them."""
        with self.backbone.on_device("text_encoders"):
            return _plain(self.backbone.encode_prompts(list(captions)))

    def sigmas(self, steps: int) -> list[float]:
        """Return the noise levels of the pipeline's own sampler, from 1 to 0."""
        scheduler, architecture = copy.deepcopy(self.backbone.scheduler), self.backbone.spec.architecture
        rows, columns = architecture.token_grid(self.backbone.spec.resolution)
        self.backbone.set_timesteps(scheduler, steps, rows * columns)
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(
        self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> Float[Tensor, "item channel row column"]:
        """Predict dx/dσ with the guidance of the settings."""
        scale = self.settings.guidance
        if scale <= 1:
            return self.backbone.velocity(latents, conditioning, sigma)
        empty = self._empty.rows(torch.zeros(len(latents), dtype=torch.long))
        both = Conditioning.concatenate([empty, conditioning])
        without, with_prompt = self.backbone.velocity(torch.cat([latents, latents]), both, sigma).chunk(2)
        return without + scale * (with_prompt - without)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Switch LoRA off for the time of a ``with`` block."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self.backbone.transformer.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def sample(self, noise: Tensor, conditioning: Conditioning, steps: int) -> Float[Tensor, "item ..."]:
        """Denoise deterministically."""
        return rollout(
            lambda latents, sigma: self.velocity(latents, conditioning, sigma),
            noise.to(self.backbone.device),
            self.sigmas(steps),
            noise_level=0.0,
            generator=torch.Generator(),
        ).latents

    def explore(self, captions: Sequence[str], generator: torch.Generator) -> Sampled:
        """Sample the stochastic trajectories of a batch: ``settings.group`` of each caption."""
        settings = self.settings
        group = np.repeat(np.arange(len(captions)), settings.group)
        conditioning = self.encode(captions).rows(torch.from_numpy(group))
        # Pictures of a caption that begin alike differ by what the policy did alone.
        noise = torch.randn((len(captions), *self._latent_shape()), generator=generator)[group]
        sampled = rollout(
            lambda latents, sigma: self.velocity(latents, conditioning, sigma),
            noise.to(self.backbone.device),
            self.sigmas(settings.sampling_steps),
            noise_level=settings.noise_level,
            generator=generator,
            stochastic_steps=settings.stochastic_steps,
        )
        return Sampled(sampled, [captions[int(number)] for number in group], group, conditioning)

    def step(self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning, number: int) -> Step:
        """Return the distribution of the latents that follow step ``number`` of a trajectory."""
        sigmas = self.sigmas(self.settings.sampling_steps)
        sigma, following = sigmas[number : number + 2]
        velocity = self.velocity(latents, conditioning, sigma)
        return sde_step(velocity, latents, sigma, following, largest=sigmas[1], noise_level=self.settings.noise_level)

    def evaluation(self) -> tuple[list[str], Float[Tensor, "item channel row column"]]:
        """Return the captions of every evaluation of every training, and their noise."""
        generator = torch.Generator().manual_seed(_EVALUATION_SEED)
        words = captions("test")[: self.settings.evaluated]
        return words, torch.randn((len(words), *self._latent_shape()), generator=generator)

    def batch(self, latents: Tensor, captions: Sequence[str], conditioning: Conditioning) -> Batch:
        """Make the batch that a reward scores."""
        vae = self.backbone.pipeline.vae  # type: ignore[attr-defined]
        return Batch(latents.detach().float().cpu(), captions, conditioning, vae)

    def _latent_shape(self) -> tuple[int, ...]:
        return self.backbone.spec.architecture.latent_shape(self.backbone.spec.resolution)


class PolicyTraining:
    """One training, with its folder.

    Args:
        policy: Freshly made.
        reward: What is optimised.
        folder: Receives the state, the log, and the latents of each evaluation.
    """

    def __init__(self, policy: Policy, reward: Reward, folder: Path) -> None:
        self.policy, self._reward, self._folder = policy, reward, folder
        backbone = policy.backbone
        settings = {"model": policy.model, **asdict(policy.settings)}
        self._identity = repr([settings, backbone.parts, backbone.scheduler_digest, reward.identity])
        self._optimizer = torch.optim.AdamW(
            policy.parameters.values(), lr=policy.settings.learning_rate, weight_decay=1e-4
        )
        self._captions = captions("train")
        self._log: list[dict[str, float]] = []

    def run(self) -> None:
        """Train all updates, evaluating on the way; from the last evaluation where there is one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self.policy.settings
        on_device = self.policy.backbone.on_device("transformer")
        with on_device, progress(settings.updates, self._folder.name, "updates") as bar:
            # The optimizer's state goes to where its weights are.
            start = self._resume()
            bar.update(start)
            if start == 0:
                self._evaluate(0)
            for update in range(start, settings.updates):
                numbers = self._update(update)
                bar.update(1)
                done = update + 1
                self._log.append({"update": done, **numbers})
                if done % settings.evaluate_every == 0 or done == settings.updates:
                    self._evaluate(done)
                    self._save(done)

    def _update(self, update: int) -> dict[str, float]:
        policy, settings = self.policy, self.policy.settings
        rng = np.random.default_rng([settings.seed, update])
        chosen = rng.choice(len(self._captions), settings.prompts, replace=False)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        sampled = policy.explore([self._captions[number] for number in chosen], generator)
        rewards = self._reward(policy.batch(sampled.rollout.latents, sampled.captions, sampled.conditioning))
        advantage = torch.from_numpy(advantages(rewards, sampled.group)).float().to(policy.backbone.device)
        steps = np.sort(rng.choice(settings.stochastic_steps, settings.trained_steps, replace=False))
        halves = np.array_split(rng.permutation(settings.prompts), 2)
        numbers: list[dict[str, float]] = []
        for half in halves:
            rows = torch.from_numpy(np.flatnonzero(np.isin(sampled.group, half)))
            numbers.append(self._step(sampled, rows, advantage[rows], steps))
        means = {name: float(np.mean([of_half[name] for of_half in numbers])) for name in numbers[0]}
        return {"reward": float(rewards.mean()), "deviation": float(rewards.std()), **means}

    def _step(self, sampled: Sampled, rows: Tensor, advantage: Tensor, steps: np.ndarray) -> dict[str, float]:
        policy, settings = self.policy, self.policy.settings
        states, conditioning = sampled.rollout.states, sampled.conditioning.rows(rows)
        total = {"loss": 0.0, "divergence": 0.0, "ratio": 0.0}
        self._optimizer.zero_grad(set_to_none=True)
        for number in steps:
            step = policy.step(states[number][rows], conditioning, number)
            with torch.no_grad(), policy.reference():
                reference = policy.step(states[number][rows], conditioning, number)
            densities = step.log_probability(states[number + 1][rows])
            before = sampled.rollout.log_probabilities[number][rows]
            loss, distance = policy_loss(densities, before, advantage, settings.clip), divergence(step, reference)
            ((loss + settings.beta * distance) / len(steps)).backward()
            total["loss"] += float(loss.detach()) / len(steps)
            total["divergence"] += float(distance.detach()) / len(steps)
            total["ratio"] += float((densities.detach() - before).exp().sub(1).abs().mean()) / len(steps)
        norm = nn.utils.clip_grad_norm_(policy.parameters.values(), 1.0)
        if not torch.isfinite(norm):
            raise UserError("The gradient is not finite; give a lower learning rate.")
        self._optimizer.step()
        return {**total, "gradient": float(norm)}

    def _evaluate(self, update: int) -> None:
        """Keep the latents that the policy makes of the evaluation's captions and noise."""
        policy = self.policy
        words, noise = policy.evaluation()
        parts = []
        for start in range(0, len(words), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            parts.append(policy.sample(noise[part], policy.encode(words[part]), policy.settings.evaluation_steps))
        content = save({"latents": torch.cat(parts).cpu().contiguous()})
        write_bytes(evaluation_file(self._folder, update), content)

    def _save(self, update: int) -> None:
        state = {
            "identity": self._identity,
            "update": update,
            "trained": {name: value.detach() for name, value in self.policy.parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "log": self._log,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self._folder / _STATE, content.getvalue())
        write_csv(self._folder / LOG, pd.DataFrame(self._log))

    def _resume(self) -> int:
        path = self._folder / _STATE
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True, map_location=self.policy.backbone.device)
        if state["identity"] != self._identity:
            raise UserError(f"{self._folder} holds a training with other settings; give another folder, or remove it.")
        with torch.no_grad():
            for name, value in state["trained"].items():
                self.policy.parameters[name].copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._log = list(state["log"])
        return int(state["update"])


def evaluation_file(folder: Path, update: int) -> Path:
    """Name the file of an evaluation's latents."""
    return folder / f"evaluation-{update:05d}.safetensors"


def evaluations(folder: Path) -> dict[int, Float[Tensor, "item channel row column"]]:
    """Read the latents of all evaluations of a training, by update."""
    files = sorted(folder.glob("evaluation-*.safetensors"))
    return {int(file.stem.rpartition("-")[2]): load_file(file)["latents"] for file in files}


def _plain(conditioning: Conditioning) -> Conditioning:
    """Copy tensors of inference mode, which cannot take part in gradients."""
    return Conditioning({name: tensor.clone() for name, tensor in conditioning.tensors.items()}, conditioning.parts)
