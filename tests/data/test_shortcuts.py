"""Shortcut probes: planted shortcuts are found, cohorts without any are left alone, patients are kept apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medcnn.config_file import read_config
from medcnn.data import shortcuts
from medcnn.data.cache import prepare_image
from medcnn.data.ingest import ingest, row_reader
from medcnn.data.shortcut_findings import shortcut_findings
from medcnn.data.shortcuts import out_of_fold, probe_shortcuts, rows_to_probe
from medcnn.errors import InputError
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.plan import ImagePlan

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def cohort(n: int = 300, *, images_per_patient: int = 2, seed: int = 0, size_px: int = 24) -> tuple[pd.DataFrame, np.ndarray]:
    """Noise whose label has nothing to do with anything."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image_id": [f"i{number:04d}" for number in range(n)]})
    table = table.assign(patient_id=[f"p{number // images_per_patient}" for number in range(n)], path="x.png", frame=0)
    table = table.assign(height=rng.integers(400, 600, n), width=500, bit_depth=8, channels=1, sha256="")
    table["y_sick"] = (rng.random(n) < 0.4).astype(float)
    return table, rng.integers(0, 256, (n, size_px, size_px, 1), dtype=np.uint8)


def probed(table: pd.DataFrame, images: np.ndarray, **options: object) -> pd.DataFrame:
    arguments: dict = {"labels": ["sick"], "task": "binary", "seed": 0, **options}
    return probe_shortcuts(table, images, np.arange(len(table)), arguments.pop("labels"), **arguments)


def intervals(result: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (probe, label), group in result.groupby(["probe", "label"], observed=True):
        found = auroc_interval(group["y"], group["p"], group["patient_id"].astype(str))
        rows.append({"probe": probe, "label": label, "auroc": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- what is found


def test_a_cohort_without_shortcut_is_left_alone() -> None:
    table, images = cohort(600)
    table["scanner"] = np.random.default_rng(5).choice(["a", "b", "c"], len(table))
    summary = intervals(probed(table, images))
    assert set(summary["probe"]) == {"file", "border", "grey_levels", "thumbnail", "metadata.scanner"}
    assert ((summary["low"] < 0.5) & (summary["high"] > 0.5)).all(), summary
    assert [finding.severity for finding in shortcut_findings(summary)] == ["info"]


def test_a_bright_corner_in_the_positives_is_found() -> None:
    table, images = cohort()
    images[(table["y_sick"] == 1).to_numpy(), :6, :6] = 255
    summary = intervals(probed(table, images)).set_index("probe")
    assert summary.loc[["border", "thumbnail", "grey_levels"], "low"].min() > 0.95
    assert summary.loc["file", "low"] < 0.5 < summary.loc["file", "high"]
    warned = " ".join(finding.text for finding in shortcut_findings(summary.reset_index()))
    assert "outermost" in warned and "thumbnail" in warned and "Size" not in warned


def test_a_site_that_equals_the_label_is_found() -> None:
    table, images = cohort()
    table["site"] = np.where(table["y_sick"] == 1, "south", "north")
    table["view"] = np.random.default_rng(1).choice(["AP", "PA"], len(table))
    summary = intervals(probed(table, images)).set_index("probe")["auroc"]
    assert summary["metadata.site"] == 1 and summary["metadata"] == 1
    assert summary.drop(["metadata.site", "metadata"]).max() < 0.6


def test_missing_values_that_go_with_the_label_are_found() -> None:
    table, images = cohort()
    table["view"] = np.where(table["y_sick"] == 1, None, np.random.default_rng(1).choice(["AP", "PA"], len(table)))
    assert intervals(probed(table, images)).set_index("probe").loc["metadata.view", "auroc"] == 1


def test_a_size_that_goes_with_the_label_is_found_though_both_sides_occur() -> None:
    table, images = cohort()
    odd = np.where(np.arange(len(table)) % 2, 0.8, 1.25)  # wider or taller: no straight line in the aspect separates these
    table["width"] = 1000 + np.arange(len(table))  # and no size occurs twice
    table["height"] = (table["width"] * np.where(table["y_sick"] == 1, odd, 1.02)).astype(int)
    assert intervals(probed(table, images)).set_index("probe").loc["file", "auroc"] > 0.99


def test_traits_of_the_patient_are_a_probe_of_their_own() -> None:
    table, images = cohort()
    table["age"] = np.where(table["y_sick"] == 1, 70, 30) + np.arange(len(table)) % 20
    summary = intervals(probed(table, images)).set_index("probe")["auroc"]
    assert summary["patient"] == 1 and not any(probe.startswith("metadata") for probe in summary.index)


# ---------------------------------------------------------------- how it is found


def test_a_patient_recognised_is_no_shortcut() -> None:
    """Each patient has one picture, six times: image-level folds would score about 1."""
    table, images = cohort(300, images_per_patient=6)
    table["y_sick"] = (np.random.default_rng(2).random(50) < 0.5).astype(float)[np.arange(300) // 6]
    images = images[np.arange(300) // 6 * 6]
    mixed = intervals(probed(table.assign(patient_id=table["image_id"]), images)).set_index("probe")["auroc"]
    apart = intervals(probed(table, images)).set_index("probe")
    assert mixed["thumbnail"] > 0.95
    assert apart.loc["thumbnail", "low"] < 0.5 < apart.loc["thumbnail", "high"]


def test_row_order_changes_nothing() -> None:
    table, images = cohort()
    table["scanner"] = np.random.default_rng(5).choice(["a", "b", "c"], len(table))
    order, places = np.random.default_rng(3).permutation(len(table)), np.random.default_rng(4).permutation(len(table))
    shuffled = probe_shortcuts(table.iloc[order], images[places], np.argsort(places)[order], ["sick"], task="binary", seed=0)
    pd.testing.assert_frame_equal(probed(table, images), shuffled, check_exact=True)


def test_the_seed_deals_the_folds() -> None:
    table, images = cohort()
    assert not np.array_equal(probed(table, images)["p"], probed(table, images, seed=1)["p"])


def test_each_label_is_told_from_the_rest_where_it_is_known() -> None:
    table, images = cohort()
    table["y_hidden"] = np.where(np.arange(300) % 3 == 0, np.nan, (np.arange(300) % 4 == 0).astype(float))
    result = probed(table, images, labels=["sick", "hidden"], task="multilabel")
    hidden = result[(result["label"] == "hidden") & (result["probe"] == "border")]
    assert sorted(hidden["image_id"].astype(str)) == sorted(table.loc[table["y_hidden"].notna(), "image_id"])
    assert dict(zip(hidden["image_id"].astype(str), hidden["y"], strict=True)) == dict(
        zip(table["image_id"][table["y_hidden"].notna()], table["y_hidden"].dropna().astype(int), strict=True)
    )
    assert result["p"].between(0, 1).all() and list(result.columns) == ["probe", "image_id", "patient_id", "label", "y", "p"]


def test_a_label_of_one_patient_is_named_and_left_out() -> None:
    table, images = cohort()
    table["y_rare"] = (np.arange(300) < 2).astype(float)  # both images of patient p0
    result = probed(table, images, labels=["sick", "rare"], task="multilabel")
    assert set(result["label"]) == {"sick"}
    assert "Label rare: 1 patients with and 149 without it are too few for the probes." in result.attrs["notes"]
    nothing = probed(table, images, labels=["rare"])
    assert nothing.empty and list(nothing.columns) == list(result.columns)


def test_two_patients_of_a_class_are_enough() -> None:
    table, images = cohort(40)
    table["y_sick"] = (np.arange(40) < 4).astype(float)
    assert len(probed(table, images)["label"].unique()) == 1


def test_a_probe_with_nothing_to_go_by_is_named() -> None:
    table, images = cohort()
    result = probed(table.assign(height=500), images)
    assert "file" not in set(result["probe"])
    assert "Probe file: there is nothing to go by, all images are alike in it." in result.attrs["notes"]


def test_out_of_fold_equals_scikit_learn_with_the_prior_restated() -> None:
    rng = np.random.default_rng(0)
    X, fold = rng.normal(3, 5, (120, 4)), rng.integers(0, 3, 120)
    y = (X[:, 0] + rng.normal(0, 5, 120) > 4).astype(float)
    expected = np.empty(120)
    for number in range(3):
        train, test = fold != number, fold == number
        model = make_pipeline(StandardScaler(), LogisticRegression(C=10 / 4, tol=1e-10, max_iter=1000)).fit(X[train], y[train])
        expected[test] = model.decision_function(X[test]) + logit(y.mean()) - logit(y[train].mean())
    np.testing.assert_allclose(logit(out_of_fold(X, y, fold, seed=0)), expected, rtol=1e-4, atol=1e-5)


def test_a_constant_probe_predicts_the_prevalence_whatever_the_fold() -> None:
    y, fold = np.repeat([1.0, 0.0], [10, 30]), np.arange(40) // 8
    np.testing.assert_allclose(out_of_fold(np.ones((40, 2)), y, fold, seed=0), 0.25)


def test_training_images_are_drawn_with_the_rarer_class_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MAX_TRAINING_IMAGES", 100)
    y = (np.arange(1000) % 50 == 0).astype(float)
    drawn = shortcuts._drawn(np.arange(1000), y, np.random.default_rng(0))
    assert len(drawn) == len(set(drawn)) == 100 and y[drawn].sum() == 20
    even = shortcuts._drawn(np.arange(1000), (np.arange(1000) % 2).astype(float), np.random.default_rng(0))
    assert len(even) == 100 and (even % 2).sum() == 50


def test_drawn_training_images_leave_the_probabilities_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MAX_TRAINING_IMAGES", 200)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    y = (rng.random(4000) < 1 / (1 + np.exp(3.5 - X[:, 0]))).astype(float)
    p = out_of_fold(X, y, np.arange(4000) % 5, seed=0)
    assert p.mean() == pytest.approx(y.mean(), abs=0.015)  # without the restated prior: 0.4


# ---------------------------------------------------------------- which rows


def split_of(table: pd.DataFrame, parts: dict[int, list[str]]) -> pd.DataFrame:
    base = table[["image_id", "patient_id"]]
    return pd.concat([base.assign(part=np.resize(names, len(base)), fold=fold) for fold, names in parts.items()], ignore_index=True)


def test_the_test_part_of_a_holdout_is_never_seen() -> None:
    table, _ = cohort(40, images_per_patient=1)
    kept, sentence = rows_to_probe(table, split_of(table, {0: ["train", "val", "test", "test"]}))
    assert len(kept) == 20 and set(kept["image_id"].str[1:].astype(int) % 4) == {0, 1}
    assert "without the test part" in sentence


def test_a_cross_validation_shows_every_image() -> None:
    table, _ = cohort(40, images_per_patient=1)
    kept, sentence = rows_to_probe(table, split_of(table, {0: ["test", "train"], 1: ["train", "test"]}))
    assert len(kept) == 40 and "cross-validation" in sentence


def test_a_split_of_test_images_only_is_refused() -> None:
    table, _ = cohort(40)
    with pytest.raises(InputError, match="no train or val image"):
        rows_to_probe(table, split_of(table, {0: ["test"]}))


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, i, r: (t, i.astype(float), r), "expected images uint8"),
        (lambda t, i, r: (t, i[..., 0], r), "expected images uint8"),
        (lambda t, i, r: (t, i, r[:-1]), "one row number for each of 40"),
        (lambda t, i, r: (t, i, r.astype(float)), "one row number for each of 40"),
        (lambda t, i, r: (t, i, r + 1), "rows go from 1 to 40, but there are 40"),
        (lambda t, i, r: (t, i, r - 1), "rows go from -1 to 38"),
        (lambda t, i, r: (t.drop(columns="y_sick"), i, r), "column y_sick is missing"),
        (lambda t, i, r: (t.assign(image_id="same"), i, r), "image_id same occurs twice"),
        (lambda t, i, r: (t.assign(patient_id="one"), i, r), "1 patients; at least two"),
        (lambda t, i, r: (t.assign(patient_id=[None, *t["patient_id"][1:]]), i, r), "i0000 has no patient_id"),
    ],
)
def test_what_does_not_fit_is_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    table, images, rows = change(*cohort(40), np.arange(40))
    with pytest.raises(InputError, match=message):
        probe_shortcuts(table, images, rows, ["sick"], task="binary", seed=0)


# ---------------------------------------------------------------- real images


def test_covid_cxr_gives_its_source_away(shared_data: Path) -> None:
    """Measured elsewhere by plain means: 99% of the COVID-19 images are not square, and a thumbnail reaches 95% accuracy."""
    config = read_config(CONFIGS / "covid_cxr.yaml", ["task=binary", "data.classes=[no_findings, covid19]"])
    if config.data.path is None or not config.data.path.exists():
        pytest.skip(f"needs {shared_data.name}/covid_cxr")
    manifest, _ = ingest(config.data, task="binary")
    plan, read = ImagePlan(size_px=64, channels=1, fit="crop"), row_reader(config.data)  # crop: no padding that shows the aspect
    images = np.stack([prepare_image(read(Path(path), 0), plan) for path in manifest["path"]])
    result = probe_shortcuts(manifest, images, np.arange(len(manifest)), ["covid19"], task="binary", seed=0)
    summary = intervals(result).set_index("probe")
    assert summary.loc["file", "auroc"] > 0.97 and summary.loc["metadata.site", "auroc"] == 1
    thumbnail = result[result["probe"] == "thumbnail"]
    assert ((thumbnail["p"] > 0.5) == thumbnail["y"]).mean() > 0.92
