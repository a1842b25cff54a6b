"""Features are keyed by item: labels are read again, additions are made, changes of values are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from probing.features import FeatureStore
from probing.features.store import check
from probing.store import main as store_main
from tests.features.user_pairs import extract, make_data, rows, write_pairs, write_pictures

SIGMAS = ("--sigmas", "0.005,0.6")


@pytest.fixture
def data(tmp_path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def store(tiny_folder, data, tmp_path) -> Path:
    path = tmp_path / "s.zarr"
    assert extract(tiny_folder, data, path, *SIGMAS) == 0
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_labels_are_read_again(tiny_folder, store, data, capsys, monkeypatch):
    """A tie flipped, rows shuffled and a pair of existing items added: no weights are loaded, no feature is written."""
    before = contents(store)
    changed = rows(4)[::-1]
    changed[0] = (*changed[0][:3], True, changed[0][4])
    changed.append((2, "2b", "2a", False, "test"))
    write_pairs(data.parent, changed)
    monkeypatch.setattr("probing.backbones.load_backbone", None)
    assert extract(tiny_folder, data, store, *SIGMAS) == 0
    assert "0 items computed, 8 were in the store; the pairs are new" in capsys.readouterr().out
    assert contents(store) == before
    pairs = FeatureStore.open(store).read_pairs()
    assert len(pairs) == 5 and (pairs["choice"] == 0.5).sum() == 1


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(("--sigmas", "0.6"), ("--sigmas", "0.6,0.005"), marks=pytest.mark.slow),
        (("--sigmas", "0.6"), ("--sigmas", "0.005")),
        ((*SIGMAS, "--streams", "image"), (*SIGMAS, "--streams", "image,text")),
        ((*SIGMAS, "--reductions", "mean"), (*SIGMAS, "--reductions", "mean,grid4,std")),
    ],
)
def test_additions_are_the_features_of_an_extraction_at_once(tiny_folder, data, tmp_path, first, then):
    grown, whole = tmp_path / "grown.zarr", tmp_path / "whole.zarr"
    assert extract(tiny_folder, data, grown, *first) == 0
    kept = {name: content for name, content in contents(grown).items() if name.startswith("features/image/mean/c")}
    assert extract(tiny_folder, data, grown, *then) == 0
    both = [then[i + 1] if option != "--sigmas" else "0.6,0.005" for i, option in enumerate(then[:-1]) if i % 2 == 0]
    options = [part for i, option in enumerate(then[::2]) for part in (option, both[i])]
    if "--streams" in then or "--reductions" in then:
        options = list(then)
    assert extract(tiny_folder, data, whole, *options) == 0
    stores = FeatureStore.open(grown), FeatureStore.open(whole)
    assert stores[0].complete and check(grown) == []
    assert {n: c for n, c in contents(grown).items() if n in kept} == kept
    assert set(stores[0].arrays()) == set(stores[1].arrays()) and set(stores[0].sigmas) == set(stores[1].sigmas)
    for stream, reduction in stores[1].arrays():
        for sigma in stores[1].sigmas:
            for block in stores[1].blocks_of(stream):
                values = [one.read(stream, reduction, sigma, block) for one in stores]
                np.testing.assert_array_equal(*values)
    for reduction in stores[1].latent_reductions():
        np.testing.assert_array_equal(*(one.read_latents(reduction) for one in stores))


def test_items_are_added_and_old_ones_keep_their_values(tiny_folder, store, data, capsys):
    before = FeatureStore.open(store)
    old = before.read("image", "mean", 0.6, 3)
    write_pairs(data.parent, rows(6))
    capsys.readouterr()
    assert extract(tiny_folder, data, store, *SIGMAS) == 0
    printed = capsys.readouterr().out
    assert "8 items; adds 4 items; 8 forwards to run" in printed and "4 items computed, 8 were in the store" in printed
    after = FeatureStore.open(store)
    assert after.complete and len(after.item_ids) == 12 and after.extents == [8, 12] and check(store) == []
    np.testing.assert_array_equal(after.read("image", "mean", 0.6, 3)[:8], old)
    assert after.item_ids[:8].tolist() == before.item_ids.tolist()


def test_added_items_have_the_features_of_an_extraction_at_once(tiny_folder, store, data, tmp_path):
    """To rounding: batches are cut elsewhere."""
    write_pairs(data.parent, rows(6))
    assert extract(tiny_folder, data, store, *SIGMAS) == 0
    assert extract(tiny_folder, data, tmp_path / "whole.zarr", *SIGMAS) == 0
    grown, whole = FeatureStore.open(store), FeatureStore.open(tmp_path / "whole.zarr")
    order = [whole.item_ids.tolist().index(item) for item in grown.item_ids]
    np.testing.assert_allclose(
        grown.read("image", "mean", 0.6, 3), whole.read("image", "mean", 0.6, 3)[order], rtol=1e-4, atol=1e-5
    )


def test_fewer_pairs_and_levels_remove_nothing(tiny_folder, store, data):
    write_pairs(data.parent, rows(2))
    assert extract(tiny_folder, data, store, "--sigmas", "0.6") == 0
    after = FeatureStore.open(store)
    assert len(after.item_ids) == 8 and after.sigmas == [0.005, 0.6] and len(after.read_pairs()) == 2


def test_a_level_cannot_be_added_to_items_that_the_data_lack(tiny_folder, store, data, capsys):
    write_pairs(data.parent, rows(2))
    assert extract(tiny_folder, data, store, "--sigmas", "0.9") == 2
    assert "4 items that pairs lacks, such as" in capsys.readouterr().err
    assert FeatureStore.open(store).sigmas == [0.005, 0.6]


@pytest.mark.parametrize("dry", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("--seed", "1"), "seed was 0 and is now 1"),
        (("--resize", "pad"), "resize was 'center-crop' and is now 'pad'"),
        (("--batch-size", "4"), "batch_size was 3 and is now 4"),
        (("--blocks", "0,1"), "blocks was [0, 1, 2, 3] and is now [0, 1]"),
        (("--prompts", "empty"), "prompts was 'own' and is now 'empty'"),
        (("--random-init",), "random_init was False and is now True"),
    ],
)
def test_changes_of_values_are_refused_before_loading(
    tiny_folder, store, data, capsys, monkeypatch, options, difference, dry
):
    before = contents(store)
    monkeypatch.setattr("probing.backbones.load_backbone", None)
    assert extract(tiny_folder, data, store, *SIGMAS, *options, *(["--dry-run"] if dry else [])) == 2
    error = capsys.readouterr().err
    assert difference in error and error.count("\n") == 1
    assert contents(store) == before


def test_other_pictures_under_the_same_names_are_refused(tiny_folder, store, data, capsys):
    write_pictures(data.parent, ["1b"], seed=1)
    assert extract(tiny_folder, data, store, *SIGMAS, "--dry-run") == 2
    assert "made from another picture of item" in (error := capsys.readouterr().err) and "img/1b.png" in error
    assert extract(tiny_folder, data, store, *SIGMAS) == 2


def test_pictures_that_were_copied_are_the_same(tiny_folder, store, data, capsys):
    """Other times, the same pixels."""
    shutil.copytree(data.parent, data.parent.parent / "elsewhere")
    shutil.rmtree(data.parent)
    assert extract(tiny_folder, data.parent.parent / "elsewhere" / "pairs.csv", store, *SIGMAS) == 0
    assert "0 items computed, 8 were in the store" in capsys.readouterr().out


def test_another_prompt_under_the_same_picture_name_is_another_item(tiny_folder, store, data):
    changed = rows(4)
    changed[0] = (5, *changed[0][1:])
    write_pairs(data.parent, changed)
    assert extract(tiny_folder, data, store, *SIGMAS) == 0
    assert len(FeatureStore.open(store).item_ids) == 10


def test_foreign_prompts_need_all_items_at_once(tiny_folder, data, tmp_path, capsys):
    path = tmp_path / "foreign.zarr"
    assert extract(tiny_folder, data, path, "--prompts", "foreign") == 0
    write_pairs(data.parent, rows(6))
    assert extract(tiny_folder, data, path, "--prompts", "foreign") == 2
    assert "none can be added" in capsys.readouterr().err


@pytest.mark.parametrize(
    "part",
    [
        "vae",
        *(pytest.param(part, marks=pytest.mark.slow) for part in ("text_encoder", "text_encoder_3", "tokenizer")),
        "transformer",
    ],
)
def test_another_part_of_a_folder_of_the_same_name_is_refused(tiny_folder, data, tmp_path, capsys, part):
    import torch
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    assert extract(model, data, tmp_path / "s.zarr") == 0
    if part == "tokenizer":
        vocabulary = next(model.glob("tokenizer/tokenizer*.json"))
        vocabulary.write_text(vocabulary.read_text().replace('"red"', '"rad"').replace("red</w>", "rad</w>"))
    else:
        weights = next(model.glob(f"{part}/*.safetensors"))
        tensors = load_file(weights)
        name = sorted(tensors)[-1]
        tensors[name].view(-1)[-1] += torch.tensor(1.0)
        save_file(tensors, weights, {"format": "pt"})
    capsys.readouterr()
    assert extract(model, data, tmp_path / "s.zarr", "--sigmas", "0.9") == 2
    assert f"the files of {part} of" in capsys.readouterr().err


def test_damaged_files_are_computed_again(tiny_folder, store, data, capsys):
    whole = contents(store)
    shards = sorted(p for p in store.glob("features/image/mean/c/**/0/0") if p.is_file())
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    (store / "sigma" / "c" / "0").unlink()
    capsys.readouterr()
    assert extract(tiny_folder, data, store, *SIGMAS) == 0
    printed = capsys.readouterr().out
    assert "damaged" in printed and "8 items computed" in printed
    again = contents(store)
    assert {n: c for n, c in again.items() if "zarr.json" not in n} == {
        n: c for n, c in whole.items() if "zarr.json" not in n
    }
    assert check(store) == []


def test_repair_computes_swapped_files_again(tiny_folder, store, data, capsys, monkeypatch):
    whole = contents(store)
    one, other = sorted(p for p in store.glob("features/image/mean/c/**/0/0") if p.is_file())[:2]
    one.rename(store.parent / "x"), other.rename(one), (store.parent / "x").rename(other)
    assert store_main(["check", str(store)]) == 1
    assert store_main(["repair", str(store)]) == 0
    assert store_main(["check", str(store)]) == 0
    assert {n: c for n, c in contents(store).items() if "zarr.json" not in n} == {
        n: c for n, c in whole.items() if "zarr.json" not in n
    }
    assert store_main(["repair", str(store)]) == 0
    assert "nothing is missing or damaged" in capsys.readouterr().out


def test_a_complete_store_is_not_written(tiny_folder, store, data, monkeypatch):
    """A complete store may be on a read-only disk."""
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in store.parent.rglob("*") if p.is_file()}
    assert extract(tiny_folder, data, store, *SIGMAS) == 0
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in store.parent.rglob("*") if p.is_file()} == before


def test_a_bad_picture_is_found_before_any_forward(tiny_folder, data, tmp_path, capsys, monkeypatch):
    (data.parent / "img" / "3b.png").write_bytes(b"not a picture")
    monkeypatch.setattr("probing.backbones.load_backbone", None)
    assert extract(tiny_folder, data, tmp_path / "s.zarr") == 2
    error = capsys.readouterr().err
    assert "1 of 8 pictures" in error and "3b.png" in error and "--skip-bad-images" in error
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_an_item_can_be_added_after_its_picture_is_fixed(tiny_folder, data, tmp_path, capsys):
    good = (data.parent / "img" / "3b.png").read_bytes()
    (data.parent / "img" / "3b.png").write_bytes(b"not a picture")
    path = tmp_path / "s.zarr"
    assert extract(tiny_folder, data, path, "--skip-bad-images") == 0
    assert extract(tiny_folder, data, path, "--skip-bad-images") == 0
    assert "0 items computed" in capsys.readouterr().out
    (data.parent / "img" / "3b.png").write_bytes(good)
    assert extract(tiny_folder, data, path) == 0
    assert len(FeatureStore.open(path).item_ids) == 8 and FeatureStore.open(path).complete


def test_the_plan_lists_facets_with_too_few_pairs(tiny_folder, data, tmp_path, capsys):
    write_pairs(data.parent, [(*row[:3], True, row[4]) for row in rows(6)])
    assert extract(tiny_folder, data, tmp_path / "s.zarr", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "3 test, 3 train; 6 ties; facets all 6" in printed
    assert "facet all has untied train pairs of 0 prompts, and a probe needs 10" in printed


def test_resolution_0_is_not_ignored(tiny_folder, data, tmp_path, capsys):
    assert extract(tiny_folder, data, tmp_path / "s.zarr", "--resolution", "0") == 2
    assert "multiple of" in capsys.readouterr().err


def test_long_prompts_are_counted_in_one_line(tiny_folder, data, tmp_path, capfd):
    content = data.read_text().replace("a square", "a small red circle on a white background " * 5)
    data.write_text(content)
    assert extract(tiny_folder, data, tmp_path / "s.zarr") == 0
    captured = capfd.readouterr()
    assert "2 items have a prompt of more than the 22 tokens that the model reads" in captured.out
    assert "<|endoftext|>" not in captured.err and "truncated" not in captured.err
    tokens = FeatureStore.open(tmp_path / "s.zarr").read_column("prompt_clip_tokens")
    assert (tokens > 22).sum() == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_new_labels_need_a_disk_that_can_be_written(tiny_folder, store, data, capsys):
    write_pairs(data.parent, rows(3))
    store.parent.chmod(0o500)
    assert extract(tiny_folder, data, store, *SIGMAS) == 2
    assert "cannot be written" in capsys.readouterr().err
