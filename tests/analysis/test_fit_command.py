"""``python -m probing.fit`` on real stores: tables, summary, and errors of one sentence."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from probing.features import FeatureStore
from probing.features.store import ArraySpec
from probing.figures import main as draw
from probing.fit import main
from tests.analysis.fake_store import CHANNELS, NUM_BLOCKS, FakeStore, make_pairs


def write_store(path, pairs, *, random_init=False, provenance=None):
    """Put a fake store's features into a real one, with its pairs beside it."""
    fake = FakeStore(pairs, random_init=random_init, seed=int(random_init))
    arrays = [
        ArraySpec("features/image/mean", tuple(fake.blocks), (CHANNELS,), "float32"),
        ArraySpec("features/text/mean_clip", tuple(fake.blocks[:-1]), (CHANNELS,), "float32"),
        ArraySpec("latents/mean", None, (4,), "float32"),
    ]
    items = len(fake.item_ids)
    store = FeatureStore.create(
        path,
        arrays=arrays,
        item_ids=fake.item_ids.tolist(),
        prompt_ids=[item.rsplit("-", 2)[0] for item in fake.item_ids],
        sigmas=fake.sigmas,
        num_blocks=NUM_BLOCKS,
        run_length=items,
        settings={"model": "fake", "data": "planted", "random_init": random_init, "seed": 0},
        provenance=provenance or {},
    )
    values = {"latents/mean": fake.read_latents("mean")}
    for stream, reduction in fake.arrays():
        values[f"features/{stream}/{reduction}"] = np.stack(
            [np.stack([fake.read(stream, reduction, s, b) for b in fake.blocks_of(stream)], 1) for s in fake.sigmas], 1
        )
    store.write_run(0, values)
    pairs.to_parquet(store.pairs_path)
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, pairs = tmp_path_factory.mktemp("stores"), make_pairs()
    return write_store(folder / "fake.zarr", pairs), write_store(folder / "fresh.zarr", pairs, random_init=True)


def test_tables_and_a_summary_are_written_and_can_be_drawn(stores, tmp_path, capsys):
    store, fresh = map(str, stores)
    asked = ["--sigmas", "0.005", "--shuffles", "1", "--output", str(tmp_path / "results")]
    assert main(["--store", store, "--random-init-store", fresh, *asked]) == 0
    said = capsys.readouterr().out
    assert "quality: image mean, σ = 0.005, block" in said and "is above the random-initialised backbone" in said
    table = pd.read_parquet(tmp_path / "results" / "reward_curve.parquet")
    assert set(table["control"]) == {"none", "random-init", "latents", "shuffled"}
    assert set(table["store"]) == {"fake.zarr", "fresh.zarr"}
    outcomes = pd.read_parquet(tmp_path / "results" / "outcomes.parquet")
    assert set(table["cell"]) <= set(outcomes.columns)
    comparisons = pd.read_parquet(tmp_path / "results" / "comparisons.parquet")
    assert set(comparisons["baseline"]) == {"random-init", "latents"}
    assert draw(["--results", str(tmp_path / "results"), "--output", str(tmp_path / "figures")]) == 0


def test_mistakes_end_in_status_2_and_one_sentence(stores, tmp_path, capsys):
    store = str(stores[0])
    for options, says in (
        (["--store", str(tmp_path / "none.zarr")], "no feature store"),
        (["--store", store, "--sigmas", "0.5"], "no sigma 0.5; it has 0.005, 0.6"),
        (["--store", store, "--random-init-store", store], "--random-init"),
        (["--store", store, "--facets", "charm"], "no facet charm"),
    ):
        assert main([*options, "--output", str(tmp_path / "results")]) == 2
        error = capsys.readouterr().err
        assert says in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "results").exists()


def test_a_store_without_its_pairs_is_refused(stores, tmp_path, capsys):
    alone = shutil.copytree(stores[0], tmp_path / "alone.zarr")
    assert main(["--store", str(alone)]) == 2
    assert "no pairs at" in capsys.readouterr().err


def test_a_network_beside_it_says_whether_the_knowledge_is_linear(stores, tmp_path, capsys):
    asked = ["--sigmas", "0.6", "--streams", "image", "--blocks", "1,4", "--facets", "quality", "--shuffles", "0"]
    more = ["--linearity", "mlp", "--delta", "0.1", "--device", "cpu", "--random-init-store", str(stores[1])]
    assert main(["--store", str(stores[0]), *asked, *more, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "quality, mlp less logistic: above in 0 of 2 cells" in said and "to within 10 points" in said
    table = pd.read_parquet(tmp_path / "linearity.parquet")
    assert set(table["block"]) == {1, 4} and set(table["other"]) == {"mlp"} and set(table["margin"]) == {0.1}
    blocks = pd.read_parquet(tmp_path / "blocks.parquet")
    assert set(blocks["delta"]) == {0.1} and "to tell it from block 1 by 10 points" in said


def test_a_difference_that_matters_is_above_zero(stores, tmp_path, capsys):
    assert main(["--store", str(stores[0]), "--delta", "0", "--output", str(tmp_path / "none")]) == 2
    assert "expected a number above 0" in capsys.readouterr().err
