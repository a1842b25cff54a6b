"""Does a testbed model use what a probe reads? Change every block while it generates, and score the pictures.

``python -m probing.testbed.causal`` steers each block along the direction of a probe and against it, by one and by four
standard deviations of its reading, at every step of sampling, with the same captions and noise; then it erases the
direction. It draws ``causal_curve`` (reading and use, block by block) and ``dose_response``, and writes
``causal_correlation.csv`` and ``erasure.csv``. Controls: directions of shuffled choices, of random numbers, and of a
random-initialised model. Scores of generated pictures are kept in ``--cache``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

import probing
from probing.analysis import causal
from probing.analysis.engine import CellResults, Run, Site, Sites, measure_cells
from probing.backbones import Backbone, load_backbone, pick_device, resolve
from probing.commands import check_output_folder, run_command
from probing.errors import UserError
from probing.interventions import erase, steer
from probing.options import OptionsParser
from probing.testbed.judge import WEIGHTS, Judge
from probing.testbed.pictures import decode, judged
from probing.testbed.preferences import captions
from probing.testbed.studies import save_study

READ_AT = {"alignment": 0.6, "quality": 0.005}
"""Noise level at which each facet is read best (docs/findings.md)."""
METRIC_OF = {"alignment": "alignment", "quality": "fidelity"}
"""What steering along a facet's direction should move."""
PROBES = ("logistic", "mean_difference")
MIN_CAPTIONS = 2


@dataclass(frozen=True)
class CausalOptions:
    """Options of the command.

    Attributes:
        model: Model.
        captions: Number of captions of the test split, one picture each.
        doses: Lengths of a push in every block, in standard deviations of the reading over items; controls have the
            largest.
        responses: Lengths of the dose-response, at the block that reads the facet best.
        seeds: Shuffled and random directions of each block.
        steps: Forwards of the sampler.
        guidance: Scale of classifier-free guidance; 1 for none.
        levels: Lowest and highest noise level at which blocks are changed, whatever the level at which a direction was
            read.
        limit: Largest number of items of the stores, by whole prompt groups; default: all.
        cache: Folder of stores and of what was generated.
        output: Folder of the figures and tables.
    """

    model: str = "testbed-s"
    captions: int = 96
    doses: tuple[float, ...] = (1.0, 4.0)
    responses: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    seeds: int = 1
    steps: int = 12
    guidance: float = 1.0
    levels: tuple[float, ...] = (0.0, 1.0)
    limit: int | None = None
    cache: Path = Path("cache/causal")
    output: Path = field(default=Path("figures"))


PARSER = OptionsParser("probing.testbed.causal", CausalOptions, __doc__)


def run(options: CausalOptions) -> None:
    if options.captions < MIN_CAPTIONS or options.seeds < 1:
        raise UserError(
            f"Got {options.captions} captions and {options.seeds} seeds, expected at least {MIN_CAPTIONS}, and 1."
        )
    if not options.doses or not options.responses or min(*options.doses, *options.responses) <= 0:
        raise UserError("Give doses and responses above 0; each is also tried with its negative.")
    if len(options.levels) != 2:
        raise UserError(f"Got {len(options.levels)} levels, expected the lowest and the highest.")
    check_output_folder(options.output)
    data = probing.load_pairs("testbed", limit=options.limit)
    sigmas = sorted(set(READ_AT.values()))
    stores = {
        random_init: probing.extract(
            options.model,
            data,
            sigmas=sigmas,
            random_init=random_init,
            output=options.cache / f"{options.model}{'-random-init' if random_init else ''}.zarr",
        )
        for random_init in (False, True)
    }
    read = {facet: _read(stores[False], data, facet, options) for facet in READ_AT}
    backbone = load_backbone(resolve(options.model), device=pick_device("auto"), compute_dtype=torch.float32)
    settings = causal.GenerationSettings(
        steps=options.steps, guidance=options.guidance, levels=(options.levels[0], options.levels[1])
    )
    words, judge = captions("test")[: options.captions], _Judge(backbone)

    def generate(changes: list[causal.Change]) -> pd.DataFrame:
        plain = [causal.Change({"dose": 0.0})]
        return causal.generate(backbone, plain + changes, words, judge, settings, folder=options.cache / "generated")

    found = list(_directions(stores, data, options))
    largest = (max(options.doses),)
    scores = generate(
        [
            _push(one, sign * dose)
            for one in found
            for dose in (options.doses if one.control == causal.TRAINED else largest)
            for sign in (1, -1)
        ]
    )
    curve = _with_readings(causal.steering_effects(scores), read).assign(model=options.model)
    curve["target"] = curve["facet"].map(METRIC_OF) == curve["metric"]
    correlations = causal.rank_correlations(
        scores, {facet: _by_block(results, facet) for facet, results in read.items()}, metric_of=METRIC_OF
    ).assign(model=options.model)
    best = {facet: int(curve[curve["facet"] == facet].sort_values("reading")["block"].iloc[-1]) for facet in READ_AT}
    at_best = [one for one in found if one.block == best[one.facet] and one.control in ("trained", "random")]
    responses = causal.dose_responses(
        generate([_push(one, sign * dose) for one in at_best for dose in options.responses for sign in (1, -1)])
    ).assign(model=options.model)
    erasers, certificates = _erasers(stores[False], data)
    erased = causal.erasure_effects(generate(erasers)).assign(model=options.model)
    erased = erased.merge(certificates, on=["facet", "control", "block"], how="left")

    by_block = {"causal_curve": curve, "dose_response": responses, "erasure": erased}
    # Unchanged pictures have no block, so that the column has gone through floats.
    tables = {name: table.astype({"block": int}) for name, table in by_block.items()}
    tables["causal_correlation"] = correlations
    print(correlations.to_string(index=False))
    print(save_study(tables, options.output, PARSER.command(options)))


class _Judge:
    """The testbed's judge on decoded latents."""

    def __init__(self, backbone: Backbone) -> None:
        self.identity = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        self._judge, self._vae = Judge.load(), backbone.pipeline.vae  # type: ignore[attr-defined]

    def __call__(self, latents: Float[Tensor, "item channel row column"], captions: Sequence[str]) -> pd.DataFrame:
        return judged(self._judge.read(decode(self._vae, latents)), captions)


def _read(store: probing.FeatureStore, data: probing.PreferenceData, facet: str, options: CausalOptions) -> CellResults:
    """Measure how well each block's image tokens predict a facet."""
    sites = Sites(streams=("image",), reductions=("mean",), sigmas=(READ_AT[facet],))
    return measure_cells(store, data.pairs, sites=sites, facets=[facet], run=Run(journal=options.cache / "fits"))


def _by_block(results: CellResults, facet: str) -> pd.DataFrame:
    cells = results.trained.table.set_index("cell")["block"].to_dict()
    rows = results.outcomes[results.outcomes["facet"] == facet]
    return rows[["prompt_id", *cells]].rename(columns=cells)


def _with_readings(effects: pd.DataFrame, read: dict[str, CellResults]) -> pd.DataFrame:
    columns = {"value": "reading", "ci_low": "reading_low", "ci_high": "reading_high"}
    readings = pd.concat(
        [results.trained.table[["facet", "block", "sigma", "ceiling", *columns]] for results in read.values()]
    )
    return effects.merge(readings.rename(columns=columns), on=["facet", "block"], how="left")


def _sites(store: probing.FeatureStore, facet: str) -> list[Site]:
    return [Site("image", "mean", READ_AT[facet], block) for block in store.blocks]


def _directions(
    stores: dict[bool, probing.FeatureStore], data: probing.PreferenceData, options: CausalOptions
) -> Iterator[causal.Direction]:
    for facet in READ_AT:
        for site in _sites(stores[False], facet):
            for probe in PROBES:
                controls = {"seeds": options.seeds, "random_init": stores[True]} if probe == PROBES[0] else {"seeds": 0}
                yield from causal.directions(stores[False], data.pairs, site, facet, probe, **controls)


def _push(one: causal.Direction, dose: float) -> causal.Change:
    labels = {"facet": one.facet, "probe": one.probe, "control": one.control, "seed": one.seed, "block": one.block}
    edit = steer(torch.from_numpy(one.vector).float(), dose)
    return causal.Change({**labels, "dose": dose}, {one.block: edit}, one.vector.tobytes())


def _erasers(store: probing.FeatureStore, data: probing.PreferenceData) -> tuple[list[causal.Change], pd.DataFrame]:
    """Return the change of each eraser, and what a probe trained anew reads behind it."""
    changes, readings = [], []
    for facet in READ_AT:
        for site in _sites(store, facet):
            for one in causal.erasers(store, data.pairs, site, facet):
                where = {"facet": facet, "control": one.control, "block": one.block}
                content = one.eraser.matrix.tobytes() + one.eraser.mean.tobytes()
                labels = {**where, "probe": "leace", "seed": 0, "dose": 1.0}
                changes.append(causal.Change(labels, {one.block: erase(one.eraser)}, content))
                reading = {"reading": float(one.reading.estimate), "reading_low": float(one.reading.low)}
                readings.append({**where, **reading, "reading_high": float(one.reading.high)})
    return changes, pd.DataFrame(readings)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
