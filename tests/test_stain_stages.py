"""Colours: found once for each image, brought to the training rows' own, and what has none is counted."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medcnn.config import Config
from medcnn.data.stain import COLUMNS, fit_target, restain, stain_maps, stain_of
from medcnn.plan import write_plan
from medcnn.runs import Run
from medcnn.stain_stages import found_stains, seen_images, stain, trained_images
from medcnn.tables import read_table
from tests.data.test_stain import WARM_E, WARM_H, stained
from tests.test_members import plan

IMAGES = np.stack(
    [stained(size=32), stained(WARM_H, WARM_E, size=32), stained(size=32, amounts=0.5, seed=4), np.full((32, 32, 3), 240, np.uint8)]
)


def decided(method: str) -> object:
    base = plan()
    return base.model_copy(update={"image": base.image.model_copy(update={"stain": method})})


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    for name in ("cache", "plan"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "cache/images.npy", IMAGES)
    index = pd.DataFrame({"image_id": list("badc"), "row": [1, 0, 3, 2], "sha256": "-"})  # the table's order is not the rows'
    index.to_parquet(tmp_path / "cache/index.parquet", index=False)
    return {name: tmp_path / name for name in ("cache", "plan")}


def run(folder: Path, said: list[str]) -> Run:
    config = Config.model_validate({"name": "r", "data": {"source": "phantom"}})
    return Run(config, folder, folder, False, say=said.append)


def test_each_image_is_looked_at_once_and_what_has_no_stain_is_counted(inputs: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    write_plan(decided("macenko"), inputs["plan"] / "plan.yaml")
    placed = stain(run(tmp_path, said), inputs)
    table = read_table(placed["stain"] / "stain.parquet")
    assert table["image_id"].tolist() == list("abcd")
    assert table.columns.tolist() == ["image_id", *COLUMNS["macenko"]]
    assert np.allclose(found_stains(placed)[1], stain_of(IMAGES[1], "macenko"))
    assert any("1 of 4 images show hardly any tissue" in words for words in said)


def test_a_plan_without_normalisation_has_no_such_stage(inputs: dict[str, Path], tmp_path: Path) -> None:
    write_plan(decided("none"), inputs["plan"] / "plan.yaml")
    assert stain(run(tmp_path, []), inputs) == {}
    assert trained_images({}, IMAGES, decided("none"), np.arange(2)) == (IMAGES, ())
    assert seen_images(IMAGES, SimpleNamespace(stain_target=())) is IMAGES


def test_other_rows_have_no_say_in_the_colours(inputs: dict[str, Path]) -> None:
    images, target = trained_images({}, IMAGES, decided("macenko"), np.array([0, 2]))
    changed = IMAGES.copy()
    changed[1] = stained(WARM_H, WARM_E, amounts=2.0, size=32, seed=9)
    assert trained_images({}, changed, decided("macenko"), np.array([0, 2]))[1] == target
    found = np.stack([stain_of(image, "macenko") for image in IMAGES])
    assert target == fit_target(found[[0, 2]], "macenko")
    assert np.array_equal(images[np.array([1])], restain(IMAGES[1:2], stain_maps(found[1:2], target, "macenko"), "macenko"))


def test_a_new_image_is_seen_as_it_was_in_the_run() -> None:
    images, target = trained_images({}, IMAGES, decided("reinhard"), np.array([0, 2]))
    card = SimpleNamespace(stain_target=target, image=SimpleNamespace(stain="reinhard"))
    alone = seen_images(IMAGES[1:2], card)[np.arange(1)]
    assert np.array_equal(alone, images[np.array([1])])
    assert not np.array_equal(alone, IMAGES[1:2])
