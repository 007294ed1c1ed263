"""Deal patients to parts: train, val and test, or k folds; every label in its share everywhere.

The unit is the patient, and patients who share an identical image are one unit, so that neither a person nor a copy
of an image ever stands in two parts of what is dealt; on demand the unit is the site. A given split is honoured as it is.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medcnn.data.split_folds import kfold, kfold_holdout, leave_site_out, with_val
from medcnn.data.split_given import complete_parts, given_column, given_columns, note_absent, read_folds
from medcnn.data.split_units import Cohort, deal_parts, gather_cohort, note_units
from medcnn.plan import SplitPlan
from medcnn.tables import PARTS, SPLIT_COLUMNS, check_split


def deal(manifest: pd.DataFrame, plan: SplitPlan, *, labels: Sequence[str], seed: int) -> pd.DataFrame:
    """One row per (image, fold): image_id, patient_id, part, fold; sorted by fold, then image_id.

    - given: `given_part` (or `given_fold`) as it is; a val part it lacks is dealt from the patients of train.
    - holdout: fold 0 has train, val and test.
    - kfold: fold r * n_folds + f tests the f-th share of repeat r, so every image is tested once in each repeat; val is
      dealt from the other patients, or absent with val_fraction 0.
    - kfold_holdout: the test part is the same in every fold (the given one, else a dealt one); val is the f-th share of
      all other patients. Given train and val parts are pooled.
    - leave_site_out: fold f tests the f-th site by name; val_fraction of the other patients are val.

    Fractions are of patients, of all of them but in leave_site_out. unit site: the patients of a site stay together in
    all that is dealt (preserved-site cross-validation, doi:10.1038/s41467-021-24698-1). Row order never changes the
    result, the seed does. `.attrs["notes"]` holds sentences on what a reader must know (val dealt from train, patients
    joined by a copy, ...); they survive Parquet. Raises InputError with the counts per class when a class cannot stand
    in every part.
    """
    table = manifest.sort_values("image_id", kind="stable").reset_index(drop=True)
    cohort = gather_cohort(table, labels, plan.unit)
    notes: list[str] = []
    folds = _folds(cohort, plan, seed, notes)
    _note_torn_sites(cohort, folds, notes)
    split = pd.concat(
        [table[["image_id", "patient_id"]].assign(part=parts, fold=fold) for fold, parts in enumerate(folds)], ignore_index=True
    )
    split = check_split(split[list(SPLIT_COLUMNS)], source="split")
    split.attrs["notes"] = notes
    return split


def count_parts(manifest: pd.DataFrame, split: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """For each fold and part: n_images, n_patients, and for each label n_labelled_, n_positive_ and n_positive_patients_LABEL."""
    joined = split.merge(manifest[["image_id", *(f"y_{label}" for label in labels)]], on="image_id", validate="many_to_one")
    groups = joined.groupby(["fold", "part"], observed=True, sort=False)
    counts = pd.DataFrame({"n_images": groups.size(), "n_patients": groups["patient_id"].nunique()})
    for label in labels:
        y = f"y_{label}"
        counts[f"n_labelled_{label}"] = groups[y].count()
        counts[f"n_positive_{label}"] = groups[y].sum().astype(np.int64)
        positive = joined[joined[y] == 1].groupby(["fold", "part"], observed=True)["patient_id"].nunique()
        counts[f"n_positive_patients_{label}"] = positive.reindex(counts.index, fill_value=0)
    counts = counts.reset_index()
    order = counts["part"].map({part: number for number, part in enumerate(PARTS)})
    return counts.assign(_order=order).sort_values(["fold", "_order"]).drop(columns="_order").reset_index(drop=True)


# ---------------------------------------------------------------- schemes


def _folds(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    """For each fold the part of each image."""
    if plan.scheme == "given":
        return _given(cohort, plan, seed, notes)
    unused = set(given_columns(cohort.table)) - ({"given_part"} if plan.scheme == "kfold_holdout" else set())
    notes += [f"The split that the cohort brings ({column}) is not used: the scheme is {plan.scheme}." for column in sorted(unused)]
    schemes = {"holdout": _holdout, "kfold": kfold, "kfold_holdout": kfold_holdout, "leave_site_out": leave_site_out}
    return schemes[plan.scheme](cohort, plan, seed, notes)


def _holdout(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    note_units(cohort, notes)
    shares = {"train": 1 - plan.val_fraction - plan.test_fraction, "val": plan.val_fraction, "test": plan.test_fraction}
    shares = {part: share for part, share in shares.items() if share > 0}
    notes += [f"There is no {part} part: its fraction is 0." for part in PARTS if part not in shares]
    return [deal_parts(cohort, shares, [seed])]


def _given(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    if given_column(cohort.table) == "given_part":
        return [complete_parts(cohort, plan, seed, notes)]
    tested = read_folds(cohort.table)
    n_folds = int(tested.max()) + 1
    note_absent(cohort, [("fold", str(fold), tested == fold) for fold in range(n_folds)], notes)
    dealt = "val was dealt from the patients outside each fold, stratified by label" if plan.val_fraction else "there is no val part"
    notes.append(f"The {n_folds} folds are given; {dealt}.")
    return with_val(cohort, tested, share=plan.val_fraction, seed=seed)


def _note_torn_sites(cohort: Cohort, folds: Sequence[np.ndarray], notes: list[str]) -> None:
    """Only a given part can tear a site where sites are what is dealt."""
    if cohort.kind != "site":
        return
    sites = cohort.table["site"].to_numpy()
    torn = {site for parts in folds for site, n in pd.Series(parts).groupby(sites).nunique().items() if n > 1}
    if torn:
        notes.append(
            f"{len(torn)} sites stand in more than one given part, which is left as it is: {', '.join(sorted(map(str, torn))[:12])}."
        )
