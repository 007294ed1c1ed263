"""What the shortcut probes found, in words."""

import numpy as np
import pandas as pd
import pytest

from medcnn.data.shortcut_findings import PROBES, shortcut_findings
from medcnn.data.shortcuts import probe_shortcuts
from medcnn.errors import InputError


def summary(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["probe", "label", "auroc", "low", "high"])


def test_a_strong_probe_is_a_warning_with_its_interval() -> None:
    (finding,) = shortcut_findings(summary(("file", "covid19", 0.9871, 0.981, 0.996), ("border", "covid19", 0.6, 0.5, 0.7)))
    assert (finding.severity, finding.kind) == ("warning", "shortcut")
    assert finding.text == (
        "Size, aspect, bit depth and format of the file alone tell covid19 from the rest with AUROC 0.99 (0.98 to 1.00) "
        "(patients kept apart): none of this is disease, so a network may learn the source instead."
    )
    assert finding.todo


def test_the_lower_limit_decides_and_the_threshold_is_a_setting() -> None:
    rows = summary(("file", "covid19", 0.9, 0.75, 0.99))
    assert [finding.severity for finding in shortcut_findings(rows)] == ["info"]
    assert [finding.severity for finding in shortcut_findings(rows, threshold=0.74)] == ["warning"]


def test_each_probe_has_one_finding_that_names_the_labels_strongest_first() -> None:
    labels = [("thumbnail", f"l{n}", 0.8 + n / 100, 0.78, 0.95) for n in range(7)]
    (finding,) = shortcut_findings(summary(*labels))
    assert "tells l6 from the rest with AUROC 0.86 (0.78 to 0.95), l5 with AUROC 0.85" in finding.text
    assert "and 2 more labels" in finding.text and "l1" not in finding.text


def test_the_joint_metadata_are_not_told_beside_a_column_that_does_it_alone() -> None:
    rows = summary(
        ("metadata", "a", 1, 0.9, 1),
        ("metadata.site", "a", 1, 0.9, 1),
        ("metadata", "b", 0.9, 0.8, 1),
        ("metadata.site", "b", 0.6, 0.5, 0.7),
    )
    joint, site = shortcut_findings(rows)
    assert "alone tell b from the rest with AUROC 0.90 (0.80 to 1.00) (patients" in joint.text
    assert site.text.startswith("The column site alone tells a from the rest")


def test_every_probe_has_its_sentence() -> None:
    found = shortcut_findings(summary(*((probe, "x", 0.9, 0.8, 1.0) for probe in PROBES)))
    assert len({finding.text for finding in found}) == len(PROBES)
    assert all(" alone tell" in finding.text for finding in found)


def test_nothing_found_is_said_with_its_limits() -> None:
    (finding,) = shortcut_findings(summary(("file", "x", 0.5, 0.4, 0.6), ("border", "x", 0.62, 0.55, 0.7)))
    assert finding.severity == "info" and "the highest is 0.62 (0.55 to 0.70), x by border" in finding.text
    (empty,) = shortcut_findings(summary())
    assert empty.severity == "info" and "could not be run" in empty.text


def test_categories_are_words_too() -> None:
    rows = summary(("metadata.site", "a", 1, 0.9, 1), ("file", "a", 1, 0.9, 1)).astype({"probe": "category", "label": "category"})
    assert len(shortcut_findings(rows)) == 2


@pytest.mark.parametrize(
    ("rows", "threshold", "message"),
    [
        (summary(("file", "x", 0.5, 0.4, 0.6)).drop(columns="low"), 0.75, "column low is missing"),
        (summary(("colour", "x", 0.5, 0.4, 0.6)), 0.75, "probe 'colour' is unknown"),
        (summary(("file", "x", float("nan"), 0.4, 0.6)), 0.75, "file for x is nan"),
        (summary(("file", "x", 0.5, 0.4, 1.6)), 0.75, "expected an AUROC and its limits"),
        (summary(("file", "x", 0.5, 0.4, 0.6)), 1.0, "threshold is 1.0"),
        (summary(("file", "x", 0.5, 0.4, 0.6)), 0.4, "threshold is 0.4"),
    ],
)
def test_what_is_no_summary_is_refused(rows: pd.DataFrame, threshold: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shortcut_findings(rows, threshold=threshold)


@pytest.mark.parametrize("column", ["acquisition_date", "date", "StudyDate_shifted_date"])
def test_a_label_that_follows_the_date_is_told_as_such(column: str) -> None:
    (finding,) = shortcut_findings(summary((f"metadata.{column}", "ill", 0.95, 0.9, 0.98)))
    assert finding.text.startswith(f"The acquisition date ({column}) alone tells ill from the rest with AUROC 0.95 (0.90 to 0.98)")
    assert "by year" in finding.todo
    (other,) = shortcut_findings(summary(("metadata.update", "ill", 0.95, 0.9, 0.98)))
    assert other.text.startswith("The column update alone")


def test_a_label_that_goes_with_time_is_seen_by_the_probe_of_the_date() -> None:
    rng = np.random.default_rng(0)
    n = 240
    days = rng.integers(0, 2000, n)
    y = (days + rng.normal(0, 200, n) > 1000).astype(float)
    names = [f"i{row:03d}" for row in range(n)]
    manifest = pd.DataFrame(
        {"image_id": names, "patient_id": names, "path": names, "height": 8, "width": 8, "bit_depth": 8, "channels": 1, "y_ill": y}
    )
    manifest["acquisition_date"] = (pd.Timestamp("2015-01-01") + pd.to_timedelta(days, unit="D")).strftime("%Y-%m-%d")
    images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    probed = probe_shortcuts(manifest, images, np.arange(n), ["ill"], task="binary", seed=0)
    by_date = probed[probed["probe"] == "metadata.acquisition_date"]
    a, b = (by_date.loc[by_date["y"] == value, "p"].to_numpy() for value in (1, 0))
    assert np.greater.outer(a, b).mean() > 0.9
