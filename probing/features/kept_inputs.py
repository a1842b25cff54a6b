"""Latents and encoded prompts that are kept on disk, so that no extraction encodes them again.

They lie in one folder beside the stores, which is bounded, shared by all models, and safe to delete at any time. An
entry is found by everything that decides its values: the digests of the parts that made it, the preparation of the
picture or the words, the batch size, the type and the device of the computation, and the versions of the libraries.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import diskcache
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from probing.backbones import BackboneSpec, Conditioning
from probing.backbones.base import STAGES, Stage
from probing.features.settings import KEEP_INPUTS, ExtractionSettings
from probing.preferences import PreferenceData
from probing.preferences.images import RULES

_FORMAT = 2
_LIBRARIES = ("torch", "diffusers", "transformers")
_UNREADABLE = (OSError, sqlite3.Error, diskcache.Timeout, SafetensorError, KeyError, ValueError)
"""What a damaged, locked or full folder raises; entries are then encoded anew, and not kept."""


def open_kept(
    folder: Path | None,
    spec: BackboneSpec,
    settings: ExtractionSettings,
    parts: Mapping[str, str] | None,
    device: str,
    *,
    gib: float = KEEP_INPUTS,
    reserved: int = 0,
) -> KeptInputs | None:
    """Open the folder of kept inputs; at most half of the free disk is used, so that nothing kept fills it.

    Args:
        folder: The folder; None keeps nothing.
        spec: The model.
        settings: Of the extraction.
        parts: Digests of the model's parts; None if the model is not here yet, and nothing is kept.
        device: Type of the device of the encoders.
        gib: Largest size in GiB.
        reserved: Bytes of free disk that are needed for something else.
    """
    if folder is None or not parts:
        return None
    present = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    limit = int(min(gib * 2**30, (shutil.disk_usage(present).free - reserved) / 2))
    return None if limit < 2**20 else KeptInputs(folder, limit, spec, settings, parts, device)


class KeptInputs:
    """The entries of one model and one preparation.

    Args:
        folder: The folder; it is made.
        limit: Largest size in bytes; the oldest entries go first.
        spec: The model.
        settings: Of the extraction.
        parts: Digests of the model's parts.
        device: Type of the device of the encoders.

    Attributes:
        limit: Largest size in bytes.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        spec: BackboneSpec,
        settings: ExtractionSettings,
        parts: Mapping[str, str],
        device: str,
    ) -> None:
        self._cache, self.limit = None, limit
        with suppress(*_UNREADABLE):
            self._cache = diskcache.Cache(
                str(folder), size_limit=limit, eviction_policy="least-recently-stored", disk_min_file_size=2**17
            )
        kinds = {part.name: part.kind for part in spec.family.parts}
        common = {
            "format": _FORMAT,
            "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            "compute_dtype": settings.compute_dtype,
            "device": device,
        }
        picture = {
            "parts": {name: digest for name, digest in parts.items() if kinds.get(name) == "vae"},
            "rules": RULES,
            "resolution": settings.resolution,
            "resize": settings.resize,
            "background": settings.background,
            "batch_size": settings.batch_size,
        }
        text = {
            "parts": {name: d for name, d in parts.items() if kinds.get(name) in ("text_encoder", "tokenizer")},
            "length": settings.t5_length,
            "use_t5": settings.use_t5,
        }
        self._picture, self._text = _digest({**common, **picture}), _digest({**common, **text})

    def has_pictures(self, keys: Iterable[str | None]) -> bool:
        """Return whether the latents of all pictures are kept, by :meth:`PreferenceData.image_key`."""
        return self._has(self._picture, keys)

    def has_prompts(self, batches: Iterable[Sequence[str]]) -> bool:
        """Return whether all prompts are kept, as they are encoded in these batches."""
        return self._has(self._text, map(_name_of, batches))

    def stages_to_load(self, data: PreferenceData, runs: Sequence[pd.DataFrame]) -> frozenset[Stage]:
        """Return the stages of a backbone that items need, read in these runs: none that encodes what is kept."""
        from probing.features.inputs import prompt_batches

        stages = set(STAGES)
        if self.has_pictures(data.image_key(item) for run in runs for item in run["item_id"]):
            stages -= {"vae"}
        if self.has_prompts(batch for run in runs for batch in prompt_batches(run["prompt"])):
            stages -= {"text_encoders"}
        return frozenset(stages)

    def read_pictures(
        self, keys: Sequence[str | None]
    ) -> tuple[Float[Tensor, "picture channel row column"], list[bytes]] | None:
        """Read latents, and digests of the pictures; None if one is missing."""
        entries = self._read(self._picture, keys)
        if entries is None:
            return None
        return torch.stack([entry["latents"] for entry in entries]), [
            bytes(entry["picture_digest"].tolist()) for entry in entries
        ]

    def keep_pictures(
        self, keys: Sequence[str | None], latents: Float[Tensor, "picture channel row column"], digests: Sequence[bytes]
    ) -> None:
        """Keep latents; a picture without a key is not kept."""
        entries = [
            {"latents": one.contiguous(), "picture_digest": torch.tensor(list(digest), dtype=torch.uint8)}
            for one, digest in zip(latents, digests, strict=True)
        ]
        self._keep(self._picture, keys, entries)

    def read_prompts(self, batch: Sequence[str]) -> Conditioning | None:
        """Read prompts as they were encoded in this batch; None if they were not.

        Other batch mates round otherwise on some processors: what is read must not depend on who encoded a prompt last.
        """
        entries = self._read(self._text, [_name_of(batch)])
        if entries is None:
            return None
        groups: dict[str, dict[str, Tensor]] = {"tensors": {}, "parts": {}}
        for name, tensor in entries[0].items():
            group, _, key = name.partition("/")
            groups[group][key] = tensor
        return Conditioning(groups["tensors"], groups["parts"])

    def keep_prompts(self, batch: Sequence[str], conditioning: Conditioning) -> None:
        """Keep a batch of encoded prompts."""
        named = {f"tensors/{name}": tensor.contiguous() for name, tensor in conditioning.tensors.items()}
        named |= {f"parts/{name}": tensor.contiguous() for name, tensor in conditioning.parts.items()}
        self._keep(self._text, [_name_of(batch)], [named])

    @property
    def _opened(self) -> diskcache.Cache:
        if self._cache is None:
            raise OSError("the folder cannot be used")
        return self._cache

    def _has(self, prefix: bytes, names: Iterable[str | None]) -> bool:
        try:
            return all(name is not None and _key(prefix, name) in self._opened for name in names)
        except _UNREADABLE:
            return False

    def _read(self, prefix: bytes, names: Sequence[str | None]) -> list[dict[str, Tensor]] | None:
        try:
            entries: list[dict[str, Tensor]] = []
            for name in names:
                value = None if name is None else self._opened.get(_key(prefix, name))
                if value is None:
                    return None
                entries.append(load(value))
            return entries
        except _UNREADABLE:
            return None

    def _keep(self, prefix: bytes, names: Sequence[str | None], entries: Sequence[dict[str, Tensor]]) -> None:
        try:
            with self._opened.transact():
                for name, entry in zip(names, entries, strict=True):
                    if name is not None:
                        self._opened.set(_key(prefix, name), save(entry))
        except _UNREADABLE:
            return


def _digest(content: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).digest()


def _name_of(batch: Sequence[str]) -> str:
    return json.dumps(list(batch))


def _key(prefix: bytes, name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16, key=prefix).digest()
