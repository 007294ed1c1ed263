from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.data.augment import ViewedImages, build_augmentation
from medcnn.errors import InputError
from medcnn.inference import NewImage, _chunks, find_images
from medcnn.plan import AugmentPlan

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1)).astype(np.uint8)
AUGMENTATION = build_augmentation(AugmentPlan(policy="generic"), size_px=16, channels=1)


def test_the_views_of_a_new_image_do_not_depend_on_its_company() -> None:
    source, order = ViewedImages(IMAGES, AUGMENTATION, 0), np.array([3, 0, 5])
    together = source.batch(np.arange(6), 7)
    assert np.array_equal(source.batch(order, 7), together[order])
    assert np.array_equal(ViewedImages(IMAGES[order], AUGMENTATION, 0).batch(np.arange(3), 7), together[order])
    assert not np.array_equal(source.batch(np.arange(6), 8), together)
    assert not np.array_equal(ViewedImages(IMAGES, AUGMENTATION, 1).batch(np.arange(6), 7), together)


def test_without_an_epoch_or_augmentation_it_is_the_image() -> None:
    rows = np.array([2, 1])
    assert np.array_equal(ViewedImages(IMAGES, AUGMENTATION, 0).batch(rows, None), IMAGES[rows])
    assert np.array_equal(ViewedImages(IMAGES, None, 0).batch(rows, 3), IMAGES[rows])


def test_a_tables_rows_are_images_with_their_bags(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"path": ["a/1.png", "a/2.png", "b/3.png"], "patient_id": ["p", "p", "p"], "study_id": [7, 7, 8], "frame": [0, 1, 2]}
    )
    table.to_csv(tmp_path / "new.csv", index=False)
    found = find_images([tmp_path / "new.csv"])
    assert [(image.image_id, image.frame, image.bag) for image in found] == [
        ("a/1.png", 0, "p/7"),
        ("a/2.png", 1, "p/7"),
        ("b/3.png", 2, "p/8"),
    ]
    assert found[0].path == str(tmp_path / "a/1.png")
    assert {image.bag for image in find_images([tmp_path / "new.csv"], bag="patient")} == {"p"}
    table[["path"]].assign(image_id=["x", "y", "z"]).to_csv(tmp_path / "bare.csv", index=False)
    assert [(image.image_id, image.bag) for image in find_images([tmp_path / "bare.csv"])] == [("x", "a"), ("y", "a"), ("z", "b")]
    (tmp_path / "wrong.csv").write_text("file\n1.png\n")
    with pytest.raises(InputError, match="column path is missing"):
        find_images([tmp_path / "wrong.csv"])


def test_a_files_bag_is_its_folder(tmp_path: Path) -> None:
    for name in ("new/one/1.png", "new/one/2.png", "new/two/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [image.bag for image in find_images([tmp_path / "new"])] == ["new/one", "new/one", "new/two"]
    assert find_images([tmp_path / "new/one/1.png"])[0].bag == "one"


def test_a_bag_is_never_cut() -> None:
    wanted = [NewImage(str(number), "", bag=str(number % 3)) for number in range(150)]
    chunks = _chunks(wanted, in_bags=True)
    assert [len(chunk) for chunk in chunks] == [50, 50, 50]
    assert all(len({image.bag for image in chunk}) == 1 for chunk in chunks)
    small = _chunks([NewImage(str(number), "", bag=str(number // 2)) for number in range(70)], in_bags=True)
    assert [len(chunk) for chunk in small] == [64, 6]
    assert [len(chunk) for chunk in _chunks(wanted, in_bags=False)] == [64, 64, 22]
