"""Do two sets of images differ before any model looks at them: parts of a cohort, or a new cohort and the one trained on.

Compared are what quality.py measures and the size of the file, one image a patient; no label is used. Each trait by the
two-sample Kolmogorov-Smirnov test with Holm's correction, all together by a classifier two-sample test (Lopez-Paz and
Oquab 2017, doi:10.48550/arXiv.1610.06545); which of these see a shift: Rabanser et al. 2019, doi:10.48550/arXiv.1810.11953.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp, rankdata

from medcnn.cohort import Finding, Severity
from medcnn.data.quality import MEASURES
from medcnn.data.shortcuts import out_of_fold
from medcnn.errors import InputError

# stored_sd depends on the bits of the file, which the model does not see.
TRAITS = (*(name for name in MEASURES if name != "stored_sd"), "log2_height", "log2_width")
WORDS = {
    "grey_mean": "mean grey value", "grey_sd": "contrast", "grey_p1": "darkest grey", "grey_p50": "median grey", "grey_p99": "brightest grey",
    "entropy_bits": "entropy of grey values", "mode_share": "share of the commonest grey", "black_share": "share of black", "white_share": "share of white",
    "fine_sharpness": "fine sharpness", "frame_share": "empty frame", "red_share": "redness", "blue_share": "blueness", "letters": "marks like letters",
    "log2_height": "height (log2 px)", "log2_width": "width (log2 px)",
}  # fmt: skip
LEAST_COMPARED = 20  # images on each side
MOST_COMPARED = 2000  # patients on each side
MOST_SITES = 12
N_FOLDS = 5
N_NAMED = 3
ALPHA = 0.05
WARNED_AUROC = 0.65  # a lower limit above this is a warning: the sets are told apart with ease
TAILS = (0.005, 0.995)


@dataclass(frozen=True)
class Drift:
    """What was seen of two sets. traits: trait, distance (Kolmogorov-Smirnov D), p, p_holm, reference and new (medians), the
    largest distance first. y: int8 (n,), 1 for new; p: float64 (n,), out-of-fold probability of being new."""

    reference: str
    new: str
    n_reference: int
    n_new: int
    traits: pd.DataFrame
    y: np.ndarray
    p: np.ndarray


def trait_table(manifest: pd.DataFrame, traits: pd.DataFrame) -> pd.DataFrame:
    """image_id, patient_id and TRAITS (float64) of each image of the manifest. Raises InputError when one has no traits."""
    wanted = [name for name in TRAITS if name in MEASURES]
    table = manifest[["image_id", "patient_id", "height", "width"]].merge(traits[["image_id", *wanted]], on="image_id", how="left")
    if len(table) != len(manifest) or table[wanted].isna().to_numpy().any():
        raise InputError("traits: some image of the manifest has no row, or several; run ingest again")
    sides = {f"log2_{side}": np.log2(table[side].to_numpy(np.float64)) for side in ("height", "width")}
    return table.assign(**sides)[["image_id", "patient_id", *TRAITS]]


def sample(table: pd.DataFrame, n: int = MOST_COMPARED) -> pd.DataFrame:
    """TRAITS of one image for each of at most n patients, without a name, sorted by their values.

    Which image and which patients follows from digests of their ids, so that row order is of no account.
    """
    order = [hashlib.sha256(str(image).encode()).hexdigest() for image in table["image_id"]]
    drawn = table.assign(order=order).sort_values("order").drop_duplicates("patient_id").head(n)
    return drawn[list(TRAITS)].sort_values(list(TRAITS)).reset_index(drop=True)


def compare(reference: pd.DataFrame, new: pd.DataFrame, *, names: tuple[str, str], seed: int = 0) -> Drift:
    """Two samples with the columns TRAITS, one row for each patient, finite. names: what the sets are called, reference first.

    Raises InputError for fewer than LEAST_COMPARED rows, a missing column or a value that is not finite.
    """
    for name, rows in zip(names, (reference, new), strict=True):
        missing = [trait for trait in TRAITS if trait not in rows]
        if missing or len(rows) < LEAST_COMPARED or not np.isfinite(rows[list(TRAITS)].to_numpy(np.float64)).all():
            came = f"no column {missing[0]}" if missing else f"{len(rows)} rows, or values that are not finite"
            raise InputError(f"drift: {name} has {came}; expected {LEAST_COMPARED} rows or more with {len(TRAITS)} traits")
    a, b = (rows[list(TRAITS)].to_numpy(np.float64) for rows in (reference, new))
    tests = [ks_2samp(a[:, k], b[:, k], method="asymp") for k in range(len(TRAITS))]
    table = pd.DataFrame({"trait": TRAITS, "distance": [test.statistic for test in tests], "p": [float(test.pvalue) for test in tests]})
    table = table.assign(p_holm=holm(table["p"].to_numpy()), reference=np.median(a, axis=0), new=np.median(b, axis=0))
    y = np.repeat(np.array([0, 1], np.int8), [len(a), len(b)])
    p = out_of_fold(_columns(np.concatenate([a, b])), y, _folds(y, seed), seed=seed)
    return Drift(*names, len(a), len(b), table.sort_values("distance", ascending=False, kind="stable").reset_index(drop=True), y, p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979, Scandinavian Journal of Statistics 6:65-70): float64 (n,), each at most 1."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def _columns(values: np.ndarray) -> np.ndarray:
    """Ranks of each trait, and how far they are from the middle: a logistic regression then sees shift and spread."""
    ranks = 2 * (np.stack([rankdata(column) for column in values.T], axis=1) - 0.5) / len(values) - 1
    return np.concatenate([ranks, ranks**2], axis=1)


def _folds(y: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each row, each with its share of both sets."""
    fold = np.empty(len(y), np.int64)
    rng = np.random.default_rng(seed)
    for value in (0, 1):
        rows = np.flatnonzero(y == value)
        fold[rows] = rng.permutation(len(rows)) % N_FOLDS
    return fold


# ---------------------------------------------------------------- words


def drift_finding(drift: Drift, auroc: tuple[float, float, float], *, kind: str, todo: str) -> Finding | None:
    """The sentence on two sets, or None when nothing tells them apart. auroc: of drift.p, with its limits (from the caller,
    since data and evaluation do not know each other)."""
    value, low, high = auroc
    differing = drift.traits[drift.traits["p_holm"] < ALPHA]
    if low <= 0.5 and differing.empty:
        return None
    severity: Severity = "warning" if low > WARNED_AUROC else "info"
    text = (
        f"{drift.new} ({drift.n_new} patients) against {drift.reference} ({drift.n_reference}): by brightness, sharpness, noise, frame and size alone a "
        f"logistic regression tells them apart with AUROC {value:.2f} ({low:.2f} to {high:.2f}; 0.5: not at all); "
        f"{len(differing)} of {len(drift.traits)} traits differ (Kolmogorov-Smirnov, Holm)"
    )
    most = [
        f"{WORDS.get(row['trait'], row['trait'])} (D {row['distance']:.2f}, median {row['new']:.3g} against {row['reference']:.3g})"
        for row in differing.head(N_NAMED).to_dict("records")
    ]
    return Finding(severity=severity, kind=kind, text=f"{text}{', most: ' + '; '.join(most) if most else ''}.", todo=todo)


def outside_range(reference: pd.DataFrame, new: pd.DataFrame) -> tuple[np.ndarray, int]:
    """How many traits of each new image lie outside of the central 99% of the reference, int64 (n_new,); and how many that are in all
    but the 1% of the reference's own images that have most, each half held against the range of the other."""
    halves = reference.iloc[::2], reference.iloc[1::2]
    own = np.concatenate([_n_outside(halves[0], halves[1]), _n_outside(halves[1], halves[0])])
    return _n_outside(reference, new), int(np.quantile(own, 0.99))


def _n_outside(reference: pd.DataFrame, new: pd.DataFrame) -> np.ndarray:
    low, high = (reference[list(TRAITS)].quantile(q) for q in TAILS)
    values = new[list(TRAITS)]
    return np.asarray((values.lt(low - 1e-6) | values.gt(high + 1e-6)).sum(axis=1))


# ---------------------------------------------------------------- what is compared within a cohort


@dataclass(frozen=True)
class Pair:
    """Two sets of a cohort's images that are worth comparing. kind: part_drift or site_drift."""

    kind: str
    names: tuple[str, str]
    reference: frozenset[str]
    new: frozenset[str]


def pairs_of(manifest: pd.DataFrame, split: pd.DataFrame) -> list[Pair]:
    """Val and test against what trains, where every model has the same of them; each site against the others, where there are
    several. Folds dealt at random have nothing to compare; sets of fewer than LEAST_COMPARED patients are left out."""
    patients = manifest.set_index("image_id")["patient_id"]
    first = split[split["fold"] == split["fold"].min()]
    alike = split.groupby("part")["image_id"].nunique() == first.groupby("part")["image_id"].nunique()
    of = {str(part): frozenset(rows["image_id"]) for part, rows in first.groupby("part", observed=True)}
    found = []
    if alike.get("val", False) and "train" in of:
        found.append(Pair("part_drift", ("train", "val"), of["train"], of["val"]))
    if alike.get("test", False):
        trained = frozenset(first.loc[first["part"] != "test", "image_id"])
        found.append(Pair("part_drift", ("what trains and selects" if "val" in of else "train", "test"), trained, of["test"]))
    if "site" in manifest and manifest["site"].nunique() > 1:
        sites = manifest.dropna(subset="site").groupby("site")["image_id"].agg(frozenset)
        every = frozenset().union(*sites)
        found += [
            Pair("site_drift", ("the other sites", f"site {site}"), every - images, images)
            for site, images in sites.head(MOST_SITES if len(sites) > 2 else 1).items()
        ]
    return [
        pair
        for pair in found
        if all(patients[list(side)].nunique() >= LEAST_COMPARED for side in (pair.reference, pair.new) if side)
        and pair.reference
        and pair.new
    ]
