"""A folder of slides to a manifest of tiles: which slides, which tiles, which labels, whose names; again after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import read_flow, write_json
from medcnn.config_data import DataConfig
from medcnn.data.images import read_row
from medcnn.data.ingest import ingest, row_reader
from medcnn.data.slide_tiles import SlideJob, cut_slide
from medcnn.data.tile_places import tile_place
from medcnn.data.tile_store import TILES, TileStore
from medcnn.errors import InputError
from medcnn.tables import write_table
from tests.data.made_slides import aperio, tissue_picture, write_slide

pytest.importorskip("openslide", reason="needs the extra wsi")

SLIDES = {"tile_px": 64, "mpp": 0.5}
PLANTED = {"User": "Musterfrau", "Barcode": "B4711X", "Date": "24/12/19"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three slides of 500 x 400 pixels at .5 um, one of them in a subfolder, and a README."""
    for number, name in enumerate(("a.svs", "b.svs", "site/c.svs")):
        write_slide(tmp_path / "slides" / name, tissue_picture(400, 500, seed=number), description=aperio(500, 400, **PLANTED))
    (tmp_path / "slides" / "README.md").write_text("no slide")
    return tmp_path


def config(tree: Path, slides: dict[str, object] | None = None, **values: object) -> DataConfig:
    return DataConfig.model_validate({"source": "slides", "path": tree / "slides", "slides": {**SLIDES, **(slides or {})}, **values})


def labelled(tree: Path, rows: list[dict[str, object]], slides: dict[str, object] | None = None, **values: object) -> DataConfig:
    write_table(pd.DataFrame(rows), tree / "labels.csv")
    known = {"label_table": tree / "labels.csv", "label_column": "dx", **values}
    return config(tree, slides, **known)


ROWS: list[dict[str, object]] = [
    {"image": "a.svs", "dx": "well", "who": "P1", "age": 50},
    {"image": "b", "dx": "sick", "who": "P1", "age": 51},
    {"image": "site/c.svs", "dx": "sick", "who": "P2", "age": 70},
]


# ---------------------------------------------------------------- tiles


def test_the_manifest_of_a_tree(tree: Path) -> None:
    manifest, flow = ingest(labelled(tree, ROWS, patient_column="who", covariates=["age"]))
    assert manifest["study_id"].unique().tolist() == ["a", "b", "site/c"]
    assert manifest.groupby("study_id")["patient_id"].first().tolist() == ["P1", "P1", "P2"]
    assert manifest.groupby("study_id")["y_well"].first().tolist() == [1.0, 0.0, 0.0]
    assert set(manifest["spacing_mm"]) == {0.0005}
    assert set(manifest["age"]) == {50, 51, 70}
    assert (manifest["height"].unique().tolist(), manifest["channels"].unique().tolist()) == ([64], [3])
    first = manifest.iloc[0]
    assert first["image_id"] == f"a/{first['x']:06d}_{first['y']:06d}"
    assert first["path"] == f"a.svs#x={first['x']},y={first['y']},level=0,side=64,px=64"
    assert (flow.n_found, flow.n_files, flow.n_patients, flow.n_images) == (3, 3, 2, len(manifest))
    assert flow.tiles["grid"] == 3 * 7 * 6 == len(manifest) + flow.tiles["little_tissue"]


def test_tiles_are_those_with_tissue(tree: Path) -> None:
    """Oracle: the disc that was painted."""
    manifest, _ = ingest(config(tree, {"min_tissue": 0.5}))
    disc = np.zeros((400, 500), np.uint8)
    cv2.circle(disc, (250, 200), 140, 1, -1)
    shares = {(x, y): disc[y : y + 64, x : x + 64].mean() for x in range(0, 437, 64) for y in range(0, 337, 64)}
    came = set(manifest.loc[manifest["study_id"] == "a", ["x", "y"]].itertuples(index=False, name=None))
    assert (
        {corner for corner, share in shares.items() if share > 0.56} <= came <= {corner for corner, share in shares.items() if share > 0.44}
    )
    measured = manifest[manifest["study_id"] == "a"].set_index(["x", "y"])["tissue"]
    assert all(abs(measured[corner] - shares[corner]) < 0.1 for corner in came)


def test_every_row_is_read_again_from_its_path_alone(tree: Path) -> None:
    manifest, _ = ingest(config(tree, {"mpp": 1.0, "overlap": 0.5}))
    picture = tissue_picture(400, 500, seed=0)
    for path in manifest.loc[manifest["study_id"] == "a", "path"]:
        place = tile_place(path)
        assert place is not None
        half = cv2.resize(picture, (250, 200), interpolation=cv2.INTER_AREA)[place.y // 2 :, place.x // 2 :][:64, :64]
        assert np.array_equal(read_row(path, root=tree / "slides"), half)


def test_kept_pixels_are_those_that_are_read_again(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "ingest"
    place.mkdir()
    manifest, _ = ingest(config(tree), folder=place)
    assert (place / TILES).stat().st_size == len(manifest) * 64 * 64 * 3
    kept, anew = row_reader(config(tree), place), row_reader(config(tree))
    for path, frame in manifest[["path", "frame"]].itertuples(index=False, name=None):
        assert np.array_equal(kept(path, frame), anew(path, frame))
    for slide in (tree / "slides").rglob("*.svs"):
        slide.unlink()
    assert kept(str(manifest["path"][0]), 0).shape == (64, 64, 3)
    with pytest.raises(EOFError):
        TileStore(place / TILES, 64).get(len(manifest))


def test_nothing_is_kept_when_the_config_says_so(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ingest(config(tree, {"keep_tiles": False}), folder=tmp_path / "out")
    assert not (tmp_path / "out" / TILES).exists()


def test_ink_blur_and_the_number_of_tiles(tree: Path) -> None:
    picture = tissue_picture(400, 500)
    cv2.line(picture, (100, 200), (400, 200), (20, 150, 110), 40)
    blurred = cv2.GaussianBlur(tissue_picture(400, 500), (0, 0), 6)
    for name, content in {"a": picture, "b": blurred, "site/c": tissue_picture(400, 500)}.items():
        write_slide(tree / "slides" / f"{name}.svs", content, description=aperio(500, 400, mpp="4.0"))
    manifest, flow = ingest(config(tree, {"mpp": 4.0, "min_sharpness": 60, "max_tiles": 4}))
    assert "b" not in set(manifest["study_id"])
    assert flow.tiles["ink"] > 3
    assert flow.tiles["blurred"] == 4
    assert flow.tiles["not_drawn"] > 10
    assert Counter(manifest["study_id"]) == {"a": 4, "site/c": 4}
    assert manifest["sharpness"].min() > 60
    reasons = [exclusion.reason for exclusion in flow.excluded if exclusion.kind == "blurred"]
    assert "min_sharpness" in reasons[0]


def test_the_flow_is_written_and_read(tree: Path, tmp_path: Path) -> None:
    _, flow = ingest(config(tree))
    write_json(flow, tmp_path / "flow.json")
    assert read_flow(tmp_path / "flow.json") == flow


# ---------------------------------------------------------------- slides that do not come in


def test_each_slide_is_refused_on_its_own(tree: Path) -> None:
    write_slide(tree / "slides" / "dpi.tif", tissue_picture(400, 500), mpp=25400 / 96)
    write_slide(tree / "slides" / "small.tif", tissue_picture(60, 60))
    write_slide(tree / "slides" / "glass.tif", np.full((400, 500, 3), 243, np.uint8))
    write_slide(tree / "slides" / "coarse.tif", tissue_picture(400, 500), mpp=2.0)
    (tree / "slides" / "no.svs").write_bytes(b"nothing")
    _, flow = ingest(config(tree))
    kinds = {exclusion.where: exclusion.kind for exclusion in flow.excluded}
    assert kinds == {"dpi.tif": "implausible_resolution", "small.tif": "no_tile_fits", "glass.tif": "no_tiles", "coarse.tif": "no_tile_fits", "no.svs": "not_an_image"}  # fmt: skip
    assert flow.n_files == 3


def test_a_resolution_comes_from_the_table_or_the_config_with_its_reason(tree: Path) -> None:
    write_slide(tree / "slides" / "a.svs", tissue_picture(400, 500), mpp=25400 / 96)
    write_slide(tree / "slides" / "b.svs", tissue_picture(400, 500), mpp=None)
    rows = [{**row, "um": um} for row, um in zip(ROWS, ("0.5", "", "0,52"), strict=True)]
    assumed = {"mpp": 1.0, "mpp_column": "um", "assume_mpp": 0.8, "assume_reason": "as the manual says"}
    manifest, flow = ingest(labelled(tree, rows, assumed))
    assert manifest.groupby("study_id")["mpp_source"].first().tolist() == ["table", "config", "table"]
    assert [tile_place(path).side for path in manifest.groupby("study_id")["path"].first()] == [64, 80, 123]  # type: ignore[union-attr]
    assert any("as the manual says" in note for note in flow.notes)


def test_without_any_tile_the_first_reason_is_raised(tree: Path) -> None:
    with pytest.raises(InputError, match=r"no tile of 3 slides.*smaller than one tile"):
        ingest(config(tree, {"tile_px": 512}))


def test_a_folder_without_slides(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match="is a slide by its ending"):
        ingest(config(tmp_path))


# ---------------------------------------------------------------- labels


def test_tables_that_do_not_fit(tree: Path) -> None:
    manifest, flow = ingest(labelled(tree, [*ROWS[:2], {"image": "z.svs", "dx": "sick"}]))
    assert {exclusion.where: exclusion.kind for exclusion in flow.excluded} == {"site/c.svs": "not_in_label_table"}
    assert manifest["study_id"].unique().tolist() == ["a", "b"]
    _, flow = ingest(labelled(tree, [*ROWS[:2], {"image": "c", "dx": ""}]))
    assert {exclusion.where: exclusion.kind for exclusion in flow.excluded} == {"site/c.svs": "unlabelled"}
    for rows, values, words in [
        ([*ROWS, ROWS[0]], {}, "rows 2 and 5 name the same slide"),
        (ROWS, {"image_column": "file"}, "no column 'file'"),
        (ROWS, {"label_column": "diag"}, "no column 'diag'"),
        ([{**row, "um": "wide"} for row in ROWS], {"slides": {**SLIDES, "mpp_column": "um"}}, "'wide' in row 2"),
        (ROWS, {"slides": {**SLIDES, "mpp_column": "um"}}, "mpp_column is 'um'"),
    ]:
        with pytest.raises(InputError, match=words):
            ingest(labelled(tree, rows).model_copy(update=dict(labelled(tree, rows, values.pop("slides", None), **values))))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="label_table is not"):
        ingest(config(tree, label_column="dx"))


def test_outlines_label_tiles(tree: Path) -> None:
    """The left half of a is tumour, its right half stroma; b has no outlines."""
    halves = {"tumour": [[0, 0], [250, 0], [250, 400], [0, 400], [0, 0]], "stroma": [[250, 0], [500, 0], [500, 400], [250, 400], [250, 0]]}
    features = [
        {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"classification": {"name": name}}}
        for name, ring in halves.items()
    ]
    (tree / "drawn").mkdir()
    (tree / "drawn" / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (tree / "drawn" / "c.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features[:1]}))
    manifest, flow = ingest(config(tree, {"annotations": tree / "drawn", "min_annotation": 0.6}))
    left = manifest["x"] + 64 <= 250
    right = manifest["x"] >= 250
    in_a = manifest["study_id"] == "a"
    assert manifest.loc[in_a & left, "y_tumour"].tolist() == [1.0] * int((in_a & left).sum())
    assert manifest.loc[in_a & right, "y_tumour"].tolist() == [0.0] * int((in_a & right).sum())
    between = manifest[in_a & ~left & ~right]
    assert set(between["x"]) == {192}
    assert set(between["class_share"]) == {round(58 / 64, 4)}  # of 64 columns 58 lie in the left half
    assert set(between["y_tumour"]) == {1.0}
    assert (manifest.loc[manifest["study_id"] == "site/c", "y_tumour"] == 1).all()
    assert {exclusion.where: exclusion.kind for exclusion in flow.excluded} == {"b.svs": "not_annotated"}
    assert flow.tiles["unannotated"] > 0
    named, _ = ingest(config(tree, {"annotations": tree / "drawn", "outside": "other"}, classes=["other", "tumour"]))
    assert set(named.loc[named["study_id"] == "site/c", "y_tumour"]) == {0.0, 1.0}
    assert (named.loc[named["study_id"] == "a", "y_tumour"] == 1).all()  # stroma is not among the classes


# ---------------------------------------------------------------- names


def test_no_name_reaches_an_output(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(tmp_path / "key"))
    (tree / "slides" / "a.svs").rename(tree / "slides" / "Musterfrau_1.svs")
    (tree / "slides" / "Musterfrau_2.svs").write_bytes(b"broken")
    rows = [{**ROWS[0], "image": "Musterfrau_1.svs", "who": "Musterfrau", "site": "Musterfrau Klinik"}, *ROWS[1:]]
    known = labelled(tree, rows, {"pseudonyms": True}, patient_column="who", site_column="site")
    place = tmp_path / "out"
    place.mkdir()
    manifest, flow = ingest(known, folder=place)
    write_table(manifest, place / "manifest.parquet")
    manifest.to_csv(place / "manifest.csv")
    write_json(flow, place / "flow.json")
    assert manifest["patient_id"].str.startswith("patient-").all()
    assert {exclusion.kind for exclusion in flow.excluded} >= {"not_in_label_table"}
    for file in place.iterdir():
        content = file.read_bytes().lower()
        assert [word for word in ("musterfrau", "b4711x", "24/12/19", "site/c") if word.encode() in content] == [], file
    read = row_reader(known)
    assert all(read(path, 0).shape == (64, 64, 3) for path in manifest["path"])


def test_slides_of_one_name_keep_their_ending(tree: Path) -> None:
    write_slide(tree / "slides" / "a.tif", tissue_picture(400, 500))
    manifest, _ = ingest(config(tree))
    assert manifest["study_id"].unique().tolist() == ["a.svs", "a.tif", "b", "site/c"]


# ---------------------------------------------------------------- again after a kill


def test_a_killed_ingest_goes_on_where_it_was(tree: Path, tmp_path: Path) -> None:
    """Killed twice, once among the slides and once among the tiles; the result is that of one quiet run."""
    place, whole = tmp_path / "killed", tmp_path / "whole"
    place.mkdir()
    whole.mkdir()
    code = (
        "import sys, time; from pathlib import Path; import medcnn.data.slide_tiles as cut, medcnn.data.tiles as tiles\n"
        "from medcnn.config_data import DataConfig; from medcnn.data.ingest import ingest\n"
        "def slowly(function):\n"
        "    return lambda *some, **named: (time.sleep(0.05), function(*some, **named))[1]\n"
        "cut._cut = slowly(cut._cut); tiles.read_place = slowly(tiles.read_place)\n"
        "ingest(DataConfig.model_validate_json(sys.argv[1]), folder=Path(sys.argv[2]))"
    )
    settings = config(tree)
    for waits_for in ("cut_slides/0000001", "chunks/0000001"):
        process = subprocess.Popen([sys.executable, "-c", code, settings.model_dump_json(), str(place)], cwd=Path(__file__).parents[2])
        until = time.monotonic() + 60
        while not (place / waits_for).is_file() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    stamps = {file: file.stat().st_mtime_ns for file in (place / "chunks").iterdir() if file.name.isdigit()}
    assert stamps
    manifest, flow = ingest(settings, folder=place)
    quiet, quiet_flow = ingest(settings, folder=whole)
    pd.testing.assert_frame_equal(manifest, quiet)
    assert flow == quiet_flow
    assert (place / TILES).read_bytes() == (whole / TILES).read_bytes()


# ---------------------------------------------------------------- the real files


def test_the_real_files(shared_data: Path) -> None:
    manifest, flow = ingest(DataConfig(source="slides", path=shared_data / "wsi"))
    assert Counter(manifest["study_id"]) == {"CMU-1-Small-Region": 34, "slideio_test3_DAPI": 50, "slideio_test3_TRITC": 53}
    assert flow.counts() == {
        "implausible_resolution": 5, "no_tile_fits": 4, "unsupported_pixels": 3, "damaged": 2, "no_resolution": 2,
        "no_pixels": 1, "no_volume": 1, "not_an_image": 1,
    }  # fmt: skip
    assert flow.n_found == 22 == flow.n_files + len(flow.excluded)


def test_a_real_slide_without_resolution_comes_in_when_one_is_given(shared_data: Path) -> None:
    given = {"assume_mpp": 0.5, "assume_reason": "made up for this test"}
    name = "TCGA-CR-7395-01A-01-TS1.svs"
    cut = cut_slide(SlideJob(shared_data / "wsi" / name, name, DataConfig(source="slides", path=Path(), slides=given).slides))  # type: ignore[arg-type]
    assert (cut.n_grid, len(cut.tiles), cut.about["mpp_source"]) == (221, 153, "config")
