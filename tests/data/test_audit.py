"""Planted faults are found and counted, clean cohorts give nothing; and the known faults of the real data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import Exclusion, Finding, Flow, read_findings, write_json
from medcnn.config_data import AuditConfig
from medcnn.config_file import read_config
from medcnn.data.audit import audit, exclude, require_sound
from medcnn.data.ingest import ingest
from medcnn.data.quality import quality_of
from medcnn.errors import InputError
from medcnn.tables import SPLIT_COLUMNS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NOTHING = AuditConfig()


def cohort(n: int = 60, labels: int = 1) -> pd.DataFrame:
    """A clean cohort: every picture, patient and hash its own; classes in turn."""
    names = [f"image{row:03d}" for row in range(n)]
    frame = pd.DataFrame({"image_id": names, "patient_id": [f"patient{row:03d}" for row in range(n)], "path": names, "frame": 0})
    frame["sha256"] = [f"file{row}" for row in range(n)]
    frame["pixel_sha256"] = [f"pixels{row}" for row in range(n)]
    for label in range(labels):
        frame[f"y_{label}"] = (np.arange(n) % max(2, labels) == label).astype(float)
    return frame


def found(manifest: pd.DataFrame, config: AuditConfig = NOTHING, **more: object) -> dict[str, Finding]:
    findings = audit(manifest, config, **more)
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def same_pixels(manifest: pd.DataFrame, *rows: int) -> pd.DataFrame:
    manifest.loc[list(rows), "pixel_sha256"] = manifest.loc[rows[0], "pixel_sha256"]
    return manifest


def with_parts(manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest.assign(given_part=np.array(["train", "val", "test"])[np.arange(len(manifest)) * 3 // len(manifest)])


@pytest.mark.parametrize("labels", [1, 3])
def test_a_clean_cohort_has_no_findings(labels: int) -> None:
    assert found(with_parts(cohort(labels=labels))) == {}


# ---------------------------------------------------------------- copies


def test_copies_with_the_same_label_keep_the_first() -> None:
    finding = found(same_pixels(cohort(), 3, 9, 21))["duplicate"]
    assert finding.severity == "warning"
    assert finding.image_ids == ("image003", "image009", "image021")
    assert finding.exclude_ids == ("image009", "image021")
    assert "image003 = image009 = image021" in finding.text


def test_copies_with_different_labels_are_an_error_and_all_leave() -> None:
    finding = found(same_pixels(cohort(), 3, 8))["label_conflict"]
    assert finding.severity == "error"
    assert finding.exclude_ids == finding.image_ids == ("image003", "image008")


def test_a_missing_label_conflicts_with_nothing() -> None:
    manifest = same_pixels(same_pixels(cohort(), 3, 8), 4, 9)
    manifest.loc[[8, 9], "y_0"] = np.nan  # beside a 0 and beside a 1
    assert set(found(manifest)) == {"duplicate", "missing_labels"}


def test_frames_of_one_file_are_no_copies_of_each_other() -> None:
    manifest = cohort().drop(columns="pixel_sha256")
    manifest["sha256"], manifest["frame"] = "one file", range(len(manifest))
    assert found(manifest) == {}
    manifest["frame"] = 0
    assert found(manifest)["label_conflict"].text.startswith("1 picture ")


# ---------------------------------------------------------------- parts


def test_a_copy_across_parts_stays_in_test_else_in_train() -> None:
    manifest = with_parts(cohort())  # train 0-19, val 20-39, test 40-59
    same_pixels(manifest, 1, 21, 41)
    same_pixels(manifest, 2, 22)
    finding = found(manifest)["duplicate_across_parts"]
    assert finding.severity == "error"
    assert finding.exclude_ids == ("image001", "image021", "image022")
    assert "test/train/val, train/val" in finding.text
    assert "duplicate" not in found(manifest)


def test_a_patient_in_two_parts_is_an_error() -> None:
    manifest = with_parts(cohort())
    manifest.loc[[1, 21, 41], "patient_id"] = "torn"
    finding = found(manifest)["patient_across_parts"]
    assert finding.severity == "error"
    assert finding.exclude_ids == ("image001", "image021")
    assert "1 of 58 patients" in finding.text


def test_images_without_a_part_are_in_none() -> None:
    manifest = same_pixels(with_parts(cohort()), 1, 41)
    manifest.loc[1, "given_part"] = None
    assert "duplicate_across_parts" not in found(manifest)


def test_a_split_that_was_dealt_is_judged_instead_of_the_given_parts() -> None:
    manifest = same_pixels(cohort(), 1, 41)
    split = pd.concat(
        [manifest[["image_id", "patient_id"]].assign(part=np.where(manifest.index < 30, "train", "test"), fold=fold) for fold in (0, 1)]
    )
    split.loc[(split["image_id"] == "image001") & (split["fold"] == 0), "part"] = "test"
    assert list(split.columns) == list(SPLIT_COLUMNS)
    assert "duplicate_across_parts" in found(manifest, split=split)
    assert "duplicate_across_parts" not in found(manifest, split=split[split["fold"] == 0])


# ---------------------------------------------------------------- labels


def test_class_sizes_count_patients_and_not_images() -> None:
    manifest = cohort()
    positive = manifest["y_0"] == 1
    manifest.loc[positive, "patient_id"] = [f"few{number % 9}" for number in range(positive.sum())]
    finding = found(manifest)["small_class"]
    assert finding.severity == "warning"
    assert "Only 9 patients have 0 = 1; expected at least 10" in finding.text
    assert found(manifest, AuditConfig(min_class_patients=9)) == {}
    manifest.loc[positive, "patient_id"] = "single"
    assert found(manifest)["small_class"].severity == "error"


def test_a_class_that_does_not_occur_is_an_error() -> None:
    assert found(cohort().assign(y_0=1.0))["one_class"].text == "No image has 0 = 0."
    empty = cohort(labels=3)
    empty["y_1"] += empty["y_2"]
    empty["y_2"] = 0.0
    assert found(empty)["one_class"].text == "No image has 2."


def test_classes_are_counted_without_what_leaves() -> None:
    manifest = cohort()
    positive = np.flatnonzero(manifest["y_0"] == 1)
    same_pixels(manifest, *positive)  # all positives are one picture
    assert "small_class" not in found(manifest)
    assert found(manifest, AuditConfig(exclude={"duplicate": "copies"}))["small_class"].severity == "error"


def test_missing_labels_and_no_labels_at_all() -> None:
    manifest = cohort(labels=3)
    manifest.loc[[0, 1], "y_0"] = np.nan
    manifest.loc[1, "y_2"] = np.nan
    finding = found(manifest)["missing_labels"]
    assert finding.text == "Labels are missing in 2 of 60 images: 0 2, 2 1."
    assert list(found(cohort().assign(y_0=np.nan))) == ["unlabelled"]


@pytest.mark.parametrize("labels", [1, 3])
def test_a_patient_in_two_classes_is_said_and_no_error(labels: int) -> None:
    manifest = cohort(labels=labels)
    manifest.loc[[0, 1, 2], "patient_id"] = "twice"
    finding = found(manifest)["patient_in_two_classes"]
    assert (finding.severity, finding.image_ids) == ("info", ("image000", "image001", "image002"))
    assert finding.text.startswith("1 of 58 patients")


def test_what_did_not_come_in_is_told_by_kind() -> None:
    excluded = (Exclusion(where="a", kind="truncated", reason="r"), Exclusion(where="b", kind="empty_file", reason="r"))
    other = Exclusion(where="c", kind="class_not_kept", reason="r")
    flow = Flow(source="s", n_found=63, n_files=60, n_images=60, n_patients=60, excluded=(*excluded, other))
    findings = found(cohort(), flow=flow)
    assert findings["unreadable"].text == "2 of 63 files (or frames) cannot be read as an image: 1 truncated, 1 empty_file; first a."
    assert findings["left_out"].text.startswith("1 of 63")
    assert {finding.severity for finding in findings.values()} == {"info"}


# ---------------------------------------------------------------- what the config says


def test_errors_stop_unless_accepted_or_excluded(tmp_path: Path) -> None:
    manifest = same_pixels(cohort(), 3, 8)
    findings = audit(manifest, NOTHING)
    with pytest.raises(InputError, match=r"the audit found 1 error: \(1\) label_conflict"):
        require_sound(findings, NOTHING)
    require_sound(findings, AuditConfig(accept={"label_conflict": "two readers"}))
    require_sound(findings, AuditConfig(exclude={"label_conflict": "cannot be known"}))
    write_json(findings, tmp_path / "findings.json")
    assert read_findings(tmp_path / "findings.json") == findings


def test_what_is_excluded_leaves_with_its_reason() -> None:
    manifest = same_pixels(same_pixels(cohort(), 3, 8), 5, 11)
    config = AuditConfig(exclude={"label_conflict": "unknown which is right", "duplicate": "copies"})
    kept, exclusions = exclude(manifest, audit(manifest, config), config)
    assert len(kept) == 57
    assert {item.where: (item.kind, item.reason) for item in exclusions} == {
        "image003": ("label_conflict", "unknown which is right"),
        "image008": ("label_conflict", "unknown which is right"),
        "image011": ("duplicate", "copies"),
    }
    assert found(kept, config) == {}
    assert exclude(manifest, audit(manifest, NOTHING), NOTHING)[1] == []


def test_an_error_that_no_exclusion_can_mend_still_stops() -> None:
    with pytest.raises(InputError, match="no kind of finding that can be excluded"):
        audit(cohort(), AuditConfig(exclude={"small_class": "never mind"}))


@pytest.mark.parametrize(
    ("section", "entries", "message"),
    [
        ("accept", {"label_conflicts": "x"}, "did you mean label_conflict"),
        ("exclude", {"duplicates": "x"}, "did you mean duplicate"),
        ("accept", {"one_class": " "}, "the reason is blank"),
    ],
)
def test_a_config_with_an_unknown_kind_or_no_reason_is_refused(section: str, entries: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        audit(cohort(), AuditConfig.model_validate({section: entries}))


def test_nothing_left_is_refused() -> None:
    manifest = same_pixels(cohort(2), 0, 1)
    config = AuditConfig(exclude={"label_conflict": "x"})
    with pytest.raises(InputError, match="would leave no image of 2"):
        exclude(manifest, audit(manifest, config), config)


# ---------------------------------------------------------------- the real data, whose faults are known


@pytest.mark.usefixtures("shared_data")
def test_covid_cxr_has_21_patients_in_two_classes() -> None:
    config = read_config(CONFIGS / "covid_cxr.yaml")
    manifest, flow = ingest(config.data)
    assert (flow.n_images, flow.n_patients) == (1124, 764)
    findings = found(manifest, config.audit)
    assert findings["patient_in_two_classes"].text.startswith("21 of 764")
    require_sound(list(findings.values()), config.audit)


# ---------------------------------------------------------------- what cannot be, bad images, classes by part


def test_covariates_are_looked_at_when_the_day_is_known() -> None:
    manifest = cohort().assign(age=[412.0] + [40.0] * 59)
    assert found(manifest) == {}
    assert found(manifest, today=20_000.0)["impossible_age"].image_ids == ("image000",)


def test_blank_images_stop_the_run_until_they_are_excluded() -> None:
    manifest = cohort(6).assign(height=64, width=64)
    traits = pd.DataFrame([{"image_id": name, **quality_of(np.full((64, 64), 9, np.uint8))} for name in manifest["image_id"]])
    textured = quality_of(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    traits.loc[1:, list(textured)] = pd.DataFrame([textured] * 5, index=traits.index[1:])
    traits["likeness"] = None  # no picture is a copy
    findings = audit(manifest, AuditConfig(min_class_patients=1), traits=traits)
    with pytest.raises(InputError, match="blank_image: 1 of 6 images is blank"):
        require_sound(findings, NOTHING)
    config = AuditConfig(exclude={"blank_image": "the shutter stayed closed"}, min_class_patients=1)
    require_sound(audit(manifest, config, traits=traits), config)
    kept, exclusions = exclude(manifest, findings, config)
    assert [item.where for item in exclusions] == ["image000"]
    assert len(kept) == 5


def test_a_class_in_one_part_only_is_an_error() -> None:
    manifest = with_parts(cohort(labels=3))
    manifest.loc[manifest["given_part"] != "train", ["y_0", "y_1", "y_2"]] = [0.0, 1.0, 0.0]
    finding = audit(manifest, NOTHING)[0]
    assert (finding.severity, finding.kind) == ("error", "class_lacks_in_part")
    assert "0 is in train, not in test and val; 2 is in train, not in test and val" in finding.text
    require_sound([finding], AuditConfig(accept={"class_lacks_in_part": "the test part asks for one class only"}))


def test_a_class_that_lacks_in_one_of_three_parts_is_a_warning() -> None:
    manifest = with_parts(cohort())
    manifest.loc[manifest["given_part"] == "val", "y_0"] = 1.0
    finding = found(manifest)["class_lacks_in_part"]
    assert finding.severity == "warning"
    assert "0 = 0 is in test and train, not in val" in finding.text


def test_missing_labels_are_no_class() -> None:
    manifest = with_parts(cohort())
    manifest.loc[manifest["given_part"] == "val", "y_0"] = np.nan
    assert found(manifest)["class_lacks_in_part"].text.count("not in val") == 2
