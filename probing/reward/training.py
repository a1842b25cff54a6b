"""Train a reward on cached features: pick sites, fit a probe, calibrate it, and measure it on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.combinations.mix import fit_mix, mixed_features
from probing.analysis.engine import (
    ALL_FACETS,
    Curve,
    CurveReader,
    Facet,
    FeatureSource,
    Recipe,
    Site,
    Sites,
    digest_of,
    facets_of,
    table_digest,
)
from probing.analysis.scoring import score_pairs
from probing.backbones.tuning import of_paths
from probing.errors import UserError
from probing.features import FeatureStore
from probing.features.tokens import settings_of
from probing.probes import AttentionProbe, LinearProbe, Probe, make_probe
from probing.reward.features import sizes_of, stored_features, wants_tokens
from probing.reward.latent_reward import LatentReward
from probing.reward.manifest import BackboneIdentity, Manifest, versions
from probing.reward.presets import Preset, preset_of

RULE = "micro-half"
"""Rule of the accuracies in a manifest."""
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True)
class HeadSettings:
    """What a head reads, and how it is fitted.

    Attributes:
        preset: A published head: dit-reward, dina or registers; what is given below replaces its part.
        blocks: 0-indexed blocks; default: all of the store.
        streams: Token streams; default: all of the store.
        reductions: Reductions of the store, such as mean or mean_clip; default: all of the store.
        sigmas: Noise levels; default: all of the store.
        probe: Kind of probe; default: the preset's, or logistic.
        combine: How blocks stand together: concatenate, or mix, a learned weighted mean of the blocks of each stream,
            reduction and noise level (linear probes only; its weights are learned on the choices).
        facet: Facet of the pairs to train on; default: all pairs.
        labels: Column of the pairs to train on, in [0, 1]: choice, or share_first of the annotators.
        weights: Column with the weight of each training pair; default: equal weights.
        options: Options of the probe, such as epochs=30.
    """

    preset: str | None = None
    blocks: tuple[int, ...] | None = None
    streams: tuple[str, ...] | None = None
    reductions: tuple[str, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    probe: str | None = None
    combine: Literal["concatenate", "mix"] = "concatenate"
    facet: str | None = None
    labels: str = "choice"
    weights: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def train_reward(
    store: FeatureStore | str | Path, pairs: pd.DataFrame | None = None, *, device: str = "auto", **settings: Any
) -> LatentReward:
    """Train a head on one or several sites of a store; with the store's backbone it is a reward.

    Pairs of split ``train`` are fitted; those of ``test`` measure the accuracies of the manifest and decide nothing.

    Args:
        store: Features, or the path of their store.
        pairs: Pairs with a split; those of the store if None.
        device: Device of the fit of a network, and of the scoring.
        **settings: Of :class:`HeadSettings`: ``blocks``, ``probe``, ``preset``, …

    Raises:
        UserError: A preset, site, facet or option that is not there, or pairs that cannot be fitted.
    """
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    try:
        head = HeadSettings(**values)
    except TypeError as error:
        raise UserError(f"A head has no such setting ({error}); see probing.reward.HeadSettings.") from error
    opened = store if isinstance(store, FeatureStore) else FeatureStore.open(store)
    return fit_head(opened, opened.read_pairs() if pairs is None else pairs, head, device=device)


def fit_head(store: FeatureStore, pairs: pd.DataFrame, head: HeadSettings, *, device: str = "auto") -> LatentReward:
    """Fit a head; arguments and errors are those of :func:`train_reward`."""
    sites, probe, note = plan_head(store, head)
    names = facets_of(store, pairs, None if head.facet is None else [head.facet])
    facet = names[0]
    tokens = wants_tokens(probe)
    if isinstance(probe, AttentionProbe):
        probe.sources = tuple(sizes_of(store, sites, tokens=True)[0])
        probe.sigmas = tuple(site.sigma for site in sites)
    if "device" in probe.get_params():
        probe.set_params(device="cpu" if device == "auto" and isinstance(probe, LinearProbe) else device)
    features = stored_features(store, sites, tokens=tokens)
    recipe = Recipe(labels=head.labels, weights=head.weights)
    y, weights = recipe.labels_of(facet.train), recipe.weights_of(facet.train)
    mixed = _mix(store, sites, probe, facet) if head.combine == "mix" else None
    try:
        probe.fit_pairs(
            features if mixed is None else mixed.features, facet.train.rows, y, facet.train.prompts, weights
        )
        if mixed is not None:
            assert isinstance(probe, LinearProbe)
            # A weighted mean of blocks is linear in each, so the head is one on the blocks side by side.
            probe.coef_ = mixed.spread(probe.coef_)
            probe.n_features_in_ = len(probe.coef_)
    except ValueError as error:
        raise UserError(f"The head cannot be fitted: {error}") from error
    rewards = np.asarray(probe.rewards(features), dtype=np.float64)
    temperature = recipe.temperature(probe, y)
    # A probe without margins of pairs that it was not fitted to keeps its own scale.
    temperature = temperature if np.isfinite(temperature) and temperature > 0 else 1.0
    offset = float(rewards[facet.training_rows].mean())
    scores = (rewards[facet.training_rows] - offset) / temperature
    manifest = Manifest(
        backbone=_backbone(store),
        sites=tuple(sites),
        extraction=_extraction(store),
        training=_training(store, facet, head, probe),
        accuracies=tuple(
            measure_accuracies(
                str(store.attributes["data"]),
                pairs,
                pd.DataFrame({"item_id": np.asarray(store.item_ids), "reward": rewards}),
                head.facet,
            )
        ),
        offset=offset,
        temperature=float(temperature),
        quantiles=quantiles_of(scores),
        preset=note,
        versions=versions(),
    )
    request = store.attributes.get("request") or {}
    # A path on this machine is not written into a manifest.
    tuning = of_paths(request.get("transformer"), request.get("lora"), float(request.get("lora_scale") or 1.0))
    return LatentReward(probe, manifest, model=request.get("model"), tuning=tuning, device=device)


class _Mixed(NamedTuple):
    """The mixed features of all curves side by side, and how much of each mixed channel every block's channel gives."""

    features: Float[np.ndarray, "item mixed"]
    parts: list[tuple[slice, Float[np.ndarray, " channel"]]]

    def spread(self, coef: Float[np.ndarray, " mixed"]) -> Float[np.ndarray, " channel"]:
        """Return coefficients of the blocks side by side, given those of the mixed features."""
        return np.concatenate([coef[mixed] * share for mixed, share in self.parts])


def _mix(store: FeatureSource, sites: Sequence[Site], probe: Probe, facet: Facet) -> _Mixed:
    """Learn the weights of the blocks of each curve."""
    if not isinstance(probe, LinearProbe):
        raise UserError("Only linear probes read mixed blocks; leave out --combine mix, or give --probe logistic.")
    curves: dict[tuple[str, str, float], list[Site]] = {}
    for site in sites:
        curves.setdefault(site[:3], []).append(site)
    columns, shares, start = [], {}, 0
    for of_curve in curves.values():
        reader = CurveReader(store, Curve(*of_curve[0][:3], tuple(site.block for site in of_curve)))
        blocks = reader.curve.blocks
        mix = fit_mix(reader.read, blocks, facet.train)
        columns.append(mixed_features(mix, reader.read, blocks))
        mixed = slice(start, start + reader.width)
        start += reader.width
        for site, weight, scale in zip(of_curve, mix.weights, mix.scales, strict=True):
            shares[site] = mixed, weight / scale
    return _Mixed(np.concatenate(columns, axis=1), [shares[site] for site in sites])


def plan_head(store: FeatureSource, head: HeadSettings) -> tuple[list[Site], Probe, str | None]:
    """Choose sites and probe.

    Returns:
        The sites in the order of the head's input, the unfitted probe, and a sentence about the preset.

    Raises:
        UserError: A preset, site, probe or option that is not there.
    """
    probe_name, options, note = head.probe or "logistic", dict(head.options), None
    if head.preset is None:
        sites = Sites(head.streams, head.reductions, head.sigmas, head.blocks).of(store)
    else:
        preset = preset_of(head.preset)
        probe_name = head.probe or preset.probe
        options = {**(preset.options if head.probe is None else {}), **options}
        pipeline = store.attributes.get("pipeline")
        blocks = preset.taps.blocks(store.num_blocks, pipeline) if head.blocks is None else head.blocks
        sigmas = _nearest_sigmas(preset.sigmas, store) if head.sigmas is None else head.sigmas
        arrays, note = _preset_arrays(head.preset, preset, store)
        sites = [
            site for stream, reduction in arrays for site in Sites((stream,), (reduction,), sigmas, blocks).of(store)
        ]
        note = f"{head.preset}. {preset.describe(store.num_blocks, pipeline)} {note}"
    probe = make_probe(probe_name)
    known = probe.get_params()
    for name, value in options.items():
        if name not in known or name in ("device", "sources", "sigmas"):
            raise UserError(f"The probe {probe_name} has no option {name!r}; it has {', '.join(known)}.")
        probe.set_params(**{name: _typed(name, value, known[name])})
    return sites, probe, note


def _preset_arrays(name: str, preset: Preset, store: FeatureSource) -> tuple[list[tuple[str, str]], str]:
    """Choose the arrays of a store that a preset reads, with a sentence about them.

    Raises:
        UserError: The store has none of the preset's choices.
    """
    for choice in preset.arrays:
        found = {
            wanted: [
                (stream, reduction)
                for stream, reduction in store.arrays()
                if (stream, reduction.split("_")[0]) == wanted
            ]
            for wanted in choice
        }
        if all(found.values()):
            arrays = [array for arrays in found.values() for array in arrays]
            return arrays, f"It reads {', '.join('/'.join(array) for array in arrays)}."
    needed = " or ".join(", ".join("/".join(wanted) for wanted in choice) for choice in preset.arrays)
    raise UserError(f"The preset {name} reads {needed}, and the store lacks some of them; extract them too.")


def _nearest_sigmas(sigmas: Sequence[float], store: FeatureSource) -> tuple[float, ...]:
    missing = [sigma for sigma in sigmas if sigma not in store.sigmas]
    if missing:
        have = ", ".join(f"{sigma:g}" for sigma in store.sigmas)
        raise UserError(
            f"The preset reads sigma {', '.join(f'{sigma:g}' for sigma in sigmas)}, and the store has {have}; "
            f"add them with probing.extract --sigmas, or give --sigmas."
        )
    return tuple(sigmas)


def _typed(name: str, value: Any, example: Any) -> Any:
    """Convert the text of an option to the type of its default."""
    if not isinstance(value, str) or isinstance(example, str) or example is None:
        return tuple(value) if isinstance(value, list) else value
    try:
        if isinstance(example, tuple):
            return tuple(type(example[0])(part) for part in value.split(","))
        return type(example)(value)
    except ValueError:
        raise UserError(f"The option {name} is of type {type(example).__name__}, got {value!r}.") from None


def _backbone(store: FeatureStore) -> BackboneIdentity:
    attributes = store.attributes
    if not attributes.get("parts"):
        raise UserError(f"{store.path} does not say which weights it was made with; extract it again.")
    return BackboneIdentity(
        name=str(attributes["model"]),
        config_hash=str(attributes["config_hash"]),
        revision=str(attributes["revision"]),
        parts=dict(attributes["parts"]),
        random_init=attributes["random_init"],
        seed=int(attributes["seed"]),
    )


def _extraction(store: FeatureStore) -> dict[str, Any]:
    settings = replace(settings_of(store.attributes), sigmas=tuple(store.sigmas))
    if settings.prompts != "own":
        raise UserError(f"{store.path} was made with {settings.prompts} prompts: it is a control, and no reward.")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(settings).items()}


def _training(store: FeatureStore, facet: Facet, head: HeadSettings, probe: Probe) -> dict[str, Any]:
    return {
        "data": str(store.attributes["data"]),
        "data_fingerprint": str(store.attributes["data_fingerprint"]),
        "pairs": table_digest(facet.train.table.astype(str)),
        "store_digest": digest_of(store),
        "facet": facet.name,
        "n_pairs": len(facet.train.table),
        "n_prompts": int(facet.train.table["prompt_id"].nunique()),
        "combine": head.combine,
        "labels": head.labels,
        "weights": head.weights,
        "cv_accuracy": float(probe.cv_accuracy_),
        "alpha": None if np.isnan(probe.alpha_) else float(probe.alpha_),
    }


def quantiles_of(scores: Float[np.ndarray, " item"]) -> dict[str, float]:
    """Return the quantiles of a card."""
    return {f"{q:g}": float(np.quantile(scores, q)) for q in QUANTILES}


def measure_accuracies(
    name: str, pairs: pd.DataFrame, rewards: pd.DataFrame, facet: str | None
) -> list[dict[str, Any]]:
    """Measure every facet of the test pairs, and all of them together.

    Args:
        name: Of the data.
        pairs: All pairs.
        rewards: ``item_id, reward``.
        facet: The one to measure; None for all.
    """
    test = pairs[pairs["split"] == "test"]
    if facet is not None and facet != ALL_FACETS:
        test = test[test["facet"] == facet]
    parts = [test] if test["facet"].nunique() == 1 else [test.assign(facet=ALL_FACETS), test]
    scored = pd.concat([score_pairs(name, part, rewards, rules=[RULE]) for part in parts])
    columns = ["facet", "split", "rule", "value", "ci_low", "ci_high", "n_pairs", "n_prompts"]
    return [dict(zip(columns, row, strict=True)) for row in scored[columns].itertuples(index=False)]
