"""A second smoother for the calibration curve: a restricted cubic spline of the log odds, as a check on the loess.

Logistic regression of y on rcs(logit p, k) with Harrell's default knots (Harrell 2015, doi:10.1007/978-3-319-19425-7, table 2.3).
"""

import numpy as np
from scipy.special import expit

from medcnn.evaluation.calibration import log_odds
from medcnn.evaluation.estimates import FloatArray
from medcnn.evaluation.logistic import fit_logistic

KNOT_QUANTILES = {3: (0.10, 0.50, 0.90), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.50, 0.725, 0.95)}


def spline_basis(x: FloatArray, knots: FloatArray) -> FloatArray:
    """Columns (n, k - 1): x and k - 2 cubic terms that are linear beyond the outer knots (k,)."""
    first, last, before = knots[0], knots[-1], knots[-2]
    cubed = np.maximum(x[:, None] - knots, 0) ** 3
    inner = cubed[:, :-2] - (cubed[:, [-2]] * (last - knots[:-2]) - cubed[:, [-1]] * (before - knots[:-2])) / (last - before)
    return np.column_stack([x, inner / (last - first) ** 2])


def spline_calibration(y: FloatArray, p: FloatArray, *, n_knots: int = 5) -> FloatArray | None:
    """Smoothed observed share (n,) at each p (n,); None when two knots coincide or the fit has no finite optimum.

    y (n,) in {0, 1}; p (n,) in [0, 1], exact 0 and 1 moved as in `calibration.log_odds`; n_knots 3, 4 or 5.
    """
    lp, _ = log_odds(p)
    knots = np.quantile(lp, KNOT_QUANTILES[n_knots])
    if np.unique(knots).size < n_knots:
        return None
    design = np.column_stack([np.ones(y.size), spline_basis(lp, knots)])
    fit = fit_logistic(design, y)
    if not fit.converged:
        return None
    fitted: FloatArray = expit(design @ fit.coefficients)
    return fitted
