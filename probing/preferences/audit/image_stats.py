"""Image statistics: size, brightness and the like, a baseline without a model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from probing.preferences.audit.scan import WORKERS, map_in_threads
from probing.preferences.data import PreferenceData
from probing.preferences.images import upright_rgb
from probing.progress import progress as show_progress

IMAGE_STATS = ("log_area", "log_shape", "brightness", "contrast", "saturation", "sharpness")


def item_image_stats(data: PreferenceData, *, workers: int = WORKERS, progress: bool = True) -> pd.DataFrame:
    """Open every picture once and compute its statistics.

    Args:
        data: The preference data.
        workers: Number of threads.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        ``item_id`` and :data:`IMAGE_STATS`: log of width·height and of width/height; mean and standard deviation of
        luminance in [0, 1] (ITU-R BT.601); mean of the largest less the smallest of a pixel's three channels; root mean
        square step of luminance from one pixel to the next.

    Raises:
        UserError: A picture is missing or cannot be read.
    """
    pictures = data.items.drop_duplicates("image")
    rows = []
    with show_progress(len(pictures), f"pictures of {data.name}", "pictures", enabled=progress) as bar:
        for row in map_in_threads(lambda item_id: _stats(data.open_image(item_id)), pictures["item_id"], workers):
            rows.append(row)
            bar.update()
    stats = pd.DataFrame(rows, columns=list(IMAGE_STATS)).assign(image=pictures["image"].to_numpy())
    return data.items[["item_id", "image"]].merge(stats, on="image", how="left").drop(columns="image")


def _stats(image: Image.Image) -> tuple[float, ...]:
    image = upright_rgb(image)
    width, height = image.size
    pixels = np.asarray(image, dtype=np.float32) / 255
    light = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    steps = [np.diff(light, axis=axis) for axis in (0, 1)]
    sharpness = np.sqrt(np.mean([np.mean(step**2) if step.size else 0.0 for step in steps]))
    saturation = (pixels.max(axis=2) - pixels.min(axis=2)).mean()
    stats = (np.log(width * height), np.log(width / height), light.mean(), light.std(), saturation, sharpness)
    return tuple(map(float, stats))
