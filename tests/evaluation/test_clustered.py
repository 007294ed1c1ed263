import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcnn.errors import InputError
from medcnn.evaluation.bootstrap import SortedScores
from medcnn.evaluation.clustered import auroc_influence, cluster_design, influence_variance, obuchowski_covariance, obuchowski_variance
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.placements import delong_covariance, delong_variance, placements


def definition(y: np.ndarray, scores: list[np.ndarray], patient: np.ndarray) -> np.ndarray:
    """Obuchowski (1997) written out over patients, pair by pair."""
    m, n, ids = int((y == 1).sum()), int((y == 0).sum()), np.unique(patient)
    theta, x10, x01 = [], np.zeros((len(scores), len(ids))), np.zeros((len(scores), len(ids)))
    for k, s in enumerate(scores):
        kernel = (s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0])
        theta.append(kernel.mean())
        for i, name in enumerate(ids):
            x10[k, i] = sum(kernel.mean(axis=1)[j] for j in range(m) if patient[y == 1][j] == name)
            x01[k, i] = sum(kernel.mean(axis=0)[j] for j in range(n) if patient[y == 0][j] == name)
    mi = np.array([(patient[y == 1] == name).sum() for name in ids])
    ni = np.array([(patient[y == 0] == name).sum() for name in ids])
    i10, i01, total = (mi > 0).sum(), (ni > 0).sum(), len(ids)
    covariance = np.empty((len(scores), len(scores)))
    for r in range(len(scores)):
        for s in range(len(scores)):
            c10 = (x10[r] - mi * theta[r]) @ (x10[s] - mi * theta[s]) * i10 / ((i10 - 1) * m)
            c01 = (x01[r] - ni * theta[r]) @ (x01[s] - ni * theta[s]) * i01 / ((i01 - 1) * n)
            c11 = (x10[r] - mi * theta[r]) @ (x01[s] - ni * theta[s]) * total / (total - 1)
            c11_mirrored = (x10[s] - mi * theta[s]) @ (x01[r] - ni * theta[r]) * total / (total - 1)
            covariance[r, s] = c10 / m + c01 / n + (c11 + c11_mirrored) / (m * n)
    return covariance


@st.composite
def clustered_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(6, 30))
    y = np.array([0, 0, 1, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 4, max_size=n - 4))])
    column = st.lists(st.integers(0, 6), min_size=n, max_size=n)
    patient = np.array([0, 1, 2, 3, *draw(st.lists(st.integers(0, 6), min_size=n - 4, max_size=n - 4))])
    return y, np.array(draw(column), dtype=float), np.array(draw(column), dtype=float), patient


@given(clustered_scores())
@settings(max_examples=80, deadline=None)
def test_covariance_follows_the_definition(case: tuple[np.ndarray, ...]) -> None:
    y, a, b, patient = case
    models = [placements(y, a), placements(y, b)]
    found = obuchowski_covariance(y, *patient_codes(patient, len(y)), models)
    np.testing.assert_allclose(found, definition(y, [a, b], patient), atol=1e-14)


@given(clustered_scores())
@settings(max_examples=40, deadline=None)
def test_one_image_per_patient_is_delong(case: tuple[np.ndarray, ...]) -> None:
    y, a, b, _ = case
    models = [placements(y, a), placements(y, b)]
    np.testing.assert_allclose(obuchowski_covariance(y, np.arange(len(y)), len(y), models), delong_covariance(models), atol=1e-15)


def sample(seed: int = 0, n: int = 300, n_patients: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n_patients, n)
    y = (rng.random(n) < 0.4).astype(int)
    return y, np.round(rng.normal(size=n) + rng.normal(size=n_patients)[patient] + y, 1), patient


def test_copies_of_each_image_add_no_information() -> None:
    y, s, patient = sample()
    value, variance = obuchowski_variance(y, s, patient)
    twice = [np.repeat(array, 2) for array in (y, s, patient)]
    assert obuchowski_variance(*twice) == pytest.approx((value, variance), rel=1e-12)
    assert delong_variance(*twice[:2]) == pytest.approx(delong_variance(y, s) / 2, rel=0.01)


def test_names_and_order_of_patients_change_nothing() -> None:
    y, s, patient = sample(1)
    named, shuffled = np.array([f"patient {name}" for name in patient], dtype=object), np.random.default_rng(2).permutation(len(y))
    assert obuchowski_variance(y[shuffled], s[shuffled], named[shuffled]) == pytest.approx(obuchowski_variance(y, s, patient), rel=1e-12)


def test_influence_is_the_derivative_by_a_patients_weight() -> None:
    y, s, patient = sample(3, n=60, n_patients=20)
    codes, n_patients = patient_codes(patient, len(y))
    value, influence = auroc_influence(y, s, codes, n_patients)
    prepared, base = SortedScores(y, s, codes), np.full(n_patients, 10_000)
    assert abs(influence.sum()) < 1e-13
    for who in range(0, n_patients, 3):
        step = np.zeros(n_patients, dtype=np.int64)
        step[who] = 1
        slope = (prepared.auroc(base + step) - prepared.auroc(base - step)) / 2 * 10_000
        assert influence[who] == pytest.approx(slope, abs=1e-6)
    assert prepared.auroc(base) == pytest.approx(value, abs=1e-14)


def test_influence_variance_is_close_to_obuchowski() -> None:
    y, s, patient = sample(4, n=2000, n_patients=600)
    influence = auroc_influence(y, s, *patient_codes(patient, len(y)))[1]
    assert influence_variance(influence) == pytest.approx(obuchowski_variance(y, s, patient)[1], rel=0.01)


def test_too_few_patients_have_no_variance() -> None:
    assert np.isnan(obuchowski_variance([1, 1, 0, 0], [0.4, 0.6, 0.5, 0.2], ["a", "a", "b", "c"])[1])
    assert np.isnan(influence_variance(np.zeros(1)))


def test_design_counts_rows_and_patients() -> None:
    y = np.array([1, 0, 1, 1, 0])
    codes, n = patient_codes(["a", "a", "b", "b", "c"], 5)
    design = cluster_design(y, codes, n)
    assert (design.n_positive, design.n_negative, design.n_patients, design.n_patients_positive, design.n_patients_negative) == (
        3,
        2,
        3,
        2,
        2,
    )


def test_codes_of_other_rows_are_refused() -> None:
    with pytest.raises(InputError, match="one for each of the 2 rows"):
        auroc_influence([0, 1], [0.1, 0.2], np.zeros(3, dtype=np.int64), 1)


def test_two_patients_have_a_variance() -> None:
    assert influence_variance(np.array([0.1, -0.1])) == pytest.approx(2 * 0.02)
