"""Each source to a manifest, and each thing that can be wrong with a source."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medcnn.cohort import Flow, read_flow, write_json
from medcnn.config_data import DataConfig
from medcnn.data import pixel_record
from medcnn.data.digests import pixel_digest
from medcnn.data.images import decode_row
from medcnn.data.ingest import image_root, ingest, row_reader
from medcnn.data.inspection import look
from medcnn.errors import InputError, MissingExtra
from medcnn.tables import MANIFEST_COLUMNS, read_table, write_table

RNG = np.random.default_rng(0)


def picture(seed: int = 0, size: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


def class_folders(root: Path, names: tuple[str, ...] = ("normal", "sick"), n: int = 3) -> Path:
    for number, name in enumerate(names):
        for image in range(n):
            put(root / name / f"p{image}_{name}.png", 10 * number + image)
    return root


def config(source: str, **values: object) -> DataConfig:
    return DataConfig.model_validate({"source": source, **values})


def kinds(flow: Flow) -> dict[str, str]:
    return {exclusion.where: exclusion.kind for exclusion in flow.excluded}


def table_of(tmp_path: Path, rows: list[dict[str, object]], name: str = "table.csv") -> DataConfig:
    for row in rows:
        if row.get("image") and not (tmp_path / str(row["image"])).exists() and not row.pop("absent", False):
            put(tmp_path / str(row["image"]), len(list(tmp_path.iterdir())))
    write_table(pd.DataFrame(rows), tmp_path / name)
    return config("table", path=tmp_path / name, label_column="label", patient_column="patient")


# ---------------------------------------------------------------- what every manifest has


def test_a_manifest_has_the_columns_and_the_facts_of_each_image(tmp_path: Path) -> None:
    manifest, flow = ingest(config("folder", path=class_folders(tmp_path)))
    assert set(MANIFEST_COLUMNS) <= set(manifest)
    assert manifest["image_id"].is_monotonic_increasing
    row = manifest.iloc[0]
    assert row[["height", "width", "bit_depth", "channels", "frame"]].tolist() == [24, 24, 8, 1, 0]
    assert row["sha256"] == hashlib.sha256((tmp_path / row["path"]).read_bytes()).hexdigest()
    assert row["pixel_sha256"] == pixel_digest(picture(0))
    assert (flow.n_found, flow.n_files, flow.n_images, flow.n_patients, flow.excluded) == (6, 6, 6, 6, ())


def test_every_row_can_be_decoded_from_the_manifest_and_the_root(tmp_path: Path) -> None:
    source = config("folder", path=class_folders(tmp_path / "a"))
    write_table(ingest(source)[0], tmp_path / "manifest.parquet")
    manifest = read_table(tmp_path / "manifest.parquet")
    (tmp_path / "a").rename(tmp_path / "b")  # the manifest is portable: it knows no absolute path
    moved = config("folder", path=tmp_path / "b")
    read = row_reader(moved)
    for row in manifest.itertuples():
        pixels = decode_row(row.path, row.frame, root=image_root(moved))
        assert pixel_digest(pixels) == row.pixel_sha256
        np.testing.assert_array_equal(read(Path(row.path), row.frame), pixels)


def test_the_manifest_does_not_depend_on_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, n=20)
    manifests = []
    for n in (1, 4):
        monkeypatch.setattr("medcnn.data.ingest.n_cores", lambda n=n: n)
        monkeypatch.setattr("medcnn.data.chunks.SMALLEST", 7)
        monkeypatch.setattr("medcnn.data.chunks.AT_LEAST", 1)
        monkeypatch.setattr("medcnn.data.ingest.CHUNK", 7)
        manifests.append(ingest(config("folder", path=tmp_path))[0])
    pd.testing.assert_frame_equal(*manifests)


class Killed(BaseException):
    """Not an Exception, like the end of a process."""


def test_a_killed_ingest_goes_on_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = config("folder", path=class_folders(tmp_path / "in", n=20))
    (tmp_path / "in" / "normal" / "p3_normal.png").write_bytes(b"")
    (tmp_path / "whole").mkdir()
    expected = ingest(source, folder=tmp_path / "whole")
    monkeypatch.setattr("medcnn.data.ingest.CHUNK", 7)
    monkeypatch.setattr("medcnn.data.ingest.n_cores", lambda: 1)
    looked = []

    def watched(job, reading):
        if len(looked) == 17:
            raise Killed
        looked.append(job.path)
        return look(job, reading)

    monkeypatch.setattr("medcnn.data.inspection.look", watched)
    with pytest.raises(Killed):
        ingest(source, folder=tmp_path)
    looked[:] = [""] * 100
    found = ingest(source, folder=tmp_path)
    assert len(looked) - 100 == 40 - 14  # two chunks of 7 were finished
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert found[1] == expected[1]
    for name in ("traits.parquet", "pixels.parquet"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name), read_table(tmp_path / "whole" / name))
    assert not (tmp_path / "chunks").exists()


def test_chunks_of_another_cohort_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = config("folder", path=class_folders(tmp_path / "in"))
    monkeypatch.setattr("medcnn.data.ingest.forget", lambda chunks: None)
    first, _ = ingest(source, folder=tmp_path)
    (tmp_path / "in" / "sick" / "p1_sick.png").rename(tmp_path / "in" / "sick" / "p7_sick.png")
    second, _ = ingest(source, folder=tmp_path)
    assert set(second["path"]) ^ set(first["path"]) == {"sick/p1_sick.png", "sick/p7_sick.png"}


@pytest.mark.slow
def test_processes_give_what_threads_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = config("folder", path=class_folders(tmp_path / "in", n=20))
    for pool in ("threads", "processes"):
        (tmp_path / pool).mkdir()
        monkeypatch.setattr("medcnn.data.ingest.pool_for", lambda executor, workers, pool=pool: pool)
        manifest, _ = ingest(source, folder=tmp_path / pool)
        write_table(manifest, tmp_path / pool / "manifest.parquet")
    for name in ("manifest.parquet", "traits.parquet", "pixels.parquet"):
        assert (tmp_path / "threads" / name).read_bytes() == (tmp_path / "processes" / name).read_bytes()


def test_columns_that_differ_between_chunks_become_one_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "in", n=20)

    def measure(pixels: np.ndarray, bit_depth: int) -> dict[str, object]:
        dark = pixels[0, 0] < 20  # in few chunks
        return {"seldom": float(pixels.mean()) if dark else None, "whole": 3 if dark else 2.5, "word": "dark" if dark else None}

    monkeypatch.setattr("medcnn.data.traits.MEASURES", (measure,))
    monkeypatch.setattr("medcnn.data.ingest.CHUNK", 2)
    manifest, _ = ingest(config("folder", path=tmp_path / "in"), folder=tmp_path)
    traits = read_table(tmp_path / "traits.parquet")
    corners = np.array([decode_row(path, root=tmp_path / "in")[0, 0] for path in manifest["path"]])
    assert traits["seldom"].notna().tolist() == traits["word"].notna().tolist() == (corners < 20).tolist()
    assert traits["whole"].tolist() == np.where(corners < 20, 3.0, 2.5).tolist()
    assert 0 < (corners < 20).sum() < 20


def test_what_was_measured_and_what_was_done_lies_beside_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "in")
    (tmp_path / "in" / "sick" / "a_bad_one.png").touch()
    rgb = np.dstack([picture(3), picture(4), picture(5)])
    Image.fromarray(rgb).save(tmp_path / "in" / "sick" / "z.jpg")
    monkeypatch.setattr("medcnn.data.traits.MEASURES", (lambda pixels, bit_depth: {"mean": float(pixels.mean()), "bits": bit_depth},))
    manifest, _ = ingest(config("folder", path=tmp_path / "in"), folder=tmp_path)
    traits, pixels = (read_table(tmp_path / f"{name}.parquet") for name in ("traits", "pixels"))
    assert traits["image_id"].tolist() == pixels["image_id"].tolist() == manifest["image_id"].tolist()
    assert traits["mean"].tolist() == [decode_row(path, root=tmp_path / "in").mean() for path in manifest["path"]]
    assert traits["bits"].tolist() == [8] * 7
    assert pixels.columns.tolist() == ["image_id", *pixel_record.COLUMNS]
    assert pixels["format"].tolist() == ["PNG"] * 6 + ["JPEG"]
    assert pixels["bits_stored"].tolist() == [8] * 7


def test_progress_sees_every_file(tmp_path: Path) -> None:
    seen = []

    def progress(items, title, total=None):
        for item in items:
            seen.append(total)
            yield item

    ingest(config("folder", path=class_folders(tmp_path)), progress=progress)
    assert seen == [6] * 6


# ---------------------------------------------------------------- folders


def test_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path, ("a", "b", "c"))
    put(tmp_path / "a" / "deeper" / "x.png", 99)
    manifest, _ = ingest(config("folder", path=tmp_path))
    assert manifest.loc[manifest["path"] == "a/deeper/x.png", ["y_a", "y_b", "y_c"]].to_numpy().tolist() == [[1, 0, 0]]
    assert manifest[["y_a", "y_b", "y_c"]].sum().tolist() == [4, 3, 3]


def test_part_folders_are_a_given_split(tmp_path: Path) -> None:
    for part in ("Train", "validation", "test"):
        class_folders(tmp_path / part)
    manifest, _ = ingest(config("folder", path=tmp_path))
    assert manifest.groupby("given_part")["y_sick"].agg(["size", "sum"]).to_dict("index") == {
        part: {"size": 6, "sum": 3.0} for part in ("train", "val", "test")
    }


def test_patients_are_found_in_the_path(tmp_path: Path) -> None:
    class_folders(tmp_path)
    put(tmp_path / "sick" / "unnamed.png", 50)
    manifest, flow = ingest(config("folder", path=tmp_path, patient_pattern=r"/(?P<patient>p\d+)_"))
    assert sorted(manifest["patient_id"].unique()) == ["p0", "p1", "p2"]
    assert kinds(flow) == {"sick/unnamed.png": "no_patient"}


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("p", "no group"), ("(?P<patient>q+)", "fits no path")])
def test_a_pattern_that_does_not_fit_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ingest(config("folder", path=class_folders(tmp_path), patient_pattern=pattern))


def test_one_bad_file_stops_nothing_and_each_is_counted(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "sick" / "empty.png").touch()
    (tmp_path / "sick" / "notes.txt").write_text("notes")
    (tmp_path / "sick" / "cut.png").write_bytes((tmp_path / "sick" / "p0_sick.png").read_bytes()[:300])
    (tmp_path / "sick" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "sick" / "loop").symlink_to(tmp_path / "sick", target_is_directory=True)
    (tmp_path / "normal" / ".DS_Store").write_text("x")
    os.mkfifo(tmp_path / "normal" / "pipe")
    (tmp_path / "readme.txt").write_text("x")
    manifest, flow = ingest(config("folder", path=tmp_path))
    assert len(manifest) == 6
    assert kinds(flow) == {
        "sick/empty.png": "empty_file",
        "sick/notes.txt": "not_an_image",
        "sick/cut.png": "truncated",
        "sick/gone.png": "missing_file",
        "sick/loop": "link_loop",
        "normal/.DS_Store": "hidden",
        "normal/pipe": "not_a_file",
        "readme.txt": "outside_class_folders",
    }
    assert flow.n_found == flow.n_files + len(flow.excluded)


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    class_folders(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    for name in ("normal", "sick"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere" / name, target_is_directory=True)
    assert len(ingest(config("folder", path=tmp_path / "root"))[0]) == 6


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "flat" / "a.png")
    class_folders(tmp_path / "one", ("sick",))
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "b").mkdir()
    for name in ("a", "b"):
        (tmp_path / "bad" / name / "x.png").touch()
    for path, message in [
        ("nowhere", "no such folder"),
        ("empty", "no files"),
        ("flat", "no class folders"),
        ("one", "only one class"),
        ("bad", r"none of 2 files came in \(2 empty_file\)"),
        ("flat/a.png", "is a file, not a folder"),
    ]:
        with pytest.raises(InputError, match=message):
            ingest(config("folder", path=tmp_path / path))


# ---------------------------------------------------------------- tables


def test_a_table_with_its_own_column_names(tmp_path: Path) -> None:
    put(tmp_path / "png" / "a.png", 1)
    put(tmp_path / "png" / "b.png", 2)
    rows = [
        {"File": "a.png", "Dx": "ill", "Who": "007", "When": "s1", "Where": "A", "Set": "Training", "Fold": 0, "Age": 61, "Sex": "F"},
        {"File": "b.png", "Dx": "well", "Who": "", "When": "s2", "Where": "B", "Set": "valid", "Fold": 1, "Age": "", "Sex": "M"},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    source = config(
        "table", path=tmp_path / "t.csv", image_root=tmp_path / "png", image_column="File", label_column="Dx", patient_column="Who",
        study_column="When", site_column="Where", part_column="Set", fold_column="Fold", covariates=["Age", "Sex"], positive="ill",
    )  # fmt: skip
    manifest, flow = ingest(source)
    columns = ["image_id", "patient_id", "study_id", "site", "given_part", "given_fold", "Age", "Sex", "y_ill"]
    first, second = manifest[columns].to_numpy().tolist()
    assert first == ["a.png", "007", "s1", "A", "train", 0, 61.0, "F", 1.0]
    assert second[:6] + second[7:] == ["b.png", "b.png", "s2", "B", "val", 1, "M", 0.0]
    assert np.isnan(second[6])
    assert any("blank Who" in note for note in flow.notes)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet"])
def test_csv_tsv_and_parquet_give_the_same(tmp_path: Path, name: str) -> None:
    for image in ("a.png", "b.png"):
        put(tmp_path / image, ord(image[0]))
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "x": [1.0, np.nan], "z": [0, 1], "who": [12, 13]})
    frame.to_parquet(tmp_path / name) if name == "t.parquet" else frame.to_csv(
        tmp_path / name, index=False, sep="\t" if name == "t.tsv" else ","
    )
    manifest, _ = ingest(config("table", path=tmp_path / name, label_columns=["x", "z"], patient_column="who"))
    assert manifest["patient_id"].tolist() == ["12", "13"]
    np.testing.assert_array_equal(manifest[["y_x", "y_z"]], [[1, 0], [np.nan, 1]])


def test_a_semicolon_separated_table_with_a_byte_order_mark(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    put(tmp_path / "b.png", 2)
    (tmp_path / "t.csv").write_text("image;label\na.png;x\nb.png;y\n", encoding="utf-8-sig")
    assert len(ingest(config("table", path=tmp_path / "t.csv", label_column="label"))[0]) == 2


def test_rows_that_do_not_come_in(tmp_path: Path) -> None:
    put(tmp_path.parent / "secret.png", 5)
    rows: list[dict[str, object]] = [
        {"image": "a.png", "label": "x", "patient": "1"},
        {"image": "a.png", "label": "x", "patient": "1"},
        {"image": "b.png", "label": "y", "patient": "2"},
        {"image": "gone.png", "label": "y", "patient": "3", "absent": True},
        {"image": "../secret.png", "label": "y", "patient": "4"},
        {"image": "", "label": "y", "patient": "5"},
        {"image": "c.png", "label": "", "patient": "6"},
        {"image": str(tmp_path / "d.png"), "label": "y", "patient": "7"},
    ]
    put(tmp_path / "d.png", 77)
    manifest, flow = ingest(table_of(tmp_path, rows))
    assert manifest["image_id"].tolist() == ["a.png", "b.png", "d.png"]
    assert kinds(flow) == {
        "row 3: a.png": "repeated_row",
        "gone.png": "missing_file",
        "row 6: ../secret.png": "outside_root",
        "row 7: ": "no_path",
        "row 8: c.png": "unlabelled",
    }
    assert flow.n_found == 8


def test_rows_that_contradict_each_other_all_come_in_for_the_audit_to_judge(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", "label": label, "patient": "1"} for label in ("x", "y")]
    manifest, _ = ingest(table_of(tmp_path, rows))
    assert manifest["image_id"].tolist() == ["a.png", "a.png (row 3)"]
    assert manifest["pixel_sha256"].nunique() == 1


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("image,label\n", {}, "has no rows"),
        ("", {}, "is empty"),
        ("image,label,label\na,x,y\n", {}, "two columns are called 'label'"),
        ("image,lable\na,x\n", {}, "no column 'label'; did you mean lable"),
        ("img,label\na,x\n", {}, "no column 'image'; did you mean img"),
        ("image,label\na,x\nb,x\n", {}, "only one class"),
        ("image,label,part\na,x,train\nb,y,holdout\n", {"part_column": "part"}, "part is 'holdout' in row 3"),
        ("image,label,fold\na,x,0\nb,y,\n", {"fold_column": "fold"}, "fold is '' in row 3"),
        ("image,label,fold\na,x,0\nb,y,-1\n", {"fold_column": "fold"}, "fold is '-1' in row 3"),
        ("image,label,height\na,x,0\nb,y,1\n", {"covariates": ["height"]}, "keeps for itself"),
        ("image,label\na,x\nb,y,z,1\n", {}, "cannot be read as a table"),
        ("image,label\na,x\nb,y\n", {"image_root": "nowhere"}, "no such folder"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: str, settings: dict[str, object], message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        ingest(config("table", path=tmp_path / "t.csv", label_column="label", **settings))


def test_tables_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("image,label\nMüller.png,x\n".encode("latin-1"))
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    (tmp_path / "t.xlsx").write_bytes(b"nonsense")
    for name, message in [
        ("latin.csv", r"is not UTF-8 text \(byte 13, in line 2, is 0xfc\)"),
        ("bad.parquet", "cannot be read as a table"),
        ("t.xlsx", "cannot tell what table"),
        ("gone.csv", "no such file"),
    ]:
        with pytest.raises(InputError, match=message):
            ingest(config("table", path=tmp_path / name, label_column="label"))


# ---------------------------------------------------------------- npz


def npz(path: Path, labels: np.ndarray, **more: np.ndarray) -> Path:
    images = np.stack([picture(row, 12) for row in range(len(labels))])
    np.savez_compressed(path, train_images=images[:-4], train_labels=labels[:-4], test_images=images[-4:], test_labels=labels[-4:], **more)
    return path


def test_an_npz_file_with_parts(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", np.arange(10)[:, None] % 2)
    manifest, flow = ingest(config("npz", path=path, classes=["well", "ill"]))
    assert manifest["image_id"].tolist() == [f"test/{row:06d}" for row in range(4)] + [f"train/{row:06d}" for row in range(6)]
    assert manifest["y_ill"].tolist() == [0, 1] * 5
    assert manifest["given_part"].tolist() == ["test"] * 4 + ["train"] * 6
    assert manifest["path"].iloc[0] == "set.npz#test_images"
    assert (flow.n_found, flow.n_images) == (10, 10)
    for row in manifest.itertuples():
        assert pixel_digest(decode_row(row.path, row.frame, root=image_root(config("npz", path=path)))) == row.sha256


def test_multiclass_and_multilabel_npz(tmp_path: Path) -> None:
    manifest, _ = ingest(config("npz", path=npz(tmp_path / "a.npz", np.arange(10) % 3)))
    assert manifest[["y_0", "y_1", "y_2"]].sum().tolist() == [4, 3, 3]
    findings = RNG.integers(0, 2, (10, 3))
    manifest, _ = ingest(config("npz", path=npz(tmp_path / "b.npz", findings), label_columns=["a", "b", "c"]))
    np.testing.assert_array_equal(manifest[["y_a", "y_b", "y_c"]], np.concatenate([findings[-4:], findings[:-4]]))


def test_an_npz_file_without_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.stack([picture(row) for row in range(4)]), labels=np.array([0, 1, 0, 1]))
    manifest, _ = ingest(config("npz", path=tmp_path / "a.npz"))
    assert "given_part" not in manifest
    assert manifest["image_id"].iloc[0] == "all/000000"


def test_a_set_is_looked_for_in_medmnist_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("medmnist")
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path))
    npz(tmp_path / "pneumoniamnist.npz", np.arange(10) % 2)
    manifest, flow = ingest(config("npz", dataset="pneumoniamnist", path=tmp_path / "absent.npz"))
    assert "y_pneumonia" in manifest  # named by the medmnist package
    assert f"Read from {tmp_path / 'pneumoniamnist.npz'}" in flow.notes


def test_an_unknown_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path))
    with pytest.raises((InputError, MissingExtra), match="MedMNIST has no such set|needs the package"):
        ingest(config("npz", dataset="nosuchmnist"))


def test_npz_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("x")
    whole = npz(tmp_path / "whole.npz", np.arange(10) % 2).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    images = np.stack([picture(row) for row in range(4)])
    np.savez(tmp_path / "names.npz", a=images)
    np.savez(tmp_path / "length.npz", images=images, labels=np.array([0, 1]))
    np.savez(tmp_path / "volume.npz", images=np.zeros((4, 5, 5, 5), np.uint8), labels=np.array([0, 1, 0, 1]))
    np.savez(tmp_path / "float.npz", images=images / 255, labels=np.array([0, 1, 0, 1]))
    np.savez(tmp_path / "label.npz", images=images, labels=np.array([0, 1, 0.5, 1]))
    np.savez(tmp_path / "pickle.npz", images=images, labels=np.array([{}, {}, {}, {}], dtype=object))
    for name, message in [
        ("gone", "no such file"),
        ("text", "cannot be read as an NPZ"),
        ("cut", "cannot be read as an NPZ"),
        ("names", "expected arrays train_images"),
        ("length", "4 images but 2 labels"),
        ("volume", "expected uint8 or uint16"),
        ("float", "expected uint8 or uint16"),
        ("label", "0.5.* in row 2"),
        ("pickle", "cannot be read as an NPZ"),
    ]:
        with pytest.raises(InputError, match=message):
            ingest(config("npz", path=tmp_path / f"{name}.npz"))
    with pytest.raises(InputError, match="3 names .* for 2 labels"):
        ingest(config("npz", path=tmp_path / "whole.npz", classes=["a", "b", "c"]))


# ---------------------------------------------------------------- phantom, flow, digests


def test_a_phantom_cohort(tmp_path: Path) -> None:
    manifest, flow = ingest(config("phantom", n_images=30, phantom_labels="multilabel"), seed=5)
    assert manifest["path"].unique().tolist() == ["phantom:multilabel:seed=5:size=96"]
    assert flow.n_images == len(manifest)
    assert {"site", "sex", "age_years", "study_id"} <= set(manifest)
    write_json(flow, tmp_path / "flow.json")
    assert read_flow(tmp_path / "flow.json") == flow


def test_a_grey_copy_in_colour_has_the_same_digest_and_a_changed_pixel_has_not() -> None:
    grey = picture(1)
    assert pixel_digest(np.dstack([grey] * 3)) == pixel_digest(grey)
    changed = grey.copy()
    changed[3, 3] ^= 1
    assert pixel_digest(changed) != pixel_digest(grey)
    assert pixel_digest(grey.reshape(12, 48)) != pixel_digest(grey)
