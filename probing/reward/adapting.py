"""Adapt the backbone of a reward to preference pairs: LoRA or all weights, with the reward's own head and loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor, nn

from probing.analysis.engine import ALL_FACETS
from probing.errors import UserError
from probing.features.kept_inputs import KeptInputs, open_kept
from probing.features.reading import encode_items
from probing.features.tokens import settings_of
from probing.preferences import PreferenceData
from probing.probes import NeuralProbe
from probing.probes._heads import bradley_terry, fidelity
from probing.progress import progress
from probing.reward.adapt_settings import AdaptSettings
from probing.reward.adapter import adapter_state, add_adapter
from probing.reward.latent_reward import LatentReward
from probing.reward.processes import Processes
from probing.reward.reader import RewardReader
from probing.reward.trained_weights import TrainedWeights
from probing.reward.training import measure_accuracies, quantiles_of
from probing.statistics import fit_temperature, outcomes

_STATE = "state.pt"


def adapt(
    reward: LatentReward,
    data: PreferenceData,
    settings: AdaptSettings | None = None,
    *,
    encoded: Path | None = None,
    checkpoint: Path | None = None,
) -> LatentReward:
    """Train the backbone of a reward on the training pairs of a data set.

    It minimises the loss of the head (Bradley–Terry, or Thurstone's with the fidelity loss) by AdamW. Whole prompts are
    set aside; the epoch with their lowest loss is kept, its temperature is fitted to them, and the test pairs are
    scored once at the end. The noise of an item is drawn anew each epoch.

    Started by ``accelerate launch`` or ``torchrun``, each process takes its share of every batch on a device of its
    own; the gradient is that of the whole batch. Weights are changed in float32, whatever the backbone computes in.

    Args:
        reward: Trained on frozen features: its head is where training starts.
        data: Pairs and pictures.
        settings: How to train.
        encoded: Folder of encoded pictures and prompts to read and add to, such as ``encoded`` beside a store.
        checkpoint: Folder of the state after each epoch; an interrupted training goes on from it. It is removed at the
            end.

    Returns:
        A reward that holds the adapter.

    Raises:
        UserError: The reward has an adapter already, a LoRA or a quantised backbone; a bad picture, or too few prompts.
    """
    settings = settings or AdaptSettings()
    if reward.adapter is not None:
        raise UserError("This reward has an adapted backbone already; adapt the frozen reward that it was made of.")
    if reward.where[1].lora is not None:
        raise UserError("The backbone of this reward has a LoRA; merge the LoRA into its weights before adapting it.")
    if reward.manifest.extraction.get("quantization") is not None:
        raise UserError("Quantised weights are not adapted; train the reward on features of the model's own weights.")
    training = _Training(reward, data, settings, encoded, Processes())
    history = training.run(checkpoint)
    return training.finish(history)


class _Training:
    def __init__(
        self,
        reward: LatentReward,
        data: PreferenceData,
        settings: AdaptSettings,
        encoded: Path | None,
        processes: Processes,
    ) -> None:
        self._reward, self._data, self._settings, self._processes = reward, data, settings, processes
        extraction = settings_of(reward.manifest.extraction)
        self._extraction = extraction
        # A backbone of its own: training changes it.
        model, transformer, device = reward.where
        self._where = model, transformer, processes.on(device)
        self._reader = RewardReader.open(copy.deepcopy(reward.probe), reward.manifest, *self._where)
        backbone = self._reader.backbone
        self._kept: KeptInputs | None = open_kept(
            encoded, backbone.spec, extraction, backbone.parts, backbone.device.type
        )
        self._items = data.items.set_index("item_id", drop=False)
        pairs = data.pairs[data.pairs["split"] == "train"]
        if settings.facet is not None and settings.facet != ALL_FACETS:
            pairs = pairs[pairs["facet"] == settings.facet]
        pairs = pairs.reset_index(drop=True)
        if pairs["prompt_id"].nunique() < 10:
            raise UserError(f"{data.name} has training pairs of {pairs['prompt_id'].nunique()} prompts, expected 10.")
        splitter = GroupShuffleSplit(1, test_size=settings.validation, random_state=settings.seed)
        rows, held_out = next(splitter.split(pairs, groups=pairs["prompt_id"]))
        self._train, self._validation = pairs.iloc[rows], pairs.iloc[held_out]

        torch.manual_seed(settings.seed)
        self._transformer: nn.Module = backbone.transformer
        self._parameters = add_adapter(self._transformer, settings.adapter)
        self._head = self._reader.head
        for parameter in self._head.parameters():
            parameter.requires_grad_(True)
        if settings.checkpointing:
            backbone.transformer.enable_gradient_checkpointing()
        self._steps = math.ceil(len(self._train) / settings.batch_size)

    def run(self, checkpoint: Path | None) -> list[dict[str, float]]:
        """Train all epochs; return the loss and accuracy of each on the validation pairs."""
        settings, first = self._settings, self._processes.is_first
        total = settings.epochs * self._steps
        with self._reader.backbone.on_device("transformer"), progress(total, "adapt", "steps", enabled=first) as bar:
            self._prepare()
            history, best, start = self._resume(checkpoint)
            bar.update(start * self._steps)
            for epoch in range(start, settings.epochs):
                order = np.random.default_rng([settings.seed, epoch]).permutation(len(self._train))
                for begin in range(0, len(order), settings.batch_size):
                    self._step(self._train.iloc[order[begin : begin + settings.batch_size]], epoch)
                    bar.update(1)
                with self._weights.averaged():
                    loss, accuracy = self._validate()
                    history.append({"epoch": epoch + 1, "validation_loss": loss, "validation_accuracy": accuracy})
                    if loss <= min(row["validation_loss"] for row in history):
                        best = self._weights.copy()
                if first:
                    self._save(checkpoint, history, best)
            self._weights.set(best)
        self._processes.wait()
        if first and checkpoint is not None:
            (checkpoint / _STATE).unlink(missing_ok=True)
        return history

    def _prepare(self) -> None:
        """Make the optimizer, whose state must be on the device of the weights."""
        settings = self._settings
        rate = settings.learning_rate or (1e-4 if settings.adapter.how == "lora" else 5e-6)
        groups: list[dict[str, Any]] = [{"params": list(self._parameters.values()), "lr": rate}]
        if head := list(self._head.parameters()):
            groups.append({"params": head, "lr": settings.head_learning_rate})
        self._weights = TrainedWeights(groups, ema=settings.ema)
        self._optimizer = torch.optim.AdamW(self._weights.groups, weight_decay=settings.weight_decay)
        warmup = max(1, math.ceil(settings.warmup * settings.epochs * self._steps))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: min(1.0, (step + 1) / warmup))

    def finish(self, history: Sequence[dict[str, float]]) -> LatentReward:
        """Freeze, calibrate and measure the adapted reward."""
        self._transformer.eval().requires_grad_(False)
        self._head.requires_grad_(False)
        if self._settings.checkpointing:
            self._reader.backbone.transformer.disable_gradient_checkpointing()
        reward, settings = self._reward, self._settings
        manifest = replace(reward.manifest, offset=0.0, temperature=1.0)
        adapted = LatentReward(
            self._reader.probe,
            manifest,
            model=self._where[0],
            tuning=self._where[1],
            device=self._where[2],
            adapter=(settings.adapter, adapter_state(self._transformer, settings.adapter)),
        )
        adapted.use(self._reader)
        used = self._data.pairs["split"].isin(["train", "test"])
        ids = pd.unique(self._data.pairs.loc[used, ["first", "second"]].to_numpy().ravel())
        own = adapted.score_data(self._data, self._items.loc[self._processes.share(list(ids))])
        scores = pd.concat(self._processes.gather([own]), ignore_index=True)
        reward_of = scores.set_index("item_id")["reward"]
        margins = reward_of[self._validation["first"]].to_numpy() - reward_of[self._validation["second"]].to_numpy()
        temperature = fit_temperature(margins, self._validation["choice"].to_numpy(dtype=float))
        temperature = temperature if np.isfinite(temperature) and temperature > 0 else 1.0
        trained = reward_of[pd.unique(self._train[["first", "second"]].to_numpy().ravel())].to_numpy()
        offset = float(trained.mean())
        training = {
            "data": self._data.name,
            "data_fingerprint": self._data.fingerprint,
            "store_digest": reward.manifest.training["store_digest"],
            "facet": settings.facet or ALL_FACETS,
            "n_pairs": len(self._train),
            "n_prompts": int(self._train["prompt_id"].nunique()),
            "adapted": asdict(settings),
            "history": list(history),
        }
        adapted.manifest = replace(
            manifest,
            training=training,
            offset=offset,
            temperature=float(temperature),
            quantiles=quantiles_of((trained - offset) / temperature),
            accuracies=tuple(measure_accuracies(self._data.name, self._data.pairs, scores, settings.facet)),
        )
        return adapted

    def _step(self, pairs: pd.DataFrame, epoch: int) -> None:
        self._transformer.train()
        own = pairs.iloc[self._processes.index :: self._processes.count]
        self._optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros(())
        # The last batch may have fewer pairs than there are processes.
        if len(own):
            loss = self._losses(self._margins(own, epoch, gradients=True), own).sum() / len(pairs)
            loss.backward()
        if not torch.isfinite(self._processes.sum(loss.detach().float())):
            raise UserError("The loss is not finite; give a lower learning rate.")
        self._weights.take_gradients()
        self._processes.sum_gradients(self._weights.values)
        nn.utils.clip_grad_norm_(self._weights.values, self._settings.clip)
        self._optimizer.step()
        self._schedule.step()
        self._weights.after_step()

    def _validate(self) -> tuple[float, float]:
        self._transformer.eval()
        pairs, size = self._validation, self._settings.batch_size
        shares = []
        for begin in self._processes.share(range(0, len(pairs), size)):
            margins = self._margins(pairs.iloc[begin : begin + size], None, gradients=False)
            shares.append((begin, margins.numpy()))
        parts = [margins for _, margins in sorted(self._processes.gather(shares), key=lambda share: share[0])]
        joined = np.concatenate(parts)
        loss = self._losses(torch.from_numpy(joined), pairs).mean()
        return float(loss), float(np.nanmean(outcomes(joined, pairs["choice"].to_numpy(dtype=np.float64))))

    def _losses(self, margins: Float[Tensor, " pair"], pairs: pd.DataFrame) -> Float[Tensor, " pair"]:
        """Return the head's own loss of each pair."""
        probe, choices = self._reward.probe, torch.tensor(pairs["choice"].to_numpy(dtype=np.float64))
        if isinstance(probe, NeuralProbe) and probe.loss == "fidelity":
            return fidelity(margins, choices)
        return bradley_terry(margins / self._reward.manifest.temperature, choices)

    def _margins(self, pairs: pd.DataFrame, epoch: int | None, *, gradients: bool) -> Float[Tensor, " pair"]:
        """Return reward(first) − reward(second); both items of all pairs go through one forward."""
        ids = pd.unique(pairs[["first", "second"]].to_numpy().ravel())
        row = {item: number for number, item in enumerate(ids)}
        # Epoch None draws the noise of the store.
        seed = self._extraction.seed + (0 if epoch is None else 1 + epoch)
        encoded = encode_items(
            self._reader.backbone, self._data, self._items.loc[ids], replace(self._extraction, seed=seed), self._kept
        )
        rewards = self._reader.rewards_of(
            encoded.latents, encoded.conditioning.rows(encoded.row_of), encoded.noise, gradients=gradients
        )
        first, second = (_rows(pairs[side], row) for side in ("first", "second"))
        margins: Float[Tensor, " pair"] = rewards[first] - rewards[second]
        return margins

    def _resume(self, checkpoint: Path | None) -> tuple[list[dict[str, float]], list[Tensor], int]:
        if checkpoint is None or not (checkpoint / _STATE).is_file():
            return [], [], 0
        state = torch.load(checkpoint / _STATE, weights_only=True, map_location="cpu")
        if state["identity"] != self._identity():
            raise UserError(f"{checkpoint} belongs to another training; give another folder, or remove it.")
        self._weights.set(state["trained"])
        for mean, value in zip(self._weights.mean, state["mean"], strict=True):
            mean.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        return list(state["history"]), state["best"], len(state["history"])

    def _save(self, checkpoint: Path | None, history: list[dict[str, float]], best: list[Tensor]) -> None:
        if checkpoint is None:
            return
        checkpoint.mkdir(parents=True, exist_ok=True)
        partial = checkpoint / f".{_STATE}.partial"
        state = {
            "identity": self._identity(),
            "trained": self._weights.copy(),
            "mean": self._weights.mean,
            "best": best,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "history": history,
        }
        torch.save(state, partial)
        partial.replace(checkpoint / _STATE)

    def _identity(self) -> str:
        settings = {**asdict(self._settings), "reward": self._reward.manifest.to_json()}
        return repr([settings, self._data.fingerprint])


def _rows(items: pd.Series, row: dict[str, int]) -> Int[Tensor, " pair"]:
    return torch.tensor([row[item] for item in items])
