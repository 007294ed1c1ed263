"""Chance in training as a source of variance: models that differ only in their seed, compared as groups.

One seed against one seed says which trained network was better on these patients, not which method is.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from medcnn.errors import InputError
from medcnn.evaluation.clustered import obuchowski_covariance
from medcnn.evaluation.discrimination import lacking_class
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.placements import Placements, check_scores, delong_covariance, placements
from medcnn.evaluation.significance import Difference

SEED = re.compile(r"^(?P<method>.+?)[-_. ]?seed[-_]?\d+$")


def seed_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Method -> its models, for names such as `resnet_seed0` and `resnet_seed1`; methods with one seed are left out."""
    groups: dict[str, list[str]] = {}
    for name in names:
        match = SEED.match(name)
        if match:
            groups.setdefault(match["method"], []).append(name)
    return {method: members for method, members in groups.items() if len(members) > 1}


def seed_difference(y: ArrayLike, a: Sequence[ArrayLike], b: Sequence[ArrayLike], patient: ArrayLike | None = None) -> Difference:
    """Mean AUROC over the seeds of a method minus that of another ("seeds"), with both sources of variance.

    Variance = that of the mean over seeds between patients (DeLong's or Obuchowski's, of the averaged placements) plus
    s_a^2/k_a + s_b^2/k_b between seeds; t with Satterthwaite's df, in which the patients' part counts as known
    (1946, doi:10.2307/3002019). y: (n,) 0/1; a, b: two or more scores (n,) each; patient: (n,) ids or None.
    Raises InputError for fewer than two seeds, NaN and strange labels.
    """
    if min(len(a), len(b)) < 2:
        raise InputError(f"seeds: expected two seeds or more of each method, got {len(a)} and {len(b)}")
    positive, first = check_scores(y, a[0])
    lacking = lacking_class(int(positive.sum()), len(first))
    if lacking:
        return Difference(difference=None, method="seeds", note=f"not estimable: {lacking}")
    sides = [[placements(positive, score) for score in scores] for scores in (a, b)]
    means = [_mean(models) for models in sides]
    contrast = Placements(means[0].v10 - means[1].v10, means[0].v01 - means[1].v01, means[0].auroc - means[1].auroc)
    codes, n_patients = patient_codes(patient, len(first))
    repeated = n_patients < len(first)
    covariance = obuchowski_covariance(positive, codes, n_patients, [contrast]) if repeated else delong_covariance([contrast])
    between = [float(np.var([model.auroc for model in models], ddof=1)) / len(models) for models in sides]
    variance = float(covariance[0, 0]) + sum(between)
    note = ", ".join(f"{len(models)} seeds, sd {math.sqrt(part * len(models)):.4f}" for models, part in zip(sides, between, strict=True))
    if not variance > 0:
        equal = contrast.auroc == 0 and variance == 0
        return Difference(difference=contrast.auroc, statistic=0.0 if equal else None, p=1.0 if equal else None, method="seeds", note=note)
    spread = sum(part**2 / (len(models) - 1) for models, part in zip(sides, between, strict=True))
    df = variance**2 / spread if spread > 0 else math.inf
    se, t = math.sqrt(variance), float(special.stdtrit(min(df, 1e9), 0.975))
    statistic = contrast.auroc / se
    return Difference(
        difference=contrast.auroc,
        low=max(-1.0, contrast.auroc - t * se),
        high=min(1.0, contrast.auroc + t * se),
        statistic=statistic,
        p=float(2 * special.stdtr(min(df, 1e9), -abs(statistic))),
        se=se,
        df=df,
        method="seeds",
        note=note,
    )


def _mean(models: Sequence[Placements]) -> Placements:
    return Placements(
        np.mean([model.v10 for model in models], axis=0),
        np.mean([model.v01 for model in models], axis=0),
        float(np.mean([model.auroc for model in models])),
    )
