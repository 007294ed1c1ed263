"""Weights of an ensemble's rungs: those with the lowest log-loss on rows of patients whom the fold does not test."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from medcnn.artifact import write_file
from medcnn.errors import InputError
from medcnn.evaluation.calibration_rows import FITTED_ON, calibration_rows, fitting_source
from medcnn.evaluation.ensemble import Combination, combine, from_mean, member_values
from medcnn.evaluation.estimates import FloatArray
from medcnn.evaluation.multiclass_recalibration import SMALLEST
from medcnn.tables import Task, label_matrix, label_names

WEIGHTS_FILE = "weights.json"
KEY = ["part", "fold", "image_id"]
Objective = Callable[[FloatArray], tuple[float, FloatArray]]


@dataclass(frozen=True, kw_only=True)
class FoldWeights:
    """The weights for a fold's rows of one part: rung -> share, summing to one; and what they were fitted on (none: 0 rows).

    log_loss, log_loss_equal: of the weighted and of the plain mean on the rows that fitted; None where nothing was fitted.
    """

    part: str
    fold: int
    weights: Mapping[str, float]
    n_rows: int = 0
    n_patients: int = 0
    log_loss: float | None = None
    log_loss_equal: float | None = None


@dataclass(frozen=True, kw_only=True)
class EnsembleWeights:
    """How an ensemble weighs its rungs. how: equal or fitted. fitted_on: the rows that fitted them, in words; blank for equal."""

    how: Literal["equal", "fitted"]
    folds: tuple[FoldWeights, ...]
    fitted_on: str = ""

    def of(self, part: str, fold: int) -> Mapping[str, float]:
        """rung -> weight for the rows of a part of a fold; raises InputError for a fold that has none."""
        found = [each.weights for each in self.folds if (each.part, each.fold) == (part, fold)]
        if not found:
            raise InputError(f"ensemble: fold {fold} has no weights for its {part} rows; they were made for other predictions")
        return found[0]

    def for_new(self) -> "EnsembleWeights":
        """Those for images of no fold, as test rows of fold 0: the mean over the folds' weights for test rows."""
        share = {rung: mean for rung, (mean, _, _) in self.spread().items()}
        return EnsembleWeights(how=self.how, fitted_on=self.fitted_on, folds=(FoldWeights(part="test", fold=0, weights=share),))

    def spread(self) -> dict[str, tuple[float, float, float]]:
        """rung -> mean, lowest and highest weight over the folds' test rows."""
        tested = [each.weights for each in self.folds if each.part == "test"]
        shares = {rung: [weights[rung] for weights in tested] for rung in tested[0]}
        return {rung: (float(np.mean(found)), min(found), max(found)) for rung, found in shares.items()}

    def write(self, folder: Path) -> None:
        """Write `weights.json`."""
        write_file(folder / WEIGHTS_FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "EnsembleWeights | None":
        """The inverse of `write`; None where there is no such file: the run is older than weights, and its mean is plain."""
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(how=found["how"], fitted_on=found["fitted_on"], folds=tuple(FoldWeights(**each) for each in found["folds"]))


def equal_weights(rungs: Mapping[str, pd.DataFrame]) -> EnsembleWeights:
    """The same weight for every rung. rungs: name -> predictions table of a whole rung (`combine`)."""
    share = dict.fromkeys(rungs, 1 / len(rungs))
    places = sorted({(str(part), int(fold)) for table in rungs.values() for part, fold in zip(table["part"], table["fold"], strict=True)})
    return EnsembleWeights(how="equal", folds=tuple(FoldWeights(part=part, fold=fold, weights=share) for part, fold in places))


def fit_weights(rungs: Mapping[str, pd.DataFrame], *, how: Combination, task: Task) -> EnsembleWeights:
    """The weights, none negative and summing to one, that minimise the log-loss of the weighted mean of the rungs.

    Stacking of probabilities (Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1; with such weights Breiman 1996,
    doi:10.1007/BF00117832): the loss is convex in the weights, so the optimum found is the optimum.
    rungs: name -> predictions table of a whole rung (`combine`), all of the same rows. how: what is averaged.
    Each fold has weights of its own, fitted on its `calibration_rows`: never on a patient whom it tests. Where these are the
    val rows of all folds, the weights for a fold's own val rows are fitted on the other folds' val rows, so that what is
    fitted on the ensemble's val rows later sees them as new.
    Loss: of the true class, or the mean over images and labels whose label is known; probabilities of a wrong 0 or 1 count as
    1e-12. Raises InputError as `combine` and `calibration_rows` do, and where a fold has no labelled row to fit on.
    """
    tables = {rung: _sorted(table) for rung, table in rungs.items()}
    combine(list(tables.values()), how=how, task=task)  # refuses rungs of different rows, labels or truth
    first = next(iter(tables.values()))
    source = fitting_source(first)
    fits = {rung: calibration_rows(table).sort_values(["fold", "image_id"], ignore_index=True) for rung, table in tables.items()}
    test_folds = sorted({int(fold) for fold in first.loc[first["part"] == "test", "fold"]})
    folds = [_fitted("test", fold, {rung: rows[rows["fold"] == fold] for rung, rows in fits.items()}, how, task) for fold in test_folds]
    own = first[first["part"] == "val"]
    for fold in sorted({int(fold) for fold in own["fold"]}):
        rows = {rung: table[table["part"] == "val"] for rung, table in tables.items()}
        keep = (own["fold"] != fold if source == "out_of_fold" else own["fold"] == fold).to_numpy()
        folds.append(_fitted("val", fold, {rung: val[keep] for rung, val in rows.items()}, how, task))
    return EnsembleWeights(how="fitted", fitted_on=FITTED_ON[source], folds=tuple(folds))


def weighted_mean(rungs: Mapping[str, pd.DataFrame], weights: EnsembleWeights, *, how: Combination, task: Task) -> pd.DataFrame:
    """The rungs' mean, each row weighed as its part and fold say; else as `combine`. Raises InputError as `combine` does."""
    tables = {rung: _sorted(table) for rung, table in rungs.items()}
    mean = combine(list(tables.values()), how=how, task=task)
    first = next(iter(tables.values()))
    if len(mean) != len(first):
        raise InputError("ensemble: a rung has several rows for an image; combine its models first")
    labels = label_names(first)
    places = first[["part", "fold"]].drop_duplicates()
    shares = pd.DataFrame(
        [{"part": part, "fold": fold, **weights.of(part, fold)} for part, fold in zip(places["part"], places["fold"], strict=True)]
    )
    share = first[["part", "fold"]].merge(shares, on=["part", "fold"], how="left")[list(tables)].to_numpy(dtype=np.float64)
    values = sum(share[:, [number]] * member_values(table, labels, how, task) for number, table in enumerate(tables.values()))
    p, logits = from_mean(np.asarray(values, dtype=np.float64), how, task)
    found = first[KEY].copy()
    for column, label in enumerate(labels):
        found[f"logit_{label}"], found[f"p_{label}"] = logits[:, column], p[:, column]
    kept = mean.drop(columns=[f"{kind}_{label}" for label in labels for kind in ("logit", "p")])
    return kept.merge(found, on=KEY, how="left", validate="one_to_one")[mean.columns]


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(KEY, kind="stable", ignore_index=True)


# ---------------------------------------------------------------- the optimum


def _fitted(part: str, fold: int, rows: Mapping[str, pd.DataFrame], how: Combination, task: Task) -> FoldWeights:
    first = next(iter(rows.values()))
    labels = label_names(first)
    y = label_matrix(first, labels)
    if not (~np.isnan(y)).any():
        raise InputError(f"ensemble: fold {fold} has no labelled row to fit the weights of its {part} rows on; set ladder.weights=equal")
    values = np.stack([member_values(table, labels, how, task) for table in rows.values()], axis=-1)
    objective = _objective(y, values, how, task)
    best = _lowest(objective, len(rows))
    return FoldWeights(
        part=part,
        fold=fold,
        weights={rung: float(weight) for rung, weight in zip(rows, best, strict=True)},
        n_rows=len(first),
        n_patients=int(first["patient_id"].nunique()),
        log_loss=objective(best)[0],
        log_loss_equal=objective(np.full(len(rows), 1 / len(rows)))[0],
    )


def _objective(y: FloatArray, values: FloatArray, how: Combination, task: Task) -> Objective:
    """weights (k,) -> mean log-loss and its gradient (k,). y: (n, n_labels), 0/1/NaN; values: (n, n_labels, k), p or logits."""
    known = y == 1 if task == "multiclass" else ~np.isnan(y)
    if how == "probability":
        true = values[known] if task == "multiclass" else np.where(y[known][:, None] == 1, values[known], 1 - values[known])
        true = np.maximum(true, SMALLEST)
        return lambda w: (float(-np.log(true @ w).mean()), -(true / (true @ w)[:, None]).mean(axis=0))
    if task == "multiclass":
        return lambda w: (
            float(-log_softmax(values @ w, axis=1)[known].mean()),
            np.einsum("nl,nlk->k", softmax(values @ w, axis=1) - y, values) / len(y),
        )
    scores, truth = values[known], y[known]
    return lambda w: (float(np.logaddexp(0, (1 - 2 * truth) * (scores @ w)).mean()), (expit(scores @ w) - truth) @ scores / len(truth))


def _lowest(objective: Objective, k: int) -> FloatArray:
    """The point of the simplex where a convex objective is lowest, by sequential quadratic programming from its centre."""
    start: FloatArray = np.full(k, 1 / k)
    if k == 1:
        return start
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones_like(w)}
    found = minimize(
        objective, start, jac=True, method="SLSQP", bounds=[(0, 1)] * k, constraints=[whole], options={"ftol": 1e-13, "maxiter": 500}
    )
    best: FloatArray = np.clip(found.x, 0, None)
    best = best / best.sum()
    return best if objective(best)[0] <= objective(start)[0] else start
