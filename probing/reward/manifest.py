"""What a kept reward is made of and how well it does: written beside its weights, checked when it is read."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from probing.analysis.engine import Site
from probing.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class BackboneIdentity:
    """Which backbone a reward reads.

    Attributes:
        name: Registry name, or the folder's name.
        config_hash: Hash of its configurations.
        revision: Digest over all parts.
        parts: Digest of the files of each part.
        random_init: Whether the transformer's weights are fresh, or those of ``all`` parts.
        seed: Seed of fresh weights.
    """

    name: str
    config_hash: str
    revision: str
    parts: Mapping[str, str]
    random_init: bool | Literal["all"] = False
    seed: int = 0


@dataclass(frozen=True)
class Manifest:
    """Everything about a reward beside its weights.

    Attributes:
        backbone: The backbone.
        sites: Where it reads, in the order of the head's input.
        extraction: Settings of the forwards: resolution, preparation of images, text, noise.
        training: Data, facet, pairs and store that it was trained on.
        accuracies: One row a facet and rule, of held-out pairs: ``facet, split, rule, value, ci_low, ci_high, n_pairs,
            n_prompts``.
        offset: Mean reward of the training items, before calibration.
        temperature: Divides rewards into log odds.
        quantiles: Scores of the training items, by quantile.
        preset: Name and source of a published head, or None.
        versions: Of the libraries that made it.
        format: Number of this layout.
    """

    backbone: BackboneIdentity
    sites: tuple[Site, ...]
    extraction: Mapping[str, Any]
    training: Mapping[str, Any]
    accuracies: tuple[Mapping[str, Any], ...] = ()
    offset: float = 0.0
    temperature: float = 1.0
    quantiles: Mapping[str, float] = field(default_factory=dict)
    preset: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"sites": [list(site) for site in self.sites]}

    @staticmethod
    def from_json(content: Mapping[str, Any], where: str) -> Manifest:
        """Read it from JSON.

        Args:
            content: Of :meth:`to_json`.
            where: Path of the file, for messages.

        Raises:
            UserError: Another format, or a field that is missing or malformed.
        """
        if content.get("format") != FORMAT:
            raise UserError(
                f"{where} has format {content.get('format')!r}, and this version reads {FORMAT}; "
                f"use the version of dit-probing that wrote it, or train the reward again."
            )
        try:
            values = {name.name: content[name.name] for name in fields(Manifest)}
            values["backbone"] = BackboneIdentity(**values["backbone"])
            values["sites"] = tuple(Site(str(s), str(r), float(x), int(b)) for s, r, x, b in values["sites"])
            values["accuracies"] = tuple(values["accuracies"])
            values["offset"], values["temperature"] = float(values["offset"]), float(values["temperature"])
            manifest = Manifest(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where} was edited or is damaged ({type(error).__name__}: {error}); copy the folder again."
            ) from error
        if not manifest.sites or not manifest.temperature > 0:
            raise UserError(f"{where} gives no sites, or a temperature that is not above 0; copy the folder again.")
        return manifest


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a score."""
    names = ("dit-probing", "torch", "diffusers", "transformers", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
