"""Audits find planted problems, and none in clean data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from probing.audit import main
from probing.preferences import load_pairs
from probing.preferences.audit import ScannedImages, audit, scan_images
from probing.preferences.audit.duplicates import across_splits, nearly_across_splits, splits_of_images
from probing.preferences.audit.shortcuts import by_side, by_size, by_source_model
from probing.preferences.images.preparation import picture_digest

PROMPTS = 60


def picture(seed: int, size=(96, 80)) -> Image.Image:
    """A smooth picture that is unlike all others: scaled-up noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def write(folder: Path, change=None) -> Path:
    """Write a clean file of pairs, two splits, with its pictures; ``change`` gets the table before it is saved."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(PROMPTS):
        names = [f"{prompt}-{side}.png" for side in "ab"]
        for side, name in enumerate(names):
            picture(2 * prompt + side).save(folder / name)
        chosen = int(rng.integers(2))
        split = "test" if prompt % 3 == 0 else "train"
        rows.append((f"prompt {prompt}", names[chosen], names[1 - chosen], split))
    table = pd.DataFrame(rows, columns=["prompt", "chosen", "rejected", "split"])
    if change is not None:
        change(table)
    table.to_csv(folder / "pairs.csv", index=False)
    return folder / "pairs.csv"


def findings_of(file: Path, **options):
    return {finding.check: finding for finding in audit(load_pairs(str(file), leaks="keep"), **options).findings}


def test_clean_data_have_no_findings(tmp_path, capsys):
    file = write(tmp_path)
    assert main(["--data", str(file), "--output", str(tmp_path / "report")]) == 0
    assert "These checks find no leak" in (tmp_path / "report" / "report.md").read_text()
    table = pd.read_csv(tmp_path / "report" / "findings.csv")
    assert set(table["severity"]) == {"ok"}, table
    assert "ok  missing-images" in capsys.readouterr().out


def test_bad_pictures_are_counted_and_named(tmp_path):
    file = write(tmp_path)
    (tmp_path / "3-a.png").unlink()
    whole = (tmp_path / "4-b.png").read_bytes()
    (tmp_path / "4-b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "5-a.png").write_bytes(b"")
    picture(1000, (40, 96)).save(tmp_path / "6-a.png")
    found = findings_of(file)
    assert list(found["missing-images"].cases["image"]) == ["3-a.png"]
    assert set(found["unreadable-images"].cases["image"]) == {"4-b.png", "5-a.png"}
    assert found["unreadable-images"].cases["reason"].str.contains("is empty|cannot be read").all()
    assert found["tiny-images"].cases[["image", "width", "height"]].values.tolist() == [["6-a.png", 40, 96]]
    assert found["images-across-splits"].severity == "ok"


def test_a_scan_goes_on_after_any_error(tmp_path, monkeypatch, capsys):
    data = load_pairs(str(write(tmp_path)))
    errors = {"1-a.png": RuntimeError("one\ntwo"), "2-b.png": MemoryError(), "3-a.png": SyntaxError("not a TIFF file")}
    opened = data.images.open

    def fail(name, record):
        if name in errors:
            raise errors[name]
        return opened(name, record)

    monkeypatch.setattr(data.images, "open", fail)
    for hashes in (True, False):
        scanned = scan_images(data, hashes=hashes)
        bad = scanned.bad.set_index("image")
        assert set(bad.index) == set(errors) and set(bad["problem"]) == {"unreadable"}
        assert bad.loc["1-a.png", "reason"] == r"RuntimeError: one\ntwo"
        assert (scanned.table.loc[~scanned.table["image"].isin(errors), "width"] == 96).all()


def test_a_scan_goes_on_after_an_error_of_hashing(tmp_path, monkeypatch):
    data = load_pairs(str(write(tmp_path)))
    monkeypatch.setattr("probing.preferences.audit.scan._phash", lambda image: 1 // 0)
    assert len(scan_images(data).bad) == 2 * PROMPTS


def test_a_picture_with_a_broken_exif_block_is_read(tmp_path, capsys):
    file = write(tmp_path)
    picture(14).save(tmp_path / "7-a.png", "WEBP", lossless=True, exif=b"Exif\0\0II*\0garbage")
    assert main(["--data", str(file), "--output", str(tmp_path / "report")]) == 0
    assert "ok  unreadable-images" in capsys.readouterr().out
    scanned = scan_images(load_pairs(str(file))).table.set_index("image")
    picture(14).save(tmp_path / "7-a.png")
    assert scan_images(load_pairs(str(file))).table.set_index("image")["content"].equals(scanned["content"])


def test_missing_pictures_have_no_size(tmp_path):
    file = write(tmp_path)
    for prompt in range(1, PROMPTS):
        (tmp_path / f"{prompt}-a.png").unlink()
    found = findings_of(file)["choice-by-image-size"]
    assert found.statement == "The two pictures of a pair always have the same size (1 of 60 pairs can be read)."
    (tmp_path / "0-b.png").unlink()
    found = findings_of(file)["choice-by-image-size"]
    assert (found.severity, found.statement) == ("note", "No pair has two readable pictures; nothing is measured.")


def test_content_is_the_digest_of_the_picture(tmp_path):
    data = load_pairs(str(write(tmp_path)))
    table = scan_images(data).table
    for row in (0, 17):
        with Image.open(tmp_path / table.loc[row, "image"]) as opened:
            assert table.loc[row, "content"] == picture_digest(opened).hex()


def test_a_prompt_in_other_spelling_leaks(tmp_path, capsys):
    def change(table):
        table.loc[1, "prompt"] = "  PROMPT  3 "

    file = write(tmp_path, change)
    assert main(["--data", str(file), "--no-images", "--output", str(tmp_path / "report")]) == 1
    assert "leak  prompts-across-splits" in capsys.readouterr().out
    cases = pd.read_csv(tmp_path / "report" / "prompts-across-splits.csv")
    assert cases[["prompt", "train", "test"]].values.tolist() == [["  PROMPT  3 ", 1, 1]]


@pytest.mark.parametrize(
    ("check", "copied"),
    [
        ("images-across-splits", lambda image, path: image.save(path, compress_level=0)),
        ("images-across-splits", lambda image, path: image.convert("RGBA").save(path)),
        ("near-images-across-splits", lambda image, path: image.save(path, "JPEG", quality=60)),
        ("near-images-across-splits", lambda image, path: image.resize((64, 64)).save(path)),
    ],
)
def test_a_copy_in_another_split_leaks(tmp_path, check, copied):
    file = write(tmp_path)
    # Prompt 6 is in the test split, 7 in the training split.
    copied(Image.open(tmp_path / "7-b.png"), tmp_path / "6-a.png")
    found = findings_of(file)
    leaking = [name for name, finding in found.items() if finding.severity == "leak"]
    assert leaking == [check]
    assert found[check].cases[["image", "split", "also", "also_split"]].values.tolist() == [
        ["6-a.png", "test", "7-b.png", "train"]
    ]


def test_a_copy_in_the_same_split_is_only_noted(tmp_path):
    file = write(tmp_path)
    picture(14).save(tmp_path / "8-a.png", compress_level=0)
    found = findings_of(file)
    assert found["duplicate-images"].cases[["image", "same_as"]].values.tolist() == [["8-a.png", "7-a.png"]]
    assert not any(finding.severity == "leak" for finding in found.values())


def test_a_fixed_problem_leaves_no_file(tmp_path, capsys):
    file = write(tmp_path)
    moved = (tmp_path / "3-a.png").rename(tmp_path / "away.png")
    report = tmp_path / "report"
    main(["--data", str(file), "--output", str(report)])
    assert (report / "missing-images.csv").exists()
    moved.rename(tmp_path / "3-a.png")
    main(["--data", str(file), "--output", str(report)])
    assert not (report / "missing-images.csv").exists()


def test_size_and_source_model_shortcuts_are_found(tmp_path):
    def change(table):
        table["source_model_chosen"] = ["good", "fair"] * (PROMPTS // 2)
        table["source_model_rejected"] = ["fair", "poor"] * (PROMPTS // 2)

    file = write(tmp_path, change)
    for name in pd.read_csv(file)["chosen"]:
        Image.open(tmp_path / name).resize((128, 128)).save(tmp_path / name)
    found = findings_of(file)
    for check in ("choice-by-image-size", "choice-by-source-model"):
        assert found[check].severity == "warning"
        assert "predict the choice in 100.0%" in found[check].statement
    models = found["choice-by-source-model"].cases.set_index("source_model")["chosen"]
    assert dict(models) == {"good": 1.0, "fair": 0.5, "poor": 0.0}
    assert found["choice-by-side"].severity == "ok"


def test_a_side_that_reveals_the_choice_is_found(tmp_path):
    data = load_pairs(str(write(tmp_path)))
    side = by_side(data.pairs.assign(choice=1.0))
    assert side.accuracy == 1.0 and side.works
    assert by_side(data.pairs.assign(choice=0.5)).pairs == 0


def test_uninformative_source_models_predict_nothing():
    rng = np.random.default_rng(3)
    count = 2000
    pairs = pd.DataFrame(
        {
            "prompt_id": np.arange(count).astype(str),
            "choice": rng.integers(0, 2, count).astype(float),
            "split": "train",
            "source_model_first": rng.choice(list("abc"), count),
            "source_model_second": rng.choice(list("abc"), count),
        }
    )
    shortcut = by_source_model(pairs)
    assert not shortcut.works and 0.45 < shortcut.accuracy < 0.55
    assert by_source_model(pairs.drop(columns="source_model_first")) is None


def test_size_guesses_agree_with_counting(tmp_path):
    """Where the larger wins in 40 of 60 pairs, and size is all in_split is, the guess is right in 40 of 60."""
    file = write(tmp_path)
    table = pd.read_csv(file)
    for row, (chosen, rejected) in enumerate(zip(table["chosen"], table["rejected"], strict=True)):
        larger = chosen if row % 3 else rejected
        Image.open(tmp_path / larger).resize((128, 128)).save(tmp_path / larger)
    data = load_pairs(str(file))
    size = by_size(data, scan_images(data))
    assert size.accuracy == pytest.approx(40 / 60)
    assert size.table.set_index("size")["chosen"]["the larger"] == pytest.approx(40 / 60)


def test_scanning_agrees_with_opening_one_by_one(tmp_path):
    data = load_pairs(str(write(tmp_path)))
    scanned = scan_images(data, workers=3)
    for row, image in enumerate(scanned.table["image"]):
        with Image.open(tmp_path / image) as opened:
            assert opened.size == tuple(scanned.table.loc[row, ["width", "height"]])
            expected = np.asarray(opened.resize((8, 8), Image.Resampling.BOX)).ravel()
        assert (scanned.thumbnails[row] == expected).all()
    assert scanned.table["content"].nunique() == 2 * PROMPTS


def scanned_of(codes) -> ScannedImages:
    names = [f"{i}.png" for i in range(len(codes))]
    table = pd.DataFrame({"image": names, "item_id": names, "problem": "", "reason": "", "width": 9, "height": 9})
    thumbnails = np.zeros((len(codes), 192), dtype=np.uint8)
    return ScannedImages(table.assign(content=names), np.array(codes, dtype=np.uint64), thumbnails)


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=6), st.booleans()), max_size=12),
    st.integers(0, 3),
)
def test_near_hashes_are_found_as_by_comparing_all(bases, variants, bits):
    """Variants differ from one of a few bases in chosen bits."""
    codes = list(bases) + [bases[i % len(bases)] ^ sum(1 << b for b in flips) for i, flips, _ in variants]
    tests = np.array([False] * len(bases) + [test for *_, test in variants])
    in_split = np.column_stack([~tests, np.zeros_like(tests), tests])
    found = nearly_across_splits(scanned_of(codes), in_split, bits=bits)
    expected = {
        f"{i}.png": min(distances)
        for i in np.flatnonzero(tests)
        if (distances := [d for j in np.flatnonzero(~tests) if (d := (codes[i] ^ codes[j]).bit_count()) <= bits])
    }
    assert dict(zip(found["image"], found["bits"], strict=True)) == expected


def test_different_colours_are_not_near():
    scanned = scanned_of([7, 7])
    in_split = np.array([[True, False, False], [False, False, True]])
    assert len(nearly_across_splits(scanned, in_split)) == 1
    scanned.thumbnails[1] += 5
    assert len(nearly_across_splits(scanned, in_split)) == 0


def test_a_picture_of_both_splits_is_found_by_name_even_unreadable(tmp_path):
    def change(table):
        table.loc[7, "chosen"] = table.loc[6, "chosen"]

    file = write(tmp_path, change)
    name = pd.read_csv(file).loc[6, "chosen"]
    (tmp_path / name).write_bytes(b"")
    data = load_pairs(str(file))
    scanned = scan_images(data)
    in_split = splits_of_images(data, scanned.table["image"])
    assert in_split.sum(axis=1).max() == 2
    assert list(across_splits(scanned, in_split)["image"]) == [name]
    for row, image in enumerate(scanned.table["image"]):
        items = set(data.items.loc[data.items["image"] == image, "item_id"])
        shown = data.pairs["first"].isin(items) | data.pairs["second"].isin(items)
        splits = [s in set(data.pairs.loc[shown, "split"]) for s in ("train", "validation", "test")]
        assert list(in_split[row]) == splits


def test_invalid_requests_end_in_status_2(tmp_path, capsys):
    file = write(tmp_path)
    for options, message in (
        (["--data", str(file), "--workers", "0"], "at least 1"),
        (["--data", str(file), "--split", "validation"], "no pairs of split 'validation'"),
        (["--data", "hpdv4"], "did you mean hpdv"),
    ):
        assert main([*options, "--output", str(tmp_path / "r")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
