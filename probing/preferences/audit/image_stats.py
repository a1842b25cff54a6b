"""Image statistics: size, brightness and the like, a baseline without a model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from probing.preferences.audit.pictures import WORKERS
from probing.preferences.data import PreferenceData
from probing.preferences.images.preparation import upright_rgb
from probing.progress import progress as show_progress

IMAGE_STATS = ("log_area", "log_shape", "brightness", "contrast", "saturation", "sharpness")
_AT_ONCE = 256


def item_image_stats(data: PreferenceData, *, workers: int = WORKERS, progress: bool = True) -> pd.DataFrame:
    """Open every picture once and measure it.

    Args:
        data: Whose items.
        workers: Threads that open pictures.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        ``item_id`` and :data:`IMAGE_STATS`: log of width·height and of width/height; mean and standard deviation of
        luminance in [0, 1] (ITU-R BT.601); mean of the largest less the smallest of a pixel's three channels; root mean
        square step of luminance from one pixel to the next.

    Raises:
        UserError: A picture is missing or cannot be read.
    """
    different = data.items.drop_duplicates("image")
    rows = list(_measured(data, different["item_id"].tolist(), workers, progress))
    stats = pd.DataFrame(rows, columns=list(IMAGE_STATS)).assign(image=different["image"].to_numpy())
    return data.items[["item_id", "image"]].merge(stats, on="image", how="left").drop(columns="image")


def _measured(data: PreferenceData, item_ids: list[str], workers: int, progress: bool) -> Iterator[tuple[float, ...]]:
    def measure(item_id: str) -> tuple[float, ...]:
        image = upright_rgb(data.open_image(item_id))
        width, height = image.size
        pixels = np.asarray(image, dtype=np.float32) / 255
        light = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        steps = [np.diff(light, axis=axis) for axis in (0, 1)]
        sharpness = np.sqrt(np.mean([np.mean(step**2) if step.size else 0.0 for step in steps]))
        saturation = (pixels.max(axis=2) - pixels.min(axis=2)).mean()
        return (
            float(np.log(width * height)),
            float(np.log(width / height)),
            float(light.mean()),
            float(light.std()),
            float(saturation),
            float(sharpness),
        )

    with (
        show_progress(len(item_ids), f"pictures of {data.name}", "pictures", enabled=progress) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for start in range(0, len(item_ids), _AT_ONCE):
            for row in pool.map(measure, item_ids[start : start + _AT_ONCE]):
                yield row
                bar.update()
