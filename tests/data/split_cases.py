"""Made-up manifests for tests of the split."""

import numpy as np
import pandas as pd

from medcnn.plan import SplitPlan


def cohort(n_patients=60, n_labels=1, seed=0, multiclass=False, missing=0.0, most_images=4):
    """A manifest; labels are of the patient mostly, so that a patient may have several."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, most_images + 1, n_patients))
    table = pd.DataFrame(
        {"image_id": [f"i{n:05d}" for n in range(len(patients))], "patient_id": [f"p{n:04d}" for n in patients], "frame": 0}
    )
    table["sha256"] = [f"digest{n}" for n in range(len(table))]
    if multiclass:
        kind = (rng.choice(n_labels, n_patients, p=(weights := 0.5 ** np.arange(1, n_labels + 1)) / weights.sum())[patients] + 0) % n_labels
        kind = np.where(rng.random(len(kind)) < 0.1, rng.integers(0, n_labels, len(kind)), kind)
        y = np.eye(n_labels)[kind]
    else:
        y = (rng.random((n_patients, n_labels))[patients] < 0.3 + 0 * patients[:, None]).astype(float)
        y[rng.random(y.shape) < missing] = np.nan
    labels = [f"l{k}" for k in range(n_labels)]
    return pd.concat([table, pd.DataFrame(y, columns=[f"y_{label}" for label in labels])], axis=1), labels


def plan(scheme="holdout", **more):
    return SplitPlan(scheme=scheme, **more)


def with_parts(table, names=("train", "val", "test")):
    part = pd.Series(np.random.default_rng(9).choice(names, table["patient_id"].nunique()), index=table["patient_id"].unique())
    return table.assign(given_part=table["patient_id"].map(part))


def with_sites(table, n_sites=8, seed=0):
    """A site for each patient; the first sites are larger."""
    patients = table["patient_id"].unique()
    weights = 1 / np.arange(2, n_sites + 2)
    site = np.random.default_rng(seed).choice([f"s{n}" for n in range(n_sites)], len(patients), p=weights / weights.sum())
    return table.assign(site=table["patient_id"].map(pd.Series(site, index=patients)))
