import numpy as np
import pytest
from scipy.special import expit, logit

from medcnn.errors import InputError
from medcnn.evaluation.site_update import score_changes, update_for_site


def made_up(n: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lp = rng.normal(0, 1.2, n)
    return (rng.random(n) < expit(shift + lp)).astype(float), expit(lp)


def test_a_shifted_site_is_found_and_the_gain_shown() -> None:
    y, p = made_up(300, -1.5)
    update = update_for_site(y, p)
    assert update.intercept.low < -1.5 < update.intercept.high
    np.testing.assert_allclose(update.recalibrator.parameters["intercept"], update.intercept.value)
    assert update.helps
    np.testing.assert_allclose(update.recalibrator.apply(logit(p)).mean(), y.mean(), rtol=1e-9)


def test_no_gain_is_claimed_where_there_is_none() -> None:
    helped = [update_for_site(*made_up(60, 0.0, seed)).helps for seed in range(40)]
    assert sum(helped) <= 2


def test_the_change_is_judged_without_the_patient() -> None:
    y, p = made_up(25, 0.0, 3)
    update = update_for_site(y, p)
    own = score_changes(y, p, update.recalibrator.apply(logit(p)))
    assert update.change["log_loss"].value > own["log_loss"].value, "the optimism of judging on the fitting rows is gone"


def test_patients_are_left_out_whole() -> None:
    y, p = (np.repeat(values, 5) for values in made_up(30, -0.5, 4))
    naive, clustered = (update_for_site(y, p, who) for who in (None, np.repeat(np.arange(30), 5)))
    assert clustered.change["log_loss"].value > naive.change["log_loss"].value
    assert clustered.intercept.method == "cluster_robust"
    assert clustered.intercept.high - clustered.intercept.low > 1.8 * (naive.intercept.high - naive.intercept.low)


def test_one_class_leaves_the_model_alone() -> None:
    update = update_for_site(np.zeros(9), np.full(9, 0.2))
    assert update.recalibrator.method == "none"
    assert update.change["brier"].value is None
    assert not update.helps


def test_changes_are_paired_differences() -> None:
    y, p = made_up(80, 0.0)
    after = p**0.9
    change = score_changes(y, p, after)
    difference = (after - y) ** 2 - (p - y) ** 2
    np.testing.assert_allclose(
        [change["brier"].value, change["brier"].se], [difference.mean(), difference.std(ddof=1) / np.sqrt(80)], rtol=1e-12
    )
    assert score_changes(np.array([1.0, 0]), np.array([0.0, 0.2]), np.array([0.1, 0.2]))["log_loss"].value is None
    with pytest.raises(InputError, match="same length"):
        score_changes(y, p, after[:3])
