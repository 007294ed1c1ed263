"""Folds: cross-validation, repeated or beside one test part, and leaving one site out. Each fold is a name of a part for each image."""

import numpy as np
import pandas as pd

from medcnn.data.split_given import read_parts
from medcnn.data.split_units import Cohort, deal_parts, note_units, require_sites
from medcnn.errors import InputError
from medcnn.plan import SplitPlan

HOLDOUT_FOLDS = 1  # stream of the seed from which the folds beside a dealt test part come; the test part has stream 0

NO_VAL = "No fold has a val part; what is fitted on val is fitted on the predictions for the other folds."


def kfold(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    """Fold r * n_folds + f tests the f-th share of repeat r; val is dealt from the other units, or absent with val_fraction 0."""
    share = plan.val_fraction / (1 - 1 / plan.n_folds)
    if share >= 1:
        raise InputError(f"split.val_fraction {plan.val_fraction} leaves nothing to train on beside a test fold; set it lower")
    note_units(cohort, notes)
    dealt = _deal_repeats(cohort, plan, seed, 0, notes)
    if not share:
        notes.append(NO_VAL)
    return [parts for repeat, tested in enumerate(dealt) for parts in with_val(cohort, tested, share=share, seed=seed, repeat=repeat)]


def kfold_holdout(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    """One test part in every fold, the given one or else a dealt one; fold r * n_folds + f has the f-th share of all others as val.

    Identical images in a given test part and outside it stay where they were given: the audit reports them.
    """
    test = _given_test(cohort, notes)
    if test is None:
        if not plan.test_fraction:
            raise InputError("split.scheme kfold_holdout needs a test part; set split.test_fraction above 0, or scheme: kfold")
        test = deal_parts(cohort, {"dev": 1 - plan.test_fraction, "test": plan.test_fraction}, [seed]) == "test"
        dev, where = cohort.among(~test), "dealt"
    else:
        dev, where = cohort.alone(~test), "given"
    note_units(dev if where == "given" else cohort, notes)
    each_time = " in each repeat" if plan.n_repeats > 1 else ""
    notes.append(
        f"The {where} test part ({cohort.n_patients(test)} patients) is the same in every fold; of the {cohort.n_patients(~test)} others, each is in val once{each_time}."
    )
    folds = []
    for share in _deal_repeats(dev, plan, seed, HOLDOUT_FOLDS, notes):
        for fold in range(plan.n_folds):
            parts = np.full(len(test), "test", dtype=object)
            parts[~test] = np.where(share == fold, "val", "train")
            folds.append(parts)
    return folds


def leave_site_out(cohort: Cohort, plan: SplitPlan, seed: int, notes: list[str]) -> list[np.ndarray]:
    """Fold f tests the f-th site in the order of names; val_fraction of the other patients are val, none with 0.

    Raises InputError when fewer than two sites are known, or two sites share a patient or an identical image: what is
    tested would have been trained on.
    """
    table = cohort.table
    require_sites(table, "split.scheme: leave_site_out")
    sites, codes = np.unique(table["site"].astype(str), return_inverse=True)
    if len(sites) < 2:
        raise InputError(
            f"split.scheme leave_site_out needs two sites or more; all {len(table)} images are of {sites[0]}; set scheme: kfold"
        )
    _require_apart(cohort, codes)
    note_units(cohort, notes)
    notes.append("Each fold tests one site: " + ", ".join(f"{fold} {site}" for fold, site in enumerate(sites)) + ".")
    for fold, site in enumerate(sites):
        if absent := cohort.absent(codes == fold):
            notes.append(f"Site {site} has no image of class {', '.join(absent)}.")
        if absent := cohort.absent(codes != fold):
            raise InputError(
                f"split: class {', '.join(absent)} occurs at site {site} only, so no model of the other sites can know it; "
                "leave the class out (data.classes, data.label_columns), or set split.scheme: kfold"
            )
    if not plan.val_fraction:
        notes.append(NO_VAL)
    return with_val(cohort, codes, share=plan.val_fraction, seed=seed)


def with_val(cohort: Cohort, tested: np.ndarray, *, share: float, seed: int, repeat: int = 0) -> list[np.ndarray]:
    """For each fold: the images it tests, and train and val dealt from all others (share: of the others, to val)."""
    folds = []
    for fold in range(int(tested.max()) + 1):
        parts = np.full(len(tested), "test", dtype=object)
        rest = tested != fold
        shares = {"train": 1 - share, "val": share} if share else {"train": 1.0}
        parts[rest] = deal_parts(cohort.among(rest), shares, _words(seed, fold + 1, repeat), at_random=repeat > 0)
        folds.append(parts)
    return folds


def _deal_repeats(cohort: Cohort, plan: SplitPlan, seed: int, stream: int, notes: list[str]) -> list[np.ndarray]:
    """For each repeat: number of each image's share, int (n_images,), 0 to n_folds - 1."""
    shares = {str(fold): 1 / plan.n_folds for fold in range(plan.n_folds)}
    dealt = [deal_parts(cohort, shares, _words(seed, stream, repeat), at_random=repeat > 0).astype(int) for repeat in range(plan.n_repeats)]
    if plan.n_repeats > 1:
        notes.append(f"The {plan.n_folds} folds were dealt {plan.n_repeats} times; fold // {plan.n_folds} is the repeat.")
        n_ways = len({pd.factorize(tested)[0].tobytes() for tested in dealt})
        if n_ways < plan.n_repeats:
            notes.append(f"Only {n_ways} of the {plan.n_repeats} repeats differ: there are few {cohort.kind}s to deal.")
    return dealt


def _words(seed: int, stream: int, repeat: int) -> list[int]:
    """Words of a random generator's seed. Repeat 0 adds none, so that one repeat is what it was before there were several."""
    return [seed, stream, repeat] if repeat else [seed, stream] if stream else [seed]


def _given_test(cohort: Cohort, notes: list[str]) -> np.ndarray | None:
    """The images of the given test part, bool (n_images,); None when none is given."""
    if "given_part" not in cohort.table or cohort.table["given_part"].isna().all():
        return None
    test: np.ndarray = read_parts(cohort.table) == "test"
    if test.all():
        raise InputError("split.scheme kfold_holdout: every image is in the given test part, so nothing is left to train on")
    if not test.any():
        notes.append("The given split has no test part; one was dealt.")
        return None
    if absent := cohort.absent(test):
        notes.append(f"The given part test has no image of class {', '.join(absent)}.")
    if absent := cohort.absent(~test):
        notes.append(f"Outside the given part test there is no image of class {', '.join(absent)}.")
    return test


def _require_apart(cohort: Cohort, codes: np.ndarray) -> None:
    """Raise InputError when a patient, or patients joined by a picture, stand at two sites."""
    at = pd.DataFrame({"patient": cohort.table["patient_id"].to_numpy(), "unit": cohort.units, "site": codes})
    n_sites = at.groupby("patient")["site"].nunique()
    patients = sorted(n_sites.index[n_sites > 1].astype(str))
    if patients:
        raise InputError(
            f"split.scheme leave_site_out: {len(patients)} of {len(n_sites)} patients have images at two sites or more, first {patients[0]}; "
            "give each patient one site (data.site_column), or deal with scheme: kfold and unit: site, which keeps such sites together"
        )
    n_torn = int((at.groupby("unit")["site"].nunique() > 1).sum())
    if n_torn:
        raise InputError(
            f"split.scheme leave_site_out: {n_torn} groups of patients share pictures across sites; set audit.exclude.duplicate and "
            "audit.exclude.near_duplicate to a reason (the first of each stays), or deal with scheme: kfold and unit: site, which keeps such sites together"
        )
