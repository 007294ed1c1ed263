"""The rungs of a ladder on the same test rows: what each predicts, how far it is from the rung before and from the headline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation import calibration
from medcnn.evaluation.alignment import align_tables
from medcnn.evaluation.class_measures import whole_vector_measures
from medcnn.evaluation.clustered import influence_variance
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, not_estimable, repeated_patients
from medcnn.evaluation.intervals import patient_codes, proportion_interval
from medcnn.evaluation.levels import UnitTable, at_level
from medcnn.evaluation.measures import SORTED_BUDGET
from medcnn.evaluation.multiclass import average_aurocs, label_tasks, mean_auroc_influence, one_vs_rest_aurocs
from medcnn.evaluation.significance import Difference, linearised_difference, paired_auroc_test
from medcnn.tables import Task


@dataclass(frozen=True, kw_only=True)
class SingleModels:
    """AUROC of the single models of a rung (one seed of one repeat, over all its folds): mean, sample SD, and how many there are."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True, kw_only=True)
class RungNumbers:
    """One rung at one level. auroc: macro where there are several labels; accuracy: of the most probable class, or at 0.5.

    log_loss, brier: as in `metrics.json`; of several findings the mean over all label-image pairs whose label is known.
    to_previous, to_headline: this rung's AUROC minus that of the rung before, and minus the headline's; None for the rung itself.
    """

    rung: str
    level: str
    auroc: Estimate
    brier: Estimate
    log_loss: Estimate
    accuracy: Estimate
    to_previous: Difference | None
    to_headline: Difference | None
    single: SingleModels | None
    n: int
    n_patients: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: what is not finite is None."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RungNumbers":
        """The inverse of `as_dict`."""
        kinds = {
            **dict.fromkeys(("auroc", "brier", "log_loss", "accuracy"), Estimate),
            **dict.fromkeys(("to_previous", "to_headline"), Difference),
            "single": SingleModels,
        }
        return cls(**{key: kinds[key](**value) if key in kinds and value is not None else value for key, value in values.items()})


def ladder_numbers(
    rungs: Mapping[str, pd.DataFrame],
    config: EvaluationConfig,
    *,
    task: Task,
    headline: str,
    members: Mapping[str, Sequence[pd.DataFrame]] | None = None,
) -> list[RungNumbers]:
    """The numbers of each rung on its test rows, at the first of config.units, in the order given.

    rungs: name -> checked predictions table (`combine`); members: name -> the tables of its single models (seeds, folds, repeats).
    Intervals: of the AUROC DeLong's, or Obuchowski's when patients repeat, and of a macro AUROC the patient bootstrap (as in
    `metrics.json`); of a difference in AUROC the paired test's, or the linearised one of the macro.
    Raises InputError for rungs of different images, labels or truth, an unknown headline, a table without test rows, and
    for members that do not make up whole sets of the test images.
    """
    if headline not in rungs:
        raise InputError(f"ladder: headline {headline!r} is none of the rungs {', '.join(rungs)}")
    tables = {name: _test_rows(table, name) for name, table in rungs.items()}
    tables = align_tables(tables) if len(tables) > 1 else tables
    units = {name: at_level(table, config.units[0], config.aggregation, task) for name, table in tables.items()}
    found: list[RungNumbers] = []
    for name, unit in units.items():
        previous = units[found[-1].rung] if found else None
        patients = repeated_patients(unit.patient, len(unit.y))
        found.append(
            RungNumbers(
                rung=name,
                level=config.units[0],
                auroc=_auroc(unit, patients, config),
                **_scores(unit, patients, task),
                to_previous=auroc_difference(unit, previous) if previous is not None else None,
                to_headline=auroc_difference(unit, units[headline]) if name != headline else None,
                single=_spread(whole_sets((members or {}).get(name, ()), tables[name]), config, task),
                n=len(unit.y),
                n_patients=len(np.unique(unit.patient)),
            )
        )
    return found


def auroc_difference(a: UnitTable, b: UnitTable) -> Difference:
    """AUROC of a minus that of b on the same units; the macro AUROC where there are several labels."""
    pairs = [[task for task in label_tasks(unit.y, unit.p, unit.labels) if not task.lacking] for unit in (a, b)]
    if not pairs[0]:
        return Difference(difference=None, note="not estimable: no label has cases of both classes")
    if len(a.labels) == 1:
        one, other = pairs[0][0], pairs[1][0]
        return paired_auroc_test(one.y, one.score, other.score, a.patient[one.rows])
    codes, n_patients = patient_codes(a.patient, len(a.y))
    (value_a, influence_a), (value_b, influence_b) = (mean_auroc_influence(tasks, codes, n_patients) for tasks in pairs)
    return linearised_difference(value_a - value_b, influence_variance(influence_a - influence_b))


def whole_sets(members: Sequence[pd.DataFrame], rung: pd.DataFrame) -> list[pd.DataFrame]:
    """Tables of single models put together, fold by fold, to sets that each hold every test image of the rung once.

    A kfold's models with one seed of one repeat make a set; where the test part is common, each model is one.
    Raises InputError, naming an image, when they do not come out even.
    """
    images, sets = set(rung["image_id"]), list[list[pd.DataFrame]]()
    taken: list[set[str]] = []
    for member in sorted(members, key=lambda table: int(table["fold"].min())):
        rows = member[member["part"] == "test"]
        own = set(rows["image_id"])
        number = next((number for number, there in enumerate(taken) if not own & there), len(sets))
        if number == len(sets):
            sets.append([])
            taken.append(set())
        sets[number].append(rows)
        taken[number] |= own
    for number, there in enumerate(taken):
        if there != images:
            raise InputError(f"ladder: model {number} and the rung were not tested on the same images, first {min(there ^ images)}")
    return [pd.concat(tables, ignore_index=True) for tables in sets]


# ---------------------------------------------------------------- one rung


def _test_rows(table: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = table[table["part"] == "test"].reset_index(drop=True)
    if rows.empty:
        raise InputError(f"ladder: rung {name} has no test rows; its parts are {sorted(set(table['part']))}")
    return rows


def _auroc(unit: UnitTable, patients: IntArray | None, config: EvaluationConfig) -> Estimate:
    if len(unit.labels) > 1:
        n_resamples = config.n_bootstrap if unit.y.size * config.n_bootstrap <= SORTED_BUDGET else 0
        averages = average_aurocs(unit.y, unit.p, patients, labels=unit.labels, n_resamples=n_resamples, seed=config.seed)
        return averages["macro"]
    task = label_tasks(unit.y, unit.p, unit.labels)[0]
    return auroc_interval(task.y, task.score, unit.patient[task.rows])


def _scores(unit: UnitTable, patients: IntArray | None, task: Task) -> dict[str, Estimate]:
    if task == "multiclass":
        target = unit.y.argmax(axis=1)
        whole = whole_vector_measures(target, unit.p, patients)
        hit = unit.p.argmax(axis=1) == target
        return {"brier": whole["brier"], "log_loss": whole["log_loss"], "accuracy": proportion_interval(hit, patients)}
    known = ~np.isnan(unit.y)
    y, p = unit.y[known], unit.p[known]
    if not y.size:
        return dict.fromkeys(("brier", "log_loss", "accuracy"), not_estimable("no row has a label"))
    owner = repeated_patients(np.broadcast_to(unit.patient[:, None], known.shape)[known], y.size)
    return {
        "brier": calibration.brier_score(y, p, owner),
        "log_loss": calibration.log_loss(y, p, owner),
        "accuracy": proportion_interval((p >= 0.5) == (y == 1), owner),
    }


def _spread(sets: Sequence[pd.DataFrame], config: EvaluationConfig, task: Task) -> SingleModels | None:
    """None for fewer than two models, or where no AUROC is estimable."""
    if len(sets) < 2:
        return None
    units = [at_level(table, config.units[0], config.aggregation, task) for table in sets]
    values: FloatArray = np.array([_macro(unit) for unit in units])
    if not np.isfinite(values).all():
        return None
    return SingleModels(mean=float(values.mean()), sd=float(values.std(ddof=1)), n=len(values))


def _macro(unit: UnitTable) -> float:
    values = one_vs_rest_aurocs(unit.y, unit.p)
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
