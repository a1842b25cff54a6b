"""The command of the policies, whole, on the smallest setting."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from probing.errors import UserError
from probing.testbed.policy.__main__ import PolicyOptions, run
from tests.testbed.policy.test_training import TINY


@pytest.mark.slow
def test_the_whole_command(tmp_path, capsys):
    options = PolicyOptions(
        models=("testbed-xs",),
        settings=replace(TINY, evaluated=24),
        rewards=("latent", "rival", "judge"),
        seeds=2,
        limit=600,
        rewards_cache=tmp_path / "rewards",
        cache=tmp_path / "cache",
        output=tmp_path / "figures",
    )
    run(options)
    assert "Figures: policy, policy_samples, hacking_watch" in capsys.readouterr().out
    curves, watched, leads = (
        pd.read_csv(tmp_path / "figures" / f"{name}.csv") for name in ("policy", "hacking_watch", "hacking_leads")
    )
    assert set(curves["reward"]) == {"latent", "rival", "judge"} and set(curves["update"]) == {0, 1, 2}
    assert {"optimised", "judge", "alignment", "fidelity", "latent", "rival"} <= set(curves["metric"])
    assert len(watched) == 3 * 2 * 2 and len(leads) == 3 * 6
    log = pd.read_csv(tmp_path / "cache" / "testbed-xs-rival-1" / "log.csv").set_index("update")["divergence"]
    of_training = watched[(watched["reward"] == "rival") & (watched["seed"] == 1)].set_index("update")["divergence"]
    pd.testing.assert_series_equal(of_training, log)
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.pt")}
    run(options)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.pt")} == trained


def test_an_unknown_reward_is_refused(tmp_path):
    with pytest.raises(UserError, match="Unknown reward 'x'; choose of latent, adapted, rival, judge"):
        run(PolicyOptions(rewards=("x",), output=tmp_path))


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (("testbed-xs", "testbed-q"), "testbed-q"),
        (("testbed-xs", "testbed-xs"), "expected one, or two different ones"),
        ((), "0 models"),
    ],
)
def test_models_are_checked_before_any_work(models, words, tmp_path):
    with pytest.raises(UserError, match=words):
        run(PolicyOptions(models=models, cache=tmp_path / "cache", rewards_cache=tmp_path / "r", output=tmp_path / "f"))
    assert not (tmp_path / "cache").exists() and not (tmp_path / "r").exists()
