"""A reward: a head on the features of a frozen backbone, which scores pictures and latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from probing.backbones.tuning import UNCHANGED, Tuning, of_paths, plain_name
from probing.errors import UserError
from probing.probes import Probe
from probing.progress import progress
from probing.reward.adapter import Adapter
from probing.reward.features import stored_features, wants_tokens
from probing.reward.folder import FILES, read_folder, write_folder
from probing.reward.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones import Conditioning
    from probing.features import FeatureStore
    from probing.preferences import PreferenceData
    from probing.reward.reader import RewardReader

Picture = Image.Image | str | Path
_ROWS_AT_ONCE = 1024
FIXED = "reward"
"""Key of the noise that all items share if none is given."""


class Scores(NamedTuple):
    """Scores over several draws of noise.

    Attributes:
        mean: Mean over the draws, (item,).
        standard_error: Of the mean, (item,); NaN for one draw.
    """

    mean: Float[np.ndarray, " item"]
    standard_error: Float[np.ndarray, " item"]


class LatentReward:
    """A trained head and its backbone: (prompt, picture or latents) → score.

    Higher is better. The difference of two scores of one prompt is the log odds that people choose the first picture;
    0 is the mean of the training items. Scores are the same in every process: noise depends on the reward's seed
    alone, or on the seed and the keys that are given.

    Attributes:
        probe: The fitted probe.
        manifest: Backbone, sites, training data, accuracies, calibration.
        adapter: Settings and tensors of an adapted backbone; None for a frozen one.
    """

    def __init__(
        self,
        probe: Probe,
        manifest: Manifest,
        *,
        model: str | Path | None = None,
        tuning: Tuning = UNCHANGED,
        device: str = "auto",
        adapter: Adapter | None = None,
    ) -> None:
        self.probe, self.manifest, self.adapter = probe, manifest, adapter
        self._model = None if model is None else str(model)
        self._tuning = tuning
        self._device = device
        self._reader: RewardReader | None = None

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        model: str | Path | None = None,
        transformer: str | Path | None = None,
        lora: str | Path | None = None,
        lora_scale: float = 1.0,
        device: str = "auto",
        revision: str | None = None,
    ) -> LatentReward:
        """Load a reward; its backbone is loaded when it first scores.

        Args:
            source: Folder of :meth:`save`, or a repository of the Hugging Face hub.
            model: Registry name or folder of the backbone; the name in the manifest if None. Another backbone than the
                reward was trained on is refused.
            transformer: Folder or file of the transformer that replaced the model's, if one did.
            lora: File or folder of the LoRA that was added, if one was.
            lora_scale: Its factor.
            device: ``auto``, ``cpu``, ``cuda``, ``mps``.
            revision: Branch, tag or commit of the hub's repository.

        Raises:
            UserError: There is no reward, or it is damaged, incomplete or of another format.
        """
        folder = Path(source)
        if not folder.is_dir() and len(Path(source).parts) == 2 and not folder.is_absolute():
            folder = _download(str(source), revision)
        probe, manifest, adapter = read_folder(folder)
        tuning = of_paths(transformer, lora, lora_scale)
        return cls(probe, manifest, model=model, tuning=tuning, device=device, adapter=adapter)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``head.safetensors``, ``config.json``, ``manifest.json`` and a card into a folder.

        Raises:
            UserError: The folder holds another reward and ``overwrite`` is false, or holds something else, or cannot
                be written.
        """
        write_folder(Path(folder), self.probe, self.manifest, self.adapter, overwrite=overwrite)
        return Path(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the folder to the Hugging Face hub, and return its address.

        Raises:
            UserError: The hub cannot be reached, or refuses.
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            try:
                url = api.create_repo(repo_id, private=private, exist_ok=True)
                api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Add a reward")
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"{repo_id} cannot be written ({reason}); log in with `hf auth login`, and check the name."
                ) from error
        return str(url)

    def score(
        self, prompts: str | Sequence[str], images: Picture | Sequence[Picture], *, keys: Sequence[str] | None = None
    ) -> Float[np.ndarray, " item"]:
        """Score pictures.

        Args:
            prompts: One for each picture, or one for all.
            images: Pictures, or their files.
            keys: Name of each item, which decides its noise as ids do in a store; all items share one draw if None.

        Returns:
            One score a picture.

        Raises:
            UserError: A bad picture, another number of prompts, another backbone, or a score that is not finite.
        """
        return self.score_draws(prompts, images, draws=1, keys=keys).mean

    def score_draws(
        self,
        prompts: str | Sequence[str],
        images: Picture | Sequence[Picture],
        *,
        draws: int,
        keys: Sequence[str] | None = None,
    ) -> Scores:
        """Score pictures under several draws of noise; pictures and prompts are encoded once.

        Args:
            prompts: As for :meth:`score`.
            images: See there.
            draws: Number of draws; the first is that of :meth:`score`.
            keys: See there.

        Raises:
            UserError: As :meth:`score`.
        """
        pictures = [images] if isinstance(images, Image.Image | str | Path) else list(images)
        words = _one_each(prompts, len(pictures), "pictures")
        reader = self.opened
        return self._several(reader.encode_images(pictures), reader.encode_prompts(words), keys, draws)

    def score_latents(
        self,
        latents: Tensor,
        prompts: str | Sequence[str] | None = None,
        *,
        conditioning: Conditioning | None = None,
        keys: Sequence[str] | None = None,
        draws: int = 1,
    ) -> Float[np.ndarray, " item"]:
        """Score clean latents x0, (item, channel, row, column), in the space where noise is added.

        Args:
            latents: As a sampler ends with: scaled and shifted, not yet given to the VAE's decoder.
            prompts: One for each item, or one for all.
            conditioning: Encoded prompts, a row an item, in place of ``prompts``.
            keys: As for :meth:`score`.
            draws: Number of draws whose mean is returned.

        Raises:
            UserError: Latents of another shape or not finite; and as :meth:`score`.
        """
        reader = self.opened
        latents = reader.check_latents(latents)
        return self._several(latents, self._conditioning(prompts, conditioning, len(latents)), keys, draws).mean

    def score_and_grad(
        self,
        latents: Tensor,
        prompts: str | Sequence[str] | None = None,
        *,
        conditioning: Conditioning | None = None,
        keys: Sequence[str] | None = None,
    ) -> tuple[Float[np.ndarray, " item"], Tensor]:
        """Score clean latents, and return the gradient of each score by its latents, of their shape.

        Arguments and errors are those of :meth:`score_latents`.
        """
        reader = self.opened
        latents = reader.check_latents(latents)
        raw, gradient = reader.rewards_and_gradients(
            latents,
            self._conditioning(prompts, conditioning, len(latents)),
            self._keys(keys, len(latents)),
            self.manifest.extraction["seed"],
        )
        return self._calibrated(raw), gradient / self.manifest.temperature

    def noisy_score_and_grad(
        self,
        noisy: Tensor,
        sigma: float,
        prompts: str | Sequence[str] | None = None,
        *,
        conditioning: Conditioning | None = None,
    ) -> tuple[Float[np.ndarray, " item"], Tensor]:
        """Score latents on their way from noise to a picture as they are, with the gradients by them.

        Meant for a head that was trained at that noise level; others give numbers without a meaning.

        Args:
            noisy: x_σ, (item, channel, row, column).
            sigma: Its noise level.
            prompts: As for :meth:`score_latents`.
            conditioning: See there.

        Raises:
            UserError: As :meth:`score_latents`.
        """
        reader = self.opened
        noisy = reader.check_latents(noisy)
        raw, gradient = reader.noisy_rewards_and_gradients(
            noisy, self._conditioning(prompts, conditioning, len(noisy)), sigma
        )
        return self._calibrated(raw), gradient / self.manifest.temperature

    def score_features(self, features: Float[np.ndarray, "item ..."]) -> Float[np.ndarray, " item"]:
        """Score cached features, side by side in the order of the manifest's sites."""
        import torch

        from probing.probes._modules import reward_module

        head, parts = reward_module(self.probe), []
        with torch.inference_mode():
            for start in range(0, len(features), _ROWS_AT_ONCE):
                parts.append(head(torch.from_numpy(np.array(features[start : start + _ROWS_AT_ONCE]))).numpy())
        return self._calibrated(np.concatenate(parts))

    def score_store(self, store: FeatureStore) -> pd.DataFrame:
        """Score all items of a feature store, without a forward.

        Returns:
            ``item_id, reward``.

        Raises:
            UserError: The store was made with another backbone or other settings, or lacks a site; or the backbone of
                this reward is adapted, and no store has its features.
        """
        from probing.features.tokens import settings_of

        if self.adapter is not None:
            raise UserError(
                f"{store.path} has features of the frozen backbone, and this reward has an adapted one; score pictures "
                f"or latents."
            )
        theirs, ours = vars(settings_of(store.attributes)), self.manifest.extraction
        names = [name for name in theirs if name not in ("sigmas", "streams", "reductions", "blocks", "batch_size")]
        changed = [name for name in names if theirs[name] != ours[name]]
        if store.attributes.get("parts") != dict(self.manifest.backbone.parts):
            changed.insert(0, "the backbone")
        if changed:
            raise UserError(f"{store.path} differs from what the reward was trained on in {', '.join(changed)}.")
        features = stored_features(store, self.manifest.sites, tokens=wants_tokens(self.probe))
        return pd.DataFrame({"item_id": np.asarray(store.item_ids), "reward": self.score_features(features)})

    def score_data(self, data: PreferenceData, items: pd.DataFrame | None = None) -> pd.DataFrame:
        """Score items of a data set with the noise that an extraction would draw for them.

        Args:
            data: Opens the pictures.
            items: Rows of its items; all if None.

        Returns:
            ``item_id, reward``.

        Raises:
            UserError: As :meth:`score`.
        """
        items = data.items if items is None else items
        key = "prompt_id" if self.manifest.extraction["pair_noise"] == "shared" else "item_id"
        size, parts = int(self.manifest.extraction["batch_size"]), []
        with progress(len(items), self.manifest.backbone.name, "items") as bar:
            for start in range(0, len(items), size):
                batch = items.iloc[start : start + size]
                pictures = [data.open_image(item) for item in batch["item_id"]]
                parts.append(self.score(batch["prompt"].tolist(), pictures, keys=batch[key].tolist()))
                bar.update(len(batch))
        return pd.DataFrame({"item_id": items["item_id"].to_numpy(), "reward": np.concatenate(parts)})

    @property
    def opened(self) -> RewardReader:
        """The backbone with the head; it is loaded now if it has not scored yet."""
        if self._reader is None:
            from probing.reward.reader import RewardReader

            self._reader = RewardReader.open(self.probe, self.manifest, *self.where, self.adapter)
        return self._reader

    @property
    def where(self) -> tuple[str, Tuning, str]:
        """Name or folder of the backbone, weights that change it, and device.

        Raises:
            UserError: Neither model nor weights were given, and the reward was trained with changed ones.
        """
        model = plain_name(self.manifest.backbone.name, self._tuning) if self._model is None else self._model
        return model, self._tuning, self._device

    def use(self, reader: RewardReader) -> None:
        """Use a backbone that is loaded already."""
        self._reader = reader

    def save_transformer(self, folder: str | Path) -> Path:
        """Write the adapted transformer in diffusers' format, for ``probing.extract --transformer``.

        Raises:
            UserError: The backbone is frozen: it is that of the model.
        """
        from probing.reward.adapter import merge_adapter
        from probing.reward.reader import RewardReader

        if self.adapter is None:
            raise UserError("The backbone of this reward is frozen; extract the features of its model.")
        # A copy of its own: merged weights differ from adapted ones by rounding.
        transformer = RewardReader.open(self.probe, self.manifest, *self.where, self.adapter).backbone.transformer
        merge_adapter(transformer, self.adapter[0])
        transformer.save_pretrained(str(folder))
        return Path(folder)

    def _conditioning(
        self, prompts: str | Sequence[str] | None, conditioning: Conditioning | None, items: int
    ) -> Conditioning:
        if (prompts is None) == (conditioning is None):
            raise UserError("Give prompts, or conditioning: one of the two.")
        if conditioning is None:
            assert prompts is not None
            return self.opened.encode_prompts(_one_each(prompts, items, "latents"))
        rows = {len(tensor) for tensor in conditioning.tensors.values()}
        if rows != {items}:
            raise UserError(f"Got conditioning of {sorted(rows)} rows for {items} latents; give one row each.")
        return conditioning

    def _several(self, latents: Tensor, conditioning: Conditioning, keys: Sequence[str] | None, draws: int) -> Scores:
        if draws < 1:
            raise UserError(f"Got {draws} draws of noise, expected 1 or more.")
        first, names = int(self.manifest.extraction["seed"]), self._keys(keys, len(latents))
        rows = [
            self._calibrated(self.opened.rewards(latents, conditioning, names, first + draw)) for draw in range(draws)
        ]
        error = np.std(rows, axis=0, ddof=1) / np.sqrt(draws) if draws > 1 else np.full(len(latents), np.nan)
        return Scores(np.mean(rows, axis=0), error)

    def _calibrated(self, raw: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
        if not np.isfinite(raw).all():
            raise UserError(
                f"Item {int(np.flatnonzero(~np.isfinite(raw))[0])} has a score that is not finite; check its picture "
                f"or latents."
            )
        return (raw - self.manifest.offset) / self.manifest.temperature

    @staticmethod
    def _keys(keys: Sequence[str] | None, items: int) -> list[str]:
        if keys is None:
            return [FIXED] * items
        if len(keys) != items:
            raise UserError(f"Got {len(keys)} keys for {items} items; give one each.")
        return list(keys)


def _one_each(prompts: str | Sequence[str], items: int, what: str) -> list[str]:
    words = [prompts] * items if isinstance(prompts, str) else list(prompts)
    if items == 0:
        raise UserError(f"There are no {what} to score.")
    if len(words) != items:
        raise UserError(f"Got {len(words)} prompts for {items} {what}; give one each, or one for all.")
    return words


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"There is no folder {repo_id}, and the hub has no such reward or cannot be reached ({reason}); "
            f"check the name."
        ) from error
