"""Rewards that are kept: live scores equal cached ones, in every process; damage and another backbone are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import probing
from probing.analysis.combinations.mix import fit_mix, mixed_features
from probing.analysis.engine import Site, facets_of, read_site
from probing.errors import UserError
from probing.probes import LogisticProbe
from probing.reward import PRESETS, LatentReward, train_reward
from probing.reward.evaluation import evaluate
from probing.reward.features import stored_features, wants_tokens
from probing.reward.presets import preset_of
from tests.backbones.model_folders import edit_weights
from tests.fakes.tiny_sd3 import BLOCKS
from tests.reward.conftest import READ

HEADS = {
    "linear": {"blocks": (1, 3), "streams": ("image",), "reductions": ("mean",), "sigmas": (0.005,)},
    "both streams and levels": {"blocks": (0, 2), "reductions": ("mean", "mean_clip", "mean_t5"), "probe": "ridge"},
    "network": {"blocks": (0, 3), "reductions": ("mean",), "probe": "mlp", "options": {"epochs": "2", "seeds": "2"}},
    "attention": {
        "blocks": (1, 2),
        "reductions": ("grid4", "mean_t5"),
        "probe": "attention",
        "options": {"epochs": 2, "seeds": 1, "width": 8, "heads": 2},
    },
}


@pytest.fixture(scope="module")
def kept(store, tmp_path_factory) -> Path:
    return train_reward(store, **HEADS["linear"]).save(tmp_path_factory.mktemp("kept") / "reward")


@pytest.fixture(scope="module")
def reward(tiny_folder, kept) -> LatentReward:
    return LatentReward.load(kept, model=tiny_folder, device="cpu")


def pictures(data, count):
    items = data.items.iloc[:count]
    return items["prompt"].tolist(), [data.open_image(item) for item in items["item_id"]], items["item_id"].tolist()


@pytest.mark.parametrize("head", HEADS)
def test_live_scores_equal_cached_ones(tiny_folder, store, data, tmp_path, head):
    trained = train_reward(store, **HEADS[head])
    again = LatentReward.load(trained.save(tmp_path / "r"), model=tiny_folder, device="cpu")
    cached = again.score_store(store).set_index("item_id")["reward"]
    prompts, images, ids = pictures(data, 10)
    np.testing.assert_allclose(again.score(prompts, images, keys=ids), cached[ids], rtol=1e-4, atol=1e-5)
    # The first batch of the extraction: all that differs is the rounding of prompts, which had other batch mates.
    ids = store.item_ids[:4].tolist()
    prompts = data.items.set_index("item_id").loc[ids, "prompt"].tolist()
    live = again.score(prompts, [data.open_image(item) for item in ids], keys=ids)
    features = stored_features(store, trained.manifest.sites, tokens=wants_tokens(trained.probe))
    np.testing.assert_allclose(live, again.score_features(features[:4]), rtol=2e-5, atol=2e-6)


def test_a_mixed_head_is_that_of_the_weighted_mean(store):
    reward = train_reward(store, blocks=(0, 1, 3), streams=("image",), reductions=("mean",), combine="mix")
    features = stored_features(store, reward.manifest.sites, tokens=False)
    (facet,) = facets_of(store, store.read_pairs())
    parts = []
    for sigma in store.sigmas:
        read = lambda block, sigma=sigma: read_site(store, Site("image", "mean", sigma, block))  # noqa: E731
        parts.append(mixed_features(fit_mix(read, (0, 1, 3), facet.train), read, (0, 1, 3)))
    mixed = np.concatenate(parts, axis=1)
    probe = LogisticProbe().fit_pairs(mixed, facet.train.rows, facet.train.choices, facet.train.prompts)
    np.testing.assert_allclose(reward.probe.rewards(features), probe.rewards(mixed), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="Only linear probes read mixed blocks"):
        train_reward(store, combine="mix", probe="mlp")


def test_streamed_features_are_those_in_memory(store):
    sites = train_reward(store, **HEADS["both streams and levels"]).manifest.sites
    whole = stored_features(store, sites, tokens=False)
    mapped = stored_features(store, sites, tokens=False, in_memory=0)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, whole)


@pytest.mark.slow
def test_scores_are_the_same_in_another_process(tiny_folder, kept, reward, data, tmp_path):
    prompts, images, _ = pictures(data, 1)
    images[0].save(tmp_path / "picture.png")
    script = (
        "import probing, sys; r = probing.LatentReward.load(sys.argv[1], model=sys.argv[2], device='cpu'); "
        "print(repr(float(r.score(sys.argv[3], sys.argv[4])[0])))"
    )
    command = [sys.executable, "-c", script, str(kept), str(tiny_folder), prompts[0], str(tmp_path / "picture.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) == pytest.approx(reward.score(prompts[0], images[0])[0], rel=1e-6)


def test_batch_mates_do_not_matter(reward, data):
    prompts, images, _ = pictures(data, 7)
    together = reward.score(prompts, images)
    alone = [reward.score(prompt, image)[0] for prompt, image in zip(prompts, images, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_a_gradient_is_that_of_finite_differences(reward, data):
    prompts, images, _ = pictures(data, 2)
    latents = reward.opened.encode_images(images)
    scores, gradient = reward.score_and_grad(latents, prompts)
    np.testing.assert_allclose(scores, reward.score_latents(latents, prompts), rtol=1e-5)
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-2
    up, down = (reward.score_latents(latents + sign * step * direction, prompts) for sign in (1, -1))
    expected = (gradient * direction).flatten(1).sum(1).numpy()
    np.testing.assert_allclose((up - down) / (2 * step), expected, rtol=0.02, atol=5e-3 * np.abs(expected).max())


def test_draws_are_averaged_with_their_error(reward, data):
    prompts, images, _ = pictures(data, 3)
    scores = reward.score_draws(prompts, images, draws=5)
    assert (scores.standard_error > 0).all()
    assert np.isnan(reward.score_draws(prompts, images, draws=1).standard_error).all()
    first = reward.score(prompts, images)
    assert (np.abs(scores.mean - first) < 10 * np.sqrt(5) * scores.standard_error).all()


def test_a_prompt_is_encoded_once_and_blocks_stop_early(tiny_folder, store, data, monkeypatch):
    trained = train_reward(store, blocks=(1,), streams=("image",), reductions=("mean",), sigmas=(0.6,))
    reward = LatentReward(trained.probe, trained.manifest, model=tiny_folder, device="cpu")
    backbone, words, ran = reward.opened.backbone, [], []
    encode = type(backbone).encode_prompts
    monkeypatch.setattr(
        type(backbone), "encode_prompts", lambda self, prompts: words.extend(prompts) or encode(self, prompts)
    )
    for number, block in enumerate(backbone.transformer.transformer_blocks):
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    _, images, _ = pictures(data, 6)
    reward.score("a small red circle", images)
    assert words == ["a small red circle"] and max(ran) == 1 < BLOCKS - 1


def test_the_accuracy_of_live_scores_is_that_of_the_manifest(reward, data):
    live = evaluate({"reward": reward}, data, rules=["micro-half"]).accuracies
    (row,) = reward.manifest.accuracies
    assert live["value"].tolist() == [row["value"]] and live["n_pairs"].tolist() == [row["n_pairs"]]


def test_one_reward_against_itself_does_not_differ(store, reward, data):
    scores = reward.score_store(store)
    table = evaluate({"a": scores, "b": scores}, data, rules=["micro-half"]).differences
    assert table["difference"].tolist() == [0.0] and table["p_value"].tolist() == [1.0]


def test_published_values_are_cited_and_have_no_interval(store, reward, data):
    from dataclasses import replace

    table = evaluate({"a": reward.score_store(store)}, replace(data, name="hpdv3"), rules=["micro-half"]).accuracies
    cited = table[table["citation"].notna()]
    frozen = cited[(cited["reward"] == "DiT-Reward SD3.5-L") & (cited["citation"] == "DiT-Reward, Table 3")]
    assert frozen["value"].tolist() == [0.723] and cited["ci_low"].isna().all()


def test_calibration_is_the_temperature_of_unseen_pairs(store):
    reward = train_reward(store, **HEADS["linear"])
    raw = reward.probe.rewards(stored_features(store, reward.manifest.sites, tokens=False))
    expected = (raw - reward.manifest.offset) / reward.manifest.temperature
    np.testing.assert_allclose(reward.score_store(store)["reward"], expected, rtol=1e-9)


def edit(folder, **values):
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: (f / "head.safetensors").unlink(), "lacks head.safetensors"),
        (lambda f: (f / "head.safetensors").write_bytes(b"x" * 99), "is not the file that its manifest names"),
        (lambda f: (f / "config.json").write_text("{}"), "is not the file that its manifest names"),
        (lambda f: (f / "manifest.json").write_text("["), "is no JSON"),
        (lambda f: edit(f, format=99), "has format 99, and this version reads 1"),
        (lambda f: edit(f, sites=[]), "gives no sites"),
        (lambda f: edit(f, sites=None), "was edited or is damaged"),
        (lambda f: edit(f, temperature=0), "temperature that is not above 0"),
    ],
)
def test_a_damaged_folder_is_one_sentence(kept, tmp_path, damage, match):
    folder = shutil.copytree(kept, tmp_path / "r")
    damage(folder)
    with pytest.raises(UserError, match=match):
        LatentReward.load(folder)


def test_another_backbone_is_refused(tiny_folder, kept, data, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "tiny-sd3")
    edit_weights(tmp_path / "tiny-sd3", "transformer", lambda tensors: {k: v + 1e-3 for k, v in tensors.items()})
    reward = LatentReward.load(kept, model=tmp_path / "tiny-sd3", device="cpu")
    prompts, images, _ = pictures(data, 1)
    with pytest.raises(UserError, match=r"trained on tiny-sd3 .*and transformer of .* differ"):
        reward.score(prompts, images)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda r, w, p: r.score(w[:1], p[:2]), "Got 1 prompts for 2 pictures"),
        (lambda r, w, p: r.score(w[0], []), "no pictures to score"),
        (lambda r, w, p: r.score(w[0], "missing.png"), r"missing\.png"),
        (lambda r, w, p: r.score(w[:2], p[:2], keys=["a"]), "Got 1 keys for 2 items"),
        (lambda r, w, p: r.score_draws(w[0], p[0], draws=0), "Got 0 draws"),
        (lambda r, w, p: r.score_latents(torch.zeros(1, 4, 9, 9), w[0]), r"expected \(item, 4, 16, 16\)"),
        (lambda r, w, p: r.score_latents(torch.full((1, 4, 16, 16), torch.nan), w[0]), "not finite"),
        (lambda r, w, p: r.score_latents(torch.zeros(1, 4, 16, 16)), "Give prompts, or conditioning"),
    ],
)
def test_bad_input_is_one_sentence(reward, data, call, match):
    prompts, images, _ = pictures(data, 2)
    with pytest.raises(UserError, match=match):
        call(reward, prompts, images)


def test_a_store_of_other_settings_is_not_scored(tiny_folder, reward, data, tmp_path):
    settings = {**READ, "seed": 3, "sigmas": (0.005,), "streams": ("image",), "reductions": ("mean",)}
    other = probing.extract(tiny_folder, data, output=tmp_path / "o.zarr", **settings)
    with pytest.raises(UserError, match="differs from what the reward was trained on in seed"):
        reward.score_store(other)


def test_presets_read_the_published_blocks():
    assert preset_of("dit-reward").taps.blocks(38) == (15, 23, 28, 37)
    assert preset_of("dina").taps.blocks(24) == (3, 7, 11)
    assert preset_of("dina").taps.blocks(57, "FluxPipeline") == (7, 11, 15, 18)
    assert preset_of("dina").taps.blocks(34, "ZImagePipeline") == (7, 11, 15, 19)
    assert PRESETS["registers"].taps.blocks(24) == (3, 7, 11)
    with pytest.raises(UserError, match="Unknown preset 'x'; known are dit-reward, dina, registers"):
        preset_of("x")


def test_a_preset_states_its_blocks_and_names_what_is_missing(store):
    reward = train_reward(store, preset="dit-reward", options={"epochs": "1"})
    assert {site.block for site in reward.manifest.sites} == {1, 2, 3}
    assert "blocks 1, 2, 3 of 4" in reward.manifest.preset
    options = reward.probe.get_params()
    assert (options["epochs"], options["warmup"], options["hidden"]) == (1, 0.05, (1024, 1024))
    with pytest.raises(UserError, match=r"reads sigma 0.1, 0.2, 0.3, 0.4, and the store has 0.005, 0.6"):
        train_reward(store, preset="dina")
    dina = train_reward(store, preset="dina", sigmas=(0.6,), options={"epochs": 1, "seeds": 1})
    assert {site[:2] for site in dina.manifest.sites} == {
        ("image", "grid4"),
        ("text", "mean_clip"),
        ("text", "mean_t5"),
    }
    assert dina.probe.by_noise and dina.probe.sigmas == tuple(site.sigma for site in dina.manifest.sites)
    assert "It reads image/grid4, text/mean_clip, text/mean_t5." in dina.manifest.preset


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"blocks": (9,)}, "no block 9"),
        ({"probe": "forest"}, "Unknown probe 'forest'"),
        ({"options": {"depth": "3"}}, "has no option 'depth'"),
        ({"probe": "mlp", "options": {"epochs": "many"}}, "option epochs is of type int"),
        ({"block": 3}, "no such setting"),
        ({"facet": "charm"}, "no facet charm"),
    ],
)
def test_a_head_that_cannot_be_had_is_one_sentence(store, settings, match):
    with pytest.raises(UserError, match=match):
        train_reward(store, **settings)


def test_the_hub_gets_the_folder_and_gives_it_back(kept, reward, monkeypatch, tmp_path):
    """A local stand-in of the hub."""
    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, *, private, exist_ok):
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, hub)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, **_: str(hub))
    assert reward.push_to_hub("me/reward") == "https://hub/me/reward"
    assert {path.name for path in hub.iterdir()} == {"README.md", "config.json", "head.safetensors", "manifest.json"}
    assert LatentReward.load("me/reward").manifest == LatentReward.load(kept).manifest


def test_no_file_of_a_reward_names_a_path(kept, tiny_folder):
    for path in kept.iterdir():
        assert str(tiny_folder.parent).encode() not in path.read_bytes()
