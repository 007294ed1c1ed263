import numpy as np
import pytest

from medcnn.evaluation.loess import MANY_ROWS, fit_loess, loess_direct, tree_vertices


def local_quadratic(x: np.ndarray, y: np.ndarray, at: float, span: float = 0.75, degree: int = 2) -> float:
    """The definition, by weighted least squares."""
    distance = np.abs(x - at)
    bandwidth = np.sort(distance)[int(np.floor(x.size * span + 1e-5)) - 1]
    weight = np.clip(1 - (distance / bandwidth) ** 3, 0, 1) ** 1.5
    design = np.vander(x - at, degree + 1, increasing=True)
    return float(np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)[0][0])


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.round(rng.beta(0.8, 2, 300), 3)
    return x, (rng.random(300) < x**1.5).astype(float)


@pytest.mark.parametrize(("span", "degree"), [(0.75, 2), (0.5, 1), (0.3, 2), (1.0, 2)])
def test_direct_surface_is_the_definition(rows: tuple[np.ndarray, np.ndarray], span: float, degree: int) -> None:
    x, y = rows
    at = np.linspace(x.min(), x.max(), 23)
    expected = [local_quadratic(x, y, value, span, degree) for value in at]
    np.testing.assert_allclose(loess_direct(x, y, at, span=span, degree=degree), expected, atol=1e-10)


def test_surfaces_meet_at_the_vertices(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    surface = fit_loess(x, y)
    inner = surface.vertices[1:-1]
    np.testing.assert_allclose(surface.predict(inner), loess_direct(x, y, inner), atol=1e-12)
    h = 1e-6
    slope = (np.array([local_quadratic(x, y, v + h) for v in inner]) - [local_quadratic(x, y, v - h) for v in inner]) / (2 * h)
    assert np.corrcoef(surface.slopes[1:-1], slope)[0, 1] > 0.9, "the slope of the local fit, near that of the curve"


def test_interpolated_surface_is_that_of_the_fortran_library() -> None:
    skmisc = pytest.importorskip("skmisc.loess", reason="scikit-misc, the original dloess, is not installed")
    rng = np.random.default_rng(1)
    for _ in range(40):
        x = np.round(rng.beta(0.6, 2, int(rng.integers(30, 400))), int(rng.integers(2, 4)))
        y = (rng.random(x.size) < x).astype(float)
        theirs = skmisc.loess(x, y, span=0.75)
        theirs.fit()
        np.testing.assert_allclose(fit_loess(x, y).predict(x), theirs.outputs.fitted_values, atol=1e-9)


def test_a_parabola_is_its_own_smooth() -> None:
    x = np.linspace(0, 1, 200)
    y = 0.2 + 0.3 * x - 0.1 * x**2
    np.testing.assert_allclose(fit_loess(x, y).predict(x), y, atol=1e-12)


def test_row_order_changes_nothing(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    order = np.random.default_rng(1).permutation(x.size)
    np.testing.assert_allclose(fit_loess(x[order], y[order]).predict(x), fit_loess(x, y).predict(x), atol=1e-12)


def test_cells_are_cut_between_distinct_values() -> None:
    x = np.sort(np.repeat([0.1, 0.2, 0.5, 0.9], [50, 30, 15, 5]))
    vertices = tree_vertices(x, 0.75)
    assert set(np.round(vertices[1:-1], 6)) <= {0.1, 0.2, 0.5, 0.9}
    assert vertices[0] < 0.1
    assert vertices[-1] > 0.9


def test_a_neighbourhood_of_one_repeated_value_is_widened() -> None:
    x = np.concatenate([np.full(90, 0.2), np.linspace(0.3, 0.9, 10)])
    fitted = fit_loess(x, np.linspace(0, 1, 100)).predict(x)
    assert np.isfinite(fitted).all()


def test_operator_turns_vertex_values_into_the_fit(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    surface = fit_loess(x, y)
    by_matrix = surface.operator(x) @ np.concatenate([surface.values, surface.slopes])
    np.testing.assert_allclose(by_matrix, surface.predict(x), atol=1e-12)


def test_standard_error_is_the_spread_over_new_outcomes() -> None:
    rng = np.random.default_rng(2)
    x = rng.random(400)
    grid = np.array([0.1, 0.4, 0.8])
    truth = 0.2 + 0.6 * x
    draws = np.array([fit_loess(x, (rng.random(400) < truth).astype(float)).predict(grid) for _ in range(500)])
    ours = np.array([fit_loess(x, (rng.random(400) < truth).astype(float), robust_se=True).standard_error(grid) for _ in range(50)])
    np.testing.assert_allclose(ours.mean(axis=0), draws.std(axis=0), rtol=0.12)


def test_clustered_standard_error_of_rows_written_twice(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    once = fit_loess(x, y, robust_se=True)
    twice = fit_loess(np.repeat(x, 2), np.repeat(y, 2), patients=np.repeat(np.arange(300), 2), robust_se=True)
    grid = np.linspace(0.05, 0.6, 9)
    np.testing.assert_allclose(twice.standard_error(grid), once.standard_error(grid), rtol=0.05)


def test_many_rows_have_the_standard_error_of_runs() -> None:
    rng = np.random.default_rng(3)
    x = rng.beta(0.7, 3, MANY_ROWS + 1000)
    y = (rng.random(x.size) < x).astype(float)
    by_runs = fit_loess(x, y, robust_se=True)
    by_rows = fit_loess(x, y, robust_se=True, patients=np.arange(x.size))
    grid = np.linspace(0.001, 0.95, 30)
    np.testing.assert_allclose(by_runs.standard_error(grid), by_rows.standard_error(grid), rtol=4e-3)


def test_standard_error_must_be_asked_for(rows: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="without its covariance"):
        fit_loess(*rows).standard_error(np.array([0.3]))
