"""Bad pictures: named before anything is computed, or left out with a report; never replaced by something else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probing.extract import main
from probing.features import FeatureStore

PROMPTS = ["a small red circle", "a star", "a green square", "a circle on a white background", "a small star"]


@pytest.fixture
def pairs_file(tmp_path):
    """Ten good pictures of noise, five pairs."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for number, prompt in enumerate(PROMPTS):
        for side in "ab":
            Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / f"{number}{side}.png")
        rows.append((prompt, f"{number}a.png", f"{number}b.png", "test" if number < 2 else "train"))
    pd.DataFrame(rows, columns=["prompt", "chosen", "rejected", "split"]).to_csv(folder / "pairs.csv", index=False)
    return folder / "pairs.csv"


@pytest.fixture
def extract(tiny_folder, tmp_path, pairs_file):
    def run(*options, output="s.zarr"):
        command = ["--model", str(tiny_folder), "--data", str(pairs_file), "--resolution", "16", "--t5-length", "12"]
        return main([*command, "--batch-size", "2", "--output", str(tmp_path / output), *options])

    return run


def test_a_missing_picture_stops_it_before_anything_is_made(extract, pairs_file, tmp_path, capsys):
    (pairs_file.parent / "3b.png").unlink()
    (pairs_file.parent / "4a.png").unlink()
    assert extract() == 2
    error = capsys.readouterr().err
    assert "2 of 10 pictures of pairs are missing, the first being '3b.png'" in error
    assert "--skip-bad-images" in error and error.strip().count("\n") == 0
    assert not (tmp_path / "s.zarr").exists()


def test_the_plan_counts_missing_pictures(extract, pairs_file, tmp_path, capsys):
    (pairs_file.parent / "3b.png").unlink()
    assert extract("--dry-run") == 0
    assert "missing  1 of 10 pictures" in capsys.readouterr().out
    assert not (tmp_path / "s.zarr").exists()


def test_bad_pictures_are_left_out_with_a_report_and_nothing_else_changes(extract, pairs_file, tmp_path, capsys):
    assert extract(output="whole.zarr") == 0
    (pairs_file.parent / "3b.png").unlink()
    whole = (pairs_file.parent / "1a.png").read_bytes()
    (pairs_file.parent / "1a.png").write_bytes(whole[: len(whole) // 2])
    assert extract("--skip-bad-images") == 0
    assert "2 pictures cannot be used: 4 of 10 items and 2 of 5 pairs are left out" in capsys.readouterr().out
    report = pd.read_csv(tmp_path / "s.zarr.skipped.csv").set_index("image")
    assert dict(report["problem"]) == {"3b.png": "missing", "1a.png": "unreadable"}
    store, before = FeatureStore.open(tmp_path / "s.zarr"), FeatureStore.open(tmp_path / "whole.zarr")
    assert len(store.item_ids) == 6 and len(pd.read_parquet(store.pairs_path)) == 3
    rows = [before.item_ids.tolist().index(item) for item in store.item_ids]
    stored = store.read("image", "mean", 0.005, 3)
    np.testing.assert_allclose(stored, before.read("image", "mean", 0.005, 3)[rows], rtol=1e-4, atol=1e-5)


def test_good_pictures_leave_no_report(extract, tmp_path):
    assert extract("--skip-bad-images") == 0
    assert not (tmp_path / "s.zarr.skipped.csv").exists()


def test_an_unreadable_picture_is_named(extract, pairs_file, capsys):
    (pairs_file.parent / "3b.png").write_bytes(b"no picture")
    assert extract() == 2
    error = capsys.readouterr().err
    assert "3b.png" in error and "it is no picture" in error and error.strip().count("\n") == 0


def test_a_broken_exif_block_does_not_stop_extraction(extract, pairs_file, tmp_path, capsys):
    """The pixels are there: the features are those of the picture without the block."""
    assert extract(output="whole.zarr") == 0
    image = Image.open(pairs_file.parent / "3b.png")
    image.load()
    image.save(pairs_file.parent / "3b.png", "WEBP", lossless=True, exif=b"Exif\0\0II*\0garbage")
    assert extract() == 0
    store, before = FeatureStore.open(tmp_path / "s.zarr"), FeatureStore.open(tmp_path / "whole.zarr")
    stored, whole = (one.read("image", "mean", 0.005, 3) for one in (store, before))
    np.testing.assert_array_equal(stored, whole)


def test_an_error_after_decoding_is_named(extract, pairs_file, tmp_path, capsys):
    Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16)).save(pairs_file.parent / "3b.png", "TIFF")
    assert extract() == 2
    error = capsys.readouterr().err
    assert "3b.png" in error and "no stated white" in error and error.strip().count("\n") == 0
    assert extract("--skip-bad-images") == 0
    report = pd.read_csv(tmp_path / "s.zarr.skipped.csv")
    assert list(report["image"]) == ["3b.png"]


def test_nothing_but_bad_pictures_is_an_error(extract, pairs_file, capsys):
    for number in range(len(PROMPTS)):
        (pairs_file.parent / f"{number}b.png").unlink()
    assert extract("--skip-bad-images") == 2
    assert "has no pairs left" in capsys.readouterr().err
