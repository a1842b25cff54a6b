"""Extraction from pictures to the store: right features, and none lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import probing
from probing.backbones import load_backbone, resolve
from probing.errors import UserError
from probing.extract import main
from probing.features import ExtractionSettings, FeatureStore, extract, make_plan
from probing.features.noise import add_noise, item_noise
from probing.preferences import DrawnImages, PreferenceData
from probing.testbed.recipes.text import CAPTION_LENGTH
from tests.fakes.tiny_sd3 import BLOCKS, T5_LENGTH
from tests.features.test_trace import hooked

CPU = torch.device("cpu")
PROMPTS = ["a small red circle", "a star on a white background", "a square", "a small green square on a background"]


def make_data(order=None) -> PreferenceData:
    """Twelve pictures of noise under four prompts; items of one prompt do not stand together."""
    items = pd.DataFrame(
        [(f"item{i}", f"prompt{i % 4}", PROMPTS[i % 4]) for i in range(12)], columns=["item_id", "prompt_id", "prompt"]
    )
    if order is not None:
        items = items.iloc[order].reset_index(drop=True)
    pairs = pd.DataFrame(
        [
            (
                f"pair{i}",
                f"prompt{i % 4}",
                f"item{i}",
                f"item{i + 4}",
                float(i % 2),
                ["train", "test"][i % 4 // 2],
                "all",
            )
            for i in range(8)
        ],
        columns=["pair_id", "prompt_id", "first", "second", "choice", "split", "facet"],
    )

    def open_image(item_id: str) -> Image.Image:
        pixels = np.random.default_rng(int(item_id.removeprefix("item"))).integers(0, 256, (16, 16, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    items["image"] = items["item_id"]
    return PreferenceData(name="noise", items=items, pairs=pairs, images=DrawnImages(open_image))


@pytest.fixture(scope="module")
def spec(tiny_folder):
    return resolve(str(tiny_folder))


@pytest.fixture(scope="module")
def backbone(spec):
    return load_backbone(spec, device=CPU, compute_dtype=torch.float32, t5_length=T5_LENGTH)


def run(spec, backbone, data, output, run_length=None, **changed):
    settings = ExtractionSettings(
        **{
            "sigmas": (0.005, 0.6),
            "streams": ("image", "text"),
            "reductions": ("mean", "std", "grid4", "tokens"),
            "resolution": 16,
            "batch_size": 3,
            "t5_length": T5_LENGTH,
            **changed,
        }
    )
    plan = make_plan(spec, settings, items=len(data.items), prompts=4)
    if run_length is not None:
        plan = type(plan)(**{**vars(plan), "run_length": run_length})
    return extract(plan, backbone, data, output)


def arrays_of(store: FeatureStore) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for path in sorted(store.path.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


def by_item(store, stream, reduction, sigma, block):
    return dict(zip(store.item_ids, store.read(stream, reduction, sigma, block), strict=True))


def test_features_equal_plain_hooks_on_the_same_inputs(spec, backbone, tmp_path):
    """Everything by hand: preparation, encoding, noise, timestep, hooks, means over real tokens."""
    data = make_data()
    store = run(spec, backbone, data, tmp_path / "s.zarr").store
    batch = store.item_ids[:3].tolist()
    pixels = np.stack([np.asarray(data.open_image(i)) for i in batch])
    latents = backbone.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
    noise = torch.from_numpy(np.stack([item_noise(0, i, (4, 8, 8)) for i in batch]))
    prompts = data.items.set_index("item_id").loc[batch, "prompt"].tolist()
    stock = backbone.pipeline.encode_prompt(
        prompt=list(dict.fromkeys(data.items.sort_values("prompt_id", kind="stable")["prompt"])),
        prompt_2=None,
        prompt_3=None,
        do_classifier_free_guidance=False,
        max_sequence_length=T5_LENGTH,
    )
    assert len(set(prompts)) == 1
    for sigma in store.sigmas:
        inputs = {
            "hidden_states": add_noise(latents, noise, sigma),
            "encoder_hidden_states": stock[0][:1].expand(3, -1, -1),
            "pooled_projections": stock[2][:1].expand(3, -1),
            "timestep": torch.full((3,), 1000 * sigma),
        }
        words = len(backbone.pipeline.tokenizer(prompts[0])["input_ids"])
        pieces = len(backbone.pipeline.tokenizer_3(prompts[0])["input_ids"])
        clip_length = backbone.pipeline.tokenizer_max_length
        for block, (text, image) in enumerate(hooked(backbone.transformer, inputs)):
            np.testing.assert_array_equal(store.read("image", "mean", sigma, block)[:3], image.mean(1).numpy())
            np.testing.assert_array_equal(store.read("image", "tokens", sigma, block)[:3], image.half().float().numpy())
            if text is None:
                assert block not in store.blocks_of("text")
                continue
            for part, real in (("clip", text[:, :words]), ("t5", text[:, clip_length : clip_length + pieces])):
                np.testing.assert_allclose(
                    store.read("text", f"mean_{part}", sigma, block)[:3], real.mean(1).numpy(), rtol=1e-5, atol=1e-6
                )
    np.testing.assert_allclose(store.read_latents("mean")[:3], latents.mean((2, 3)).numpy(), rtol=1e-6, atol=1e-7)


def test_items_of_a_prompt_are_kept_together_and_encoded_once(spec, backbone, tmp_path, monkeypatch):
    encoded: list[str] = []
    encode = backbone.encode_prompts
    monkeypatch.setattr(backbone, "encode_prompts", lambda prompts: encoded.extend(prompts) or encode(prompts))
    store = run(spec, backbone, make_data(), tmp_path / "s.zarr").store
    assert sorted(encoded) == sorted(PROMPTS)
    assert store.prompt_ids.tolist() == [f"prompt{i // 3}" for i in range(12)]


def test_order_and_batches_change_nothing_but_rounding(spec, backbone, tmp_path):
    store = run(spec, backbone, make_data(), tmp_path / "a.zarr").store
    order = np.random.default_rng(0).permutation(12)
    others = [
        run(spec, backbone, make_data(order), tmp_path / "b.zarr").store,
        run(spec, backbone, make_data(), tmp_path / "c.zarr", batch_size=1).store,
        run(spec, backbone, make_data(), tmp_path / "d.zarr", batch_size=12).store,
    ]
    for other in others:
        for block in store.blocks_of("text"):
            for stream, reduction in (("image", "mean"), ("text", "mean_clip"), ("text", "mean_t5")):
                first, second = (by_item(s, stream, reduction, 0.6, block) for s in (store, other))
                for item, vector in first.items():
                    np.testing.assert_allclose(second[item], vector, rtol=1e-4, atol=1e-5)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "runs_before", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_resumed_run_equals_an_undisturbed_one_byte_for_byte(spec, backbone, tmp_path, monkeypatch, runs_before):
    whole = run(spec, backbone, make_data(), tmp_path / "whole.zarr", run_length=3).store
    write = FeatureStore.write_run
    done: list[int] = []

    def write_and_die(self, number, values):
        if len(done) == runs_before:
            raise Killed
        done.append(number)
        write(self, number, values)

    monkeypatch.setattr(FeatureStore, "write_run", write_and_die)
    with pytest.raises(Killed):
        run(spec, backbone, make_data(), tmp_path / "cut.zarr", run_length=3)
    monkeypatch.undo()
    resumed = run(spec, backbone, make_data(), tmp_path / "cut.zarr", run_length=3)
    assert resumed.computed == 12 - 3 * runs_before
    assert arrays_of(resumed.store) == arrays_of(whole)
    assert run(spec, backbone, make_data(), tmp_path / "cut.zarr", run_length=3).computed == 0


@pytest.mark.slow
def test_killed_for_real_and_started_again(tmp_path):
    """kill -9 in the middle of the command, as often as it takes, ends in the bytes of one undisturbed run."""
    command = [
        *(sys.executable, "-m", "probing.extract", "--model", "testbed-xs", "--data", "testbed", "--split", "test"),
        *("--limit", "96", "--sigmas", "0.005,0.6", "--batch-size", "8", "--reductions", "mean,tokens", "--output"),
    ]
    subprocess.run([*command, str(tmp_path / "whole.zarr")], check=True, capture_output=True)
    cut = tmp_path / "cut.zarr"
    kills = 0
    process = subprocess.Popen([*command, str(cut)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(cut.rglob("c/*/0/0/0*")) and kills == 0:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        time.sleep(0.002)
    process.wait()
    assert kills == 1
    subprocess.run([*command, str(cut)], check=True, capture_output=True)
    whole = FeatureStore.open(tmp_path / "whole.zarr")
    resumed = FeatureStore.open(cut)
    assert resumed.written.all()
    assert arrays_of(resumed) == arrays_of(whole)


def test_noise_is_independent_or_shared(spec, backbone, tmp_path):
    """With shared noise and equal pictures, two items of one prompt have equal features; with independent, not."""
    data = make_data()
    same = PreferenceData(
        name="same", items=data.items, pairs=data.pairs, images=DrawnImages(lambda _: Image.new("RGB", (16, 16), "red"))
    )
    for pair_noise, equal in (("shared", True), ("independent", False)):
        store = run(spec, backbone, same, tmp_path / f"{pair_noise}.zarr", pair_noise=pair_noise, batch_size=12).store
        first, second = store.read("image", "mean", 0.6, 0)[:2]
        assert np.allclose(first, second, atol=1e-5) == equal


def test_noise_differs_between_seeds_and_not_between_sigmas(spec, backbone, tmp_path):
    stores = [run(spec, backbone, make_data(), tmp_path / f"{s}.zarr", seed=s).store for s in (0, 1)]
    assert np.abs(stores[0].read("image", "mean", 0.6, 0) - stores[1].read("image", "mean", 0.6, 0)).max() > 1e-3
    # σ is part of the input twice, by mixture and by timestep: the levels differ.
    assert np.abs(stores[0].read("image", "mean", 0.6, 0) - stores[0].read("image", "mean", 0.005, 0)).max() > 1e-3


def test_the_store_records_how_it_was_made(spec, backbone, tmp_path):
    data = make_data()
    store = run(spec, backbone, data, tmp_path / "s.zarr").store
    attributes = store.attributes
    assert attributes["model"] == spec.name
    assert attributes["revision"] == backbone.revision
    assert attributes["data"] == "noise"
    assert (attributes["seed"], attributes["resolution"], attributes["t5_length"], attributes["clip_tokens"]) == (
        0,
        16,
        T5_LENGTH,
        CAPTION_LENGTH,
    )
    assert attributes["versions"]["torch"] == torch.__version__
    pd.testing.assert_frame_equal(store.read_pairs(), data.pairs, check_dtype=False)


def test_a_random_backbone_may_not_continue_a_trained_store(spec, backbone, tmp_path):
    run(spec, backbone, make_data(), tmp_path / "s.zarr")
    fresh = load_backbone(spec, device=CPU, compute_dtype=torch.float32, random_init=True, t5_length=T5_LENGTH)
    with pytest.raises(UserError, match=r"random_init was False and is now True"):
        run(spec, fresh, make_data(), tmp_path / "s.zarr", random_init=True)


def test_repairs_are_returned(spec, backbone, tmp_path):
    assert run(spec, backbone, make_data(), tmp_path / "s.zarr").notes == ()
    next((tmp_path / "s.zarr").glob("features/image/mean/c/0/0/0/0")).unlink()
    again = run(spec, backbone, make_data(), tmp_path / "s.zarr")
    assert again.notes == ("features/image/mean/c/0/0/0/0: it is missing",)
    assert again.computed == 12


def test_a_bad_image_loses_nothing(spec, backbone, tmp_path):
    data = make_data()

    def open_image(item_id):
        if item_id == "item3":
            raise UserError("item3 cannot be read.")
        return data.open_image(item_id)

    broken = PreferenceData(name="noise", items=data.items, pairs=data.pairs, images=DrawnImages(open_image))
    with pytest.raises(UserError, match="item3"):
        run(spec, backbone, broken, tmp_path / "s.zarr", run_length=3)
    assert FeatureStore.open(tmp_path / "s.zarr").written.sum() == 9
    repaired = run(spec, backbone, data, tmp_path / "s.zarr", run_length=3)
    assert repaired.computed == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sigmas", "5"], "in [0, 1]"),
        (["--sigmas", "0.1,0.1"], "given once"),
        (["--blocks", "0,8"], "blocks 0 … 5, got 8"),
        (["--blocks", "5", "--streams", "text"], "blocks with it: 0, 1, 2, 3, 4"),
        (["--streams", "images"], "Unknown stream 'images'"),
        (["--reductions", "average"], "Unknown reduction 'average'"),
        (["--resolution", "100"], "multiple of 8"),
        (["--data", "testbad"], "testbed"),
        (["--batch-size", "0"], "at least 1"),
        (["--model", "testbed-sx"], "did you mean testbed-s or testbed-xs"),
        (["--compute-dtype", "float16", "--device", "cpu"], "float32"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys, options, message):
    model = [] if "--model" in options else ["--model", "testbed-xs"]
    status = main([*model, "--output", str(tmp_path / "s.zarr"), "--limit", "8", *options])
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert message in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_the_plan_of_the_real_thing_needs_no_weights(capsys, tmp_path):
    output = tmp_path / "s.zarr"
    command = ["--model", "sd35-medium", "--limit", "600", "--streams", "image,text", "--sigmas", "0.005,0.25"]
    assert main([*command, "--output", str(output), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    items = int(plan.split("items  ")[1].split(" of ")[0])
    assert 0 < items <= 600
    assert "24 blocks × 1536 channels, 2.24 B parameters" in plan
    assert "1024 image at 512², 77 CLIP, 256 T5 (encoded)" in plan
    assert f"{2 * items:,} (" in plan
    # Image means of 24 blocks, and text means of 23 for each of two parts, float32, two levels; 16 latents.
    run = int(plan.split("runs of ")[1].split(" ")[0])
    mebibytes = -(-items // run) * run * (2 * 1536 * 4 * (24 + 2 * 23) + 16 * 4) / 2**20
    assert f"disk  {mebibytes:.3g} MiB" in plan
    assert f"{items * (2 * 2.4426 + 1.1176) / 1000:.2f}"[:3] in plan.split("compute")[1]
    assert not output.exists()


def test_a_stopped_block_range_costs_less(capsys):
    main(["--model", "sd35-medium", "--limit", "8", "--dry-run", "--blocks", "0,11"])
    half = capsys.readouterr().out
    main(["--model", "sd35-medium", "--limit", "8", "--dry-run"])
    whole = capsys.readouterr().out
    flops = [float(text.split("compute  ")[1].split(" ")[0]) for text in (half, whole)]
    assert flops[0] < 0.75 * flops[1]


def test_another_model_path_is_the_same_command(tiny_folder, tmp_path, capsys):
    output = tmp_path / "s.zarr"
    command = ["--model", str(tiny_folder), "--data", "testbed", "--split", "test", "--limit", "8", "--t5-length", "12"]
    assert main([*command, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert str(output) in printed and "probing.measure" in printed
    store = FeatureStore.open(output)
    assert store.num_blocks == BLOCKS
    assert np.isfinite(store.read("image", "mean", 0.005, BLOCKS - 1)).all()
    assert Path(store.pairs_path).exists()


THREADS = """
import sys
import probing
data = probing.load_pairs("testbed", limit=256)
read = {"sigmas": (0.4,), "streams": ("image", "text"), "device": "cpu", "keep_inputs": 0}
print(probing.extract("testbed-s", data, output=sys.argv[1], **read).digest)
"""


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit_of_whole_batches(tmp_path):
    """Without the package's switch, MKL's products round by it on some processors."""
    digests = set()
    for threads in ("1", "2"):
        found = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(Path(probing.__path__[0]).parent)}
        command = [sys.executable, "-c", THREADS, str(tmp_path / f"{threads}.zarr")]
        digests.add(subprocess.run(command, env=found, check=True, capture_output=True, text=True).stdout)
    assert len(digests) == 1
