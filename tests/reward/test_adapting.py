"""Adapted backbones: what should train trains, an interrupted training goes on, and a kept reward holds the adapter."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import probing
from probing.errors import UserError
from probing.reward import AdapterSettings, AdaptSettings, LatentReward, adapt, train_reward
from probing.reward import adapting as module
from probing.reward.adapter import adapter_state, add_adapter, apply_adapter
from probing.reward.evaluation import evaluate
from probing.reward.server import version_of
from tests.fakes.tiny_sd3 import T5_LENGTH

LORA = AdapterSettings(rank=4, alpha=8.0)
FULL = AdapterSettings(how="full")
QUICK = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "validation": 0.25, "facet": "quality"}


@pytest.fixture(scope="module")
def data():
    return probing.load_pairs("testbed", where="facet == 'quality'", limit=96)


@pytest.fixture(scope="module")
def store(tiny_folder, data, tmp_path_factory):
    settings = {"resolution": 16, "t5_length": T5_LENGTH, "sigmas": (0.005,), "batch_size": 16, "device": "cpu"}
    return probing.extract(tiny_folder, data, output=tmp_path_factory.mktemp("adapt") / "tiny.zarr", **settings)


@pytest.fixture(scope="module")
def frozen(tiny_folder, store):
    trained = train_reward(store, blocks=(1, 2), probe="mlp", options={"epochs": 3, "seeds": 1, "hidden": "16"})
    return LatentReward(trained.probe, trained.manifest, model=tiny_folder, device="cpu")


def test_a_new_lora_changes_no_score_and_trains_no_weight_of_the_model(frozen, data):
    item = data.items.iloc[0]
    before = frozen.score(item["prompt"], data.open_image(item["item_id"]))
    transformer = frozen.opened.backbone.transformer
    names = set(add_adapter(transformer, LORA))
    assert names and all("lora_" in name for name in names)
    np.testing.assert_allclose(frozen.score(item["prompt"], data.open_image(item["item_id"])), before, rtol=1e-6)
    frozen.use(None)


BOTH = [pytest.param(LORA, id="lora"), pytest.param(FULL, id="full", marks=pytest.mark.slow)]


@pytest.mark.parametrize("adapter", BOTH)
def test_training_lowers_the_loss_on_pairs_it_is_fitted_to(frozen, data, store, adapter, monkeypatch):
    """On a random tiny backbone nothing general can be learned; the pairs of the training can."""
    losses = []
    step = module._Training._step

    def record(self, pairs, epoch):
        step(self, pairs, epoch)
        losses.append(float(_loss(self, self._train)))

    monkeypatch.setattr(module._Training, "_step", record)
    settings = AdaptSettings(adapter=adapter, **{**QUICK, "epochs": 4})
    adapted = adapt(frozen, data, settings, encoded=store.path.parent / "encoded")
    assert losses[-1] < losses[0] - 0.01
    assert adapted.adapter is not None and len(adapted.manifest.training["history"]) == 4


def _loss(training, pairs):
    training._transformer.eval()
    with torch.no_grad():
        margins = training._margins(pairs, None, gradients=False)
    choices = torch.tensor(pairs["choice"].to_numpy(dtype=float))
    return torch.nn.functional.binary_cross_entropy_with_logits(margins, choices)


@pytest.fixture(scope="module", params=BOTH)
def adapted(request, frozen, data):
    return adapt(frozen, data, AdaptSettings(adapter=request.param, **QUICK))


def test_a_kept_reward_holds_the_adapter(tiny_folder, adapted, frozen, data, tmp_path):
    folder = adapted.save(tmp_path / "adapted")
    again = LatentReward.load(folder, model=tiny_folder, device="cpu")
    live = evaluate({"again": again}, data, rules=["micro-half"]).accuracies
    (row,) = adapted.manifest.accuracies
    assert live["value"].tolist() == [row["value"]]
    item = data.items.iloc[0]
    score = again.score(item["prompt"], data.open_image(item["item_id"]))
    assert score != frozen.score(item["prompt"], data.open_image(item["item_id"]))
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks adapter\.safetensors"):
        LatentReward.load(folder)


def test_an_adapted_head_scores_no_features_of_the_frozen_backbone(adapted, store):
    with pytest.raises(UserError, match="has features of the frozen backbone, and this reward has an adapted one"):
        adapted.score_store(store)


def test_the_version_of_a_served_reward_depends_on_its_adapter(adapted):
    settings, state = adapted.adapter
    name = next(iter(state))
    changed = LatentReward(adapted.probe, adapted.manifest, adapter=(settings, {**state, name: state[name] + 1e-3}))
    assert version_of(changed) != version_of(adapted)


def test_the_merged_transformer_has_the_same_scores(tiny_folder, adapted, data, store, tmp_path):
    folder = adapted.save_transformer(tmp_path / "transformer")
    settings = {"resolution": 16, "t5_length": T5_LENGTH, "sigmas": (0.005,), "batch_size": 16, "device": "cpu"}
    merged = probing.extract(tiny_folder, data, transformer=folder, output=tmp_path / "merged.zarr", **settings)
    from probing.reward.features import stored_features

    cached = adapted.score_features(stored_features(merged, adapted.manifest.sites, tokens=False))
    live = adapted.score_data(data).set_index("item_id")["reward"]
    np.testing.assert_allclose(cached, live[merged.item_ids.tolist()], rtol=1e-3, atol=1e-4)


def test_an_interrupted_training_ends_in_the_same_weights(frozen, data, tmp_path, monkeypatch):
    settings = AdaptSettings(adapter=LORA, ema=0.5, **QUICK)
    whole = adapt(frozen, data, settings)
    save, saved = module._Training._save, []

    def save_and_stop(self, *arguments):
        save(self, *arguments)
        saved.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module._Training, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            adapt(frozen, data, settings, checkpoint=tmp_path / "training")
    with pytest.raises(UserError, match="belongs to another training"):
        adapt(frozen, data, AdaptSettings(adapter=LORA, **{**QUICK, "epochs": 3}), checkpoint=tmp_path / "training")
    resumed = adapt(frozen, data, settings, checkpoint=tmp_path / "training")
    for name, tensor in whole.adapter[1].items():
        torch.testing.assert_close(resumed.adapter[1][name], tensor, rtol=0, atol=0)
    assert not list((tmp_path / "training").glob("*.pt"))


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(frozen, tiny_folder, store, tmp_path):
    """By the command, as torchrun starts it, with batches that do not divide evenly."""
    frozen.save(tmp_path / "frozen")
    command = ["-m", "probing.reward", "adapt", "--reward", str(tmp_path / "frozen"), "--model", str(tiny_folder)]
    command += ["--device", "cpu", "--data", "testbed", "--where", "facet == 'quality'", "--limit", "96"]
    command += ["--encoded", str(store.path.parent / "encoded"), "--facet", "quality", "--epochs", "2"]
    command += ["--batch-size", "7", "--learning-rate", "3e-3", "--validation", "0.25", "--ema", "0.5"]
    folders = {}
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2"])):
        folders[name] = tmp_path / name
        done = subprocess.run(
            [sys.executable, *launcher, *command, "--output", str(folders[name])], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Reward:") == 1
    one, two = (load_file(folder / "adapter.safetensors") for folder in folders.values())
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
    kept = [LatentReward.load(folder, model=tiny_folder, device="cpu").manifest for folder in folders.values()]
    losses = [[row["validation_loss"] for row in manifest.training["history"]] for manifest in kept]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert [row["n_pairs"] for row in kept[0].accuracies] == [row["n_pairs"] for row in kept[1].accuracies]


@pytest.mark.slow
def test_checkpointing_changes_no_gradient(frozen, data):
    first, second = (
        adapt(frozen, data, AdaptSettings(adapter=LORA, checkpointing=flag, **{**QUICK, "epochs": 1}))
        for flag in (False, True)
    )
    for name, tensor in first.adapter[1].items():
        torch.testing.assert_close(second.adapter[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_an_adapter_of_another_model_is_refused(frozen):
    transformer = frozen.opened.backbone.transformer
    state = {name: tensor for name, tensor in adapter_state(transformer, FULL).items() if "proj_out" not in name}
    with pytest.raises(UserError, match="does not fit its backbone"):
        apply_adapter(transformer, FULL, state)
    frozen.use(None)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"epochs": 0}, "1 or more epochs"), ({"ema": 1.0}, "an EMA below 1"), ({"validation": 0.0}, "between 0 and 1")],
)
def test_bad_settings_are_one_sentence(change, match):
    with pytest.raises(UserError, match=match):
        AdaptSettings(**change)


def test_targets_that_match_nothing_and_a_second_adapter_are_refused(frozen, data, adapted):
    with pytest.raises(UserError, match="LoRA finds no layer"):
        adapt(frozen, data, AdaptSettings(adapter=AdapterSettings(targets="nothing"), **QUICK))
    with pytest.raises(UserError, match="has an adapted backbone already"):
        adapt(adapted, data, AdaptSettings(**QUICK))
    with pytest.raises(UserError, match="is frozen"):
        frozen.save_transformer("nowhere")
    assert not shutil.os.path.exists("nowhere")
