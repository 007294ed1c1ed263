"""Recalibration-in-the-large: moving a finished model to a new site with a few labelled cases, and what that is worth.

Only the intercept is fitted: a few dozen cases can tell that the average risk is off, hardly that the slope is
(Steyerberg et al. 2004, doi:10.1002/sim.1844; Vergouwe et al. 2017, doi:10.1002/sim.7179).
"""

from dataclasses import dataclass

import numpy as np

from medcnn.errors import InputError
from medcnn.evaluation.calibration import calibration_intercept, row_log_loss
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, check_labels_and_probabilities, mean_estimate, not_estimable
from medcnn.evaluation.recalibration import Recalibrator, fit_recalibration, log_odds_of

MOST_FOLDS = 100
SCORES = ("brier", "log_loss")


@dataclass(frozen=True)
class SiteUpdate:
    """recalibrator: the shifted model; intercept: the shift with its interval; change: what it does to each score, after minus before.

    change has "brier" and "log_loss", below 0 when the update helps, each case judged by a shift fitted without its patient.
    """

    recalibrator: Recalibrator
    intercept: Estimate
    change: dict[str, Estimate]

    @property
    def helps(self) -> bool:
        """Whether the interval of the change in log-loss lies below 0: the cases at hand show a gain."""
        high = self.change["log_loss"].high
        return high is not None and high < 0


def update_for_site(y: FloatArray, p: FloatArray, patients: IntArray | None = None) -> SiteUpdate:
    """Fit the shift to labelled cases of the new site: y (n,) in {0, 1}, p (n,) the finished model's, patients codes (n,) or None.

    The change is cross-validated: patients are left out one by one (in 100 groups when there are more). Cases of one
    class cannot be fitted: the model stays as it is, and the notes say so.
    """
    y, p = check_labels_and_probabilities(y, p)
    logit = log_odds_of(p)
    recalibrator = fit_recalibration("intercept", y, logit)
    intercept = calibration_intercept(y, p, patients)[0]
    if recalibrator.method == "none":
        return SiteUpdate(recalibrator, intercept, dict.fromkeys(SCORES, not_estimable("one class only")))
    # Without patients the rows are numbered in the order of p, so that their order in the file changes nothing.
    unit = np.argsort(np.lexsort((y, p)), kind="stable") if patients is None else patients
    fold = np.unique(unit, return_inverse=True)[1] % MOST_FOLDS
    after = np.empty(y.size)
    for held in np.unique(fold):
        rows = fold == held
        after[rows] = fit_recalibration("intercept", y[~rows], logit[~rows]).apply(logit[rows])
    return SiteUpdate(recalibrator, intercept, score_changes(y, p, after, patients))


def score_changes(y: FloatArray, before: FloatArray, after: FloatArray, patients: IntArray | None = None) -> dict[str, Estimate]:
    """`brier` and `log_loss` of `after` minus that of `before` on the same rows, paired, clustered when patients repeat.

    y (n,) in {0, 1}; before, after (n,) in [0, 1]. The log-loss is not estimable where either is infinite.
    """
    y, before = check_labels_and_probabilities(y, before)
    y, after = check_labels_and_probabilities(y, after)
    if before.shape != after.shape:
        raise InputError(f"before has {before.size} rows, after {after.size}; expected the same rows")
    changes = {"brier": mean_estimate(np.square(after - y) - np.square(before - y), patients)}
    losses = row_log_loss(y, after), row_log_loss(y, before)
    if np.isinf(losses).any():
        return changes | {"log_loss": not_estimable("the log-loss is infinite: a wrong row has a probability of exactly 0 or 1")}
    return changes | {"log_loss": mean_estimate(losses[0] - losses[1], patients)}
