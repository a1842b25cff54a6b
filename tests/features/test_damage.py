"""Every flipped bit, and every deleted, cut or swapped file: a check finds it, and no number changes."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from probing.errors import UserError
from probing.features.store import FeatureStore, check, repair
from probing.features.store.documents import is_canonical
from probing.features.store.pairs_table import is_as_written, read_pairs
from probing.store import main
from tests.features.small_store import everything, make_small_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_small_store(tmp_path_factory.mktemp("whole") / "s.zarr").path


@pytest.fixture
def store(whole, tmp_path) -> Path:
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / whole.name


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.parent.rglob("*") if file.is_file())


def same_or_refused(path: Path, expected: dict) -> None:
    """Read all that a command could; a nan of an unwritten item would be another number."""
    found = sentence = None
    try:
        found = everything(path)
    except UserError as error:
        sentence = str(error)
    assert found == expected if sentence is None else "\n" not in sentence


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def sampled_flips(whole: Path, per_file: int) -> list[tuple[str, int]]:
    rng = np.random.default_rng(0)
    return [
        (str(file.relative_to(whole.parent)), int(bit))
        for file in files_of(whole)
        for bit in rng.choice(8 * file.stat().st_size, per_file, replace=False)
    ]


def check_flips(whole: Path, store: Path, per_file: int) -> None:
    expected = everything(whole)
    for name, bit in sampled_flips(whole, per_file):
        file = store.parent / name
        flip(file, bit)
        assert check(store), f"bit {bit} of {name} is not found"
        same_or_refused(store, expected)
        flip(file, bit)
    assert check(store) == []


def test_a_whole_store_has_no_problems(store, capsys):
    assert check(store) == check(store, deep=False) == []
    assert main(["check", str(store)]) == 0
    assert "every file matches the records" in capsys.readouterr().out


def test_flipped_bits_are_found(whole, store):
    check_flips(whole, store, 1)


@pytest.mark.slow
def test_many_flipped_bits_are_found(whole, store):
    check_flips(whole, store, 50)


DOCUMENTS = ["zarr.json", "runs/zarr.json", "runs/0/zarr.json"]


@pytest.mark.parametrize("step", [pytest.param(37, id="some"), pytest.param(1, id="every", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_flipped_bit_of_a_document_is_found(store, name, step):
    file = store / name
    for bit in range(0, 8 * file.stat().st_size, step):
        flip(file, bit)
        try:
            found = not is_canonical(file.parent)
        except UserError:
            found = True
        assert found, f"bit {bit}"
        flip(file, bit)


def check_pairs_flips(store: Path, step: int) -> None:
    whole = FeatureStore.open(store)
    expected = whole.read_pairs()
    for bit in range(0, 8 * whole.pairs_path.stat().st_size, step):
        flip(whole.pairs_path, bit)
        try:
            found = read_pairs(whole.pairs_path, whole.identity)
        except UserError:
            pass
        else:
            assert found.equals(expected), f"bit {bit}"
            assert not is_as_written(whole.pairs_path), f"bit {bit}"
        flip(whole.pairs_path, bit)


def test_flipped_bits_of_the_pairs_are_found(store):
    check_pairs_flips(store, 101)


@pytest.mark.slow
def test_every_flipped_bit_of_the_pairs_is_found(store):
    check_pairs_flips(store, 1)


@pytest.mark.parametrize(
    "select",
    [
        pytest.param(lambda files, number: files[number::4], id="a quarter each"),
        pytest.param(lambda files, number: files, id="every", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("damage", ["deleted", "emptied", "cut", "longer"])
def test_every_deleted_or_cut_file_is_found(whole, store, damage, select):
    expected = everything(whole)
    for original in select(files_of(whole), ["deleted", "emptied", "cut", "longer"].index(damage)):
        file = store.parent / original.relative_to(whole.parent)
        content = file.read_bytes()
        if damage == "deleted":
            file.unlink()
        else:
            file.write_bytes({"emptied": b"", "cut": content[:-1], "longer": content + b"\0"}[damage])
        try:
            found = bool(check(store))
        except UserError:
            found = True
        assert found, f"{damage} {file} is not found"
        same_or_refused(store, expected)
        file.write_bytes(content)
    assert check(store) == []


def test_every_pair_of_swapped_files_is_found(whole, store):
    """Files of one size are the ones that could be taken for each other."""
    expected = everything(whole)
    files = [store.parent / file.relative_to(whole.parent) for file in files_of(whole)]
    swaps = [
        (one, other)
        for one, other in itertools.combinations(files, 2)
        if one.stat().st_size == other.stat().st_size and one.read_bytes() != other.read_bytes()
    ]
    assert len(swaps) > 30
    for one, other in swaps[::3]:
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1]), other.write_bytes(contents[0])
        assert check(store), f"{one} and {other}"
        same_or_refused(store, expected)
        one.write_bytes(contents[0]), other.write_bytes(contents[1])


@pytest.mark.slow
def test_files_of_another_store_are_found(whole, store, tmp_path):
    """The same shapes and settings, other values: each file by itself is whole."""
    other = make_small_store(tmp_path / "other" / "s.zarr", seed=1).path
    expected = everything(whole)
    for file in files_of(whole):
        name = file.relative_to(whole.parent)
        other_file = other.parent / name
        if other_file.read_bytes() == file.read_bytes():
            continue
        shutil.copy(other_file, store.parent / name)
        assert check(store), name
        same_or_refused(store, expected)
        shutil.copy(file, store.parent / name)


def one_in_five(files: list[Path]) -> list[Path]:
    return files[::5]


@pytest.mark.parametrize(
    "select", [pytest.param(one_in_five, id="some"), pytest.param(list, id="every", marks=pytest.mark.slow)]
)
def test_repair_restores_documents_and_removes_damaged_features(whole, store, select):
    """After a repair a store is whole again, or its records lack only the damaged part."""
    expected = everything(whole)
    for original in select(files_of(whole)):
        name = original.relative_to(whole.parent)
        if name.suffix == ".parquet":
            continue
        file = store.parent / name
        file.unlink()
        repair(store, check(store))
        left = [problem for problem in check(store) if not problem.file.endswith(".parquet")]
        assert left == [], name
        after = FeatureStore.open(store)
        values = name.parts[1].startswith(("image_", "prompt_clip", "latents", "features")) and "c" in name.parts
        coordinate = "block" in name.parts or "depth" in name.parts
        if (values and not coordinate) or (name.parts[1] == "runs" and name.parts[2] != "zarr.json"):
            assert not after.complete, name
        else:
            assert everything(store) == expected, name
        shutil.rmtree(store)
        shutil.copytree(whole, store)


def test_problems_are_printed_with_the_fix(store, capsys):
    (store / "features" / "image" / "mean" / "c" / "1" / "0" / "0" / "0").unlink()
    assert main(["check", str(store)]) == 1
    printed = capsys.readouterr().out
    assert "features/image/mean/c/1/0/0/0: it is missing" in printed
    assert f"1 problems; python -m probing.store repair {store} fixes them" in printed


def test_a_store_without_an_extraction_cannot_be_extracted_again(store, capsys):
    (store / "features" / "image" / "mean" / "c" / "1" / "0" / "0" / "0").unlink()
    assert main(["repair", str(store)]) == 2
    assert "does not name its model" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "repair", "info", "upgrade"])
def test_other_folders_are_one_sentence(tmp_path, capsys, verb):
    assert main([verb, str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "There is no feature store" in error and error.count("\n") == 1
