"""Is what a probe reads used by the model? Steer and erase every block while a testbed model paints, and ask the judge.

``python -m probing.testbed.causal`` steers each block along the direction of a probe by one standard deviation, and
against it, at every step of sampling, with the same captions and noise; then it erases the direction. It draws
``causal_curve`` (what is read and what is used, block by block) and ``dose_response``, and writes
``causal_correlation.csv`` and ``erasure.csv``. Controls: directions of shuffled choices, of random numbers, and of a
random-initialised model. What was generated is kept in ``--cache``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

import probing
from probing.analysis import causal
from probing.analysis.engine import CellResults, Run, Site, Sites, facets_of, measure_cells, read_site
from probing.backbones import Backbone, load_backbone, pick_device, resolve
from probing.commands import check_output_folder, run_command
from probing.interventions import Eraser, erase, fit_eraser, steer
from probing.options import OptionsParser
from probing.plots import figure_causal_curve, figure_dose_response, save_figure
from probing.probes import LogisticProbe
from probing.statistics import outcomes, share_interval
from probing.table_files import write_csv
from probing.testbed.judge import Judge
from probing.testbed.pictures import decode, judged
from probing.testbed.preferences import captions

READ_AT = {"alignment": 0.6, "quality": 0.005}
"""Noise level at which each facet is read best (docs/findings.md)."""
METRIC_OF = {"alignment": "alignment", "quality": "fidelity"}
"""What steering along a facet's direction should move."""
PROBES = ("logistic", "mean_difference")


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
    limit: int | None = None
    cache: Path = Path("cache/causal")
    output: Path = field(default=Path("figures"))


PARSER = OptionsParser("probing.testbed.causal", CausalOptions, __doc__)


def run(options: CausalOptions) -> None:
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
    settings = causal.GenerationSettings(steps=options.steps, guidance=options.guidance)
    words, judge = captions("test")[: options.captions], _judge(backbone)

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
    erasers, certificates = _erasers(stores[False], data, options)
    erased = causal.erasure_effects(generate(erasers)).assign(model=options.model)
    erased = erased.merge(certificates, on=["facet", "control", "block"], how="left")

    command = {"command": "python -m probing.testbed.causal", "data": "testbed"}
    save_figure(figure_causal_curve(curve), curve, options.output, "causal_curve", provenance=command)
    save_figure(figure_dose_response(responses), responses, options.output, "dose_response", provenance=command)
    write_csv(options.output / "causal_correlation.csv", correlations)
    write_csv(options.output / "erasure.csv", erased)
    print(correlations.to_string(index=False))
    print(f"Figures: causal_curve, dose_response; tables: causal_correlation.csv, erasure.csv; in {options.output}")


def _judge(backbone: Backbone) -> causal.Judge:
    judge, vae = Judge.load(), backbone.pipeline.vae  # type: ignore[attr-defined]

    def scores(latents: Float[Tensor, "item channel row column"], captions: Sequence[str]) -> pd.DataFrame:
        return judged(judge.read(decode(vae, latents)), captions)

    return scores


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


def _erasers(
    store: probing.FeatureStore, data: probing.PreferenceData, options: CausalOptions
) -> tuple[list[causal.Change], pd.DataFrame]:
    """Fit the eraser of each block, with controls of its rank, and what a probe trained anew still reads."""
    changes, certificates = [], []
    for facet in READ_AT:
        pairs = facets_of(store, data.pairs, [facet])[0]
        for site in _sites(store, facet):
            features = read_site(store, site).astype(np.float64)
            differences, choices = pairs.train.differences(features), pairs.train.choices
            rng = np.random.default_rng(site.block)
            fitted = fit_eraser(differences, choices)
            # A difference has no place: items keep the mean of the training items.
            mean = features[pairs.training_rows].mean(axis=0)
            unit = causal.random_direction(features.shape[1], rng)
            erasers = {
                "trained": fitted.matrix,
                "shuffled": fit_eraser(differences, rng.permutation(choices)).matrix,
                "random": np.outer(unit, unit),
            }
            for control, matrix in erasers.items():
                eraser = Eraser(matrix, mean)
                labels = {"facet": facet, "probe": "leace", "control": control, "seed": 0, "block": site.block}
                content = matrix.tobytes() + mean.tobytes()
                changes.append(causal.Change({**labels, "dose": 1.0}, {site.block: erase(eraser)}, content))
                erased = eraser.apply(features)
                probe = LogisticProbe().fit(pairs.train.differences(erased), choices, groups=pairs.train.prompts)
                margins = probe.decision_function(pairs.test.differences(erased))
                share = share_interval(outcomes(margins, pairs.test.choices), pairs.test.prompts)
                certificates.append(
                    {"facet": facet, "control": control, "block": site.block, "reading": float(share.estimate)}
                    | {"reading_low": float(share.low), "reading_high": float(share.high)}
                )
    return changes, pd.DataFrame(certificates)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
