"""A model's identity covers every byte that decides features, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from probing.backbones import identity, load_backbone, part_digests, resolve, revision_of
from probing.backbones.tuning import Tuning
from probing.errors import UserError
from tests.backbones.model_folders import config_path, copied, edit_config, edit_json, edit_weights, load, weights_path
from tests.fakes.tiny_sd3 import T5_LENGTH

WEIGHTED = ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"]
TOKENIZERS = ["tokenizer", "tokenizer_2", "tokenizer_3"]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return copied(tiny_folder, tmp_path / "model")


@pytest.fixture(scope="module")
def original(tiny_folder):
    return digests(tiny_folder)


def digests(folder, transformer=None, *, random_init=False, seed=0, use_t5=True):
    return part_digests(resolve(str(folder), Tuning(transformer)), random_init=random_init, seed=seed, use_t5=use_t5)


def changed(one, other):
    return {part for part in one.keys() | other.keys() if one.get(part) != other.get(part)}


def test_every_part_that_decides_features_has_a_digest(original, tiny_folder):
    assert set(original) == {*WEIGHTED, *TOKENIZERS}
    assert set(digests(tiny_folder, use_t5=False)) == set(original) - {"text_encoder_3", "tokenizer_3"}


def test_copies_have_one_identity(original, folder):
    assert digests(folder) == original
    assert re.fullmatch("[0-9a-f]{16}", revision_of(original))
    assert revision_of(dict(reversed(original.items()))) == revision_of(original)


@pytest.mark.parametrize("position", [0, pytest.param(-1, marks=pytest.mark.slow), None])
@pytest.mark.parametrize("part", WEIGHTED)
def test_one_value_changes_the_digest_of_its_part_alone(original, folder, part, position):
    """First and last value of the last tensor, and the last bit of the file's last byte."""
    path = weights_path(folder, part)
    if position is None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        name = sorted(load_file(path))[-1]
        edit_weights(folder, part, lambda tensors: tensors[name].view(-1)[position].add_(1))
    actual = digests(folder)
    assert changed(original, actual) == {part}
    assert revision_of(actual) != revision_of(original)


@pytest.mark.parametrize("part", TOKENIZERS)
def test_one_entry_of_a_vocabulary_changes_the_digest_of_its_tokenizer_alone(original, folder, part):
    def exchange(content):
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            one, other = list(vocabulary)[:2]
            vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
        else:
            vocabulary[-1], vocabulary[-2] = vocabulary[-2], vocabulary[-1]

    edit_json(folder / part / "tokenizer.json", exchange)
    assert changed(original, digests(folder)) == {part}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vae", {"scaling_factor": 1.6}),
        ("vae", {"shift_factor": 0.2}),
        ("transformer", {"sample_size": 16}),
        ("text_encoder", {"num_attention_heads": 4}),
        ("text_encoder_2", {"eos_token_id": 2}),
        ("text_encoder_3", {"layer_norm_epsilon": 1e-5}),
        ("tokenizer_3", {"padding_side": "left"}),
    ],
)
def test_a_configuration_changes_the_digest_of_its_part_alone(original, folder, part, change):
    edit_config(folder, part, **change)
    assert changed(original, digests(folder)) == {part}


@pytest.mark.parametrize(
    "part",
    ["transformer", "tokenizer"]
    + [pytest.param(part, marks=pytest.mark.slow) for part in [*WEIGHTED[1:], *TOKENIZERS[1:]]],
)
def test_notes_of_files_and_versions_do_not_count(original, folder, part):
    edit_config(folder, part, _diffusers_version="9", _name_or_path="/elsewhere", transformers_version="9")
    config = config_path(folder, part)
    config.write_text(json.dumps(dict(reversed(json.loads(config.read_text()).items())), indent=7))
    (folder / part / "README.md").write_text("a note")
    assert digests(folder) == original


def test_only_the_files_that_are_loaded_count(original, folder):
    for part in WEIGHTED:
        path = weights_path(folder, part)
        shutil.copy(path, path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
        path.with_name("pytorch_model.bin").write_bytes(b"anything")
    assert digests(folder) == original
    half = weights_path(folder, "vae").with_name("diffusion_pytorch_model.fp16.safetensors")
    weights_path(folder, "vae").unlink()
    only_half = digests(folder)
    assert changed(original, only_half) == {"vae"}
    content = bytearray(half.read_bytes())
    content[-1] ^= 1
    half.write_bytes(content)
    assert changed(only_half, digests(folder)) == {"vae"}


def test_every_shard_counts(folder, tiny_folder):
    load(tiny_folder).pipeline.vae.save_pretrained(folder / "vae", max_shard_size="60KB")
    weights_path(folder, "vae").unlink(missing_ok=True)
    shards = sorted((folder / "vae").glob("*-of-*"))
    assert len(shards) > 1
    before = digests(folder)
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        after = digests(folder)
        assert changed(before, after) == {"vae"}
        before = after


def test_a_random_transformer_is_its_configuration_and_seed(original, folder):
    random = digests(folder, random_init=True)
    assert changed(original, random) == {"transformer"}
    edit_weights(folder, "transformer", lambda tensors: tensors["proj_out.bias"].add_(1))
    assert digests(folder, random_init=True) == random
    assert changed(random, digests(folder, random_init=True, seed=1)) == {"transformer"}
    edit_config(folder, "transformer", sample_size=16)
    assert changed(random, digests(folder, random_init=True)) == {"transformer"}
    assert digests(folder, seed=1) == digests(folder, seed=0)
    with pytest.raises(UserError, match="A seed must be"):
        digests(folder, random_init=True, seed=2**80)


def test_another_transformer_changes_the_transformer_alone(original, folder, tmp_path):
    shutil.copytree(folder / "transformer", tmp_path / "tuned")
    assert digests(folder, tmp_path / "tuned") == original
    path = tmp_path / "tuned" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert changed(original, digests(folder, tmp_path / "tuned")) == {"transformer"}


@pytest.mark.parametrize("settings", [{}, {"random_init": True, "seed": 3}, {"use_t5": False}])
def test_a_loaded_backbone_has_the_digests_of_the_dry_run(tiny_folder, settings):
    backbone = load(tiny_folder, **settings)
    assert backbone.parts == digests(tiny_folder, **settings)
    assert backbone.revision == revision_of(backbone.parts)


def test_the_schedulers_digest(original, folder, tiny_folder):
    before = load(tiny_folder).scheduler_digest
    edit_config(folder, "scheduler", shift=2.0)
    backbone = load(folder)
    assert backbone.parts == original and backbone.scheduler_digest != before


def test_nothing_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("safetensors.torch.load_file", None)
    monkeypatch.setattr("probing.backbones.loading._load_part", None)
    assert digests(folder)


@pytest.fixture
def hub(tiny_folder, tmp_path, monkeypatch):
    """A model of the hub in a local cache, its large files as links to blobs named by their sha256."""
    import hashlib

    model = tmp_path / "hub" / "models--someone--tiny"
    snapshot = model / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_folder, snapshot)
    (model / "blobs").mkdir()
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    for path in sorted(snapshot.rglob("*.*")):
        content = path.read_bytes()
        name = (hashlib.sha256 if path.suffix == ".safetensors" else hashlib.sha1)(content).hexdigest()
        path.rename(model / "blobs" / name)
        path.symlink_to(os.path.relpath(model / "blobs" / name, path.parent))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = resolve(str(tiny_folder))
    return type(spec)(**{**vars(spec), "source": "someone/tiny"}), snapshot


def test_a_cached_model_of_the_hub(hub, tiny_folder, monkeypatch):
    spec, snapshot = hub
    read = []
    content = identity._content
    monkeypatch.setattr(identity.google_crc32c, "value", lambda chunk: read.append(len(chunk)) or 0)
    actual = part_digests(spec, random_init=False, seed=0, use_t5=True)
    assert set(actual) == {*WEIGHTED, *TOKENIZERS} and len(read) == 3, "only the tokenizers' files are read"
    path = weights_path(snapshot, "vae")
    assert content(path) == f"sha256:{path.resolve().name}"
    backbone = load_backbone(spec, device=torch.device("cpu"), compute_dtype=torch.float32, t5_length=T5_LENGTH)
    assert backbone.parts == actual
    expected = load(tiny_folder).encode_prompts(["a star"])
    assert torch.equal(
        backbone.encode_prompts(["a star"]).tensors["encoder_hidden_states"], expected.tensors["encoder_hidden_states"]
    )


def test_a_model_that_is_not_here_yet(hub):
    spec, snapshot = hub
    missing = type(spec)(**{**vars(spec), "source": "someone/else"})
    assert part_digests(missing, random_init=False, seed=0, use_t5=True) is None
    weights_path(snapshot, "vae").unlink()
    assert part_digests(spec, random_init=False, seed=0, use_t5=True) is None
    with pytest.raises(UserError, match=r"hf auth login.*folder.*testbed-xs.*vae.*is missing"):
        load_backbone(spec, device=torch.device("cpu"), compute_dtype=torch.float32)


def test_a_large_file_is_read_to_its_last_byte(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**28)
    first = identity._content(path)
    with path.open("r+b") as file:
        file.seek(2**28 - 1)
        file.write(b"\x01")
    assert identity._content(path) != first


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        identity._content(Path(tmp_path))
