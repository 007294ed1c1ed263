"""Copies under two labels, patients and parts: found whether their pixels are equal or the picture was changed; and those of the real data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.cohort import Finding, read_findings, write_json
from medcnn.config_file import read_config
from medcnn.data.copies import copy_findings, join_copies
from medcnn.data.ingest import ingest
from medcnn.data.split_units import gather_cohort
from medcnn.errors import InputError
from medcnn.tables import read_table
from tests.data.pictures import CHANGES, likeness, picture

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
N = 60
LIKENESSES = [likeness(picture(number)) for number in range(N)]


def cohort() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A clean cohort, two images a patient, and its traits."""
    names = [f"image{row:03d}" for row in range(N)]
    manifest = pd.DataFrame({"image_id": names, "patient_id": [f"p{row // 2:02d}" for row in range(N)], "frame": 0, "sha256": names})
    manifest = manifest.assign(pixel_sha256=[f"pixels{row}" for row in range(N)], y_sick=(np.arange(N) // 2 % 2).astype(float))
    return manifest, pd.DataFrame({"image_id": names, "likeness": LIKENESSES})


def planted(change: str, *pairs: tuple[int, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cohort in which the second of each pair shows the first, changed."""
    manifest, traits = cohort()
    for first, second in pairs:
        traits.at[second, "likeness"] = likeness(CHANGES[change](picture(first)))
    return manifest, traits


def films(seed: int) -> bytes | None:
    """Picture 0 with details of its own: what two films of one patient in one pose are to each other."""
    pixels = picture(0).astype(float) + 0.1 * (picture(1000 + seed).astype(float) - 128)
    return likeness(np.clip(pixels, 0, 255).astype(np.uint8))


def found(manifest: pd.DataFrame, traits: pd.DataFrame | None, split: pd.DataFrame | None = None) -> dict[str, Finding]:
    findings = copy_findings(manifest, split, traits)
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def with_parts(manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest.assign(given_part=np.array(["train", "val", "test"])[np.arange(N) * 3 // N])


def test_a_clean_cohort_has_no_findings() -> None:
    manifest, traits = cohort()
    assert found(with_parts(manifest), traits) == {}


@pytest.mark.parametrize("change", ["left-right", "crop", "JPEG", "all"])
def test_a_changed_copy_under_another_patient(change: str) -> None:
    findings = found(*planted(change, (4, 12)))
    assert set(findings) == {"near_duplicate", "patient_under_two_ids"}
    near, ids = findings["near_duplicate"], findings["patient_under_two_ids"]
    assert near.groups == ids.groups == (("image004", "image012"),)
    assert near.exclude_ids == ("image012",)
    assert "1 of the pictures under more than one patient" in near.text
    assert "p02 and p06" in ids.text
    assert {near.severity, ids.severity} == {"warning"}


def test_a_changed_copy_with_another_label_is_an_error_and_both_leave() -> None:
    finding = found(*planted("left-right", (4, 6)))["label_conflict"]
    assert finding.severity == "error"
    assert finding.exclude_ids == ("image004", "image006")
    assert "0 of the pictures with identical pixels, 1 changed" in finding.text


def test_what_conflicts_is_not_told_twice() -> None:
    assert set(found(*planted("left-right", (4, 6)))) == {"label_conflict", "patient_under_two_ids"}


def test_a_copy_that_is_not_beyond_doubt_warns_and_does_not_stop() -> None:
    manifest, traits = cohort()
    manifest["y_sick"] = (np.arange(N) % 2).astype(float)
    traits.loc[[0, 9], "likeness"] = pd.Series([films(1), films(2)], index=[0, 9])  # two patients, two labels, two parts, score 2.5
    findings = found(with_parts(manifest), traits)
    assert set(findings) == {"near_duplicate", "patient_under_two_ids"}
    assert "1 with different labels" in findings["near_duplicate"].text
    traits.loc[[0, 1, 9], "likeness"] = pd.Series([films(1), films(2), LIKENESSES[9]], index=[0, 1, 9])  # one patient: as films of one are
    assert found(with_parts(manifest), traits) == {}


def test_a_changed_copy_of_the_same_patient_is_a_near_duplicate_only() -> None:
    manifest, traits = planted("left-right", (4, 5))
    manifest.loc[5, "y_sick"] = 1 - manifest.loc[4, "y_sick"]  # the next day
    assert set(found(manifest, traits)) == {"near_duplicate"}


def test_a_changed_copy_in_another_part_is_a_leak() -> None:
    manifest, traits = planted("crop", (0, 40), (2, 22))
    findings = found(with_parts(manifest), traits)
    assert findings["duplicate_across_parts"].exclude_ids == ("image000", "image022")
    assert findings["duplicate_across_parts"].severity == "error"
    assert "2 in two parts" in findings["near_duplicate"].text
    split = manifest[["image_id", "patient_id"]].assign(part="train", fold=0)
    assert "duplicate_across_parts" not in found(with_parts(manifest), traits, split)


def test_equal_and_changed_copies_make_one_group() -> None:
    manifest, traits = planted("left-right", (4, 12))
    manifest.loc[20, "pixel_sha256"] = "pixels12"
    traits.at[20, "likeness"] = traits.at[12, "likeness"]
    findings = found(manifest, traits)
    assert findings["patient_under_two_ids"].groups == (("image004", "image012", "image020"),)
    assert findings["duplicate"].groups == (("image012", "image020"),)
    assert findings["near_duplicate"].groups == (("image004", "image012"),)


def test_where_each_image_is_its_own_patient_nobody_has_two_ids() -> None:
    manifest, traits = planted("crop", (4, 12))
    manifest["patient_id"] = manifest["image_id"]
    assert set(found(manifest, traits)) == {"near_duplicate"}


def test_without_traits_equal_pixels_are_found() -> None:
    manifest, _ = planted("crop", (4, 12))
    assert found(manifest, None) == {}
    manifest.loc[12, "pixel_sha256"] = "pixels4"
    assert set(found(manifest, None)) == {"duplicate", "patient_under_two_ids"}


def test_traits_of_other_images_are_refused() -> None:
    manifest, traits = cohort()
    with pytest.raises(InputError, match="2 of 60 images are not there, first image007"):
        copy_findings(manifest, None, traits.drop(index=[7, 9]))


def test_ten_thousand_equal_images_are_one_group_in_little_time() -> None:
    manifest = pd.DataFrame({"image_id": [f"{row:05d}" for row in range(10_000)], "pixel_sha256": "blank", "y_sick": 0.0})
    manifest["patient_id"] = manifest["image_id"]
    assert len(copy_findings(manifest, None, None)[0].exclude_ids) == 9_999


def test_findings_survive_writing(tmp_path: Path) -> None:
    findings = copy_findings(*[planted("crop", (4, 12))[0]], None, planted("crop", (4, 12))[1])
    write_json(findings, tmp_path / "findings.json")
    assert read_findings(tmp_path / "findings.json") == findings


# ---------------------------------------------------------------- what comes of them


def test_copies_are_dealt_together() -> None:
    manifest, traits = planted("all", (4, 12), (12, 30))
    joined = join_copies(manifest, copy_findings(manifest, None, traits), merge_patients=False)
    assert joined["patient_id"].equals(manifest["patient_id"])
    assert joined["copy_group"].dropna().to_dict() == {4: "image004", 12: "image004"}  # the copy of a copy shows another picture here
    plain, together = (gather_cohort(table, ["sick"], "patient").units for table in (manifest, joined))
    assert plain[4] != plain[12]
    assert together[4] == together[12] == together[5] == together[13]
    assert len(np.unique(together)) == len(np.unique(plain)) - 1


def test_patients_who_share_a_picture_can_be_merged() -> None:
    manifest, traits = planted("crop", (4, 12), (20, 28), (13, 40))
    joined = join_copies(manifest, copy_findings(manifest, None, traits), merge_patients=True)
    assert joined.loc[[4, 5, 12, 13, 40, 41], "patient_id"].unique().tolist() == ["p02"]
    assert joined.loc[[20, 28], "patient_id"].unique().tolist() == ["p10"]
    untouched = ~joined.index.isin([12, 13, 28, 29, 40, 41])
    assert joined.loc[untouched, "patient_id"].equals(manifest.loc[untouched, "patient_id"])


def test_a_cohort_without_copies_stays_as_it_is() -> None:
    manifest, traits = cohort()
    assert join_copies(manifest, copy_findings(manifest, None, traits), merge_patients=True) is manifest


def test_a_copy_that_was_excluded_joins_nothing() -> None:
    manifest, traits = planted("crop", (4, 12))
    findings = copy_findings(manifest, None, traits)
    kept = manifest.drop(index=12).reset_index(drop=True)
    assert join_copies(kept, findings, merge_patients=True) is kept


# ---------------------------------------------------------------- the real data, whose copies are known


def real(name: str, folder: Path) -> dict[str, Finding]:
    manifest, _ = ingest(read_config(CONFIGS / f"{name}.yaml").data, folder=folder)
    return found(manifest, read_table(folder / "traits.parquet"))


@pytest.mark.usefixtures("shared_data")
def test_pneumoniamnist_has_8_equal_pairs_across_parts_and_21_within(tmp_path: Path) -> None:
    findings = real("pneumoniamnist", tmp_path)
    assert set(findings) == {"duplicate", "duplicate_across_parts", "near_duplicate"}
    assert findings["duplicate_across_parts"].text.startswith("8 pictures stand in two parts (train/val; 18 images, identical pixels)")
    assert all(image.startswith("val/") for image in findings["duplicate_across_parts"].exclude_ids)
    within = pd.Series(findings["duplicate"].exclude_ids).str.split("/").str[0].value_counts().to_dict()
    assert within == {"train": 18, "test": 3}
    # Films of which two different cuts were published; looked at.
    looked_at = {
        ("test/000079", "test/000230"),
        ("train/001360", "train/004005"),
        ("train/002491", "train/004273"),
        ("train/000161", "train/000331"),
    }
    assert {("test/000079", "test/000230"), ("train/001360", "train/004005")} <= set(findings["near_duplicate"].groups) <= looked_at


@pytest.mark.usefixtures("shared_data")
def test_histology_has_22_groups_of_copies_and_17_with_two_labels(tmp_path: Path) -> None:
    findings = real("histology", tmp_path)
    known = pd.read_csv(read_config(CONFIGS / "histology.yaml").data.path)
    conflict = findings["label_conflict"]
    listed = set(known.loc[known["label_conflict"] == 1, "image"])
    turned = {"Normal_100x_70.jpg", "OSCC_100x_349.jpg"}  # by a quarter, which the list of the set missed
    assert (len(conflict.groups), len(listed)) == (17, 32)
    assert set(conflict.image_ids) == listed | turned
    told = [set(group) for kind in ("label_conflict", "duplicate", "near_duplicate") for group in findings[kind].groups]
    groups = [set(group["image"]) for _, group in known.dropna(subset="dup_group").groupby("dup_group")]
    assert len(groups) == 22
    assert all(any(group <= images for images in told) for group in groups)


@pytest.mark.usefixtures("shared_data")
def test_covid_cxr_has_2_near_duplicate_pairs(tmp_path: Path) -> None:
    findings = real("covid_cxr", tmp_path)
    assert set(findings) == {"duplicate", "near_duplicate"}
    assert findings["duplicate"].groups == (("nih_00002658_001.jpg", "nih_00002658_002.jpg"),)
    (pair,) = findings["near_duplicate"].groups
    assert pair == ("cohen_E63574A7_4188_4C8D_8D17_9D67A18A1AFA.jpg", "cohen_F4341CE7_73C9_45C6_99C8_8567A5484B63.jpg")
