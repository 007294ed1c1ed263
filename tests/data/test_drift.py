"""Shifts that were made are seen, random halves are not; the tests agree with scipy and statsmodels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp
from statsmodels.stats.multitest import multipletests

from medcnn.data.drift import TRAITS, compare, drift_finding, holm, outside_range, pairs_of, sample, trait_table
from medcnn.data.quality import MEASURES
from medcnn.errors import InputError


def traits(n: int = 200, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, len(TRAITS))), columns=list(TRAITS))


def auroc(y: np.ndarray, p: np.ndarray) -> float:
    """By definition, over all pairs."""
    a, b = p[y == 1], p[y == 0]
    return float((np.greater.outer(a, b) + 0.5 * np.equal.outer(a, b)).mean())


def test_each_trait_is_tested_as_scipy_does_and_corrected_as_statsmodels_does() -> None:
    a, b = traits(), traits(150, 1) + 0.2
    table = compare(a, b, names=("a", "b")).traits.set_index("trait")
    for trait in TRAITS:
        assert table.loc[trait, "distance"] == pytest.approx(ks_2samp(a[trait], b[trait]).statistic, abs=1e-12)
        assert (table.loc[trait, "reference"], table.loc[trait, "new"]) == (a[trait].median(), b[trait].median())
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1])


def test_holm_keeps_ties_and_order() -> None:
    p = np.array([0.04, 0.01, 0.01, 0.9, 0.03])
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("change", ["shift", "spread", "tail"])
def test_a_shift_in_one_trait_is_seen(change: str) -> None:
    new = traits(200, 1)
    new["noise"] = {"shift": new["noise"] + 2, "spread": new["noise"] * 6, "tail": np.where(np.arange(200) % 2, 9, new["noise"])}[change]
    drift = compare(traits(), new, names=("train", "ward"))
    assert drift.traits["trait"][0] == "noise"
    assert auroc(drift.y, drift.p) > 0.7
    finding = drift_finding(drift, (0.9, 0.85, 0.95), kind="part_drift", todo="look")
    assert finding is not None
    assert finding.severity == "warning"
    assert "ward (200 patients) against train (200)" in finding.text
    assert "most: noise (D " in finding.text


def test_the_same_source_is_not_told_apart() -> None:
    drift = compare(traits(), traits(200, 1), names=("a", "b"))
    assert abs(auroc(drift.y, drift.p) - 0.5) < 0.1
    assert drift_finding(drift, (0.5, 0.45, 0.55), kind="part_drift", todo="") is None
    small = drift_finding(drift, (0.6, 0.52, 0.66), kind="part_drift", todo="")
    assert small is not None
    assert small.severity == "info"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="b has 19 rows"):
        compare(traits(), traits(19), names=("a", "b"))
    with pytest.raises(InputError, match="a has no column noise"):
        compare(traits().drop(columns="noise"), traits(), names=("a", "b"))
    with pytest.raises(InputError, match="not finite"):
        compare(traits(), traits().assign(noise=np.nan), names=("a", "b"))


def test_a_sample_has_one_image_a_patient_and_no_name() -> None:
    table = traits(90).assign(image_id=[f"i{k}" for k in range(90)], patient_id=[f"p{k // 3}" for k in range(90)])
    drawn = sample(table, 20)
    assert list(drawn) == list(TRAITS)
    assert len(drawn) == 20
    patients = table.merge(drawn, on=list(TRAITS))["patient_id"]
    assert patients.nunique() == 20
    pd.testing.assert_frame_equal(drawn, sample(table.sample(frac=1, random_state=1), 20))


def test_images_outside_of_the_range_are_counted() -> None:
    reference = traits(1000)
    new = traits(3, 1).clip(-1, 1)
    new.loc[1, ["noise", "sharpness"]] = 50.0
    counts, limit = outside_range(reference, new)
    assert counts.tolist() == [0, 2, 0]
    assert 0 < limit < 5


def manifest(n: int = 120, sites: int = 1) -> pd.DataFrame:
    names = [f"i{k:03d}" for k in range(n)]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "height": 64, "width": 128})
    return table.assign(site=[f"s{k % sites}" for k in range(n)])


def split_of(table: pd.DataFrame, parts: list[list[str]]) -> pd.DataFrame:
    folds = [table[["image_id", "patient_id"]].assign(part=part, fold=fold) for fold, part in enumerate(parts)]
    return pd.concat(folds, ignore_index=True)


def test_fixed_parts_are_compared_and_folds_at_random_are_not() -> None:
    table = manifest()
    holdout = ["train"] * 60 + ["val"] * 30 + ["test"] * 30
    pairs = pairs_of(table, split_of(table, [holdout]))
    assert [pair.names for pair in pairs] == [("train", "val"), ("what trains and selects", "test")]
    assert (len(pairs[0].new), len(pairs[1].reference), len(pairs[1].new)) == (30, 90, 30)
    folds = [["test"] * 60 + ["train"] * 60, ["train"] * 60 + ["test"] * 60]
    assert pairs_of(table, split_of(table, folds)) == []
    one_test = [["val"] * 30 + ["train"] * 60 + ["test"] * 30, ["train"] * 60 + ["val"] * 30 + ["test"] * 30]
    assert [pair.names[1] for pair in pairs_of(table, split_of(table, one_test))] == ["test"]


def test_sites_are_compared_with_the_others_when_they_are_large_enough() -> None:
    table = manifest(sites=3)
    folds = split_of(table, [["test"] * 60 + ["train"] * 60, ["train"] * 60 + ["test"] * 60])
    assert [pair.names for pair in pairs_of(table, folds)] == [("the other sites", f"site s{k}") for k in range(3)]
    assert pairs_of(manifest(sites=7), folds) == []  # 17 patients a site


def test_the_official_test_part_of_pneumoniamnist_differs_and_its_val_part_does_not(shared_data: Path) -> None:
    from medcnn.data.quality import quality_of

    with np.load(shared_data / "pneumoniamnist.npz") as archive:
        images = {part: archive[f"{part}_images"] for part in ("train", "val", "test")}
    drawn = {}
    for part, pixels in images.items():
        names = [f"{part}{row}" for row in range(len(pixels))]
        rows = pd.DataFrame([{"image_id": name, **quality_of(image)} for name, image in zip(names, pixels, strict=True)])
        drawn[part] = sample(trait_table(pd.DataFrame({"image_id": names, "patient_id": names, "height": 28, "width": 28}), rows))
    differing = {}
    for part in ("val", "test"):
        drift = compare(drawn["train"], drawn[part], names=("train", part))
        differing[part] = (auroc(drift.y, drift.p), int((drift.traits["p_holm"] < 0.05).sum()))
    assert differing["val"][0] < 0.55
    assert differing["val"][1] == 0
    assert differing["test"][0] > 0.57
    assert differing["test"][1] >= 1


def test_an_image_without_traits_is_refused() -> None:
    rows = pd.DataFrame({"image_id": ["i000"], **{name: [0.5] for name in MEASURES}})
    with pytest.raises(InputError, match="some image of the manifest"):
        trait_table(manifest(2), rows)
    assert trait_table(manifest(1), rows)["log2_width"].tolist() == [7.0]
