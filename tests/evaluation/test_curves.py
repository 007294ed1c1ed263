import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from medcnn.errors import InputError
from medcnn.evaluation.curves import N_POINTS, rank_rows, roc_coordinates, thin_curve, threshold_curve
from medcnn.evaluation.placements import auroc


def sample(n: int = 300, decimals: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    return y, np.round(rng.normal(size=n) + 1.2 * y, decimals)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_points_are_scikit_learns(decimals: int) -> None:
    y, s = sample(decimals=decimals)
    curve = threshold_curve(y, s)
    fpr, tpr, thresholds = roc_curve(y, s, drop_intermediate=False)
    np.testing.assert_allclose(curve.sensitivity, tpr, atol=1e-15)
    np.testing.assert_allclose(1 - curve.specificity, fpr, atol=1e-15)
    np.testing.assert_array_equal(curve.threshold, thresholds)
    precision, recall, _ = precision_recall_curve(y, s)
    np.testing.assert_allclose(curve.precision, precision[::-1], atol=1e-15)
    np.testing.assert_allclose(curve.sensitivity, recall[::-1], atol=1e-15)


def test_weights_stand_for_repeated_rows() -> None:
    y, s = sample()
    weights = np.random.default_rng(1).integers(0, 4, len(y))
    weighted, repeated = rank_rows(y, s).curve(weights.astype(float)), threshold_curve(np.repeat(y, weights), np.repeat(s, weights))
    kept = np.isin(weighted.threshold, repeated.threshold)
    np.testing.assert_allclose(weighted.tp[kept], repeated.tp)
    np.testing.assert_allclose(weighted.fp[kept], repeated.fp)
    with pytest.raises(InputError, match="both classes"):
        rank_rows(y, s).curve((y == 1).astype(float))


def test_area_under_the_curve_is_the_auroc() -> None:
    y, s = sample()
    curve = threshold_curve(y, s)
    assert np.trapezoid(curve.sensitivity, 1 - curve.specificity) == pytest.approx(auroc(y, s), abs=1e-14)


@pytest.mark.parametrize("y", [[1, 1, 1], [0, 0, 0], []])
def test_one_class_has_no_curve(y: list[int]) -> None:
    with pytest.raises(InputError, match="needs both classes"):
        threshold_curve(y, np.arange(len(y), dtype=float))


# ---------------------------------------------------------------- coordinates


def test_coordinates_at_an_observed_point_take_the_better_end_of_a_level_stretch() -> None:
    #   score   9 8 7 6 5 4 3 2: sensitivity .5 is reached at 8 with specificity 1 and kept down to 6
    curve = threshold_curve([1, 1, 0, 0, 1, 1, 0, 0], [9, 8, 7, 6, 5, 4, 3, 2])
    found = roc_coordinates(curve, sensitivity=0.5)
    assert (found["sensitivity"], found["specificity"]) == (0.5, 1.0)
    found = roc_coordinates(curve, specificity=0.5)
    assert (found["specificity"], found["sensitivity"]) == (0.5, 1.0)
    assert (found["tp"], found["fp"], found["tn"], found["fn"]) == (4.0, 2.0, 2.0, 0.0)
    assert (found["ppv"], found["npv"], found["accuracy"]) == (pytest.approx(4 / 6), 1.0, 0.75)


def test_coordinates_between_points_are_linear() -> None:
    curve = threshold_curve([1, 0, 1, 0], [4, 3, 2, 1])
    assert roc_coordinates(curve, sensitivity=0.75)["specificity"] == 0.5
    tied = threshold_curve([1, 0, 1, 0], [1, 1, 1, 1])
    assert roc_coordinates(tied, sensitivity=0.3)["specificity"] == pytest.approx(0.7)
    assert roc_coordinates(tied, sensitivity=0.0)["npv"] == 0.5
    assert np.isnan(roc_coordinates(tied, sensitivity=0.0)["ppv"])
    assert np.isnan(roc_coordinates(tied, specificity=0.0)["npv"])


@pytest.mark.parametrize("target", [{}, {"sensitivity": 0.5, "specificity": 0.5}, {"sensitivity": 1.5}, {"specificity": -0.1}])
def test_coordinates_need_one_share(target: dict[str, float]) -> None:
    with pytest.raises(InputError, match="ROC coordinates"):
        roc_coordinates(threshold_curve([0, 1], [0, 1]), **target)


# ---------------------------------------------------------------- thinning


@pytest.mark.parametrize("decimals", [2, 9])
def test_thinned_curve_keeps_ends_and_hull_and_hardly_moves(decimals: int) -> None:
    y, s = sample(60_000, decimals)
    whole = threshold_curve(y, s)
    thinned = thin_curve(whole)
    assert 200 < len(thinned.threshold) <= N_POINTS
    assert (thinned.threshold[0], thinned.threshold[-1]) == (whole.threshold[0], whole.threshold[-1])
    assert np.isin(thinned.threshold, whole.threshold).all()
    assert np.diff(thinned.tp).min() >= 0
    area = np.trapezoid(thinned.sensitivity, 1 - thinned.specificity)
    assert area == pytest.approx(auroc(y, s), abs=2e-4)
    best = np.argmax(whole.sensitivity + whole.specificity)  # Youden's point is a corner of the hull
    assert whole.threshold[best] in thinned.threshold
    assert (thinned.tp + thinned.fp < 50).sum() >= 20  # where precision moves most


def test_thinning_a_diagonal_and_a_short_curve() -> None:
    short = threshold_curve(*sample())
    assert thin_curve(short) is short
    n = 2000
    diagonal = threshold_curve(np.tile([0, 1], n), np.repeat(np.arange(n), 2))
    assert len(thin_curve(diagonal).threshold) <= N_POINTS
    stairs = threshold_curve(np.tile([0, 1], n), np.arange(2 * n))
    assert len(thin_curve(stairs).threshold) <= N_POINTS


def test_thinning_many_corners_stays_within_the_limit() -> None:
    # A circle's arc: every point is a corner of the hull.
    angle = np.linspace(0, np.pi / 2, 3000)
    tp, fp = np.rint(1e7 * np.sin(angle)), np.rint(1e7 * (1 - np.cos(angle)))
    from medcnn.evaluation.curves import Curve

    assert len(thin_curve(Curve(-np.arange(3000.0), tp, fp, tp[-1], fp[-1])).threshold) <= N_POINTS


def test_coordinates_lie_on_the_segment_between_their_neighbours() -> None:
    y, s = sample(120, decimals=0)
    curve = threshold_curve(y, s)
    for k in range(1, len(curve.tp)):
        half = (curve.sensitivity[k - 1] + curve.sensitivity[k]) / 2
        if curve.sensitivity[k] > curve.sensitivity[k - 1]:
            expected = (curve.specificity[k - 1] + curve.specificity[k]) / 2
            assert roc_coordinates(curve, sensitivity=half)["specificity"] == pytest.approx(expected)
