"""Whole pipelines of random weights: packaged configurations at full size without weights, tiny ones with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import probing
from probing.backbones import load_backbone, resolve
from probing.backbones.check import check_backbone
from probing.backbones.families import families
from probing.backbones.library_parts import check_tokenizer
from probing.backbones.part_weights import meta_model
from probing.backbones.random_pipeline import STAND_IN, configured_folder, require_memory
from probing.errors import UserError
from tests.fakes.tiny_pipelines import write
from tests.features.test_extraction import make_data

CPU = torch.device("cpu")
QUICK = ("sd35-medium", "qwen-image-2512")
PACKAGED = {entry.architecture: name for family in families() for name, entry in family.entries.items()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for packaged, name in PACKAGED.items()
        if packaged
    ],
)
def test_every_part_of_a_packaged_model_runs_empty_at_full_size(name):
    spec = resolve(name)
    with configured_folder(spec) as folder:
        models = {part: meta_model(folder / part.name, part) for part in spec.family.parts if part.has_weights}
        encoders = [model for part, model in models.items() if part.kind == "text_encoder"]
        counted = sum(sum(p.numel() for p in encoder.parameters()) for encoder in encoders)
        assert counted == spec.architecture.text_parameters
        tokenizers = [part for part in spec.family.parts if part.kind == "tokenizer"]
        for part, encoder in zip(tokenizers, encoders, strict=True):
            made = part.model.from_pretrained(folder / part.name, local_files_only=True)
            check_tokenizer(folder / part.name, made, encoder, 77)
            assert len(made("a red dog")["input_ids"]) > 5
            assert json.loads((folder / part.name / part.config_name).read_text())["probing"] == STAND_IN
    assert not folder.exists()


@pytest.mark.parametrize("name", ["sd3", "qwen-image", "z-image"])
def test_a_pipeline_of_random_weights_works_and_is_another_model(name, tmp_path):
    folder = write(name, tmp_path)
    spec = resolve(str(folder))
    options = {"device": CPU, "t5_length": 40, "random_init": "all"}
    whole = load_backbone(spec, compute_dtype=torch.float32, **options)
    assert not [outcome for outcome in check_backbone(whole) if outcome.problem]
    trained = load_backbone(spec, device=CPU, compute_dtype=torch.float32, t5_length=40)
    weighted = {part.name for part in spec.family.parts if part.has_weights}
    assert {part for part in whole.parts if whole.parts[part] != trained.parts[part]} == weighted
    again, other = (load_backbone(spec, compute_dtype=torch.bfloat16, seed=seed, **options) for seed in (0, 1))
    assert again.parts == whole.parts != other.parts
    assert {tensor.dtype for tensor in again.pipeline.text_encoder.parameters()} == {torch.bfloat16}


def test_the_command_takes_the_word(tmp_path, capsys):
    folder = write("sd3", tmp_path)
    store = probing.extract(
        folder, make_data(), output=tmp_path / "s.zarr", random_init="all", resolution=16, t5_length=12, device="cpu"
    )
    assert store.attributes["random_init"] == "all"
    from probing.extract import PARSER

    for words, value in (([], False), (["--random-init"], True), (["--random-init", "all"], "all")):
        options, _ = PARSER.parse(["--model", str(folder), *words])
        assert options.settings.random_init == value
    with pytest.raises(UserError, match="expected nothing or all, got 'some'"):
        PARSER.parse(["--model", str(folder), "--random-init", "some"])


def test_a_reward_on_a_random_pipeline_is_loaded_again_as_one(tmp_path):
    folder = write("z-image", tmp_path)
    data = probing.load_pairs("testbed", where="facet == 'quality'", limit=96)
    read = {"resolution": 32, "t5_length": 40, "device": "cpu"}
    store = probing.extract(folder, data, output=tmp_path / "s.zarr", random_init="all", **read)
    path = probing.train_reward(store).save(tmp_path / "reward")
    reward = probing.LatentReward.load(path, model=folder, device="cpu")
    items = data.items.iloc[:3]
    live = reward.score(items["prompt"].tolist(), [data.open_image(i) for i in items["item_id"]], keys=items["item_id"])
    cached = reward.score_store(store).set_index("item_id")["reward"][items["item_id"]]
    np.testing.assert_allclose(live, cached, rtol=1e-3, atol=1e-4)


def test_too_little_memory_is_a_sentence(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 2**20 if name == "SC_PHYS_PAGES" else 4096)
    with pytest.raises(UserError, match=r"sd35-medium need 14\.6 GiB, and this machine has 4\.0 GiB of memory"):
        require_memory(resolve("sd35-medium"), torch.bfloat16)
