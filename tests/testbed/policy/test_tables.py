"""Tables of trainings on planted scores: changes, falls, lead times, areas of signals, and their figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.plots import figure_hacking_watch, figure_policy, figure_policy_samples, plot_policy
from probing.testbed.generated import load
from probing.testbed.policy.tables import OPTIMISED, falls, lead_times, signal_areas, trajectories

CAPTIONS, UPDATES = 60, (0, 10, 20, 30)


@pytest.fixture(scope="module")
def scores():
    """The latent reward rises and the judge falls from update 20 on; the judge itself rises where it is optimised."""
    rng, parts = np.random.default_rng(0), []
    for reward in ("latent", "judge"):
        for seed in range(3):
            base = {metric: rng.normal(size=CAPTIONS) for metric in ("judge", "latent", "alignment", "fidelity")}
            for update in UPDATES:
                change = dict.fromkeys(base, 0.0)
                change[reward] = 0.1 * update
                if reward == "latent":
                    change["judge"] = -0.1 * max(0, update - 10)
                for metric, start in base.items():
                    noise = 0.05 * rng.normal(size=CAPTIONS) if update else 0.0
                    parts.append(
                        pd.DataFrame({"reward": reward, "seed": seed, "update": update, "caption": range(CAPTIONS)})
                        .assign(metric=metric, value=start + change[metric] + noise)
                    )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def watched(scores):
    found = falls(scores)
    alarm = (found["reward"] == "latent") & (found["update"] >= 10)
    return found.assign(
        heads_disagree=alarm, facet_fell=found["update"] == 30, drifted=found["update"] >= 30,
        optimised=found["update"] / 10, facet_alignment=-1.0, facet_quality=0.5,
        gap=alarm.astype(float), uncertainty=1.0, drift=found["update"].astype(float),
        fall=found["fell"].astype(float), divergence=0.0, model="testbed-s",
    )  # fmt: skip


def test_changes_are_those_planted(scores):
    table = trajectories(scores).set_index(["reward", "metric", "update"]).sort_index()
    judge = table.loc[("latent", "judge")]
    np.testing.assert_allclose(judge["change"], [0, 0, -1, -2], atol=0.03)
    assert (judge["ci_low"] <= judge["change"]).all() and (judge["change"] <= judge["ci_high"]).all()
    assert (judge["least"] <= judge["change"]).all() and (judge["seeds"] == 3).all()
    assert (judge.loc[0, ["change", "ci_low", "ci_high"]] == 0).all()
    own = table.loc[("latent", OPTIMISED)]
    spread = scores.query("reward == 'latent' and metric == 'latent' and update == 0").groupby("seed")["value"].std()
    assert own.loc[30, "change"] == pytest.approx(np.mean(3.0 / spread), abs=0.1)


def test_falls_and_leads(scores, watched):
    fell = falls(scores).set_index(["reward", "seed", "update"]).sort_index()["fell"]
    assert not fell["judge"].any()
    assert fell["latent"].unstack().loc[:, [20, 30]].all().all() and fell["latent"].unstack()[10].sum() <= 1
    leads = lead_times(watched).query("alarm == 'heads_disagree'").set_index(["reward", "seed"]).sort_index()
    assert leads.loc["latent", "hacked"].all() and not leads.loc["judge", "hacked"].any()
    first = leads.loc["latent", "first_fall"]
    np.testing.assert_array_equal(leads.loc["latent", "lead"], first - 10)
    assert leads.loc["judge", ["first_alarm", "first_fall", "lead"]].isna().all().all()
    assert not leads["false_alarm"].any()
    fallen = lead_times(watched).query("alarm == 'facet_fell'").set_index(["reward", "seed"])
    assert fallen.loc["judge", "false_alarm"].all()
    drifted = lead_times(watched).query("alarm == 'drifted'").set_index(["reward", "seed"]).sort_index()
    assert (drifted.loc["latent", "lead"] == first - 30).all()


def test_areas_of_signals(watched):
    areas = signal_areas(watched).set_index("signal")["value"]
    assert areas["fall"] == 1.0 and areas["uncertainty"] == 0.5 and areas["drift"] > 0.5
    assert areas[OPTIMISED] == areas["drift"] and areas["divergence"] == 0.5
    assert areas["heads_disagree where the judge fell"] == 1.0
    kept = watched[~watched["fell"]]
    assert areas["heads_disagree where it did not"] == pytest.approx(kept["heads_disagree"].mean())
    assert signal_areas(kept).set_index("signal")["value"][["gap", "drift"]].isna().all()


def test_figures_are_drawn_from_tables(scores, watched):
    curves = trajectories(scores).assign(model="testbed-s")
    figure = figure_policy(curves)
    titles = [ax.get_title() for ax in figure.axes]
    assert "optimised:\nlatent reward, frozen" in titles and "optimised:\nthe judge itself" in titles
    line = plot_policy(curves, reward="latent", metric="alignment").lines[-1]
    assert list(line.get_xdata()) == list(UPDATES)
    with pytest.raises(ValueError, match="Got 'x' and 'judge', expected one of latent, judge, and one of"):
        plot_policy(curves, reward="x", metric="judge")
    assert {ax.get_yscale() for ax in figure.axes} == {"linear"}
    large = curves.assign(**{name: 4 * curves[name] for name in ("change", "ci_low", "ci_high", "least", "most")})
    wide = plot_policy(large, reward="judge", metric="judge")
    assert wide.get_yscale() == "symlog" and 0 in wide.get_yticks()
    watch = figure_hacking_watch(watched)
    assert len(watch.axes) == 2
    alarms = [line for line in watch.axes[0].lines if line.get_marker() == "s"]
    assert sum(len(line.get_xdata()) for line in alarms) == 9


def test_models_share_a_figure(scores, watched):
    curves = pd.concat([trajectories(scores).assign(model=model) for model in ("testbed-s", "testbed-m")])
    ax = plot_policy(curves, reward="latent", metric="judge")
    faces = [line.get_markerfacecolor() for line in ax.lines if len(line.get_xdata()) == len(UPDATES)]
    assert faces[0] != "white" and faces[1:] == ["white"]
    (legend,) = figure_policy(curves).legends
    assert [text.get_text() for text in legend.get_texts()] == ["testbed-s", "testbed-m"]
    with pytest.raises(ValueError, match="expected at most two"):
        figure_policy(pd.concat([curves, curves.assign(model="testbed-xs")]))
    small = watched.assign(model="testbed-m", optimised=watched["optimised"] / 10)
    axes = figure_hacking_watch(pd.concat([watched, small])).axes
    assert len(axes) == 4
    for ax in axes:
        low, high = ax.get_ylim()
        drawn = np.concatenate([line.get_ydata() for line in ax.lines if line.get_transform() == ax.transData])
        assert low <= drawn.min() and drawn.max() <= high
    assert axes[2].get_ylim()[1] < axes[0].get_ylim()[1]


def test_samples_are_a_row_a_reward():
    from probing.analysis.token_maps.maps import as_text

    shown = load()
    rows = [
        {"reward": reward, "update": 0, "prompt": prompt, "picture": as_text(shown.open(item)), "model": "testbed-s"}
        for reward in ("before", "latent")
        for item, prompt in shown.items.drop_duplicates("prompt")[["item_id", "prompt"]]
        .iloc[:3]
        .itertuples(index=False)
    ]
    figure = figure_policy_samples(pd.DataFrame(rows))
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 6 and drawn[0].get_ylabel() == "before"
