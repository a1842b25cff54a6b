"""Measures of the similarity of two blocks, by name: tokens of all blocks of one item in, a block × block matrix out.

Every measure is symmetric and 1 for a block with itself.

============  ==========================================  ==================================================
measure       compares                                    is invariant to
============  ==========================================  ==================================================
cosine        the direction of each token                 one rotation of all blocks; a scale of each token
cosine_token  the same without the item's mean token      one rotation of all blocks; a shift, a scale of each
cka           which tokens are alike, and how much        a rotation, shift and scale of each block
procrustes    the shape of the cloud of tokens            a rotation, shift and scale of each block
knn           each token's nearest tokens                 a rotation of each block; a scale of each token
============  ==========================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from probing.errors import UserError

NEIGHBOURS = 10
"""Neighbours of ``knn``, as Huh et al. 2024; two random sets share 10 / (tokens − 1) of them."""
_FEWEST_TOKENS = {"cosine": 1, "cosine_token": 2, "cka": 4, "procrustes": 2, "knn": NEIGHBOURS + 2}

Measure = Callable[[Float[Tensor, "block token channel"]], Float[Tensor, "block block"]]


def cosine(tokens: Float[Tensor, "block token channel"]) -> Float[Tensor, "block block"]:
    """Cosine of two blocks' features at the same token, averaged over tokens.

    Most likely the measure of the paper's figure. Blocks share the residual stream, so it is near 1 wherever a block
    adds little; a few channels of large and constant value raise it everywhere.
    """
    unit = torch.nn.functional.normalize(tokens, dim=-1).flatten(1)
    return unit @ unit.T / tokens.shape[1]


def cosine_token(tokens: Float[Tensor, "block token channel"]) -> Float[Tensor, "block block"]:
    """:func:`cosine` of tokens less their mean over the block."""
    return cosine(_centred(tokens))


def cka(tokens: Float[Tensor, "block token channel"]) -> Float[Tensor, "block block"]:
    """Debiased linear CKA over tokens (Kornblith et al. 2019, with the unbiased HSIC of Song et al. 2012, equation 5).

    HSIC(K, L) = ⟨K̃, L̃⟩ / (n (n − 3)), where K̃ is K with an empty diagonal, centred so that every row sums to 0 (Székely
    and Rizzo 2014); CKA = HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)). Unlike plain CKA it is about 0 for unrelated features,
    however many channels there are.
    """
    tokens = _centred(tokens)
    n = tokens.shape[1]
    gram = tokens @ tokens.transpose(1, 2)
    # A common scale keeps squares of squares within float32.
    gram = gram / gram.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(gram.dtype).tiny)
    gram.diagonal(dim1=1, dim2=2).zero_()
    rows = gram.sum(dim=2)
    centred = gram - (rows.unsqueeze(1) + rows.unsqueeze(2)) / (n - 2)
    centred += rows.sum(dim=1)[:, None, None] / ((n - 1) * (n - 2))
    centred.diagonal(dim1=1, dim2=2).zero_()
    return _normalised_gram(centred.flatten(1))


def procrustes(tokens: Float[Tensor, "block token channel"]) -> Float[Tensor, "block block"]:
    """Procrustes similarity: ‖XᵀY‖_* of centred tokens of unit Frobenius norm (Williams et al. 2021, Ding et al. 2021).

    1 − its half squared distance after the best rotation: min over rotations Q of ‖X − YQ‖² is 2 − 2·similarity. One
    singular value decomposition a pair of blocks: far slower than the others at a thousand tokens.
    """
    tokens = _centred(tokens)
    tokens = tokens / tokens.flatten(1).norm(dim=1)[:, None, None].clamp_min(torch.finfo(tokens.dtype).tiny)
    left, singular, _ = torch.linalg.svd(tokens, full_matrices=False)
    # Rotating channels changes nothing, so each block keeps as many as its rank.
    small = left * singular.unsqueeze(1)
    rows = [torch.linalg.svdvals(block.T @ small).sum(dim=1) for block in small]
    return torch.stack(rows)


def knn(tokens: Float[Tensor, "block token channel"]) -> Float[Tensor, "block block"]:
    """Mutual nearest neighbours (Huh et al. 2024): the share of each token's :data:`NEIGHBOURS` nearest tokens, by
    cosine, that two blocks have in common, averaged over tokens.
    """
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    near = unit @ unit.transpose(1, 2)
    near.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    chosen = torch.zeros_like(near).scatter_(2, near.topk(NEIGHBOURS, dim=2).indices, 1.0).flatten(1)
    return chosen @ chosen.T / (NEIGHBOURS * tokens.shape[1])


MEASURES: dict[str, Measure] = {
    "cosine": cosine,
    "cosine_token": cosine_token,
    "cka": cka,
    "procrustes": procrustes,
    "knn": knn,
}


def check_measures(names: list[str] | tuple[str, ...], tokens: int) -> None:
    """Refuse unknown measures, and those that need more image tokens than an image has.

    Raises:
        UserError: With the known names, or the number of tokens.
    """
    if not names:
        raise UserError(f"At least one measure is needed; known are {', '.join(MEASURES)}.")
    for name in names:
        if name not in MEASURES:
            raise UserError(f"Unknown measure {name!r}; known are {', '.join(MEASURES)}.")
        if tokens < fewest_tokens(name):
            raise UserError(
                f"{name} needs at least {fewest_tokens(name)} tokens, and an image has {tokens}; raise --resolution."
            )


def fewest_tokens(measure: str) -> int:
    """Return how many tokens an item needs for a measure to be defined."""
    return _FEWEST_TOKENS[measure]


def _centred(tokens: Tensor) -> Tensor:
    return tokens - tokens.mean(dim=1, keepdim=True)


def _normalised_gram(rows: Float[Tensor, "block entry"]) -> Float[Tensor, "block block"]:
    unit = torch.nn.functional.normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny)
    return unit @ unit.T
