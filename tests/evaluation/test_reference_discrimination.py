"""Values from R and from Python libraries that this project did not write, reproduced within their tolerance.

Every exact and iterative record of the reference is accounted for: reproduced here, without a counterpart for the reason
in NO_COUNTERPART, or a number of calibration, classification and utility (OTHER_ROOMS), which their own test takes.
"""

import json
import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medcnn.errors import InputError
from medcnn.evaluation.areas import average_precision, boyd_limits, mcclish_corrected, partial_auroc
from medcnn.evaluation.bootstrap import bootstrap_auroc, percentile_interval
from medcnn.evaluation.clustered import auroc_influence, cluster_design, obuchowski_covariance, obuchowski_variance
from medcnn.evaluation.curves import roc_coordinates, threshold_curve
from medcnn.evaluation.discrimination import auroc_interval, newcombe_limits
from medcnn.evaluation.intervals import clopper_pearson, patient_codes, ratio_estimator, ratio_logit_interval, wilson
from medcnn.evaluation.placements import auroc, delong_covariance, delong_variance, placements
from medcnn.evaluation.significance import adjust_p, mcnemar, normal_p, paired_auroc_test, unpaired_auroc_test

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference"
pytestmark = pytest.mark.skipif(not (FOLDER / "reference.json").exists(), reason="needs shared/reference beside the repository")

# ---------------------------------------------------------------- what is not reproduced, and why

NO_COUNTERPART = {
    "auc_var_binormal_obuchowski_mcclish": "binormal variance, another estimator than any that is reported",
    "auc_ci95_auRoc_pepe": "logit interval whose variance assumes no ties; wrong when there are",
    "auprc_trapezoid_anchor_first": "another definition of the area; the step-wise one is reported",
    "auprc_prroc_integral": "another definition of the area; the step-wise one is reported",
    "auprc_prroc_davis_goadrich": "another definition of the area; the step-wise one is reported",
    "auprc_precrec": "another definition of the area; the step-wise one is reported",
    "auprc_rocr_aucpr": "another definition of the area; the step-wise one is reported",
    "auprc_MLmetrics": "drops recall from 0 to the first point",
    "wilson_hmisc_binconf": "not Wilson's interval at 1 and n - 1",
    "wilson_cc_prop_test": "continuity-corrected; not reported",
    "scipy_wilsoncc": "continuity-corrected; not reported",
    "agresti_coull": "not reported",
    "statsmodels_agresti_coull": "not reported",
    "jeffreys": "not reported",
    "statsmodels_jeffreys": "not reported",
    "statsmodels_normal": "not reported: empty at 0 and n",
    "obuchowski_agreement_max_abs_diff": "compares three foreign programs with one another",
    "mcnemar_hand.b0_c0/p": "NaN in R; 1 here, since no discordant case is no evidence",
    "mcnemar_hand.b0_c0/p_cc": "NaN in R; 1 here",
    "mcnemar_hand.b0_c0/p_exact": "an error in R; 1 here",
    "mcnemar_hand.b0_c0/statsmodels_exact0_correction1": "p = 0 in statsmodels, plainly wrong",
    "mcnemar_hand.b0_c0/statsmodels_exact0_correction0": "NaN in statsmodels; 1 here",
    "mcnemar_hand.b5_c5/statsmodels_exact0_correction1": "the correction must vanish at b = c, as in R",
}
OTHER_ROOMS_CASES = ("dca.", "recal.", "f600_clustered.s1.calibration", "aSAH.s100b.thr", "b200.thr", "b5000.thr")
OTHER_ROOMS = set(
    """best_youden best_closest_topleft best_youden_pROC119 operating_point_sens_ge_0.9 operating_point_spec_ge_0.9 coords_at_threshold_0.1
    coords_at_threshold_0.3 coords_at_threshold_0.5 youden_roc_curve rms_val_prob val_prob_ci_2_stats val_prob_ci_2_citl_ci
    val_prob_ci_2_slope_ci citl citl_se citl_ci95_wald citl_ci95_profile citl_ci95_lr_exact cal_slope cal_slope_se cal_slope_ci95_wald
    cal_slope_ci95_profile cal_slope_ci95_lr_exact cal_intercept_joint cal_intercept_joint_se unreliability_LR_test_df2 citl_LR_test_df1
    slope_LR_test_df1 brier brier_scaled brier_se brier_riskRegression_est_se_lo_hi log_loss obs_events exp_events oe_ratio
    oe_ratio_ci95_log_wald spiegelhalter_z_p hosmer_lemeshow_g10 hosmer_lemeshow_g20 giviti_test_external loess_direct_vs_interpolate_maxdiff
    loess_curve_interpolate_at_grid loess_curve_direct_at_grid val_prob_C_minus_exact_auc spiegelhalter_calzone n_counted_width_calzone
    n_counted_mass_calzone uncertainty_calibration_l1_binned_positive uncertainty_calibration_l2_debiased brier_sklearn log_loss_sklearn
    isotonic_isoreg_ties isotonic_secondary_ties isotonic_sklearn_ties stratos_calibration_loess stratos_calibration_rcs3
    stratos_calibration_rcs5 stratos_overall sklearn_calibration_curve_uniform15 sklearn_calibration_curve_quantile15""".split()  # noqa: SIM905 - a table of names is read faster as words
)
OTHER_ROOMS_STEMS = ("ici_", "ece1", "mce1", "ace1", "rmsce1", "smece_", "width15_", "mass15_", "stratos_classification", "stratos_utility")


# ---------------------------------------------------------------- the cases


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "inputs" / f"{name}.csv")


@cache
def scores(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Labels, scores and patients of a case, or None when its input is not among the files."""
    if case.startswith("aSAH."):
        frame, column = table("a_aSAH"), case.removeprefix("aSAH.")
        return (frame.y.to_numpy(), frame[column].to_numpy(), None) if column in frame else None
    if case in {"b200", "b5000"}:
        return table(case).y.to_numpy(), table(case).score.to_numpy(), None
    if case.startswith("e5000."):
        frame = table("e5000_calib")
        return frame.y.to_numpy(), frame[case.removeprefix("e5000.")].to_numpy(), None
    if case in {"f600_clustered.s1", "f600_clustered.s2"}:
        frame = table("f600_clustered")
        return frame.y.to_numpy(), frame[case[-2:]].to_numpy(), frame.patient.to_numpy()
    return None


def limits(estimate: Any) -> list[float]:
    return [estimate.low, estimate.high]


def interpolated(y: np.ndarray, s: np.ndarray, **target: float) -> dict[str, Any]:
    found = roc_coordinates(threshold_curve(y, s), **target)
    return {**found, "threshold": None, "youden": found["sensitivity"] + found["specificity"]}


def proc_points(y: np.ndarray, s: np.ndarray) -> dict[str, Any]:
    """pROC's order (lowest threshold first) and its thresholds: midpoints between the observed scores."""
    curve = threshold_curve(y, s)
    observed = curve.threshold[:0:-1]
    middle = [-math.inf, *((observed[1:] + observed[:-1]) / 2), math.inf]
    return {"threshold": middle, "sensitivity": curve.sensitivity[::-1], "specificity": curve.specificity[::-1]}


def aggregated(y: np.ndarray, s: np.ndarray, patient: np.ndarray, how: str) -> list[float]:
    frame = pd.DataFrame({"y": y, "s": s, "patient": patient}).groupby("patient")
    # R takes means in 80-bit floats; means that tie as decimals then differ or not in R's way, which moves the AUROC by 1e-4.
    means = frame.s.apply(lambda scores: float(np.mean(scores.to_numpy(np.longdouble)))) if how == "mean" else frame.s.max()
    estimate = auroc_interval(frame.y.max().to_numpy(), means.to_numpy())
    return [estimate.value, estimate.low, estimate.high]


def area(y: np.ndarray, s: np.ndarray, low: float, focus: str, *, corrected: bool = False) -> float | None:
    raw = partial_auroc(y, s, low, 1.0, focus)
    return mcclish_corrected(raw, low, 1.0) if corrected else raw


SINGLE = {
    "n": lambda y, s, _: len(y),
    "n_pos": lambda y, s, _: threshold_curve(y, s).n_positive,
    "n_neg": lambda y, s, _: threshold_curve(y, s).n_negative,
    "n_unique_scores": lambda y, s, _: len(threshold_curve(y, s).threshold) - 1,
    "n_roc_points": lambda y, s, _: len(threshold_curve(y, s).threshold),
    "roc_all_points": lambda y, s, _: proc_points(y, s),
    **dict.fromkeys(("auc", "auc_wilcoxon", "auc_somers2_C", "auc_rocr", "auc_concordance", "roc_auc_score"), lambda y, s, _: auroc(y, s)),
    "auc_var_concordance_ij": lambda y, s, _: float((auroc_influence(y, s, *patient_codes(None, len(y)))[1] ** 2).sum()),
    "auc_var_delong": lambda y, s, _: delong_variance(y, s),
    "auc_se_delong": lambda y, s, _: auroc_interval(y, s).se,
    "auc_ci90_delong": lambda y, s, _: limits(auroc_interval(y, s, confidence=0.90)),
    "auc_ci95_delong": lambda y, s, _: limits(auroc_interval(y, s)),
    "auc_ci95_auRoc_delong": lambda y, s, _: limits(auroc_interval(y, s)),
    "auc_ci99_delong": lambda y, s, _: limits(auroc_interval(y, s, confidence=0.99)),
    "auc_ci95_logit": lambda y, s, _: limits(auroc_interval(y, s, method="logit")),
    "auc_ci95_auRoc_newcombe": lambda y, s, _: limits(auroc_interval(y, s, method="newcombe")),
    "pauc_spec90_100": lambda y, s, _: area(y, s, 0.9, "specificity"),
    "pauc_spec90_100_corrected": lambda y, s, _: area(y, s, 0.9, "specificity", corrected=True),
    "pauc_spec80_100": lambda y, s, _: area(y, s, 0.8, "specificity"),
    "pauc_spec80_100_corrected": lambda y, s, _: area(y, s, 0.8, "specificity", corrected=True),
    "pauc_sens90_100": lambda y, s, _: area(y, s, 0.9, "sensitivity"),
    "pauc_sens90_100_corrected": lambda y, s, _: area(y, s, 0.9, "sensitivity", corrected=True),
    "roc_auc_score_max_fpr0.1": lambda y, s, _: area(y, s, 0.9, "specificity", corrected=True),
    "coords_at_sens0.9_interpolated": lambda y, s, _: interpolated(y, s, sensitivity=0.9),
    "coords_at_spec0.9_interpolated": lambda y, s, _: interpolated(y, s, specificity=0.9),
    "average_precision": lambda y, s, _: average_precision(y, s),
    "average_precision_score": lambda y, s, _: average_precision(y, s),
    "ap_ci95_boyd_logit": lambda y, s, _: boyd_limits(average_precision(y, s), int(y.sum())),
    "prevalence_baseline": lambda y, s, _: threshold_curve(y, s).precision[-1],
    "auprc_trapezoid_anchor_precision1": lambda y, s, _: trapezoid(y, s),
    "auc_of_precision_recall_curve": lambda y, s, _: trapezoid(y, s),
    "stratos_discrimination": lambda y, s, _: {
        "AUROC/c statistic": auroc(y, s),
        "AP": average_precision(y, s),
        "pAUROC": partial_auroc(y, s, 0.8, 1.0, "sensitivity"),
    },
    "delong_var_confidenceinterval": lambda y, s, _: [auroc(y, s), delong_variance(y, s)],
    "delong_ci95_confidenceinterval": lambda y, s, _: [auroc(y, s), limits(auroc_interval(y, s))],
    "naive_var_delong": lambda y, s, _: delong_variance(y, s),
    "naive_ci95_delong": lambda y, s, _: limits(auroc_interval(y, s)),
    **dict.fromkeys(("obuchowski_var", "obuchowski_var_own_R", "obuchowski_var_michael"), lambda y, s, c: obuchowski_variance(y, s, c)[1]),
    "obuchowski_se": lambda y, s, c: auroc_interval(y, s, c).se,
    "obuchowski_ci95": lambda y, s, c: limits(auroc_interval(y, s, c)),
    "obuchowski_ci95_logit": lambda y, s, c: limits(auroc_interval(y, s, c, method="logit")),
    "design_effect": lambda y, s, c: obuchowski_variance(y, s, c)[1] / delong_variance(y, s),
    "patient_level_auc_mean_score": lambda y, s, c: aggregated(y, s, c, "mean"),
    "patient_level_auc_max_score": lambda y, s, c: aggregated(y, s, c, "max"),
}


def trapezoid(y: np.ndarray, s: np.ndarray) -> float:
    curve = threshold_curve(y, s)
    return float(np.trapezoid(curve.precision, curve.sensitivity))


# ---------------------------------------------------------------- pairs and small tables


def of_pair(case: str, quantity: str) -> Any:
    first, second = case.split("_vs_")
    if case == "aSAH.s100b_women_vs_men":
        frame = table("a_aSAH")
        sides = [(frame.y[frame.gender == sex].to_numpy(), frame.s100b[frame.gender == sex].to_numpy(), None) for sex in ("Female", "Male")]
    else:
        sides = [scores(first), scores(second if "." in second or second.startswith("b") else f"{first.split('.')[0]}.{second}")]
    (y, a, patient), (other_y, b, _) = sides
    if quantity.startswith(("delong_unpaired", "auc_1", "auc_2")):
        normal, welch = unpaired_auroc_test(y, a, other_y, b)
        return {
            "delong_unpaired_D": normal.statistic,
            "delong_unpaired_df": welch.df,
            "delong_unpaired_p": welch.p,
            "delong_unpaired_p_normal": normal.p,
            "auc_1": auroc(y, a),
            "auc_2": auroc(other_y, b),
        }.get(quantity)
    models = [placements(y, a), placements(y, b)]
    covariance = delong_covariance(models)
    test, clustered = paired_auroc_test(y, a, b), paired_auroc_test(y, a, b, patient)
    v1, v2, both = covariance[0, 0], covariance[1, 1], covariance[0, 1]
    known = {
        "auc_diff": test.difference,
        "delong_paired_Z": test.statistic,
        "delong_paired_p": test.p,
        "delong_paired_p_greater": paired_auroc_test(y, a, b, alternative="greater").p,
        "delong_paired_p_less": paired_auroc_test(y, a, b, alternative="less").p,
        "delong_paired_diff_ci95": limits(test),
        "delong_se_diff": test.se,
        "delong_var_1": v1,
        "delong_var_2": v2,
        "delong_cov": both,
        "delong_corr": both / math.sqrt(v1 * v2),
        # MLstatkit tests B - A
        "mlstatkit_delong": [-test.statistic, test.p, limits(auroc_interval(y, a)), limits(auroc_interval(y, b)), auroc(y, a), auroc(y, b)],
        "naive_delong_paired_Z_p": {"Z": test.statistic, "p": test.p},
        "obuchowski_var_diff": clustered.se**2,
        "obuchowski_z": clustered.statistic,
        "obuchowski_p": clustered.p,
        "obuchowski_diff_ci95": limits(clustered),
    }
    if quantity in {"obuchowski_cov", "obuchowski_cov_own_R"}:
        return obuchowski_covariance(y, *patient_codes(patient, len(y)), models)[0, 1]
    return known.get(quantity)


def of_proportion(case: str, quantity: str) -> Any:
    hits, n = (int(part) for part in case.removeprefix("proportion.").split("_of_"))
    if quantity in {"wilson", "wilson_binom_pkg", "statsmodels_wilson", "scipy_wilson"}:
        return wilson(hits, n)
    if quantity in {"clopper_pearson", "clopper_pearson_hmisc", "statsmodels_beta", "scipy_exact"}:
        return clopper_pearson(hits, n)
    return None


def of_mcnemar(case: str, quantity: str) -> Any:
    b, c = (int(part[1:]) for part in case.removeprefix("mcnemar_hand.").split("_"))
    test = mcnemar(b, c)
    return {
        "p": test.p,
        "p_cc": test.p_corrected,
        "p_exact": test.p_exact,
        "statsmodels_exact1": {"stat": min(b, c), "p": test.p_exact},
        "statsmodels_exact0_correction1": {"stat": test.statistic_corrected, "p": test.p_corrected},
        "statsmodels_exact0_correction0": {"stat": test.statistic, "p": test.p},
    }.get(quantity)


def of_adjustment(case: str, quantity: str) -> Any:
    p = [0.01, 0.02, 0.03, 0.04, 0.05, 0.01, None, 0.9]
    names = {"p_BH": "fdr_bh", "p_BY": "fdr_by", "simes-hochberg": "hochberg"}
    method = names.get(quantity, quantity.removeprefix("p_"))
    if case.endswith("no_na"):
        return adjust_p([value for value in p if value is not None], method)
    return dict(zip("abcdefgh", adjust_p(p, method), strict=True))


def of_clustered_decision(case: str, quantity: str) -> Any:
    frame = table("f600_clustered")
    which = case.rsplit(".", 1)[1]
    frame = frame[frame.y == (1 if which == "sensitivity" else 0)]
    called = (frame.s1 >= 0.5).to_numpy()
    ratio = ratio_estimator(called if which == "sensitivity" else ~called, frame.patient.to_numpy())
    p = ratio.value
    logit, se = math.log(p / (1 - p)), ratio.se / (p * (1 - p))
    return {
        "estimate": p,
        "ratio_estimator_se": ratio.se,
        "naive_se": math.sqrt(p * (1 - p) / ratio.n),
        "design_effect": ratio.design_effect,
        "vcovCL_HC0_logit_est_se_ci95": [logit, se, *ratio_logit_interval(ratio)],
        "vcovCL_HC1_logit_est_se_ci95": [logit, se, *ratio_logit_interval(ratio)],
        "geepack_independence_logit_est_se": [logit, se * math.sqrt((ratio.n_patients - 1) / ratio.n_patients)],
    }.get(quantity)


def of_design() -> dict[str, int]:
    frame = table("f600_clustered")
    codes, n_patients = patient_codes(frame.patient.to_numpy(), len(frame))
    design, sizes = cluster_design(frame.y.to_numpy(), codes, n_patients), np.bincount(codes)
    return {
        "images": design.n_positive + design.n_negative,
        "patients": n_patients,
        "pos": design.n_positive,
        "neg": design.n_negative,
        "patients_with_pos": design.n_patients_positive,
        "patients_with_neg": design.n_patients_negative,
        "patients_mixed": design.n_patients_positive + design.n_patients_negative - n_patients,
        "max_cluster": int(sizes.max()),
        "min_cluster": int(sizes.min()),
    }


def of_singletons(case: str) -> Any:
    if case == "aSAH.singletons":
        frame = table("a_aSAH")
        codes, n = patient_codes(frame.id.to_numpy(), len(frame))
        y, a, b = frame.y.to_numpy(), frame.s100b.to_numpy(), frame.ndka.to_numpy()
        covariance = obuchowski_covariance(y, codes, n, [placements(y, a), placements(y, b)])
        z = (auroc(y, a) - auroc(y, b)) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        return {"z": z, "p": normal_p(z)}
    frame = table("f600_clustered")
    return obuchowski_variance(frame.y, frame.s1, frame.image)[1] - delong_variance(frame.y, frame.s1)


def reproduce(case: str, quantity: str) -> Any:
    """This project's value of a record, or None when it is not a quantity of this room."""
    if case.startswith("proportion."):
        return of_proportion(case, quantity)
    if case.startswith("mcnemar_hand."):
        return of_mcnemar(case, quantity)
    if case.startswith("padjust"):
        return of_adjustment(case, quantity)
    if case.endswith(".singletons"):
        return of_singletons(case)
    if case == "f600_clustered":
        return of_design()
    if case.startswith("f600_clustered.s1.thr"):
        return of_clustered_decision(case, quantity)
    if "_vs_" in case:
        return of_pair(case, quantity)
    data = scores(case)
    return SINGLE[quantity](*data) if data is not None and quantity in SINGLE else None


# ---------------------------------------------------------------- comparison


def number(value: Any) -> float:
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value, value) if isinstance(value, str) else float(value)


def agrees(mine: Any, theirs: Any, record: dict[str, Any]) -> bool:
    if isinstance(theirs, dict):
        return all(agrees(mine[key], value, record) for key, value in theirs.items() if key in mine) and bool(set(mine) <= set(theirs))
    if isinstance(theirs, list):
        return len(mine) <= len(theirs) and all(agrees(own, value, record) for own, value in zip(mine, theirs, strict=False))
    if theirs is None or mine is None:
        return theirs is None and mine is None
    expected = number(theirs)
    if not math.isfinite(expected):
        return float(mine) == expected
    return abs(float(mine) - expected) <= max(record["tol_abs"], record["tol_rel"] * abs(expected))


@cache
def records() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads((FOLDER / "reference.json").read_text())["records"])


def belongs_elsewhere(case: str, quantity: str) -> bool:
    if case.startswith("f600_clustered.s1.thr"):
        return False
    return case.startswith(OTHER_ROOMS_CASES) or quantity in OTHER_ROOMS or quantity.startswith(OTHER_ROOMS_STEMS)


def test_every_record_is_reproduced_or_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    fate, wrong, unknown = Counter(), [], []
    for record in records():
        case, _, quantity = record["id"].partition("/")
        if record["kind"] not in {"exact", "iterative"}:
            continue
        if record["id"] in NO_COUNTERPART or quantity in NO_COUNTERPART:
            fate["without counterpart"] += 1
        elif case == "stratos_adnex_case" or belongs_elsewhere(case, quantity):
            fate["of other rooms"] += 1
        else:
            mine = reproduce(case, quantity)
            if mine is None and record["value"] is not None:
                unknown.append(record["id"])
            elif agrees(mine, record["value"], record):
                fate["reproduced"] += 1
            else:
                wrong.append((record["id"], mine, record["value"]))
    with capsys.disabled():
        print(f"\nreference values of discrimination and comparison: {dict(fate)}")
    assert not unknown, f"no counterpart and no reason: {unknown}"
    assert not wrong, wrong[:5]
    assert fate["reproduced"] >= 500


def test_tables_of_reasons_name_only_records_that_exist() -> None:
    known = {part for record in records() for part in (record["id"], record["id"].partition("/")[2])}
    assert set(NO_COUNTERPART) <= known
    assert known >= OTHER_ROOMS


def test_comparison_notices_a_wrong_last_digit() -> None:
    record = {"tol_abs": 1e-12, "tol_rel": 1e-10}
    assert agrees(0.5, 0.5, record)
    assert not agrees(0.5 + 1e-9, 0.5, record)
    assert not agrees([0.5, 0.6], [0.5, 0.7], record)
    assert not agrees(None, 0.5, record)
    assert not agrees(0.5, None, record)


# ---------------------------------------------------------------- Monte Carlo


@pytest.mark.parametrize("case", ["aSAH.s100b", "aSAH.ndka", "aSAH.wfns", "aSAH.age", "b200", "b5000"])
@pytest.mark.parametrize("design", ["stratified", "unstratified"])
def test_bootstrap_interval_lies_within_a_third_of_a_standard_error(case: str, design: str) -> None:
    y, s, _ = scores(case)
    values = bootstrap_auroc(y, s, stratified=design == "stratified", seed=1)
    reference = next(record["value"] for record in records() if record["id"] == f"{case}/auc_ci95_bootstrap_{design}2000")
    np.testing.assert_allclose(percentile_interval(values)[:2], reference, atol=0.35 * auroc_interval(y, s).se)


@pytest.mark.parametrize("column", ["s1", "s2"])
def test_patient_bootstrap_agrees_with_r(column: str) -> None:
    y, s, patient = scores(f"f600_clustered.{column}")
    values = bootstrap_auroc(y, s, patient, seed=1)
    known = {record["id"]: record["value"] for record in records()}
    se = known[f"f600_clustered.{column}/patient_bootstrap4000_se"]
    np.testing.assert_allclose(
        percentile_interval(values)[:2], known[f"f600_clustered.{column}/patient_bootstrap4000_ci95"], atol=0.35 * se
    )
    np.testing.assert_allclose(values.std(ddof=1), se, rtol=0.06)


# ---------------------------------------------------------------- behaviour at the edges: what this project does

EDGES = {
    "i_constant": (0.5, "newcombe"),
    "i_inverted": (0.0, "newcombe"),
    "i_perfect": (1.0, "newcombe"),
    "i_n2_right": (1.0, "newcombe"),
    "i_n2_tie": (0.5, "newcombe"),
    "i_n2_wrong": (0.0, "newcombe"),
    "i_one_positive": (0.868421052631579, "newcombe"),
    "i_probs_0_and_1": (0.87, "delong"),
    "i_unbounded_scores": (0.6, "delong"),
}


@pytest.mark.parametrize("case", sorted(EDGES))
def test_edge_has_a_fixed_direction_and_never_an_empty_interval(case: str) -> None:
    known = {record["id"]: record["value"] for record in records()}
    frame = table(case)
    value, method = EDGES[case]
    estimate = auroc_interval(frame.y, frame.score)
    assert estimate.value == pytest.approx(value, abs=1e-12)
    assert estimate.value == pytest.approx(known[f"{case}/auc"], abs=1e-12)
    assert estimate.method == method
    assert estimate.low < estimate.high
    theirs = known[f"{case}/ci95_auRoc_newcombe"] if method == "newcombe" else known[f"{case}/ci95_delong"]
    np.testing.assert_allclose(limits(estimate), theirs, atol=1e-9)
    np.testing.assert_allclose(
        limits(auroc_interval(frame.y, frame.score, method="newcombe")), known[f"{case}/ci95_auRoc_newcombe"], atol=1e-9
    )
    assert average_precision(frame.y, frame.score) == pytest.approx(known[f"{case}/py_average_precision"], abs=1e-12)
    corrected = known[f"{case}/pauc_corrected"]
    assert area(frame.y, frame.score, 0.9, "specificity", corrected=True) == (
        corrected if corrected is None else pytest.approx(corrected, abs=1e-12)
    )


@pytest.mark.parametrize("case", ["i_only_neg", "i_only_pos"])
def test_one_class_is_not_estimable_and_says_which(case: str) -> None:
    frame = table(case)
    estimate = auroc_interval(frame.y, frame.score)
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
    assert estimate.note == f"not estimable: no {'positive' if case == 'i_only_neg' else 'negative'} case among {len(frame)}"
    with pytest.raises(InputError, match="both classes"):
        auroc(frame.y, frame.score)


def test_nan_scores_are_an_error_that_names_the_rows() -> None:
    frame = table("i_nan_scores")
    rows = ", ".join(str(row) for row in np.flatnonzero(frame.score.isna()))
    with pytest.raises(InputError, match=rf"NaN in {int(frame.score.isna().sum())} rows \({rows}\)"):
        auroc_interval(frame.y, frame.score)


def test_pairs_without_variance() -> None:
    perfect, b200 = table("i_perfect"), table("b200")
    same = paired_auroc_test(perfect.y, perfect.score, perfect.score)
    assert (same.difference, same.statistic, same.p) == (0.0, 0.0, 1.0)
    squared = paired_auroc_test(perfect.y, perfect.score, perfect.y + perfect.score / 2)
    assert (squared.statistic, squared.p) == (0.0, 1.0)
    cubed = paired_auroc_test(b200.y, b200.score, b200.score**3)
    assert (cubed.statistic, cubed.p, cubed.low, cubed.high) == (0.0, 1.0, 0.0, 0.0)
    # pROC answers Z = Inf, p = 0 from a variance of 0; here the interval is honest and no p is made up.
    opposite = paired_auroc_test(perfect.y, perfect.score, -perfect.score)
    assert (opposite.difference, opposite.statistic, opposite.p) == (1.0, None, None)
    assert 0.8 < opposite.low < 0.9
    assert newcombe_limits(1.0, 20, 30)[0] == pytest.approx(0.91593893, abs=1e-8)
