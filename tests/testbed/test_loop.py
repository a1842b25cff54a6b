"""The training loop: resuming, schedules, precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from probing.errors import UserError
from probing.testbed.recipes.loop import Schedule, computed_in, train

SCHEDULE = Schedule(steps=30, batch_size=4, learning_rate=0.05, warmup=5, average=5)


def make_problem():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(rng):
        x = torch.from_numpy(rng.standard_normal((SCHEDULE.batch_size, 3))).float()
        # torch's random numbers must resume too.
        noise = 0.1 * torch.randn(SCHEDULE.batch_size)
        value = (model(x)[:, 0] - x.sum(dim=1) + noise).square().mean()
        return value, {}

    return model, loss


@pytest.mark.parametrize("stop", [1, 7, 29])
@pytest.mark.parametrize("matrix_rate", [0.0, 0.2])
def test_resumed_training_gives_the_same_weights(tmp_path, stop, matrix_rate):
    schedule = replace(SCHEDULE, matrix_rate=matrix_rate)
    model, loss = make_problem()
    train({"model": model}, loss, schedule, tmp_path / "whole", matrices=[model.weight])
    stopped, loss = make_problem()
    train({"model": stopped}, loss, schedule, tmp_path / "stopped", matrices=[stopped.weight], stop_after=stop)
    resumed, loss = make_problem()
    nn.init.zeros_(resumed.weight)
    train({"model": resumed}, loss, schedule, tmp_path / "stopped", matrices=[resumed.weight])
    assert torch.equal(resumed.weight, model.weight)
    assert torch.equal(resumed.bias, model.bias)


def test_another_schedule_is_refused(tmp_path):
    model, loss = make_problem()
    train({"model": model}, loss, SCHEDULE, tmp_path, stop_after=10)
    with pytest.raises(ValueError, match="another schedule"):
        train({"model": model}, loss, replace(SCHEDULE, learning_rate=0.1), tmp_path)
    with pytest.raises(ValueError, match="another schedule"):
        train({"model": model}, loss, replace(SCHEDULE, steps=60), tmp_path)


def test_other_inputs_are_refused(tmp_path):
    model, loss = make_problem()
    train({"model": model}, loss, SCHEDULE, tmp_path, inputs="these", stop_after=10)
    with pytest.raises(UserError, match="on other inputs"):
        train({"model": model}, loss, SCHEDULE, tmp_path, inputs="those")
    train({"model": model}, loss, SCHEDULE, tmp_path, inputs="these")


def test_steps_may_change_on_the_plateau(tmp_path):
    plateau = replace(SCHEDULE, shape="plateau")
    long, loss = make_problem()
    train({"model": long}, loss, replace(plateau, steps=40), tmp_path / "long")
    model, loss = make_problem()
    train({"model": model}, loss, plateau, tmp_path / "grown", stop_after=20)
    train({"model": model}, loss, replace(plateau, steps=40), tmp_path / "grown")
    assert torch.equal(model.weight, long.weight)
    late, loss = make_problem()
    train({"model": late}, loss, plateau, tmp_path / "late", stop_after=28)
    with pytest.raises(ValueError, match="another schedule"):
        train({"model": late}, loss, replace(plateau, steps=40), tmp_path / "late")


@pytest.mark.parametrize("average", [0, 5])
def test_checkpoints_equal_shorter_trainings(tmp_path, average):
    schedule = replace(SCHEDULE, average=average, shape="plateau")
    model, loss = make_problem()
    train({"model": model}, loss, schedule, tmp_path / "whole", keep=[3, 20])
    # A training that stops on the plateau, which both schedules share, has the same weights.
    short, loss = make_problem()
    train({"model": short}, loss, schedule, tmp_path / "short", stop_after=20)
    saved = load_file(tmp_path / "whole" / "model-step00020.safetensors")
    assert {key: value.tolist() for key, value in saved.items()} == {
        key: value.tolist() for key, value in short.state_dict().items()
    }
    assert (tmp_path / "whole" / "model-step00003.safetensors").exists()


def test_learning_rates():
    assert [SCHEDULE.fraction_at(step) for step in (0, 5, 30)] == pytest.approx([0.2, 1.0, 0.01])
    plateau = replace(SCHEDULE, shape="plateau")
    assert [plateau.fraction_at(step) for step in (10, 24, 27, 30)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_muon_is_used_with_a_matrix_rate_only(tmp_path):
    ends = []
    for folder, rate, named in (("plain", 0.0, False), ("named", 0.0, True), ("muon", 0.2, True)):
        model, loss = make_problem()
        schedule = replace(SCHEDULE, matrix_rate=rate)
        train({"model": model}, loss, schedule, tmp_path / folder, matrices=[model.weight] if named else [])
        ends.append(model.weight.detach().clone())
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])
    # The minimum is a weight of ones.
    start = make_problem()[0].weight
    assert all((end - 1).norm() < (start - 1).norm() / 2 for end in ends)


def test_bfloat16_needs_hardware_support(monkeypatch, tmp_path):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for capability, granted in (("avx512_f", torch.float32), ("avx512_bf16", torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability: {name: True}, raising=False)
        assert computed_in(cpu, "bfloat16") == granted and computed_in(gpu, "bfloat16") == torch.bfloat16
        assert computed_in(cpu, "float32") == computed_in(gpu, "float32") == torch.float32
        model, dtypes = nn.Linear(2, 1), []

        def loss(rng, model=model, dtypes=dtypes):
            value = model(torch.ones(2, 2))
            dtypes.append(value.dtype)
            return value.float().square().mean(), {}

        train({"model": model}, loss, replace(SCHEDULE, precision="bfloat16", steps=1), tmp_path / capability)
        assert dtypes == [granted]
