"""The fingerprint of a small manifest, counted by hand; tasks that do not fit; a large manifest in no time."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import read_fingerprint, write_json
from medcnn.data.fingerprint import fingerprint
from medcnn.errors import InputError


def manifest(**columns):
    table = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "patient_id": ["p", "p", "p", "q", "q", "r"],
            "path": "x",
            "frame": 0,
            "height": [100, 100, 100, 200, 200, 300],
            "width": [200, 200, 200, 200, 200, 150],
            "bit_depth": [8, 8, 8, 8, 12, 12],
            "channels": [1, 1, 1, 3, 3, 3],
            "sha256": list("abcdef"),
            "y_x": [1, 1, 0, 1, np.nan, 0],
            "y_z": [0, 0, 0, 1, 1, np.nan],
        }
    )
    return table.assign(**columns)


def test_counts_are_those_of_a_hand():
    found = fingerprint(manifest(site=["A", "A", "A", "B", "B", None], given_part=["train"] * 4 + ["test", None], n_bytes=10))
    assert (found.task, found.labels) == ("multilabel", ("x", "z"))
    assert (found.n_images, found.n_patients) == (6, 3)
    assert found.n_labelled == {"x": 5, "z": 5}
    assert found.n_positive == {"x": 3, "z": 2}
    assert found.n_positive_patients == {"x": 2, "z": 1}
    assert found.prevalence == {"x": 0.6, "z": 0.4}
    assert found.images_per_patient[::2] == (1, 2, 3)
    assert found.height_px[::2] == (100, 150, 300)
    assert found.width_px[::2] == (150, 200, 200)
    assert found.aspect_ratio[::2] == (0.5, 1.5, 2.0)
    assert found.bit_depths == {"8": 4, "12": 2}
    assert found.channels == {"1": 3, "3": 3}
    assert found.sites == {"A": 3, "B": 2}
    assert found.parts == {"test": 1, "train": 4}
    assert found.n_bytes == 60


def test_quantiles_are_min_5_50_95_max():
    found = fingerprint(manifest(height=[100, 120, 140, 160, 180, 200], width=100))
    assert found.height_px == (100, 105, 150, 195, 200)


def test_what_a_source_does_not_know_is_empty():
    found = fingerprint(manifest())
    assert found.sites == found.parts == {}
    assert found.n_bytes == found.extra["n_given_fold"] == 0
    extra = fingerprint(manifest(given_fold=[0, 1, None, 0, 1, 0])).extra
    assert (extra["n_given_fold"], extra["n_folds"], extra["n_studies"], extra["tiled"]) == (5, 2, 0, 0)


def test_scanners_polarity_and_grey_values_are_those_of_the_images():
    pixels = {"x": np.full((4, 4), 60, np.uint8)}
    table = manifest(scanner=["s", "s", "t", None, "t", "t"], manufacturer="m", photometric=["MONOCHROME1"] + ["MONOCHROME2"] * 5)
    found = fingerprint(table, read=lambda path, _: pixels[path])
    assert found.scanners == {"s": 2, "t": 3}
    assert found.photometric == {"MONOCHROME1": 1, "MONOCHROME2": 5}
    assert (found.intensity["n_images"], found.intensity["mean"], found.intensity["sd"]) == (6, 60, 0)
    assert fingerprint(manifest(manufacturer="m")).scanners == {"m": 6}
    unread = fingerprint(manifest())
    assert unread.scanners == unread.photometric == unread.intensity == {}


def test_what_an_older_version_wrote_is_read(tmp_path):
    write_json(fingerprint(manifest()), tmp_path / "fingerprint.json")
    tree = json.loads((tmp_path / "fingerprint.json").read_text())
    for new in ("scanners", "photometric", "intensity"):
        del tree[new]
    (tmp_path / "fingerprint.json").write_text(json.dumps(tree))
    assert read_fingerprint(tmp_path / "fingerprint.json") == fingerprint(manifest())


def test_it_survives_its_file(tmp_path):
    found = fingerprint(manifest())
    write_json(found, tmp_path / "fingerprint.json")
    assert read_fingerprint(tmp_path / "fingerprint.json") == found


@pytest.mark.parametrize(
    ("x", "z", "seen"),
    [
        ([1, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, 0], "multiclass"),
        ([1, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, np.nan], "multilabel"),
        ([1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0], "multilabel"),
    ],
)
def test_task_is_read_from_the_labels(x, z, seen):
    table = manifest(y_x=x, y_z=z)
    assert fingerprint(table).task == seen
    assert fingerprint(table, task=seen).task == seen
    assert fingerprint(table, task="multilabel").task == "multilabel"
    assert fingerprint(table.drop(columns="y_z")).task == "binary"


@pytest.mark.parametrize(
    ("drop", "task", "message"),
    [
        ([], "binary", "expected one label; 2 label columns look multilabel"),
        ([], "multiclass", "expected exactly one class in every image"),
        (["y_z"], "multiclass", "1 label columns look binary"),
        (["y_z"], "multilabel", "1 label columns look binary"),
    ],
)
def test_task_that_does_not_fit_is_refused(drop, task, message):
    with pytest.raises(InputError, match=message):
        fingerprint(manifest().drop(columns=drop), task=task)


def test_label_that_nobody_has_is_counted_and_not_divided():
    found = fingerprint(manifest(y_z=np.nan))
    assert found.n_labelled["z"] == found.n_positive["z"] == found.n_positive_patients["z"] == 0
    assert found.prevalence["z"] == 0.0


def test_large_manifest_takes_no_time():
    table = pd.concat([manifest()] * 5_000, ignore_index=True)
    started = time.process_time()
    fingerprint(table)
    assert time.process_time() - started < 2
