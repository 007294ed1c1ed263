"""Calibration, recalibration, classification and utility: values from R and Python libraries that this project did not write.

Every exact and iterative record of this room is reproduced within its tolerance, or stands in NO_COUNTERPART with the reason.
"""

import math
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from reference_calibration_quantities import SINGLE, binned, curve_at, direct, distances, of_clustered_calibration, smooth
from reference_cases import FOLDER, by_id, records, scores
from reference_decision_quantities import (
    of_decision,
    of_isotonic_ties,
    of_recalibration,
    of_thresholds,
    of_utility,
    stratos_classification,
    stratos_utility,
)

pytestmark = pytest.mark.skipif(not (FOLDER / "reference.json").exists(), reason="needs shared/reference beside the repository")

# ---------------------------------------------------------------- what is not reproduced, and why

LOWESS = "lowess(iter=0), val.prob's smoother: another number; loess and a spline are offered"
TIES_SPLIT = "splits tied probabilities between bins; here ties share a bin"
NO_COUNTERPART = {
    "giviti_test_external": "the calibration belt is not offered; where it stays linear it is the unreliability test, which is",
    "ici_lowess_iter0": LOWESS,
    "ici_lowess_statsmodels": LOWESS,
    "ici_loess_on_logit": "loess on the log odds: another number",
    "ece15_width_torchmetrics_float32": "float32 moves rows between bins; everything here is float64",
    "mce15_width_torchmetrics_float32": "float32 moves rows between bins; everything here is float64",
    "ece15_confidence_torchmetrics_multiclass": "torchmetrics casts to float32; the float64 value is reproduced",
    "ece15_mass_calzone": "drops the smallest probability",
    "mce15_mass_calzone": "drops the smallest probability",
    "n_counted_mass_calzone": "drops the smallest probability",
    "n_counted_width_calzone": "counts another program's rows",
    "mass15_explained_equal_count_sorted": TIES_SPLIT,
    "uncertainty_calibration_l1_binned_positive": TIES_SPLIT,
    "uncertainty_calibration_l2_debiased": "debiased root mean square in equal-mass bins: not offered",
    "val_prob_C_minus_exact_auc": "the rounding error of val.prob's C",
    "temperature_netcal_weights": "stops early: 1e-5 from the optimum",
    "platt_sklearn_sigmoid_on_logit": "Platt's smoothed targets, not maximum likelihood",
    "beta_abm_betacal": "stops early: 7e-3 from the optimum",
    "isotonic_isoreg_ties": "isoreg's sum of squares with ties: the tie-averaged fit is reproduced as isotonic_secondary_ties",
    **dict.fromkeys(
        (f"{metric}_confidenceinterval" for metric in ("sensitivity", "specificity", "ppv", "npv", "accuracy")),
        "that program adds 1e-7 to the denominator: its proportions are off in the ninth digit; R's Wilson limits are reproduced",
    ),
    "f1_takahashi_binary": "that program's formula differs from the delta method by 7e-4 of the standard error",
    "f1_macro_takahashi": "macro F1 over both classes of a binary label is not offered",
    "b5000/rmsce10_width_torchmetrics": "of 10 edges torch.linspace and numpy.linspace differ in the last bit, and scores lie on them",
    "best_closest_topleft": "another rule than any that is offered",
    "stratos_adnex_case": "its input is not among the files",
}
# Parts of a record that are not compared, the rest of it is.
UNCOMPARED = {
    "C (ROC)": "val.prob ranks probabilities rounded to 0.002",
    "Dxy": "val.prob ranks probabilities rounded to 0.002",
    "Emax": LOWESS,
    "E90": LOWESS,
    "Eavg": LOWESS,
    "D:p": "the p value of a discrimination that is not in doubt",
    "counts": "counts with empty bins; here empty bins are left out, and their number is compared",
}


def of_single(case: str, quantity: str, record: dict[str, Any]) -> Any:
    y, p = scores(case)
    if quantity in SINGLE:
        return SINGLE[quantity](y, p)
    if quantity in {"ici_loess_direct", "ici_loess_numpy_direct"}:
        return distances(y, p, direct(case))
    if quantity == "loess_direct_vs_interpolate_maxdiff":
        return float(np.abs(direct(case) - smooth(y, p)).max())
    if quantity.startswith("loess_curve_"):
        return curve_at(case, quantity.split("_")[2], record["value"]["p"])
    if quantity.startswith("ici_loess_span"):
        span, degree = quantity.removeprefix("ici_loess_span").split("_degree")
        return distances(y, p, smooth(y, p, float(span), int(degree)))
    if quantity.startswith("stratos_classification_cut"):
        return stratos_classification(y, p, float(quantity.removeprefix("stratos_classification_cut")))
    if quantity.startswith("stratos_utility_cut"):
        return stratos_utility(y, p, float(quantity.removeprefix("stratos_utility_cut")))
    if quantity.startswith("isotonic"):
        return of_isotonic_ties(quantity, y, p, record)
    if quantity.split("_")[-1] in {"netcal", "torchmetrics", "calzone"}:
        return binned(quantity, y, p)
    return None


# ---------------------------------------------------------------- the comparison


@cache
def reproduce(name: str) -> Any:
    """This project's value of the record of this id, or None when it is no quantity of this room."""
    record = by_id()[name]
    case, _, quantity = record["id"].partition("/")
    if case.startswith("dca."):
        return of_utility(case, quantity)
    if case.startswith("recal."):
        return of_recalibration(case, quantity)
    if case == "f600_clustered.s1.calibration":
        return of_clustered_calibration(quantity)
    if ".thr" in case and not case.startswith("f600"):
        return of_decision(case, quantity)
    if case.startswith(("aSAH.", "b200", "b5000", "e5000.")) and "_vs_" not in case and not case.endswith((".singletons", "_men")):
        found = of_thresholds(case, quantity)
        return found if found is not None else of_single(case, quantity, record)
    return None


def number(value: Any) -> float:
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value, value) if isinstance(value, str) else float(value)


def agrees(mine: Any, theirs: Any, record: dict[str, Any]) -> bool:
    """Of a dictionary every key of theirs that is not in UNCOMPARED must be in mine; of a list every number counts."""
    if isinstance(theirs, dict):
        shared = [key for key in theirs if key in mine and theirs[key] is not None]
        skipped = {key for key in theirs if key not in mine and theirs[key] is not None}
        return bool(shared) and skipped <= set(UNCOMPARED) and all(agrees(mine[key], theirs[key], record) for key in shared)
    if isinstance(theirs, list):
        return len(mine) == len(theirs) and all(agrees(own, value, record) for own, value in zip(mine, theirs, strict=True))
    if theirs is None or mine is None:
        return theirs is None and mine is None
    expected = number(theirs)
    if not math.isfinite(expected):
        return float(mine) == expected or (math.isnan(expected) and math.isnan(float(mine)))
    return abs(float(mine) - expected) <= max(record["tol_abs"], record["tol_rel"] * abs(expected))


def explained(record: dict[str, Any]) -> bool:
    case, _, quantity = record["id"].partition("/")
    return bool({record["id"], case, quantity} & set(NO_COUNTERPART))


def accounted(record: dict[str, Any]) -> bool:
    """Whether this test reproduces the record or says why not."""
    return explained(record) or reproduce(record["id"]) is not None


def test_every_record_of_this_room_is_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    fate, wrong = Counter(), []
    for record in records():
        if record["kind"] not in {"exact", "iterative"}:
            continue
        if explained(record):
            fate["without counterpart"] += 1
            continue
        mine = reproduce(record["id"])
        if mine is None:
            fate["of other rooms"] += 1
        elif agrees(mine, record["value"], record):
            fate["reproduced"] += 1
        else:
            wrong.append((record["id"], mine, record["value"]))
    with capsys.disabled():
        print(f"\nreference values of calibration, classification and utility: {dict(fate)}")
    assert not wrong, "\n".join(str(w)[:700] for w in wrong[:40])
    assert fate["reproduced"] >= 667


def test_table_of_reasons_names_only_records_that_exist() -> None:
    assert set(NO_COUNTERPART) <= {part for record in records() for part in (record["id"], *record["id"].split("/", 1))}


def test_comparison_notices_a_wrong_last_digit() -> None:
    record = {"tol_abs": 1e-12, "tol_rel": 1e-10}
    assert agrees({"a": 0.5}, {"a": 0.5, "Dxy": 1.0}, record)
    assert not agrees({"a": 0.5}, {"a": 0.5, "b": 1.0}, record)
    assert not agrees({"a": 0.5 + 1e-9}, {"a": 0.5}, record)
    assert not agrees({"c": 0.5}, {"a": 0.5}, record)
    assert not agrees([0.5], [0.5, 0.6], record)
    assert not agrees(None, 0.5, record)
