"""Made-up predictions of every design of a split, for the tests of what is averaged, fitted and compared."""

import numpy as np
import pandas as pd
from scipy.special import expit

from medcnn.tables import check_predictions

N, PER_PATIENT = 60, 2


def truth(image: np.ndarray) -> np.ndarray:
    return ((image // PER_PATIENT) % 3 == 0).astype(float)


def model(fold: int, parts: dict[str, np.ndarray], *, seed: int = 0, skill: float = 1.0) -> pd.DataFrame:
    """One model's table: part -> images. Its scores depend on image, fold and seed alone."""
    frames = []
    for part, image in parts.items():
        noise = np.array([np.random.default_rng([seed, fold, number]).normal() for number in image])
        logit = 1.5 * skill * (truth(image) - 0.4) + noise
        frames.append(
            pd.DataFrame(
                {
                    "image_id": [f"i{number:03d}" for number in image],
                    "patient_id": [f"p{number // PER_PATIENT:02d}" for number in image],
                    "part": part, "fold": fold, "y_x": truth(image), "logit_x": logit, "p_x": expit(logit),
                }
            )
        )  # fmt: skip
    return check_predictions(pd.concat(frames, ignore_index=True), source="made up")


def shares(k: int, among: np.ndarray, repeat: int = 0) -> list[np.ndarray]:
    patients = np.random.default_rng(repeat).permutation(np.unique(among // PER_PATIENT))
    return [among[np.isin(among // PER_PATIENT, chosen)] for chosen in np.array_split(patients, k)]


def kfold(k: int = 3, *, n_repeats: int = 1, n_seeds: int = 1, val: bool = False) -> list[pd.DataFrame]:
    """Every image tested once per repeat; val: the next share, so that an image that is val is tested elsewhere."""
    members = []
    for repeat in range(n_repeats):
        dealt = shares(k, np.arange(N), repeat)
        for fold in range(k):
            parts = {"test": dealt[fold], **({"val": dealt[(fold + 1) % k]} if val else {})}
            members += [model(repeat * k + fold, parts, seed=seed) for seed in range(n_seeds)]
    return members


def kfold_holdout(k: int = 3, *, n_repeats: int = 1, n_seeds: int = 1) -> list[pd.DataFrame]:
    """Images 40 and up are everybody's test part; each other image is val once per repeat."""
    members = []
    for repeat in range(n_repeats):
        dealt = shares(k, np.arange(40), repeat)
        for fold in range(k):
            parts = {"val": dealt[fold], "test": np.arange(40, N)}
            members += [model(repeat * k + fold, parts, seed=seed) for seed in range(n_seeds)]
    return members


def holdout(n_seeds: int = 1) -> list[pd.DataFrame]:
    return [model(0, {"val": np.arange(20, 40), "test": np.arange(40, N)}, seed=seed) for seed in range(n_seeds)]
