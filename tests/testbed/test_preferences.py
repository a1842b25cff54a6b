"""The testbed's pairs: their rewards, choices and images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from probing import preferences
from probing.testbed.preferences import DAMAGE, TEMPERATURE, WRONG_ATTRIBUTE, annotate, prompts
from probing.testbed.scenes import attributes_of, canonical, parse
from probing.testbed.truth import ceilings, truth_check

RENDERED = ("alignment", "quality", "both")


@pytest.fixture(scope="module")
def data():
    return preferences.load_pairs("testbed")


@pytest.fixture(scope="module")
def rendered(data):
    return data.keep((data.pairs["facet"] != "generated").to_numpy())


def test_sizes_and_facets(rendered):
    counts = rendered.pairs.groupby(["split", "facet"]).size()
    assert counts.to_dict() == {
        (split, facet): count for split, count in (("train", 2000), ("test", 1000)) for facet in RENDERED
    }
    assert rendered.items["prompt"].nunique() == 3000
    assert (rendered.items.groupby("prompt_id").size() == 4).all()


def test_no_scene_occurs_twice():
    drawn = prompts()
    captions = [canonical(scene).caption for prompt in drawn for scene in (prompt.scene, prompt.wrong)]
    assert len(set(captions)) == len(captions)


def test_train_and_test_have_the_same_distribution():
    """Removing duplicates must not reduce the share of rare kinds of scene."""
    drawn = prompts()
    for attribute in (lambda p: len(p.scene.things), lambda p: p.attribute, lambda p: p.scene.count):
        shares = []
        for split in ("train", "test"):
            values = [attribute(prompt) for prompt in drawn if prompt.split == split]
            shares.append({value: values.count(value) / len(values) for value in set(values)})
        assert set(shares[0]) == set(shares[1])
        for value, share in shares[0].items():
            assert abs(share - shares[1][value]) < 3.5 * np.sqrt(share * (1 - share) * (1 / 2000 + 1 / 1000))


def test_no_caption_is_in_both_splits(data):
    split_of = data.pairs.groupby("prompt_id")["split"].nunique()
    assert (split_of == 1).all()
    assert data.items.groupby("prompt")["prompt_id"].nunique().max() == 1


def test_rewards_follow_wrong_attributes_and_damage(rendered):
    items = rendered.items
    np.testing.assert_allclose(items["reward"], WRONG_ATTRIBUTE * items["wrong"] + DAMAGE * items["strength"])
    assert ((items["kind"] == "none") == (items["strength"] == 0)).all()
    reward = items.set_index("item_id")["reward"]
    pairs = rendered.pairs.set_index("facet")
    for side in ("first", "second"):
        np.testing.assert_array_equal(pairs[f"reward_{side}"], pairs[side].map(reward))
    difference = (pairs["reward_first"] - pairs["reward_second"]).abs()
    assert (difference["alignment"] == -WRONG_ATTRIBUTE).all()
    assert difference["quality"].between(-0.15 * DAMAGE, -DAMAGE).all()
    # A clean image of the wrong scene against a degraded image of the right one.
    both = pairs.loc["both"]
    clean = np.where(both["strength_first"] == 0, both["reward_first"], both["reward_second"])
    strength = both["strength_first"] + both["strength_second"]
    assert (clean == WRONG_ATTRIBUTE).all()
    np.testing.assert_allclose(difference["both"], np.abs(WRONG_ATTRIBUTE - DAMAGE * strength))


def test_contradicted_attributes_are_in_the_caption(rendered):
    prompt_of = rendered.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    alignment = rendered.pairs[rendered.pairs["facet"] == "alignment"]
    for prompt_id, attribute in zip(alignment["prompt_id"], alignment["attribute"], strict=True):
        assert attribute in attributes_of(parse(prompt_of[prompt_id]))
    assert (alignment["attribute"].value_counts() > 180).all() and alignment["attribute"].nunique() == 7


def test_each_choice_has_its_probability():
    probabilities = np.random.default_rng(0).random(40)
    draws = np.mean([annotate(probabilities, np.random.default_rng(seed)) for seed in range(4000)], axis=0)
    deviates = (draws - probabilities) / np.sqrt(probabilities * (1 - probabilities) / 4000)
    assert np.abs(deviates).max() < 4


def test_annotators_choose_by_bradley_terry(data):
    pairs = data.pairs
    difference = pairs["reward_first"] - pairs["reward_second"]
    np.testing.assert_allclose(pairs["probability"], 1 / (1 + np.exp(-difference / TEMPERATURE)), atol=1e-11)
    # The error rate is as expected at every difference.
    for _, part in pairs.groupby(["split", "facet"]):
        tenth = part["probability"].rank(method="first") * 10 // (len(part) + 1)
        for _, rows in part.groupby(tenth):
            assert abs(rows["choice"].mean() - rows["probability"].mean()) < 4 * 0.5 / np.sqrt(len(rows))


def test_true_reward_reaches_the_ceiling(data):
    check = truth_check(data)
    assert ((check["ci_low"] <= check["ceiling"]) & (check["ceiling"] <= check["ci_high"])).all()
    np.testing.assert_allclose(check["accuracy"], check["ceiling"], atol=0.003)
    assert check["ceiling"].between(0.7, 0.97).all()
    by_attribute = truth_check(data, ("split", "facet", "attribute"))
    inside = (by_attribute["ci_low"] <= by_attribute["ceiling"]) & (by_attribute["ceiling"] <= by_attribute["ci_high"])
    assert inside.mean() > 0.9


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_noisy_rewards_are_below_the_ceiling(data, noise):
    """In expectation for any noise, as measured for large noise."""
    best = ceilings(data.pairs).set_index(["split", "facet"])["ceiling"]
    shifted = data.items.assign(
        reward=data.items["reward"] + noise * np.random.default_rng(0).standard_normal(len(data.items))
    )
    reward, pairs = shifted.set_index("item_id")["reward"], data.pairs
    prefers_first = pairs["first"].map(reward) > pairs["second"].map(reward)
    expected = pairs["probability"].where(prefers_first, 1 - pairs["probability"])
    groups = [pairs["split"], pairs["facet"]]
    means = expected.groupby(groups).mean()
    assert (best - means > 0).all()
    measured = truth_check(type(data)("noisy", shifted, pairs, data.images)).set_index(["split", "facet"])["accuracy"]
    errors = (
        (expected * (1 - expected)).groupby(groups).agg(lambda variances: np.sqrt(variances.sum()) / len(variances))
    )
    assert ((measured - means).abs() - 4 * errors < 0).all()
    if noise > 1:
        assert (best - measured > 0).all()


def test_sides_are_balanced(data):
    for _, pairs in data.pairs.groupby(["split", "facet"]):
        better_first = pairs["reward_first"] > pairs["reward_second"]
        for share in (better_first.mean(), pairs["choice"].mean()):
            assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(pairs))


@pytest.mark.slow
def test_images_alone_do_not_predict_alignment(data):
    """A probe on coarse pixels without the caption is at chance on test pairs; every second prompt."""
    pairs = data.pairs[data.pairs["facet"] == "alignment"].iloc[::2]
    features = {}
    for item_id in {*pairs["first"], *pairs["second"]}:
        pixels = np.asarray(data.open_image(item_id)).astype(float) / 255
        coarse = pixels.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
        features[item_id] = np.concatenate([coarse.ravel(), pixels.std(axis=(0, 1)), (coarse**2).ravel()])
    differences = np.stack([features[a] - features[b] for a, b in zip(pairs["first"], pairs["second"], strict=True)])
    train = (pairs["split"] == "train").to_numpy()
    probe = LogisticRegression(fit_intercept=False, C=0.01, max_iter=500)
    choices = pairs["choice"].to_numpy()
    differences /= differences[train].std(axis=0)
    probe.fit(differences[train], choices[train])
    right = probe.predict(differences[~train]) == choices[~train]
    assert abs(right.mean() - 0.5) < 2.6 * 0.5 / np.sqrt(len(right))


def test_right_and_wrong_scenes_have_equal_marginals():
    """Compare each thing, place, number, relation and background."""
    names: dict[str, int] = {}
    counts = np.zeros((2, 1000))
    drawn = prompts()
    for prompt in drawn:
        for side, scene in enumerate((prompt.scene, prompt.wrong)):
            scene = canonical(scene)
            traits = [scene.background, f"{scene.count}", f"{scene.relation}"]
            traits += [f"{n}{v}" for n, thing in enumerate(scene.things) for v in vars(thing).items()]
            for trait in traits:
                counts[side, names.setdefault(trait, len(names))] += 1
    right, wrong = counts[:, : len(names)]
    assert (np.abs(right - wrong) < 4.5 * np.sqrt(right + wrong)).all()


def test_images_do_not_change_between_loads(data):
    again = preferences.load_pairs("testbed")
    for item_id in data.items["item_id"].sample(20, random_state=0):
        assert data.open_image(item_id).tobytes() == again.open_image(item_id).tobytes()
    assert data.fingerprint == again.fingerprint


def test_seed_fixes_the_bytes(rendered):
    digest = hashlib.sha256(rendered.fingerprint.encode())
    for item_id in rendered.items["item_id"].iloc[::97]:
        digest.update(rendered.open_image(item_id).tobytes())
    assert digest.hexdigest()[:16] == "8549e36513ef2540"


def test_images_of_a_prompt_differ(rendered):
    for _, items in list(rendered.items.groupby("prompt_id"))[:20]:
        assert len({rendered.open_image(i).tobytes() for i in items["item_id"]}) == 4


def test_split_selects_pairs_of_the_whole(data):
    test = preferences.load_pairs("testbed", split="test")
    assert set(test.pairs["split"]) == {"test"}
    assert set(test.items["item_id"]) == set(test.pairs["first"]) | set(test.pairs["second"])
    whole = data.pairs[data.pairs["split"] == "test"].reset_index(drop=True)
    assert test.pairs.equals(whole)


def test_seeds_give_different_data(data):
    other = preferences.load_pairs("testbed", seed=1)
    assert other.fingerprint != data.fingerprint
    assert "generated" not in set(other.pairs["facet"])
    assert other.settings["generated"] is None
