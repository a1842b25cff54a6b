"""The store's contract: layout, additions, resume, refusal, damage."""

from __future__ import annotations

import errno
import os
import sys

import numpy as np
import pandas as pd
import pytest
import xarray
import zarr

from probing.errors import UserError
from probing.features.store import SCHEMA, ArraySpec, FeatureStore, check, to_stored
from probing.features.store.layout import COLUMNS

ITEMS, RUN, SIGMAS = 10, 4, (0.005, 0.5)
ARRAYS = (
    ArraySpec("features/image/mean", (0, 1, 2), (5,), "float32"),
    ArraySpec("features/text/mean_clip", (0, 1), (5,), "float32"),
    ArraySpec("features/image/tokens", (0, 1, 2), (4, 5), "float16"),
    ArraySpec("latents/mean", None, (2,), "float32"),
)


def make_items(count=ITEMS, start=0):
    numbers = range(start, start + count)
    return pd.DataFrame(
        {
            "item_id": [f"item{i}" for i in numbers],
            "prompt_id": [f"prompt{i // 2}" for i in numbers],
            "prompt": [f"words {i // 2}" for i in numbers],
        }
    )


def create(path, **changed):
    arguments = {
        "arrays": ARRAYS,
        "items": make_items(),
        "sigmas": SIGMAS,
        "num_blocks": 3,
        "run_length": RUN,
        "settings": {"model": "tiny", "seed": 0},
        "provenance": {"versions": {"torch": "2"}},
    }
    return FeatureStore.create(path, **{**arguments, **changed})


def contents(seed=0, items=ITEMS, sigmas=2, arrays=ARRAYS):
    rng = np.random.default_rng(seed)
    values = {}
    for array in (*arrays, *COLUMNS):
        blocks = () if array.blocks is None else (sigmas, len(array.blocks))
        drawn = rng.standard_normal((items, *blocks, *array.shape)) * 50
        values[array.name] = drawn.astype(array.dtype)
    return values


def parts_of(values, rows, only=None):
    parts = {}
    for name, value in values.items():
        of_run = value[rows]
        for s in range(of_run.shape[1]) if name.startswith("features/") else [0]:
            if only is None or (name, s) in only:
                parts[name, s] = of_run[:, s] if name.startswith("features/") else of_run
    return parts


def write(store, values, runs=(0, 1, 2)):
    for run in runs:
        store.write_run(run, parts_of(values, store.rows_of_run(run)))


def test_what_is_written_is_read(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values)
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.written.all()
    assert store.arrays() == [("image", "mean"), ("text", "mean_clip"), ("image", "tokens")]
    assert store.latent_reductions() == ["mean"]
    assert (store.num_blocks, store.blocks, store.blocks_of("text")) == (3, [0, 1, 2], [0, 1])
    for s, sigma in enumerate(SIGMAS):
        for block in store.blocks:
            np.testing.assert_array_equal(
                store.read("image", "mean", sigma, block), values["features/image/mean"][:, s, block]
            )
            np.testing.assert_array_equal(
                store.read("image", "tokens", sigma, block), values["features/image/tokens"][:, s, block]
            )
    np.testing.assert_array_equal(store.read_latents("mean"), values["latents/mean"])


def test_blocks_are_found_by_number_and_not_by_position(tmp_path):
    arrays = (ArraySpec("features/image/mean", (3, 7), (2,), "float32"),)
    store, values = create(tmp_path / "s.zarr", arrays=arrays, num_blocks=8), contents(arrays=arrays)
    write(store, values)
    np.testing.assert_array_equal(store.read("image", "mean", 0.5, 7), values["features/image/mean"][:, 1, 1])
    with pytest.raises(UserError, match="no block 1 .*it has \\[3, 7\\]"):
        store.read("image", "mean", 0.5, 1)


def test_it_opens_without_this_package(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    np.testing.assert_array_equal(group["features/image/mean"][:], values["features/image/mean"])
    assert group["features/image/mean"].metadata.dimension_names == ("item", "sigma", "block", "channel")
    assert group.attrs["model"] == "tiny"
    dataset = xarray.open_zarr(tmp_path / "s.zarr", group="features/image", consolidated=False)
    assert dataset["mean"].dims == ("item", "sigma", "block", "channel")
    np.testing.assert_allclose(dataset["depth"], [1 / 3, 2 / 3, 1])


def test_reading_a_block_touches_its_own_chunk(tmp_path):
    """A chunk is one block of a run at one noise level, so damage to one block leaves the others good."""
    store = create(tmp_path / "s.zarr")
    array = zarr.open_group(tmp_path / "s.zarr", mode="r")["features/image/mean"]
    assert array.chunks == (RUN, 1, 1, 5)
    assert array.shards == (RUN, 1, 3, 5)
    values = contents()
    write(store, values)
    shard = tmp_path / "s.zarr" / "features" / "image" / "mean" / "c" / "0" / "0" / "0" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[3] ^= 0xFF
    shard.write_bytes(damaged)
    touched = [
        (sigma, block)
        for sigma in SIGMAS
        for block in (0, 1, 2)
        if _raises(lambda sigma=sigma, block=block: store.read("image", "mean", sigma, block))
    ]
    assert len(touched) == 1


def _raises(read):
    try:
        read()
    except UserError:
        return True
    return False


def test_a_truncated_file_is_named(tmp_path):
    store = create(tmp_path / "s.zarr")
    write(store, contents())
    shard = tmp_path / "s.zarr" / "features" / "image" / "mean" / "c" / "1" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"features/image/mean.* repair .* computes it again"):
        store.read("image", "mean", 0.005, 0)


def test_a_deleted_file_is_named(tmp_path):
    store = create(tmp_path / "s.zarr")
    write(store, contents())
    (tmp_path / "s.zarr" / "features" / "image" / "mean" / "c" / "1" / "0" / "0" / "0").unlink()
    with pytest.raises(UserError, match=r"c/1/0/0/0 \(run 1, block 2\) does not have the written values"):
        store.read("image", "mean", 0.005, 2)


def test_swapped_files_are_named(tmp_path):
    store = create(tmp_path / "s.zarr")
    write(store, contents())
    folder = tmp_path / "s.zarr" / "features" / "image" / "mean" / "c"
    one, other = folder / "0" / "0" / "0" / "0", folder / "1" / "0" / "0" / "0"
    one.rename(tmp_path / "x"), other.rename(one), (tmp_path / "x").rename(other)
    with pytest.raises(UserError, match="swapped"):
        store.read("image", "mean", 0.005, 0)
    assert np.isfinite(store.read("image", "mean", 0.5, 0)).all()


def test_writing_a_run_leaves_the_files_of_others_alone(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values, runs=[0])
    shards = [p for a in ARRAYS for p in (tmp_path / "s.zarr" / a.name).rglob("c/**/*") if p.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in shards}
    assert len(before) == sum(len(a.sigmas(len(SIGMAS))) for a in ARRAYS)
    write(store, values, runs=[1, 2])
    assert all((path.stat().st_mtime_ns, path.stat().st_ino) == stamp for path, stamp in before.items())


def test_a_run_is_recorded_after_its_data_are_synced(tmp_path, monkeypatch):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values, runs=[0])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("probing.features.store.store.sync_file", full)
    with pytest.raises(UserError, match=r"is full; free some space"):
        write(store, values, runs=[1])
    monkeypatch.undo()
    again = FeatureStore.open(tmp_path / "s.zarr")
    assert again.written.tolist() == [True] * 4 + [False] * 6
    assert np.isnan(again.read("image", "mean", 0.5, 2)[4:]).all()
    write(again, values, runs=[1, 2])
    np.testing.assert_array_equal(again.read("image", "mean", 0.5, 2), values["features/image/mean"][:, 1, 2])


def test_a_record_is_there_whole_or_not_at_all(tmp_path):
    """Before each operation on the disk another process could read the store, and be told of no damage."""
    store, values = create(tmp_path / "s.zarr"), contents()
    seen, watching = [0], True

    def look(event, _):
        nonlocal watching
        if watching and event in ("open", "os.mkdir", "os.rename", "os.remove"):
            watching = False
            seen.append(len(FeatureStore.open(tmp_path / "s.zarr").records))
            watching = True

    # A hook cannot be removed.
    sys.addaudithook(look)
    write(store, values)
    watching = False
    assert seen == sorted(seen) and set(seen) == {0, 1, 2, 3}
    assert check(tmp_path / "s.zarr", deep=False)[0].file.endswith(".parquet")


def test_two_processes_may_write_one_run(tmp_path):
    one, values = create(tmp_path / "s.zarr"), contents()
    other = FeatureStore.open(tmp_path / "s.zarr")
    write(one, values, runs=[0])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write(other, values, runs=[0])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_difference_of_settings_is_listed(tmp_path):
    store = create(tmp_path / "s.zarr")
    assert store.difference({"model": "tiny", "seed": 1, "new": 1}) == [
        "new was None and is now 1",
        "seed was 0 and is now 1",
    ]
    assert store.difference({"model": "tiny", "seed": 0}) == []


MORE_SIGMAS = (*SIGMAS, 0.9)
MORE_ARRAYS = (*ARRAYS, ArraySpec("features/text/std_clip", (0, 1), (5,), "float32"))


@pytest.mark.parametrize("last_run", [True, False])
def test_additions_equal_a_store_made_at_once(tmp_path, last_run):
    """Items fill the last run and begin others; a noise level and an array are added; the rest keeps its bytes."""
    count = ITEMS + (5 if last_run else 0)
    values = contents(items=count, sigmas=3, arrays=MORE_ARRAYS)
    whole = create(tmp_path / "whole.zarr", arrays=MORE_ARRAYS, sigmas=MORE_SIGMAS, items=make_items(count))
    write(whole, values, runs=whole.runs)
    grown = create(tmp_path / "grown.zarr")
    first = {name: value[:, :2] if name.startswith("features/") else value for name, value in values.items()}
    write(grown, {name: first[name] for name in (*(a.name for a in ARRAYS), *(c.name for c in COLUMNS))})
    grown = grown.extend(arrays=MORE_ARRAYS, items=make_items(count - ITEMS, ITEMS), sigmas=MORE_SIGMAS, provenance={})
    assert not grown.written.any()
    np.testing.assert_array_equal(
        grown.read("image", "mean", 0.5, 2)[:ITEMS], first["features/image/mean"][:ITEMS, 1, 2]
    )
    write(grown, values, runs=grown.runs)
    assert (grown.written.all() and check(grown.path) == []) or [p.file for p in check(grown.path)] == [
        "grown.zarr.pairs.parquet"
    ]
    for name in [p.relative_to(whole.path) for p in whole.path.rglob("*") if p.is_file()]:
        if name.name != "zarr.json":
            assert (grown.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_an_interrupted_addition_changes_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("probing.features.store.growth.commit", stop)
    more = {"arrays": MORE_ARRAYS, "items": make_items(5, ITEMS), "sigmas": MORE_SIGMAS, "provenance": {}}
    with pytest.raises(KeyboardInterrupt):
        store.extend(**more)
    monkeypatch.undo()
    again = FeatureStore.open(store.path)
    assert again.written.all() and len(again.item_ids) == ITEMS
    np.testing.assert_array_equal(again.read("image", "mean", 0.5, 2), values["features/image/mean"][:, 1, 2])
    assert len(again.extend(**more).item_ids) == ITEMS + 5


def test_the_digest_depends_on_the_content(tmp_path):
    stores = [create(tmp_path / f"{i}.zarr") for i in range(3)]
    for store, seed in zip(stores, (0, 0, 1), strict=True):
        write(store, contents(seed))
    digests = [FeatureStore.open(store.path).digest for store in stores]
    assert digests[0] == digests[1] != digests[2]
    other = create(tmp_path / "other.zarr", settings={"model": "tiny", "seed": 1})
    write(other, contents(0))
    assert other.digest != digests[0]


def test_the_disk_is_full_at_creation(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("probing.features.store.growth.sync_file", full)
    with pytest.raises(UserError, match="is full"):
        create(tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        create(tmp_path / "s.zarr")


def test_stores_with_dots_in_their_names_have_separate_pairs(tmp_path):
    pairs = [pd.DataFrame({"pair_id": [f"p{i}"], "choice": [float(i)]}) for i in range(2)]
    stores = [create(tmp_path / f"noise-0.{i + 1}", sigmas=(0.1 * (i + 1),)) for i in range(2)]
    for store, table in zip(stores, pairs, strict=True):
        assert store.write_pairs(table) is True
        assert store.write_pairs(table) is False
    for store, table in zip(stores, pairs, strict=True):
        pd.testing.assert_frame_equal(store.read_pairs(), table)
    os.replace(stores[1].pairs_path, stores[0].pairs_path)
    with pytest.raises(UserError, match="pairs of another store"):
        stores[0].read_pairs()
    with pytest.raises(UserError, match="There are no pairs at"):
        stores[1].read_pairs()


def test_a_newer_schema_is_refused(tmp_path):
    store = create(tmp_path / "s.zarr")
    from probing.features.store.documents import write_document

    write_document(store.path, {**store.attributes, "schema": SCHEMA + 1})
    with pytest.raises(UserError, match="upgrade"):
        FeatureStore.open(tmp_path / "s.zarr")


def test_edited_attributes_are_refused(tmp_path):
    create(tmp_path / "s.zarr")
    zarr.open_group(tmp_path / "s.zarr", mode="r+").attrs["seed"] = 1
    with pytest.raises(UserError, match="was edited or damaged"):
        FeatureStore.open(tmp_path / "s.zarr")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"probing\.extract creates one"):
        FeatureStore.open(tmp_path / "nothing.zarr")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "empty.zarr" / "x").write_text("")
    with pytest.raises(UserError, match="no feature store"):
        FeatureStore.open(tmp_path / "empty.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    with pytest.raises(UserError, match="no feature store of this project"):
        FeatureStore.open(tmp_path / "foreign.zarr")


def test_files_of_a_killed_creation_are_removed(tmp_path):
    (tmp_path / "s.zarr.9999999.abc.partial" / "junk").mkdir(parents=True)
    assert not create(tmp_path / "s.zarr").written.any()
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_a_run_has_every_part_in_its_shape(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    run = parts_of(values, slice(0, RUN))
    with pytest.raises(ValueError, match="got float32"):
        store.write_run(0, {**run, ("latents/mean", 0): run["latents/mean", 0][:2]})
    with pytest.raises(ValueError, match="got float64"):
        store.write_run(0, {**run, ("latents/mean", 0): run["latents/mean", 0].astype(np.float64)})
    assert not store.written.any()
    store.write_run(0, {("latents/mean", 0): run["latents/mean", 0]})
    assert not store.written.any()


def test_casting_refuses_overflow():
    with pytest.raises(UserError, match=r"7e\+04, too large for float16"):
        to_stored(np.array([7e4], dtype=np.float32), "float16", "features/image/tokens")
    with pytest.raises(UserError, match="not finite"):
        to_stored(np.array([np.nan], dtype=np.float32), "float32", "features/image/mean")
    assert to_stored(np.array([6e4], dtype=np.float32), "float16", "x").dtype == np.float16
