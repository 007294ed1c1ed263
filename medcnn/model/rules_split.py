"""Rules on the parts: how patients are dealt, and how many images each training then has."""

from dataclasses import dataclass

from medcnn.cohort import Fingerprint
from medcnn.config import SplitConfig
from medcnn.model.decisions import Decision
from medcnn.plan import SplitPlan

FEW_PATIENTS = 2000
VAL_FRACTION = 0.15
VAL_NAMES = {"val", "valid", "validation", "dev"}
USUAL_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What one training sees, in images (expected: parts are dealt by patients).

    n_trainings: models of one seed that the split asks for, over all folds and repeats.
    """

    n_train: int
    n_val: int
    n_trainings: int

    @property
    def n_to_fit(self) -> int:
        """Images that may fit a fold's calibration and weights: its val rows, or what the other folds test."""
        return self.n_val or (self.n_train if self.n_trainings > 1 else 0)


def scheme(found: Fingerprint, asked: SplitConfig) -> Decision:
    """kfold for few patients, a hold-out for many, the cohort's own split where it has one."""
    dealt, whole = n_dealt(found), n_dealt(found) == found.n_images
    if asked.n_repeats > 1:
        if whole and found.parts.get("test"):
            return "kfold_holdout", f"folds are dealt {asked.n_repeats} times over the patients outside the cohort's own test part"
        return "kfold", f"{asked.n_repeats} repeats were asked for, and only folds can be dealt anew"
    if whole:
        return "given", "the cohort brings its own split, and numbers should stay comparable with others on it"
    unused = f"its own split covers {dealt} of {found.n_images} images and is not used; " if dealt else ""
    if found.n_patients < FEW_PATIENTS:
        return "kfold", f"{unused}{found.n_patients} patients are few, and testing each of them once gives the narrowest intervals"
    return "holdout", f"{unused}{found.n_patients} patients are enough for a test part of its own"


def val_fraction(found: Fingerprint, decided_scheme: str) -> Decision:
    """None where the folds can do its work."""
    folds_given = decided_scheme == "given" and not found.parts
    if decided_scheme == "kfold" or folds_given:
        return 0.0, (
            "the predictions for patients of other folds fit calibration and thresholds, so no patient is lost for training: "
            "every model learns from all folds but the one it is tested on"
        )
    if decided_scheme == "kfold_holdout":
        return 0.0, "each fold is the validation part of the model that did not see it"
    if decided_scheme == "given" and n_given_val(found):
        return VAL_FRACTION, "not used: the cohort's own split has a validation part"
    return VAL_FRACTION, "about one patient in seven fits calibration and thresholds; the others are left for training and test"


def n_dealt(found: Fingerprint) -> int:
    """Images for which the cohort itself brings a part or a fold."""
    return max(sum(found.parts.values()), int(found.extra.get("n_given_fold", 0)))


def n_given_val(found: Fingerprint) -> int:
    """Images of the cohort's own validation part."""
    return sum(n for name, n in found.parts.items() if name.strip().lower() in VAL_NAMES)


def expected_parts(found: Fingerprint, split: SplitPlan) -> Parts:
    """How many images each training has under a decided split."""
    n, n_folds, share = found.n_images, split.n_folds, split.val_fraction
    if split.scheme == "given" and found.parts:
        own = n_given_val(found)
        rest = found.n_images - own - sum(count for name, count in found.parts.items() if name.strip().lower().startswith("test"))
        n_val = own or round(rest * share)
        return Parts(n_train=max(1, rest if own else rest - n_val), n_val=n_val, n_trainings=1)
    if split.scheme == "holdout":
        return _parts(n * (1 - share - split.test_fraction), n * share, 1)
    if split.scheme == "kfold_holdout":
        tested = found.parts.get("test", split.test_fraction * n)
        return _parts((n - tested) * (n_folds - 1) / n_folds, (n - tested) / n_folds, n_folds * split.n_repeats)
    if split.scheme == "given":
        n_folds = int(found.extra.get("n_folds", USUAL_FOLDS))
    elif split.scheme == "leave_site_out":
        n_folds = max(2, len(found.sites))
    return _parts(n * (1 - 1 / n_folds - share), n * share, n_folds * split.n_repeats)


def _parts(n_train: float, n_val: float, n_trainings: int) -> Parts:
    return Parts(n_train=max(1, round(n_train)), n_val=round(n_val), n_trainings=n_trainings)
