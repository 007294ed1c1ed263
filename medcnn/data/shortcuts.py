"""The shortcut probes: could something that is not the disease predict the label?

A logistic regression each on what holds little or no disease: facts of the file, the border, the grey levels, a
thumbnail, the metadata. The test part of a hold-out split is never looked at. Intervals are for the caller to take
(evaluation.discrimination.auroc_interval), since data and evaluation do not know each other; shortcut_findings.py puts
them into words.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from medcnn.data.shortcut_features import file_features, metadata_columns, metadata_features, pixel_features
from medcnn.data.shortcut_findings import COLUMN
from medcnn.data.stratification import deal_units
from medcnn.errors import InputError
from medcnn.progress import Progress, silent
from medcnn.tables import Task, label_matrix

N_FOLDS = 5
MAX_TRAINING_IMAGES = 10_000  # that one fit sees. 2,000 in place of 4,200 cost .001 to .002 of AUROC on PneumoniaMNIST
LOGIT_VARIANCE = 10.0  # prior variance of a probe's logit, shared among its features: C = LOGIT_VARIANCE / k. 3 to 30 do as well


# ---------------------------------------------------------------- which rows


def rows_to_probe(manifest: pd.DataFrame, split: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows of the manifest that the probes may see, and a sentence that says which.

    Those that stand in train or val of some fold: an image that is in the test part of every fold is never looked at.
    In cross-validation these are all images, since each is tested in one fold only; the probes then predict each image
    without having seen its patient, as the model's folds do. Raises InputError when there are none.
    """
    wanted = split[split["part"] != "test"]
    several = wanted["image_id"].nunique() == split["image_id"].nunique() and split["part"].eq("test").any()
    kept = manifest[manifest["image_id"].isin(set(wanted["image_id"]))].reset_index(drop=True)
    if kept.empty:
        raise InputError("shortcut probes: the split has no train or val image that is in the manifest; they do not look at the test part")
    where = "all images of the cross-validation" if several else "the train and val parts, without the test part"
    return kept, f"{len(kept)} images: {where}."


# ---------------------------------------------------------------- the probes


def probe_shortcuts(
    manifest: pd.DataFrame,
    images: np.ndarray,
    rows: np.ndarray,
    labels: Sequence[str],
    *,
    task: Task,
    seed: int,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Out-of-fold probabilities of each probe for each label, one row each: probe, image_id, patient_id, label, y, p.

    manifest: the rows to look at (see rows_to_probe), in any order. images: uint8 (N, H, W, C) prepared images, in memory
    or mapped; rows: int (n,), the image of each manifest row. labels: each is told from the rest, among the images that
    have it; y 0/1 int8, p float64 in [0, 1].

    Probes: file, border, grey_levels, thumbnail, metadata.COLUMN for each column of the acquisition, metadata for all of
    them where there are several, patient for traits such as age and sex; those only that have anything to go by.
    Five folds of patients (fewer when there are fewer patients), every label in its share. A fit sees at most
    MAX_TRAINING_IMAGES images, of the rarer class all up to half of that; all others are predicted nevertheless.
    `.attrs["notes"]` says in sentences what was looked at, and what could not be. Row order never changes the result.
    Raises InputError for tables and arrays that do not fit each other, and for fewer than two patients.
    """
    _require_fitting(manifest, images, rows, labels)
    order = np.argsort(manifest["image_id"].astype(str).to_numpy(), kind="stable")
    table, rows = manifest.iloc[order].reset_index(drop=True), np.asarray(rows)[order]
    y = label_matrix(table, labels)
    fold = patient_folds(table, y, task, seed)
    features, notes = _features(table, images, rows, progress)
    probed, skipped = _probed_labels(table, y, labels, fold)
    jobs = [(probe, column) for probe in features for column in probed]
    parts = []
    for probe, column in progress(jobs, "Shortcut probes", len(jobs)):
        known = np.flatnonzero(~np.isnan(y[:, column]))
        p = out_of_fold(features[probe][known], y[known, column], fold[known], seed=seed)
        parts.append((probe, labels[column], known, y[known, column], p))
    result = _tidy(parts, table)
    result.attrs["notes"] = [_scope(table, fold), *notes, *skipped]
    return result


def out_of_fold(X: np.ndarray, y: np.ndarray, fold: np.ndarray, *, seed: int) -> np.ndarray:
    """Probability of y = 1 for each row from a logistic regression that did not see its fold, float64 (n,).

    X: real (n, k); y: (n,) 0/1; fold: int (n,). Features are standardised on the training rows. Each fit's intercept is
    moved from the odds of its training rows to those of all n (prior correction, doi:10.1093/oxfordjournals.pan.a004868):
    otherwise a fold poor in cases would be judged by a fit on rows rich in cases, which pushes the pooled AUROC of a
    useless probe below 1/2. (A useless single feature still averages somewhat below 1/2, as in any cross-validation.)
    """
    p = np.empty(len(y))
    overall = float(y.mean())
    for number in np.unique(fold):
        held_out = np.flatnonzero(fold == number)
        training = np.flatnonzero(fold != number)
        p[held_out] = fit_probability(X, y, training, held_out, seed=[seed, int(number)], prevalence=overall)
    return p


def fit_probability(
    X: np.ndarray, y: np.ndarray, training: np.ndarray, asked: np.ndarray, *, seed: Sequence[int], prevalence: float | None = None
) -> np.ndarray:
    """Probability of y = 1 for the rows `asked` from a logistic regression on the rows `training`, float64.

    X: real (n, k); y: (n,) 0/1, NaN where it is not known (left out). prevalence: to which the intercept is moved; None:
    that of the training rows. One class alone in training: its share, by Laplace's rule.
    """
    known = training[~np.isnan(y[training])]
    drawn = _drawn(known, y, np.random.default_rng(seed))
    if len(np.unique(y[drawn])) < 2:
        return np.full(len(asked), (y[known].sum() + 1) / (len(known) + 2))
    weights, intercept = _fit(X[drawn], y[drawn])
    score = X[asked].astype(np.float64) @ weights + intercept
    p: np.ndarray = expit(score + logit(y[known].mean() if prevalence is None else prevalence) - logit(y[drawn].mean()))
    return p


def _fit(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (k,) and intercept on the features' own scale; a feature that does not vary gets no weight."""
    X = X.astype(np.float64)
    varies = X.max(axis=0) > X.min(axis=0)
    mean, spread = X.mean(axis=0), np.where(varies, X.std(axis=0), 1.0)
    weights = np.zeros(X.shape[1])
    if not varies.any():
        return weights, float(logit(y.mean()))
    model = LogisticRegression(C=LOGIT_VARIANCE / varies.sum(), solver="newton-cholesky", tol=1e-6)
    model.fit(((X - mean) / spread)[:, varies], y)
    weights[varies] = model.coef_[0] / spread[varies]
    return weights, float(model.intercept_[0] - mean @ weights)


def _drawn(rows: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most MAX_TRAINING_IMAGES of the rows: of the rarer class all up to half of that number, the rest of the other."""
    if len(rows) <= MAX_TRAINING_IMAGES:
        return rows
    rarer, other = sorted((rows[y[rows] == 0], rows[y[rows] == 1]), key=len)
    n_rarer = min(len(rarer), MAX_TRAINING_IMAGES // 2)
    drawn = [rng.permutation(rarer)[:n_rarer], rng.permutation(other)[: MAX_TRAINING_IMAGES - n_rarer]]
    return np.sort(np.concatenate(drawn))


# ---------------------------------------------------------------- its parts


def _require_fitting(manifest: pd.DataFrame, images: np.ndarray, rows: np.ndarray, labels: Sequence[str]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3}:
        raise InputError(f"shortcut probes: expected images uint8 (N, H, W, 1 or 3), got {images.dtype} {images.shape}")
    rows = np.asarray(rows)
    if rows.shape != (len(manifest),) or not np.issubdtype(rows.dtype, np.integer):
        raise InputError(f"shortcut probes: expected one row number for each of {len(manifest)} images, got {rows.dtype} {rows.shape}")
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(images)):
        raise InputError(f"shortcut probes: rows go from {rows.min()} to {rows.max()}, but there are {len(images)} prepared images")
    missing = [f"y_{label}" for label in labels if f"y_{label}" not in manifest]
    if missing or not labels:
        raise InputError(f"shortcut probes: column {missing[0] if missing else 'y_LABEL'} is missing; the manifest has no such label")
    if manifest["image_id"].duplicated().any():
        raise InputError(f"shortcut probes: image_id {manifest.loc[manifest['image_id'].duplicated(), 'image_id'].iloc[0]} occurs twice")
    if manifest["patient_id"].isna().any():
        first = manifest.loc[manifest["patient_id"].isna(), "image_id"].iloc[0]
        raise InputError(f"shortcut probes: {first} has no patient_id; give each image its patient")
    if manifest["patient_id"].nunique() < 2:
        raise InputError(f"shortcut probes: {manifest['patient_id'].nunique()} patients; at least two are needed for cross-validation")


def patient_folds(table: pd.DataFrame, y: np.ndarray, task: Task, seed: int) -> np.ndarray:
    """Fold of each image, int64 (n,): patients dealt so that every class has its share in each."""
    codes, patients = pd.factorize(table["patient_id"])
    member = y == 1 if task == "multiclass" else np.concatenate([y == 1, y == 0], axis=1)
    per_class = np.stack([np.bincount(codes[column], minlength=len(patients)) for column in member.T], axis=1)
    n_folds = min(N_FOLDS, len(patients))
    sizes = np.bincount(codes, minlength=len(patients))
    return deal_units(per_class, sizes, [1 / n_folds] * n_folds, np.random.default_rng(seed))[codes]


def _features(table: pd.DataFrame, images: np.ndarray, rows: np.ndarray, progress: Progress) -> tuple[dict[str, np.ndarray], list[str]]:
    """Features (n, k) of each probe that has anything to go by, ; a sentence for each that has not."""
    acquisition, traits = metadata_columns(table)
    found = {"file": file_features(table), **pixel_features(images, rows, progress=progress)}
    found |= {f"{COLUMN}{column}": metadata_features(table, [column]) for column in acquisition}
    if len(acquisition) > 1:
        found["metadata"] = metadata_features(table, acquisition)
    if traits:
        found["patient"] = metadata_features(table, traits)
    varied = {probe: X for probe, X in found.items() if (X.max(axis=0) > X.min(axis=0)).any()}
    notes = [f"Probe {probe}: there is nothing to go by, all images are alike in it." for probe in found if probe not in varied]
    for probe, columns in (("metadata", acquisition), ("patient", traits)):
        notes.append(f"Probe {probe}: {', '.join(columns)}." if columns else f"Probe {probe}: the manifest has no such column that varies.")
    return varied, notes


def _probed_labels(table: pd.DataFrame, y: np.ndarray, labels: Sequence[str], fold: np.ndarray) -> tuple[list[int], list[str]]:
    """Columns of the labels of which the images outside of each fold hold both classes; a sentence for each other label."""
    probed, notes = [], []
    for column, label in enumerate(labels):
        values = y[:, column]
        present = np.unique(fold[~np.isnan(values)])
        if len(present) and all((values[fold != number] == value).any() for number in present for value in (0, 1)):
            probed.append(column)
            continue
        n_with, n_without = (table.loc[values == value, "patient_id"].nunique() for value in (1, 0))
        notes.append(f"Label {label}: {n_with} patients with and {n_without} without it are too few for the probes.")
    return probed, notes


def _scope(table: pd.DataFrame, fold: np.ndarray) -> str:
    text = f"{len(table)} images of {table['patient_id'].nunique()} patients, each predicted by a fit on the other {fold.max()} of {fold.max() + 1} folds of patients"
    return f"{text}; a fit sees at most {MAX_TRAINING_IMAGES} images."


Part = tuple[str, str, np.ndarray, np.ndarray, np.ndarray]


def _tidy(parts: Sequence[Part], table: pd.DataFrame) -> pd.DataFrame:
    """parts: probe, label, row numbers, y, p. Categories in place of words: a large cohort has millions of rows."""
    numbers = np.concatenate([part[2] for part in parts]) if parts else np.zeros(0, np.int64)
    patients, names = pd.factorize(table["patient_id"].astype(str))
    lengths = [len(part[2]) for part in parts]
    columns = {
        "probe": pd.Categorical(np.repeat(np.array([part[0] for part in parts], dtype=object), lengths)),
        "image_id": pd.Categorical.from_codes(numbers, categories=pd.Index(table["image_id"].astype(str))),
        "patient_id": pd.Categorical.from_codes(patients[numbers], categories=names),
        "label": pd.Categorical(np.repeat(np.array([part[1] for part in parts], dtype=object), lengths)),
        "y": np.concatenate([part[3] for part in parts] or [np.zeros(0)]).astype(np.int8),
        "p": np.concatenate([part[4] for part in parts] or [np.zeros(0)]),
    }
    return pd.DataFrame(columns)
