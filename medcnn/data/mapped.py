"""Arrays mapped from disk, on their way to another process."""

from typing import Any

import numpy as np


def by_place(images: Any) -> Any:
    """A mapped array travels to a spawned worker as its place on disk, not as its pixels; anything else as itself."""
    if isinstance(images, np.memmap):
        return (str(images.filename), images.dtype, images.offset, images.shape)
    return images


def from_place(state: Any) -> Any:
    """The inverse of `by_place`."""
    if isinstance(state, tuple):
        path, dtype, offset, shape = state
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    return state
