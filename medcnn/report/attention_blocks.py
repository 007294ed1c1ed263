"""Pictures of bags: where the attention of the rung mil lay."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from medcnn.report.blocks import Gallery, Heading, Picture, Text
from medcnn.report.facts import BagPicture
from medcnn.report.numbers import fixed, plural

MOST_PICTURE_BYTES = 3_000_000


def attention_blocks(bags: Sequence[BagPicture]) -> list[Any]:
    """The pictures with what they show; nothing where there are none."""
    if not bags:
        return []
    sizes = np.cumsum([len(bag.picture) + len(bag.second or b"") for bag in bags])
    shown = bags[: max(int((sizes <= MOST_PICTURE_BYTES).sum()), 1)]
    placed = all(bag.placed for bag in shown)
    blocks: list[Any] = [
        Heading("Where the attention lay"),
        Gallery([_picture(bag) for bag in shown], "attention" if placed else "least attention"),
    ]
    if len(shown) < len(bags):
        blocks.append(Text(f"The first {len(shown)} of {len(bags)}; more would make the page too large.", "note"))
    how = (
        "Left the tiles where they lay on the slide, right the attention over them, as a share of the largest"
        if placed
        else "Left up to four images with most attention, right those with least"
    )
    caution = (
        "Attention says what the prediction was averaged from, not whether it was right to look there; it has not been validated here."
    )
    return [*blocks, Text(f"{how}; the surest errors first. {caution}", "note")]


def _picture(bag: BagPicture) -> Picture:
    kind = ("Missed" if bag.y >= 0.5 else "False alarm") if bag.wrong else "Right"
    lines = [
        f"with {bag.image_id}",
        f"probability {fixed(bag.p)}; {plural(bag.n_images, 'image')}, half of the attention on {bag.n_half}",
    ]
    return Picture(f"{kind}: {bag.label}", lines, _uri(bag.picture), _uri(bag.second) if bag.second else "")


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
