import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medcnn.errors import InputError
from medcnn.evaluation.placements import auroc, check_scores, delong_covariance, delong_variance, placements


@st.composite
def labelled_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Few distinct scores, so that ties are common; at least two of each class."""
    n = draw(st.integers(4, 30))
    y = np.array([0, 0, 1, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 4, max_size=n - 4))])
    column = st.lists(st.integers(0, 6), min_size=n, max_size=n)
    return y, np.array(draw(column), dtype=float), np.array(draw(column), dtype=float)


def kernel(y: np.ndarray, s: np.ndarray) -> np.ndarray:
    """P(s1 > s0) + P(s1 = s0)/2 for every pair, (m, n): the definition itself."""
    cases, controls = s[y == 1][:, None], s[y == 0][None, :]
    return (cases > controls) + 0.5 * (cases == controls)


@given(labelled_scores())
@settings(max_examples=150, deadline=None)
def test_placements_and_covariance_follow_the_definition(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, a, b = case
    models, pairs = [placements(y, a), placements(y, b)], [kernel(y, a), kernel(y, b)]
    for model, pair in zip(models, pairs, strict=True):
        assert model.auroc == pytest.approx(pair.mean(), abs=1e-15)
        np.testing.assert_allclose(model.v10, pair.mean(axis=1), atol=1e-15)
        np.testing.assert_allclose(model.v01, pair.mean(axis=0), atol=1e-15)
    cases = np.cov(np.stack([pair.mean(axis=1) for pair in pairs])) / pairs[0].shape[0]
    controls = np.cov(np.stack([pair.mean(axis=0) for pair in pairs])) / pairs[0].shape[1]
    np.testing.assert_allclose(delong_covariance(models), cases + controls, atol=1e-15)


@given(labelled_scores(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_rows_and_monotone_transforms_change_nothing(case: tuple[np.ndarray, np.ndarray, np.ndarray], random: object) -> None:
    y, a, _ = case
    shuffled = np.array(random.sample(range(len(y)), len(y)))
    assert auroc(y[shuffled], a[shuffled]) == auroc(y, a)
    assert auroc(y, np.exp(a / 3)) == auroc(y, a)
    assert auroc(1 - y, a) == pytest.approx(1 - auroc(y, a), abs=1e-15)
    assert delong_variance(y, -a) == pytest.approx(delong_variance(y, a), abs=1e-15)


def test_agrees_with_scikit_learn_on_many_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(30_000) < 0.1
    s = np.round(rng.normal(size=30_000) + y, 2)
    assert auroc(y, s) == pytest.approx(roc_auc_score(y, s), abs=1e-13)


def test_single_precision_scores_lose_nothing() -> None:
    rng = np.random.default_rng(1)
    y, s = rng.random(5000) < 0.3, rng.random(5000).astype(np.float32)
    assert auroc(y, s) == auroc(y, s.astype(np.float64))
    assert delong_variance(y, s) == delong_variance(y, s.astype(np.float64))


def test_infinite_scores_are_ordered_like_any_other() -> None:
    assert auroc([0, 0, 1, 1], [-np.inf, 0.0, 0.0, np.inf]) == 0.875


def test_fewer_than_two_of_a_class_have_no_variance() -> None:
    assert np.isnan(delong_variance([1, 0, 0], [0.3, 0.2, 0.4]))


@pytest.mark.parametrize(
    ("y", "score", "message"),
    [
        ([0, 1, 0, 1], [0.1, np.nan, 0.2, np.nan], r"NaN in 2 rows \(1, 3\)"),
        ([0, 1, 2, 1], [0.1, 0.2, 0.3, 0.4], r"got 2 in row 2 \(1 such rows: 2\)"),
        ([0, 1, np.nan], [0.1, 0.2, 0.3], "got nan in row 2"),
        ([0, 1], [0.1, 0.2, 0.3], "shapes"),
        ([[0, 1]], [[0.1, 0.2]], "shapes"),
    ],
)
def test_what_cannot_be_ranked_is_refused(y: list[float], score: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_scores(y, score)


@pytest.mark.parametrize("y", [[1, 1], [0, 0]])
def test_one_class_is_refused(y: list[int]) -> None:
    with pytest.raises(InputError, match="needs both classes"):
        placements(y, [0.1, 0.2])
