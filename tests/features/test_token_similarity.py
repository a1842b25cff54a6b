"""Measures against closed forms, scipy, and slow definitions; what each is blind to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from probing.errors import UserError
from probing.features.token_similarity import MEASURES, NEIGHBOURS, check_measures, fewest_tokens


def tokens(blocks=4, count=20, channels=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(blocks, count, channels, generator=generator) + 0.5


def measure(name, stack):
    return MEASURES[name](stack).numpy()


@pytest.fixture(params=MEASURES)
def name(request):
    return request.param


def test_a_block_is_like_itself_and_likeness_is_mutual(name):
    actual = measure(name, tokens())
    np.testing.assert_allclose(np.diag(actual), 1, atol=1e-5)
    np.testing.assert_allclose(actual, actual.T, atol=1e-5)
    assert actual.max() <= 1 + 1e-5 and (actual[np.triu_indices(4, 1)] < 0.9).all()


def test_given_blocks_stay_as_they_are(name):
    stack = tokens()
    before = stack.clone()
    measure(name, stack)
    assert torch.equal(stack, before)


def test_cosine_is_the_mean_over_tokens():
    stack = tokens()
    expected = [[torch.cosine_similarity(a, b, dim=1).mean() for b in stack] for a in stack]
    np.testing.assert_allclose(measure("cosine", stack), expected, atol=1e-6)
    centred = stack - stack.mean(1, keepdim=True)
    np.testing.assert_allclose(measure("cosine_token", stack), measure("cosine", centred), atol=1e-6)


def unbiased_hsic(K, L):
    """Song et al. 2012, equation 5, as it stands there."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    ones = np.ones(n)
    inner = np.trace(K @ L) + (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    return (inner - 2 / (n - 2) * (ones @ K @ L @ ones)) / (n * (n - 3))


@pytest.mark.parametrize("channels", [3, 60])
def test_cka_is_the_published_formula(channels):
    stack = tokens(channels=channels).double()
    grams = [(X @ X.T).numpy() for X in stack]
    expected = [
        [unbiased_hsic(K, L) / np.sqrt(unbiased_hsic(K, K) * unbiased_hsic(L, L)) for L in grams] for K in grams
    ]
    np.testing.assert_allclose(measure("cka", stack), expected, atol=1e-9)
    np.testing.assert_allclose(measure("cka", stack.float()), expected, atol=1e-5)


def test_cka_of_unrelated_features_is_about_zero_even_with_many_channels():
    actual = np.mean([measure("cka", tokens(2, 16, 500, seed))[0, 1] for seed in range(50)])
    assert abs(actual) < 0.02
    # Plain CKA of the same is far above.
    X, Y = (x - x.mean(0) for x in tokens(2, 16, 500))
    assert (Y.T @ X).norm() ** 2 / ((X.T @ X).norm() * (Y.T @ Y).norm()) > 0.8


@pytest.mark.parametrize("channels", [5, 30])
def test_procrustes_is_scipys(channels):
    stack = tokens(channels=channels).double()
    unit = [(x - x.mean(0)) / (x - x.mean(0)).norm() for x in stack]
    expected = [[orthogonal_procrustes(a.numpy(), b.numpy())[1] for b in unit] for a in unit]
    np.testing.assert_allclose(measure("procrustes", stack), expected, atol=1e-9)
    rotation, similarity = orthogonal_procrustes(unit[1].numpy(), unit[0].numpy())
    assert np.square(unit[1].numpy() @ rotation - unit[0].numpy()).sum() == pytest.approx(2 - 2 * similarity)


def test_knn_counts_common_neighbours():
    stack = tokens(count=25)
    unit = torch.nn.functional.normalize(stack, dim=-1).numpy()
    sets = []
    for block in unit:
        near = block @ block.T
        np.fill_diagonal(near, -np.inf)
        sets.append([set(np.argsort(-row)[:NEIGHBOURS]) for row in near])
    expected = [
        [np.mean([len(a & b) / NEIGHBOURS for a, b in zip(one, two, strict=True)]) for two in sets] for one in sets
    ]
    np.testing.assert_allclose(measure("knn", stack), expected, atol=1e-6)


def test_knn_of_unrelated_tokens_is_at_its_chance():
    actual = np.mean([measure("knn", tokens(2, 40, 30, seed))[0, 1] for seed in range(40)])
    assert actual == pytest.approx(NEIGHBOURS / 39, abs=0.02)


def rotated(stack, each):
    rotations = ortho_group.rvs(stack.shape[2], size=len(stack) if each else 1, random_state=0)
    return stack.double() @ torch.from_numpy(rotations.reshape(-1, *rotations.shape[-2:]))


def test_one_rotation_of_all_blocks_changes_nothing(name):
    np.testing.assert_allclose(measure(name, rotated(tokens(), False)), measure(name, tokens()), atol=1e-5)


@pytest.mark.parametrize("each", ["cka", "procrustes", "knn"])
def test_a_rotation_of_each_block_changes_nothing(each):
    np.testing.assert_allclose(measure(each, rotated(tokens(), True)), measure(each, tokens()), atol=1e-5)


@pytest.mark.parametrize("each", ["cosine", "cosine_token"])
def test_a_rotation_of_each_block_is_seen_by_cosines(each):
    assert np.abs(measure(each, rotated(tokens(), True)) - measure(each, tokens())).max() > 0.1


@pytest.mark.parametrize("each", ["cosine_token", "cka", "procrustes"])
def test_a_shift_of_a_block_changes_nothing(each):
    moved = tokens()
    moved[1] += torch.tensor([100.0, 0, 0, -7, 0, 3])
    np.testing.assert_allclose(measure(each, moved), measure(each, tokens()), atol=2e-4)


def test_a_massive_channel_hides_what_blocks_differ_in_from_the_cosine():
    massive = tokens()
    massive[:, :, 2] += 1000.0
    assert measure("cosine", massive).min() > 0.999
    assert measure("cka", massive)[0, 1] < 0.9


def test_a_scale_of_a_block_changes_nothing(name):
    scaled = tokens() * torch.tensor([1.0, 1e-3, 30.0, 1e3])[:, None, None]
    np.testing.assert_allclose(measure(name, scaled), measure(name, tokens()), atol=1e-5)


def test_the_order_of_tokens_and_blocks_does_not_matter(name):
    stack, order = tokens(), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(measure(name, stack[:, order]), measure(name, stack), atol=1e-5)
    blocks = [2, 0, 3, 1]
    np.testing.assert_allclose(measure(name, stack[blocks]), measure(name, stack)[np.ix_(blocks, blocks)], atol=1e-5)


def test_mistakes():
    with pytest.raises(UserError, match="Unknown measure 'cosin'; known are cosine"):
        check_measures(["cosin"], 64)
    with pytest.raises(UserError, match="At least one measure"):
        check_measures([], 64)
    with pytest.raises(UserError, match="knn needs at least 12 tokens, and an image has 4; raise --resolution"):
        check_measures(["cka", "knn"], 4)
    check_measures(list(MEASURES), max(map(fewest_tokens, MEASURES)))
