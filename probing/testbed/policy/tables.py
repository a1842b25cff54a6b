"""What a training did: judged scores along it, changes against its start, and what the watch found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from probing.analysis.token_maps.maps import as_text
from probing.reward.watch import HackingWatch
from probing.statistics import LEVEL, auroc, holm, mean_change
from probing.table_files import write_parquet
from probing.testbed.policy.rewards import JudgeReward, Reward
from probing.testbed.policy.training import LOG, Policy, evaluations
from probing.testbed.rates import rate

JUDGE = "judge"
OPTIMISED = "optimised"
"""Metric of the reward that a training optimises, in standard deviations of its first pictures."""
SIGNALS = ("gap", "uncertainty", "drift", "fall", OPTIMISED, "divergence")
"""What the watch measures; ``fall`` is how far the facet head that changed least is below its start. The last two are
controls: the rise of the optimised reward and the divergence from the reference, which every trainer logs.
"""
ALARMS = ("heads_disagree", "facet_fell", "drifted")


def score_evaluations(policy: Policy, folder: Path, rewards: Mapping[str, Reward]) -> pd.DataFrame:
    """Score the pictures of every evaluation of a training by the judge and by all rewards.

    Args:
        policy: Of the training's model; its weights do not matter.
        folder: Of the training; keeps the scores.
        rewards: By name.

    Returns:
        One row an evaluation, caption and metric: ``update, caption, metric, value``.
    """
    latents = evaluations(folder)
    content = hashlib.sha256(repr([(name, reward.identity) for name, reward in sorted(rewards.items())]).encode())
    judge = JudgeReward()
    content.update(judge.identity.encode())
    for update, finished in sorted(latents.items()):
        content.update(update.to_bytes(8, "big") + finished.numpy().tobytes())
    path = folder / f"scores-{content.hexdigest()[:16]}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    words = policy.evaluation()[0]
    conditioning, parts = policy.encode(words), []
    for update, finished in latents.items():
        batch = policy.batch(finished, words, conditioning)
        scores = judge.scores(batch)
        scores = scores.assign(**{name: reward(batch) for name, reward in rewards.items() if name != JUDGE})
        parts.append(scores.assign(update=update, caption=range(len(words))))
    table = pd.concat(parts, ignore_index=True).melt(["update", "caption"], var_name="metric")
    write_parquet(path, table)
    return table


def watch_training(
    policy: Policy, folder: Path, scores: pd.DataFrame, reward: str, make_watch: Callable[..., HackingWatch]
) -> pd.DataFrame:
    """Run the watch over the evaluations of a training, as a trainer would call it.

    Args:
        policy: As for :func:`score_evaluations`.
        folder: Of the training.
        scores: Of its evaluations.
        reward: The optimised reward.
        make_watch: Makes a watch for a number of ``checks``.

    Returns:
        One row a check: ``update``, the report's numbers and alarms, and the ``divergence`` from the reference (mean of
        the training's log since the check before).
    """
    latents, words = evaluations(folder), policy.evaluation()[0]
    conditioning = policy.encode(words)
    by_update = scores[scores["metric"] == reward].pivot_table(index="update", columns="caption", values="value")
    divergence = pd.read_csv(folder / LOG).set_index("update")["divergence"]
    watch, rows, last = make_watch(checks=len(latents) - 1), [], 0
    for update, finished in latents.items():
        values = by_update.loc[update].to_numpy(dtype=float)
        if update == 0:
            watch.start(finished, words, values, conditioning=conditioning)
            continue
        report = watch(update, finished, words, values, conditioning=conditioning)
        facets = {f"facet_{name}": value for name, value in report.facets.items()}
        rows.append(
            {"update": update, OPTIMISED: report.reward, **facets, "fall": -min(report.facets.values())}
            | {"gap": report.gap, "uncertainty": report.uncertainty, "drift": report.drift}
            | {"divergence": float(divergence.loc[last + 1 : update].mean())}
            | {name: getattr(report, name) for name in ALARMS}
        )
        last = update
    return pd.DataFrame(rows)


def trajectories(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare each evaluation with the start of its training, on the same captions and noise.

    Args:
        scores: ``reward, seed, update, caption, metric, value`` of all trainings.

    Returns:
        One row a reward, metric and update: ``value`` and ``change`` (means over seeds and captions), the change's
        interval over captions, ``least`` and ``most`` of single seeds. The metric :data:`OPTIMISED` is that of the
        reward itself.
    """
    own = scores[scores["metric"] == scores["reward"]]
    first = (
        own[own["update"] == 0]
        .groupby(["reward", "seed"])["value"]
        .agg(["mean", partial(np.std, ddof=0)])
        .set_axis(["mean", "std"], axis=1)
    )
    of_run = first.loc[pd.MultiIndex.from_frame(own[["reward", "seed"]])]
    standard = (own["value"].to_numpy() - of_run["mean"].to_numpy()) / of_run["std"].to_numpy()
    scores = pd.concat([scores, own.assign(metric=OPTIMISED, value=standard)], ignore_index=True)
    rows = []
    for (reward, metric), part in scores.groupby(["reward", "metric"], sort=False):
        values = part.pivot_table(index=["seed", "caption"], columns="update", values="value")
        changes = values.sub(values[0], axis=0)
        by_caption, by_seed = changes.groupby("caption").mean(), changes.groupby("seed").mean()
        captions = by_caption.index.to_numpy()
        for update in map(int, values.columns):
            change = mean_change(by_caption[update].to_numpy(), np.zeros(len(captions)), captions)
            exact = update == 0
            rows.append(
                {"reward": reward, "metric": metric, "update": update, "value": float(values[update].mean())}
                | {"change": float(change.estimate), "ci_low": 0.0 if exact else float(change.low)}
                | {"ci_high": 0.0 if exact else float(change.high), "seeds": len(by_seed)}
                | {"least": float(by_seed[update].min()), "most": float(by_seed[update].max())}
                | {"n_prompts": len(captions)}
            )
    return pd.DataFrame(rows)


def falls(scores: pd.DataFrame) -> pd.DataFrame:
    """Find, for each training and evaluation, whether the judge is below its start.

    Returns:
        One row a training and evaluation: ``reward, seed, update, judge, judge_low, judge_high`` (the change), ``fell``
        (it is below zero, one-sided, corrected by Holm over the training's evaluations).
    """
    parts = []
    truth = scores[scores["metric"] == JUDGE]
    for (reward, seed), part in truth.groupby(["reward", "seed"], sort=False):
        values = part.pivot_table(index="caption", columns="update", values="value")
        start, captions = values[0].to_numpy(), values.index.to_numpy()
        changes = {update: mean_change(values[update].to_numpy(), start, captions) for update in values.columns[1:]}
        one_sided = [test.p_value / 2 if test.estimate < 0 else 1 - test.p_value / 2 for test in changes.values()]
        rows = [
            {"update": update, "judge": float(t.estimate), "judge_low": float(t.low), "judge_high": float(t.high)}
            for update, t in changes.items()
        ]
        fell = holm(np.array(one_sided, dtype=float)) <= LEVEL
        parts.append(pd.DataFrame([{"reward": reward, "seed": seed, **row} for row in rows]).assign(fell=fell))
    return pd.concat(parts, ignore_index=True)


def lead_times(watched: pd.DataFrame) -> pd.DataFrame:
    """Compare the first alarm of each kind in each training with the first fall of the judge.

    Args:
        watched: Reports of all trainings, with :func:`falls`.

    Returns:
        One row a kind of alarm and training: ``first_alarm`` and ``first_fall`` (updates; NaN: never), ``lead`` (their
        difference in updates, above 0 if the alarm came first), ``hacked`` (the judge fell while the optimised reward
        was above its start), ``false_alarm`` (an alarm in a training whose judge never fell).
    """
    rows = []
    for kind in ALARMS:
        for (reward, seed), part in watched.groupby(["reward", "seed"], sort=False):
            alarms, fell = part.loc[part[kind], "update"], part[part["fell"]]
            alarm = float(alarms.min()) if len(alarms) else float("nan")
            fall = float(fell["update"].min()) if len(fell) else float("nan")
            rows.append(
                {"alarm": kind, "reward": reward, "seed": seed, "first_alarm": alarm, "first_fall": fall}
                | {"lead": fall - alarm, "hacked": bool((fell[OPTIMISED] > 0).any())}
                | {"false_alarm": len(alarms) > 0 and len(fell) == 0}
            )
    return pd.DataFrame(rows)


def signal_areas(watched: pd.DataFrame) -> pd.DataFrame:
    """Measure how well each signal separates checks at which the judge has fallen from the others.

    Returns:
        One row a signal: ``value``, the area under its ROC curve over all checks, without an interval, since few
        trainings are independent; NaN where all checks are of one kind or a signal was not measured. Then the share of
        checks of both kinds with each alarm, with Wilson's interval over trainings.
    """
    training = (watched["reward"] + watched["seed"].astype(str)).to_numpy()
    fell = watched["fell"].to_numpy(dtype=float)
    both = min(len(np.unique(training[fell == label])) for label in (0, 1)) >= 2
    rows = []
    for signal in SIGNALS:
        values = watched[signal].to_numpy(dtype=float)
        defined = both and not np.isnan(values).any()
        area = float(auroc(values, fell, training).areas[0]) if defined else float("nan")
        rows.append({"signal": signal, "value": area, "ci_low": np.nan, "ci_high": np.nan, "n_checks": len(fell)})
        rows[-1] |= {"n_trainings": len(np.unique(training))}
    for kind in ALARMS:
        for name, chosen in (("where the judge fell", fell == 1), ("where it did not", fell == 0)):
            if chosen.any():
                share = rate(watched[kind].to_numpy(dtype=bool)[chosen], training[chosen])
                rows.append({"signal": f"{kind} {name}", "value": share.estimate, "ci_low": share.low})
                rows[-1] |= {"ci_high": share.high, "n_checks": int(chosen.sum())}
                rows[-1] |= {"n_trainings": len(np.unique(training[chosen]))}
    return pd.DataFrame(rows)


def samples(policy: Policy, folders: Mapping[str, Path], count: int) -> pd.DataFrame:
    """Show the first pictures of the evaluation before a training and after it.

    Args:
        policy: As for :func:`score_evaluations`.
        folders: Of one training of each reward.
        count: Number of captions.

    Returns:
        One row a reward and caption: ``reward`` (``before`` for the untrained policy), ``update``, ``prompt``,
        ``picture`` (PNG in base64).
    """
    words, rows = policy.evaluation()[0][:count], []
    for number, (reward, folder) in enumerate(folders.items()):
        latents = evaluations(folder)
        shown = {reward: max(latents)} if number else {"before": 0, reward: max(latents)}
        for name, update in shown.items():
            pictures = policy.batch(latents[update][:count], words, policy.encode(words)).pictures
            rows += [
                {"reward": name, "update": update, "prompt": word, "picture": as_text(picture)}
                for word, picture in zip(words, pictures, strict=True)
            ]
    return pd.DataFrame(rows)
