"""Everything that is measured on an image's pixels when it is decoded: one row an image, `traits.parquet`."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from medcnn.data.quality import quality_of
from medcnn.data.resemblance import likeness_of

Cell: TypeAlias = str | int | float | bool | bytes | None
Measure = Callable[[np.ndarray, int], Mapping[str, Cell]]
# Each takes (pixels, bit_depth) as decode_row gives them: uint8 or uint16, (H, W) or (H, W, 3) RGB, any size, polarity mended,
# and returns the same keys for every image: text, numbers, bytes or None. It must neither change the pixels nor raise for an odd
# picture (1 x 1, one shade); it runs in several threads at once. A column's values are of one kind in all images.
MEASURES: tuple[Measure, ...] = (
    likeness_of,
    quality_of,
)


def traits_of(pixels: np.ndarray, bit_depth: int) -> dict[str, Cell]:
    """The row of `traits.parquet` without its image_id. pixels, bit_depth: see MEASURES."""
    return {name: value for measure in MEASURES for name, value in measure(pixels, bit_depth).items()}
