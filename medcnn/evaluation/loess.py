"""Local quadratic regression in one dimension, exactly as R's loess computes it, by numpy alone.

Two surfaces. "interpolate", R's default and what published ICI code reports: local fits at the vertices of a k-d tree,
joined by cubic Hermite polynomials; its cost is about 20 local fits whatever n. "direct": a local fit at every distinct x.
Cleveland & Devlin 1988, doi:10.1080/01621459.1988.10478639; Cleveland & Grosse 1991, doi:10.1007/BF01890836.
"""

from dataclasses import dataclass

import numpy as np

from medcnn.evaluation.estimates import FloatArray, IntArray

CELL = 0.2  # R's loess.control(cell): a leaf holds at most floor(n * span * cell) points
MARGIN = 0.005  # share of the range by which the outer vertices lie beyond the data


MANY_ROWS = 50_000  # beyond, independent rows are summed in RUNS runs of equal count, within which the weights hardly change
RUNS = 4000


@dataclass(frozen=True)
class LoessSurface:
    """Values, slopes and bandwidths at ascending vertices (v,); covariance (2v, 2v) of values then slopes, None: not asked for."""

    vertices: FloatArray
    values: FloatArray
    slopes: FloatArray
    bandwidths: FloatArray
    covariance: FloatArray | None = None

    def predict(self, x: FloatArray) -> FloatArray:
        """Fitted values (n,) at x (n,) within the data's range."""
        cell, basis = self._basis(x)
        value, slope = self.values, self.slopes
        fitted: FloatArray = basis[0] * value[cell] + basis[1] * value[cell + 1] + basis[2] * slope[cell] + basis[3] * slope[cell + 1]
        return fitted

    def operator(self, x: FloatArray) -> FloatArray:
        """Matrix (n, 2v) that turns vertex values and slopes into fitted values at x (n,)."""
        cell, basis = self._basis(x)
        rows, v = np.arange(x.size), self.vertices.size
        matrix = np.zeros((x.size, 2 * v))
        for column, part in zip((cell, cell + 1, v + cell, v + cell + 1), basis, strict=True):
            matrix[rows, column] = part
        return matrix

    def standard_error(self, x: FloatArray) -> FloatArray:
        """Sandwich standard error (n,) of the fitted values; needs the covariance."""
        if self.covariance is None:
            raise ValueError("the surface was fitted without its covariance")
        matrix = self.operator(x)
        variance: FloatArray = np.einsum("ij,jk,ik->i", matrix, self.covariance, matrix)
        return np.sqrt(np.maximum(variance, 0))

    def _basis(self, x: FloatArray) -> tuple[IntArray, tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
        cell = np.clip(np.searchsorted(self.vertices, x, side="left") - 1, 0, self.vertices.size - 2)
        width = self.vertices[cell + 1] - self.vertices[cell]
        h = (x - self.vertices[cell]) / width
        return cell, ((1 - h) ** 2 * (1 + 2 * h), h**2 * (3 - 2 * h), h * (1 - h) ** 2 * width, -(h**2) * (1 - h) * width)


@dataclass(frozen=True)
class _Neighbourhood:
    """The rows [start, stop) of the sorted data around a vertex, their distance from it in bandwidths, and tricube weights."""

    start: int
    stop: int
    u: FloatArray
    weight: FloatArray
    bandwidth: float


def fit_loess(
    x: FloatArray, y: FloatArray, *, span: float = 0.75, degree: int = 2, patients: IntArray | None = None, robust_se: bool = False
) -> LoessSurface:
    """R's loess(y ~ x, span, degree, surface="interpolate"). x, y: (n,), finite; x with at least degree + 2 distinct values.

    robust_se: add the heteroscedasticity-robust covariance, sum over rows (or over `patients`, codes (n,)) of squared
    operator-times-residual; it also holds for a binary y, whose variance is not constant.
    """
    order = np.argsort(x, kind="stable")
    xs, ys = x[order], y[order]
    vertices = tree_vertices(xs, span)
    fits = [_local_fit(xs, ys, vertex, span, degree) for vertex in vertices]
    values, slopes, bandwidths = (np.array(column) for column in zip(*fits, strict=True))
    surface = LoessSurface(vertices, values, slopes, bandwidths)
    if not robust_se:
        return surface
    codes = None if patients is None else patients[order]
    covariance = _covariance(xs, ys - surface.predict(xs), vertices, (span, degree), codes)
    return LoessSurface(vertices, values, slopes, bandwidths, covariance)


def loess_direct(x: FloatArray, y: FloatArray, at: FloatArray, *, span: float = 0.75, degree: int = 2) -> FloatArray:
    """R's loess(..., surface="direct") at each of `at` (m,): one local fit per distinct value, O(n) each."""
    order = np.argsort(x, kind="stable")
    xs, ys = x[order], y[order]
    distinct, inverse = np.unique(at, return_inverse=True)
    return np.array([_local_fit(xs, ys, value, span, degree)[0] for value in distinct])[inverse]


def tree_vertices(xs: FloatArray, span: float) -> FloatArray:
    """Vertices of the k-d tree over sorted xs (n,): a cell is cut at its median point until it holds at most n*span*CELL points.

    Ties never straddle a cut: it moves outward to the nearest place between two distinct values (netlib dloess, ehg129).
    """
    leaf = int(np.floor(xs.size * span * CELL))
    low, high = float(xs[0]), float(xs[-1])
    margin = MARGIN * max(high - low, max(abs(low), abs(high)) * 1e-3 + 1e-30)
    cuts: list[float] = []
    cells = [(0, xs.size - 1, low - margin, high + margin)]
    while cells:
        first, last, left, right = cells.pop()
        if last - first + 1 <= leaf:
            continue
        middle = _untied(xs, first, last)
        if middle is None:
            continue
        cut = float(xs[middle])
        if cut in (left, right):
            continue
        cuts.append(cut)
        cells += [(first, middle, left, cut), (middle + 1, last, cut, right)]
    return np.array([low - margin, *sorted(cuts), high + margin])


def _untied(xs: FloatArray, first: int, last: int) -> int | None:
    """The index m nearest the middle of first..last (searched +1, -1, +2, ...) with xs[m] < xs[m + 1]; None: all tied."""
    middle, offset = (first + last) // 2, 0
    while first <= middle + offset < last:
        if xs[middle + offset] != xs[middle + offset + 1]:
            return middle + offset
        offset = -offset if offset > 0 else -offset + 1
    return None


def _neighbourhood(xs: FloatArray, vertex: float, span: float) -> _Neighbourhood:
    """The q = floor(n span + 1e-5) nearest rows; wider where those all stand at the vertex itself."""
    q = min(xs.size, max(1, int(np.floor(xs.size * span + 1e-5))))
    low, high = 0, xs.size - q
    while low < high:
        middle = (low + high) // 2
        if vertex - xs[middle] > xs[middle + q] - vertex:
            low = middle + 1
        else:
            high = middle
    bandwidth = float(max(vertex - xs[low], xs[low + q - 1] - vertex))
    if bandwidth <= 0:
        distances = np.abs(xs - vertex)
        bandwidth = float(distances[distances > 0].min()) * (1 + 1e-9)
    start, stop = np.searchsorted(xs, [vertex - bandwidth, vertex + bandwidth], side="left")
    u = (xs[start:stop] - vertex) / bandwidth
    cube = np.abs(u)
    cube *= cube * cube
    np.clip(1 - cube, 0, 1, out=cube)
    return _Neighbourhood(int(start), int(stop), u, cube * cube * cube, bandwidth)


def _solver(near: _Neighbourhood, degree: int) -> FloatArray:
    """Rows (2, degree + 1) that turn the moments sum w u^j y into the value and the slope at the vertex (pseudo-inverse if singular)."""
    power, moments = near.weight, []
    for _ in range(2 * degree + 1):
        moments.append(float(power.sum()))
        power = power * near.u
    gram = np.array([[moments[i + j] for j in range(degree + 1)] for i in range(degree + 1)])
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    inverse = np.linalg.pinv(gram / np.outer(scale, scale), rcond=1e-13, hermitian=True) / np.outer(scale, scale)
    solver: FloatArray = inverse[:2] / np.array([[1.0], [near.bandwidth]])
    return solver


def _local_fit(xs: FloatArray, ys: FloatArray, vertex: float, span: float, degree: int) -> tuple[float, float, float]:
    near = _neighbourhood(xs, vertex, span)
    power, moments = near.weight * ys[near.start : near.stop], []
    for _ in range(degree + 1):
        moments.append(float(power.sum()))
        power = power * near.u
    value, slope = _solver(near, degree) @ np.array(moments)
    return float(value), float(slope), near.bandwidth


def _covariance(
    xs: FloatArray, residual: FloatArray, vertices: FloatArray, shape: tuple[float, int], patients: IntArray | None
) -> FloatArray:
    """Sandwich covariance (2v, 2v) of vertex values and slopes: sum over independent units of the outer product of their scores."""
    if patients is None and xs.size > MANY_ROWS:
        return _covariance_in_runs(xs, residual, vertices, shape)
    span, degree = shape
    v = vertices.size
    units = xs.size if patients is None else int(patients.max()) + 1
    columns = []
    for vertex in vertices:
        near = _neighbourhood(xs, vertex, span)
        solver = _solver(near, degree)
        weighted = near.weight * residual[near.start : near.stop]
        powers = [weighted, weighted * near.u, weighted * near.u**2][: degree + 1]
        columns += [(near.start, near.stop, sum(c * part for c, part in zip(row, powers, strict=True))) for row in solver]
    scores = np.zeros((2 * v, units))
    for index, (start, stop, column) in enumerate(columns[0::2] + columns[1::2]):
        if patients is None:
            scores[index, start:stop] = column
        else:
            scores[index] = np.bincount(patients[start:stop], weights=column, minlength=units)
    factor = units / (units - 1) if units > 1 else np.nan
    covariance: FloatArray = factor * scores @ scores.T
    return covariance


def _covariance_in_runs(xs: FloatArray, residual: FloatArray, vertices: FloatArray, shape: tuple[float, int]) -> FloatArray:
    """The same for many independent rows: squared residuals are summed in runs of neighbouring rows, each at its mean x."""
    span, degree = shape
    starts = np.arange(RUNS) * xs.size // RUNS
    count = np.diff(np.append(starts, xs.size))
    centre, squared = np.add.reduceat(xs, starts) / count, np.add.reduceat(residual**2, starts)
    rows = []
    for vertex in vertices:
        near = _neighbourhood(xs, vertex, span)
        u = (centre - vertex) / near.bandwidth
        weight = np.clip(1 - np.abs(u) ** 3, 0, 1) ** 3
        rows.append(_solver(near, degree) @ (weight * u ** np.arange(degree + 1)[:, None]))
    operator = np.stack([row[side] for side in (0, 1) for row in rows])
    covariance: FloatArray = xs.size / (xs.size - 1) * (operator * squared) @ operator.T
    return covariance
