"""The contrastive loss of CLIP, shared by the text encoders and the baseline reward model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(logits: Tensor, captions: Sequence[str], wrong: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Match images and captions both ways (Radford et al. 2021, figure 3); equal captions share the target.

    Args:
        logits: (image, caption): first one caption for each image, in order, then the wrong ones. Without wrong
            captions the axes may be exchanged.
        captions: One for each image.
        wrong: Further captions, which belong to no image (Yuksekgonul et al. 2023, section 4).

    Returns:
        The loss, and how often an image's largest logit is at its caption.
    """
    same = np.array(captions)[:, None] == np.array([*captions, *wrong])[None, :]
    right = torch.from_numpy(same).to(logits)
    square = right[:, : len(captions)]
    by_image = F.cross_entropy(logits, right / right.sum(dim=1, keepdim=True))
    by_caption = F.cross_entropy(logits[:, : len(captions)].T, (square / square.sum(dim=0)).T)
    return 0.5 * (by_image + by_caption), right.gather(1, logits.argmax(dim=1, keepdim=True)).mean()
