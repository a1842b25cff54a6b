"""HPDv3++, Multimodal RewardBench 2 and open image preferences; and data sets that have left the hub."""

from __future__ import annotations

import json

import httpx
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from probing import preferences
from probing.errors import UserError
from tests.preferences.published import picture, write


def edit(path, change):
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))


def edit_rows(path, change):
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)


def winners(pairs):
    return [row["first"] if row["choice"] else row["second"] for _, row in pairs.iterrows()]


def test_hpdv3pp_keeps_aesthetics_and_text_following_apart(tmp_path):
    root = write("hpdv3pp", tmp_path / "h")
    data = preferences.load_pairs("hpdv3pp", root=root)
    for end, facet in (("aes", "aesthetics"), ("tf", "text-following")):
        for split in ("train", "test"):
            records = json.loads((root / split / f"{split}_{end}.json").read_text())
            pairs = data.pairs[(data.pairs["facet"] == facet) & (data.pairs["split"] == split)]
            assert [name.split("/", 1)[1] for name in winners(pairs)] == [record["path1"] for record in records]
    # A picture of both facets is one item.
    assert len(data.items) == 2 * 6 * 3


def test_rollouts_are_ranked_by_level_with_the_prompt_of_their_pictures(tmp_path):
    root = write("hpdv3pp-rollout", tmp_path / "h")
    data = preferences.load_pairs("hpdv3pp-rollout", root=root)
    records = {record["image_path"]: record for record in json.loads((root / "rollout.json").read_text())}
    assert len(data.pairs) == 12 * 3
    for _, pair in data.pairs.iterrows():
        one, other = (records[pair[side].split("/", 1)[1]] for side in ("first", "second"))
        assert one["group_id"] == other["group_id"] == pair["list_id"]
        assert pair["choice"] == 0.5 + 0.5 * ((one["level"] > other["level"]) - (one["level"] < other["level"]))
        assert (pair["iter_step_first"], pair["iter_step_second"]) == (one["iter_step"], other["iter_step"])
    edit(root / "rollout.json", lambda records: records[0].update(image_path="images/nowhere.png"))
    with pytest.raises(UserError, match="'rollout0' has no prompt, and no pair has its picture"):
        preferences.load_pairs("hpdv3pp-rollout", root=root)
    edit(root / "rollout.json", lambda records: [r.update(prompt=f"a {r['group_id']}") for r in records])
    assert preferences.load_pairs("hpdv3pp-rollout", root=root).items["prompt"].str.startswith("a t").all()
    edit(root / "rollout.json", lambda records: records[1].update(prompt="another"))
    with pytest.raises(UserError, match="The group train0 of .* has several prompts"):
        preferences.load_pairs("hpdv3pp-rollout", root=root)
    edit(root / "rollout.json", lambda records: records[1].pop("level"))
    with pytest.raises(UserError, match="'rollout1' of .* lacks the field level"):
        preferences.load_pairs("hpdv3pp-rollout", root=root)


def test_mmrb2_pairs_keep_their_ids_sides_and_models(tmp_path):
    root = write("mmrb2", tmp_path / "m")
    data = preferences.load_pairs("mmrb2", root=root)
    assert data.pairs["pair_id"].tolist() == [f"t2i_{number}" for number in range(6)]
    assert data.pairs["choice"].tolist() == [1, 0] * 3
    assert data.pairs["source_model_first"].tolist() == ["flux", "sd2", "sdxl", "real", "flux", "sd2"]
    assert data.open_image(data.pairs["second"].iloc[2]).tobytes() == picture(5).tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(chosen="C"), "Pair 't2i_0' has the choice 'C', expected A or B"),
        (lambda row: row.update(chosen=None), "Record 0 of mmrb2 has no chosen"),
        (lambda row: row.update(prompt_text=" "), "has no prompt"),
    ],
)
def test_bad_records_of_mmrb2_are_one_sentence(tmp_path, change, message):
    root = write("mmrb2", tmp_path / "m")
    edit_rows(next(root.rglob("*.parquet")), lambda rows: change(rows[0]))
    with pytest.raises(UserError, match=message):
        preferences.load_pairs("mmrb2", root=root)


@pytest.mark.parametrize("images", [[], [{"bytes": b"a", "path": None}, {"bytes": b"b", "path": None}]])
def test_a_response_with_no_or_two_pictures_is_named_when_it_is_opened(tmp_path, images):
    root = write("mmrb2", tmp_path / "m")
    edit_rows(next(root.rglob("*.parquet")), lambda rows: rows[0].update(response_b_images=images))
    data = preferences.load_pairs("mmrb2", root=root)
    with pytest.raises(UserError, match="Record '.*t2i_0-b' has no response_b_images|t2i_0-b' is of type list"):
        data.open_image(data.pairs["second"].iloc[0])


def test_open_image_preferences_are_split_by_prompt(tmp_path):
    root = write("open-image-preferences", tmp_path / "o")
    data = preferences.load_pairs("open-image-preferences", root=root)
    by_split = {split: set(part["prompt_id"]) for split, part in data.pairs.groupby("split")}
    assert set(by_split) == {"train", "test"} and not by_split["train"] & by_split["test"]
    for name, item in zip(winners(data.pairs), data.pairs["pair_id"], strict=True):
        assert data.open_image(name).tobytes() == picture(2 * int(item.removeprefix("train"))).tobytes()


def test_a_data_set_that_left_the_hub_is_a_sentence_with_its_mirrors(monkeypatch):
    def gone(*_, **__):
        request = httpx.Request("GET", "https://example.org")
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=request))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(UserError, match="liuhuohuo2/.*sayakpaul/.*since April 2025.*--data-root"):
        preferences.load_pairs("pickapic-v2")
    with pytest.raises(UserError, match="no data set MizzenAI/HPDv3 for hpdv3, or none that you may see; give"):
        preferences.load_pairs("hpdv3")
