"""Cohorts made up, and real ones, in which grey values are shown alike or not."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from made_dicom import save_dicom
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association

from medcnn.cohort import Finding
from medcnn.config_data import AuditConfig, DataConfig
from medcnn.data.audit import audit, exclude, require_sound
from medcnn.data.display_findings import _strength, display_findings, find_negatives
from medcnn.data.ingest import ingest
from medcnn.errors import InputError
from medcnn.tables import read_table


def lungs(n: int, seed: int = 0) -> np.ndarray:
    """Pictures with two dark fields beside a bright middle, each a little different: uint8 (n, 64, 64)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    pictures = []
    for _ in range(n):
        y, x = 32 + rng.normal(0, 3), rng.normal(0, 2)
        fields = sum(np.exp(-(((rows - y) / 16) ** 2) - ((columns - centre - x) / 9) ** 2) for centre in (18, 46))
        pictures.append(190 - 130 * fields + rng.normal(0, 12, (64, 64)))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def traits(thumbnails: np.ndarray) -> pd.DataFrame:
    ids = [f"i{number:04d}" for number in range(len(thumbnails))]
    return pd.DataFrame({"image_id": ids[::-1], "thumbnail": [picture.tobytes() for picture in thumbnails[::-1]]})  # in any order


def small(pictures: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA) for picture in pictures])


def manifest(n: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [f"i{number:04d}" for number in range(n)], "y_ill": [number % 2 for number in range(n)], **columns})


def pixels(n: int, **columns: object) -> pd.DataFrame:
    plain = {"voi_step": "declared_range", "inverted": False, "unit": None, "window_center": np.nan, "window_width": np.nan}
    return pd.DataFrame({"image_id": [f"i{number:04d}" for number in range(n)], **plain, **columns})


# ---------------------------------------------------------------- polarity


@pytest.mark.parametrize("share", [0.03, 0.2, 0.45])
def test_negatives_are_found_whatever_their_share(share: float) -> None:
    pictures = lungs(200)
    negative = np.arange(200) < share * 200
    pictures[negative] = 255 - pictures[negative]
    np.testing.assert_array_equal(find_negatives(small(pictures)), negative)


def test_where_nothing_is_common_nothing_is_said() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 32), dtype=np.uint8)
    assert find_negatives(noise) is None
    assert find_negatives(small(lungs(19))) is None
    assert find_negatives(np.zeros((50, 32, 32), np.uint8)) is None


def test_a_site_of_negatives_stops_the_run() -> None:
    pictures = lungs(100)
    pictures[:30] = 255 - pictures[:30]
    sites = ["north"] * 30 + ["south"] * 70
    (finding,) = display_findings(manifest(100, site=sites), pixels(100), traits(small(pictures)))
    assert (finding.severity, finding.kind) == ("error", "mixed_polarity")
    assert "30 of 100" in finding.text
    assert "follows site (north: 30 negative; south: 70 positive)" in finding.text
    assert finding.exclude_ids == finding.image_ids == tuple(f"i{number:04d}" for number in range(30))


def test_negatives_among_the_ill_are_tied_to_the_label() -> None:
    pictures, ill = lungs(60), np.arange(60) % 2 == 1
    pictures[ill] = 255 - pictures[ill]
    (finding,) = display_findings(manifest(60), pixels(60), traits(small(pictures)))
    assert "follows the label ill" in finding.text


def test_one_stray_negative_is_no_mixture() -> None:
    pictures = lungs(200)
    pictures[7] = 255 - pictures[7]
    assert display_findings(manifest(200), pixels(200), traits(small(pictures))) == []


def test_sources_that_are_stored_inverted_and_say_so_are_no_mixture() -> None:
    inverted = np.arange(100) < 40
    table = manifest(100, site=np.where(inverted, "north", "south"))
    assert display_findings(table, pixels(100, inverted=inverted), traits(small(lungs(100)))) == []
    (finding,) = display_findings(table, pixels(100, inverted=inverted), None)  # nobody can look
    assert (finding.severity, finding.kind) == ("warning", "polarity_not_judged")
    assert display_findings(manifest(100, site=["a", "b"] * 50), pixels(100, inverted=inverted), None) == []


# ---------------------------------------------------------------- windowing


def test_windowing_that_follows_the_site_stops_the_run() -> None:
    by_window = np.arange(80) < 30
    table = pixels(80, voi_step=np.where(by_window, "window", "percentiles"))
    (finding,) = display_findings(manifest(80, site=np.where(by_window, "north", "south")), table)
    assert (finding.severity, finding.kind) == ("error", "mixed_windowing")
    assert "30 by the file's window or table" in finding.text
    assert "follows site" in finding.text
    assert "data.window: percentiles" in finding.todo
    assert len(finding.image_ids) == 30


def test_windowing_that_follows_nothing_is_a_warning() -> None:
    ways = np.where(np.random.default_rng(0).random(200) < 0.3, "window", "percentiles")
    (finding,) = display_findings(manifest(200, site=["a", "b"] * 100), pixels(200, voi_step=ways))
    assert finding.severity == "warning"
    assert "follows no source" in finding.text


def test_a_window_and_a_table_are_both_the_files_choice() -> None:
    ways = ["window", "voi_lut"] * 40
    assert display_findings(manifest(80, site=["a", "b"] * 40), pixels(80, voi_step=ways)) == []
    assert display_findings(manifest(80), pixels(80, voi_step=["none", "declared_range"] * 40)) == []
    assert display_findings(manifest(10, site=["a", "b"] * 5), pixels(10, voi_step=["window", "percentiles"] * 5)) == []


def test_ct_windows_that_differ_between_sites() -> None:
    lung = np.arange(60) < 30
    columns = {
        "voi_step": "window",
        "unit": "HU",
        "window_center": np.where(lung, -600.0, 40.0),
        "window_width": np.where(lung, 1500.0, 400.0),
    }
    table = manifest(60, site=np.where(lung, "north", "south"))
    (finding,) = display_findings(table, pixels(60, **columns))
    assert finding.severity == "error"
    assert "30 under -600, 1500, 30 under 40, 400" in finding.text
    assert display_findings(table, pixels(60, **{**columns, "unit": "US"})) == []  # radiographs: a window each
    nearly = {"window_center": np.where(lung, 40.0, 45.0), "window_width": np.where(lung, 400.0, 410.0)}
    assert display_findings(table, pixels(60, **{**columns, **nearly})) == []


@pytest.mark.parametrize("counts", [[[30, 2], [3, 40]], [[40, 0, 5], [0, 50, 5], [3, 2, 30]]])
def test_strength_against_scipy(counts: list[list[int]]) -> None:
    """scipy's V is the biased one; Bergsma's is smaller by about (r-1)(c-1)/n."""
    table = np.array(counts)
    found = _strength(pd.DataFrame(table))
    assert chi2_contingency(table, correction=False).pvalue < 1e-3
    assert 0 < found < association(table, method="cramer")
    assert found == pytest.approx(association(table, method="cramer"), abs=0.05)
    assert _strength(pd.DataFrame([[10, 11], [12, 9]])) == 0


# ---------------------------------------------------------------- from files


def cohort(root: Path, pictures: np.ndarray, photometric: list[str], sites: list[str]) -> None:
    """Radiographs whose stored values fit their tag, but where the tag is `lie`: stored inverted, and tagged as if not."""
    for number, (picture, tag, site) in enumerate(zip(pictures, photometric, sites, strict=True)):
        stored = 255 - picture if tag in {"MONOCHROME1", "lie"} else picture
        elements = {"PhotometricInterpretation": "MONOCHROME2" if tag == "lie" else tag, "InstitutionName": site, "PatientID": str(number)}
        save_dicom(root / f"{number}.dcm", stored, **elements)


def found_in(root: Path, folder: Path) -> list[str]:
    table, _ = ingest(DataConfig(source="dicom", path=root), folder=folder)
    found = display_findings(table, read_table(folder / "pixels.parquet"), read_table(folder / "traits.parquet"))
    return [f"{finding.severity} {finding.kind}" for finding in found]


def test_a_whole_way_from_files(tmp_path: Path) -> None:
    sites = ["north"] * 12 + ["south"] * 18
    (tmp_path / "right").mkdir()
    cohort(tmp_path / "true", lungs(30), ["MONOCHROME1"] * 12 + ["MONOCHROME2"] * 18, sites)
    assert found_in(tmp_path / "true", tmp_path / "right") == []
    cohort(tmp_path / "false", lungs(30), ["lie"] * 12 + ["MONOCHROME2"] * 18, sites)
    assert found_in(tmp_path / "false", tmp_path / "right") == ["error mixed_polarity"]


@pytest.mark.parametrize("what", ["polarity", "windowing"])
def test_the_audit_refuses_such_a_cohort_until_it_is_mended(tmp_path: Path, what: str) -> None:
    """From files to the refusal, and the way out that it names."""
    root, sites = tmp_path / "in", ["north"] * 12 + ["south"] * 18
    if what == "polarity":
        cohort(root, lungs(30), ["lie"] * 12 + ["MONOCHROME2"] * 18, sites)
    else:
        for number, (picture, site) in enumerate(zip(lungs(30), sites, strict=True)):
            window = {"WindowCenter": 2000, "WindowWidth": 4000} if site == "north" else {}
            elements = {"BitsStored": 12, "HighBit": 11, "InstitutionName": site, "PatientID": str(number), **window}
            save_dicom(root / f"{number}.dcm", picture.astype(np.uint16) * 16, **elements)

    def errors(config: AuditConfig, **data: object) -> tuple[list[Finding], pd.DataFrame]:
        table, _ = ingest(DataConfig(source="dicom", path=root, **data), folder=tmp_path)
        tables = {name: read_table(tmp_path / f"{name}.parquet") for name in ("traits", "pixels")}
        found = audit(table, config, **tables)
        return [finding for finding in found if finding.kind.startswith("mixed")], table

    found, table = errors(AuditConfig())
    with pytest.raises(InputError, match=f"mixed_{what}.*follows site"):
        require_sound(found, AuditConfig())
    if what == "windowing":
        assert errors(AuditConfig(), window="percentiles")[0] == []
    leave_out = AuditConfig(exclude={"mixed_polarity": "negatives"}, accept={"mixed_windowing": "known"})
    require_sound(found, leave_out)
    kept, _ = exclude(table, found, leave_out)
    assert len(kept) == (18 if what == "polarity" else 30)


def test_it_does_not_cry_wolf_on_real_radiographs(shared_data: Path, tmp_path: Path) -> None:
    """The RSNA radiograph and its MONOCHROME1 copy come out alike; a thousand radiographs of two sources hold no negatives."""
    for name in ("cxr_torchxrayvision", "cxr_himl"):
        (tmp_path / name).mkdir()
        assert found_in(shared_data / "dicom" / name, tmp_path / name) == []
    table = pd.read_csv(shared_data / "covid_cxr" / "manifest.csv").iloc[::6].reset_index(drop=True)
    folder = shared_data / "covid_cxr" / "images"
    grey = [cv2.imread(str(next(folder.rglob(Path(name).name))), cv2.IMREAD_GRAYSCALE) for name in table["image"]]
    thumbnails = np.stack([cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA) for picture in grey])
    assert find_negatives(thumbnails).sum() == 0
    covid = (table["label"] == "covid19").to_numpy()
    thumbnails[covid] = 255 - thumbnails[covid]
    found = find_negatives(thumbnails)
    assert not found[~covid].any()
    assert found[covid].mean() > 0.9
    (finding,) = display_findings(manifest(len(table), source=table["source"]), pixels(len(table)), traits(thumbnails))
    assert "follows source" in finding.text
