"""Tiles lie where they lay, the attention is over them, and the surest errors come first."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medcnn.bag_pictures import HEAT_SHARE, write_bag_pictures
from medcnn.data.cache import CachedImages
from medcnn.readout import read_bags
from medcnn.report.attention_blocks import attention_blocks
from medcnn.report.blocks import Gallery
from tests.test_members import plan

GREYS = [10, 40, 70, 100, 130, 160]


def written(folder: Path, *, placed: bool, n_bags: int = 5, channels: int = 3) -> list[dict[str, Any]]:
    """Three patients with two to three images of one grey each; patient a is missed, b a false alarm, c right."""
    names, patients = list("uvwxyz"), ["a", "a", "a", "b", "b", "c"]
    images = np.stack([np.full((16, 16, channels), grey, np.uint8) for grey in GREYS])
    cached = CachedImages(images, pd.DataFrame({"image_id": names, "row": range(6), "sha256": "-"}))
    manifest = pd.DataFrame({"image_id": names, "patient_id": patients})
    if placed:
        manifest = manifest.assign(x=[100, 612, 100, 0, 0, 7], y=[50, 50, 562, 0, 512, 7])
    p = [0.2, 0.2, 0.2, 0.6, 0.6, 0.1]
    common = {"image_id": names, "part": "test", "fold": 0}
    predictions = pd.DataFrame({**common, "patient_id": patients, "y_sick": [1, 1, 1, 0, 0, 0.0], "logit_sick": 0.0, "p_sick": p})
    attention = pd.DataFrame({**common, "attention": [0.2, 0.7, 0.1, 0.5, 0.5, 1.0]})
    write_bag_pictures(folder, cached, manifest, predictions, attention, plan(), n_bags)
    return list(json.loads((folder / "bags.json").read_text()))


def test_the_surest_errors_come_first(tmp_path: Path) -> None:
    found = written(tmp_path, placed=True)
    assert [(bag["image_id"], bag["wrong"], bag["p"], bag["n_images"], bag["n_half"]) for bag in found] == [
        ("v", True, 0.2, 3, 1), ("x", True, 0.6, 2, 1), ("z", False, 0.1, 1, 1),
    ]  # fmt: skip
    assert [bag["image_id"] for bag in written(tmp_path, placed=True, n_bags=2)] == ["v", "z"]  # half of them errors
    assert written(tmp_path, placed=True, n_bags=0) == []


def test_tiles_lie_where_they_lay(tmp_path: Path) -> None:
    first = written(tmp_path, placed=True)[0]
    mosaic, heat = (cv2.imread(str(tmp_path / first[name])) for name in ("picture", "second"))
    assert mosaic.shape == heat.shape == (128, 128, 3)
    assert [int(mosaic[y, x, 0]) for y, x in ((32, 32), (32, 96), (96, 32), (96, 96))] == [10, 40, 70, 255]  # u, v; w, nothing
    assert heat[96, 96].tolist() == [255, 255, 255]
    glow = (heat.astype(float) - (1 - HEAT_SHARE) * mosaic).sum(axis=2)
    assert glow[32, 96] > glow[32, 32] > glow[96, 32] > 0  # v has most attention, then u, then w


def test_without_places_the_extremes_are_shown(tmp_path: Path) -> None:
    first, _, alone = written(tmp_path, placed=False, channels=1)
    assert not first["placed"]
    most, least = (cv2.imread(str(tmp_path / first[name])) for name in ("picture", "second"))
    assert most[50, 50, 0] == 40  # v alone: one of three
    assert most.shape == (112, 112, 3)
    assert [int(least[50, 50, 0]), int(least[50, 170, 0])] == [70, 10]  # w, then u
    assert alone["second"] == ""
    assert read_bags(tmp_path)[2].second is None


def test_the_report_shows_them(tmp_path: Path) -> None:
    written(tmp_path, placed=True)
    blocks = attention_blocks(read_bags(tmp_path))
    gallery = next(block for block in blocks if isinstance(block, Gallery))
    assert [picture.title for picture in gallery.pictures] == ["Missed: sick", "False alarm: sick", "Right: sick"]
    assert gallery.second_name == "attention"
    assert "half of the attention on 1" in gallery.pictures[0].lines[1]
    assert attention_blocks([]) == []
    assert read_bags(tmp_path / "nowhere") == []
