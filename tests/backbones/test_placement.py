"""Weights that rest elsewhere than on the device, and weights of fewer bits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import probing
from probing.backbones import load_backbone, placement, resolve
from probing.backbones.check import check_backbone
from probing.errors import UserError
from probing.features.plan import make_plan
from probing.features.settings import ExtractionOptions
from tests.fakes.tiny_pipelines import TINY, write
from tests.features.test_extraction import make_data

SIZE = {"resolution": 32, "t5_length": 40, "device": "cpu", "sigmas": [0.3], "streams": ["image", "text"]}
TORCHAO = "0.18.0"


def features(store):
    return np.concatenate([store.read("image", "mean", 0.3, block).ravel() for block in store.blocks_of("image")])


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "sd3" else pytest.mark.slow) for n in TINY])
def test_weights_spread_over_memory_and_disk_give_the_same_bits(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write(name, tmp_path)
    whole = probing.extract(folder, make_data(), output="whole.zarr", **SIZE)
    model = resolve(str(folder))
    options = {"device": torch.device("cpu"), "compute_dtype": torch.float32, "t5_length": 40}
    weights = sum(tensor.nbytes for tensor in load_backbone(model, **options).transformer.state_dict().values())
    monkeypatch.setattr(placement, "free_memory", lambda: {"cpu": int(0.6 * weights)})
    spread = load_backbone(model, placement="auto", **options)
    places = set(spread.transformer.hf_device_map.values())
    assert "disk" in places and list(tmp_path.glob(".weights-*/*"))
    assert not [outcome for outcome in check_backbone(spread) if outcome.problem]
    stored = probing.extract(folder, make_data(), output="spread.zarr", placement="auto", **SIZE)
    np.testing.assert_array_equal(features(stored), features(whole))
    # The place of weights is no setting of a store, so either way goes on with the other's.
    assert "placement" not in stored.attributes
    probing.extract(folder, make_data(), output="spread.zarr", **{**SIZE, "sigmas": [0.6]})
    del spread
    assert not list(tmp_path.glob(".weights-*"))


def test_an_accelerator_holds_two_blocks_at_a_time_where_weights_stay_in_host_memory():
    spec = resolve("sd35-large")
    plans = {}
    for where in ("device", "host"):
        settings = ExtractionOptions(placement=where, batch_size=1).resolve(spec, "bfloat16", "cuda")
        plans[where] = make_plan(spec, settings, items=10, prompts=5)
    assert plans["host"].device_bytes < 0.2 * plans["device"].device_bytes
    assert plans["host"].host_bytes == plans["device"].host_bytes


def test_the_plan_counts_quantised_weights():
    spec = resolve("sd35-large")
    sizes = {}
    for bits in (None, "8bit", "4bit"):
        settings = ExtractionOptions(quantization=bits, batch_size=1).resolve(spec, "bfloat16", "cuda")
        plan = make_plan(spec, settings, items=10, prompts=5)
        sizes[bits] = plan.weight_bytes - 2 * spec.architecture.text_parameters
        assert (f"{bits} weights" in plan.describe()) == (bits is not None)
    assert sizes["8bit"] == spec.architecture.parameters == sizes[None] / 2 and sizes["4bit"] < 0.6 * sizes["8bit"]


def test_missing_libraries_and_accelerators_get_a_sentence(tiny_folder):
    options = {"device": torch.device("cpu"), "compute_dtype": torch.float32, "t5_length": 12}
    with pytest.raises(UserError, match=r"pip install 'dit-probing\[quantized\]'"):
        load_backbone(resolve(str(tiny_folder)), quantization="8bit", **options)
    with pytest.raises(UserError, match="needs a CUDA GPU; take 8bit"):
        load_backbone(resolve(str(tiny_folder)), quantization="4bit", **options)
    with pytest.raises(UserError, match="Random weights are not quantised"):
        load_backbone(resolve(str(tiny_folder)), quantization="8bit", random_init=True, **options)


QUANTISED = """
import sys
import numpy as np, torch
import probing
from probing.backbones import load_backbone, resolve
from probing.backbones.check import check_backbone
from tests.backbones.test_placement import SIZE, features
from tests.fakes.tiny_pipelines import write
from tests.features.test_extraction import make_data
from pathlib import Path

folder = write("sd3", Path.cwd())
whole = features(probing.extract(folder, make_data(), output="whole.zarr", **SIZE))
store = probing.extract(folder, make_data(), output="8.zarr", quantization="8bit", **SIZE)
gap = np.linalg.norm(features(store) - whole) / np.linalg.norm(whole)
assert 1e-4 < gap < 0.03, gap
assert store.attributes["quantization"] == "8bit"
backbone = load_backbone(
    resolve(str(folder)), device=torch.device("cpu"), compute_dtype=torch.float32, t5_length=40, quantization="8bit"
)
kinds = {type(p).__name__ for p in backbone.transformer.transformer_blocks[0].parameters()}
assert "Int8Tensor" in kinds, kinds
problems = [outcome for outcome in check_backbone(backbone) if outcome.problem]
assert not problems, problems
try:
    probing.extract(folder, make_data(), output="whole.zarr", quantization="8bit", **SIZE)
except probing.UserError as error:
    assert "quantization" in str(error)
else:
    raise AssertionError("a store took features of other weights")
"""


@pytest.mark.slow
def test_eight_bits_of_torchao_stay_near_and_are_another_setting(tmp_path):
    """The library is installed beside, for every process that sees it imports it."""
    beside = tmp_path / "beside"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", beside, f"torchao=={TORCHAO}"]
    subprocess.run(install, check=True, capture_output=True)
    root = probing.__path__[0].rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", QUANTISED],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{root}:{beside}", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
