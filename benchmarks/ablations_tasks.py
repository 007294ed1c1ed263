"""What the ablations are measured on: four small tasks, each with a hold-out that nothing is tuned on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.learning_curves import Cohort
from medcnn.plan import AugmentPlan, ImagePlan, ModelPlan, TrainingPlan
from medcnn.tables import Task

N_XRAYS, VAL_SHARE = 1500, 0.15
N_GROUPS = {"histology": 200, "findings": 400}
GRADES, CONTRAST, SPREAD = (0.4, 0.3, 0.2, 0.1), 30.0, 15.0  # of the made-up ordinal task: shares; grey levels per grade, and their SD


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Images, labels (NaN: not known), who is learnt from and who is held out, and what the plan says by default.

    labels: name of each reading. An ordinal task is read as the probabilities of reaching grade 1, 2, ...
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    images: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    image: ImagePlan
    augment: AugmentPlan
    model: ModelPlan
    training: TrainingPlan
    ordinal: bool = False

    def parts(self, *, with_val: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rows that are learnt from, and those that choose epochs: none, or 15% of the pool's patients."""
        if not with_val:
            return self.pool, np.arange(0)
        patients = np.random.default_rng(2).permutation(np.unique(self.patients[self.pool]))
        chosen = np.isin(self.patients[self.pool], patients[: round(VAL_SHARE * len(patients))])
        return self.pool[~chosen], self.pool[chosen]

    def readings(self, probabilities: np.ndarray) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Name -> labels 0/1/NaN and scores (n_test,) of each binary question that is put to the model."""
        y = self.y[self.test]
        if self.ordinal:
            steps = range(1, y.shape[1])
            return {self.labels[k - 1]: (y[:, k:].sum(axis=1), probabilities[:, k:].sum(axis=1)) for k in steps}
        return {name: (y[:, k], probabilities[:, k]) for k, name in enumerate(self.labels)}

    def losses(self, probabilities: np.ndarray) -> np.ndarray:
        """Log-loss of each hold-out image, float (n_test,); multilabel: mean over its known labels, NaN where none is."""
        y, p = self.y[self.test], np.clip(probabilities, 1e-7, 1 - 1e-7)
        if self.task == "multiclass":
            chosen: np.ndarray = -np.log(p[np.arange(len(y)), y.argmax(axis=1)])
            return chosen
        each = -np.where(y == 1, np.log(p), np.log1p(-p))
        known = ~np.isnan(y)
        n_known = known.sum(axis=1)
        total = np.where(known, each, 0.0).sum(axis=1)
        mean: np.ndarray = np.divide(total, n_known, out=np.full(len(y), np.nan), where=n_known > 0)
        return mean


def make_benches(data: Path, configs: Path, out: Path) -> dict[str, Bench]:
    """Every task by name. data: folder with pneumoniamnist.npz; out: where the cohorts of the configs are kept."""
    histology = Cohort(configs / "histology.yaml", ["image.size_px=64"], out / "cohorts")
    covid = Cohort(configs / "covid_cxr.yaml", ["image.size_px=64"], out / "cohorts")
    return {
        "histology": _of_cohort("histology", histology, histology.y, ("oscc",), "binary"),
        "pneumonia": _pneumonia(data),
        "findings": _findings(covid),
        "grades": _grades(_pneumonia(data)),
    }


def _fine_tuning(*, pretrained: bool, batch_size: int, epochs: int) -> TrainingPlan:
    """What medcnn/model/rules_training.py decides for so few steps."""
    return TrainingPlan(
        epochs=epochs, batch_size=batch_size, learning_rate=2e-3, backbone_lr_factor=0.3 if pretrained else 1.0,
        head_epochs=1 if pretrained else 0, label_smoothing=0.0 if pretrained else 0.05, ema_decay=0.0, imbalance="none", select="last",
        precision="float32", device="cpu", n_workers=0, n_threads=1,
    )  # fmt: skip


def _of_cohort(name: str, cohort: Cohort, y: np.ndarray, labels: tuple[str, ...], task: Task) -> Bench:
    training = _fine_tuning(pretrained=True, batch_size=32, epochs=4)
    return Bench(
        name=name, task=task, labels=labels, images=cohort.images.images, y=y, patients=cohort.patients, pool=cohort.drawn(N_GROUPS[name], 0),
        test=cohort.test, image=cohort.plan.image, augment=cohort.plan.augment, model=cohort.plan.model, training=training,
    )  # fmt: skip


def _findings(cohort: Cohort) -> Bench:
    """Four questions to one chest X-ray, of which sex and view are blank for some: a multi-label task from the columns at hand."""
    manifest = cohort.manifest
    rows = cohort.images.rows(manifest["image_id"])
    y = np.full((len(cohort.images), 4), np.nan, np.float32)
    y[rows, :2] = cohort.y[rows, 1:]
    for column, (name, positive, negative) in enumerate([("sex", "F", "M"), ("view", "AP", "PA")], start=2):
        found = manifest[name].astype(str).str.upper().str.split().str[0].to_numpy()  # AP SUPINE is AP
        y[rows, column] = np.where(found == positive, 1.0, np.where(found == negative, 0.0, np.nan))
    return _of_cohort("findings", cohort, y, ("pneumonia", "covid19", "female", "AP view"), "multilabel")


def _pneumonia(data: Path) -> Bench:
    """PneumoniaMNIST's train and val parts without copies: 1,500 images are learnt from, the others held out. The test part is not read."""
    with np.load(data / "pneumoniamnist.npz") as arrays:
        images = np.concatenate([arrays["train_images"], arrays["val_images"]])
        y = np.concatenate([arrays["train_labels"], arrays["val_labels"]]).astype(np.float32)
    first = np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
    images, y = images[first][..., None], y[first].reshape(-1, 1)
    order = np.random.default_rng(1).permutation(len(images))
    return Bench(
        name="pneumonia", task="binary", labels=("pneumonia",), images=images, y=y, patients=np.arange(len(images)),
        pool=np.sort(order[:N_XRAYS]), test=np.sort(order[N_XRAYS:]), image=ImagePlan(size_px=28, channels=1, fit="pad"),
        augment=AugmentPlan(policy="chest_xray"), model=ModelPlan(name="small_vgg", pretrained=False, dropout=0.3),
        training=_fine_tuning(pretrained=False, batch_size=64, epochs=6),
    )  # fmt: skip


def _grades(base: Bench) -> Bench:
    """A made-up ordinal task: a blurred spot on each X-ray, brighter by grade, with so much spread that neighbours overlap."""
    rng = np.random.default_rng(3)
    n, size = len(base.images), base.image.size_px
    grade = rng.choice(len(GRADES), size=n, p=GRADES)
    height = CONTRAST * grade + rng.normal(0, SPREAD, n)
    centre = rng.uniform(7, size - 7, (n, 2))
    grid = np.arange(size)
    squared = (grid[None, :, None] - centre[:, :1, None]) ** 2 + (grid[None, None, :] - centre[:, 1:, None]) ** 2
    spots = height[:, None, None] * np.exp(-squared / (2 * 2.5**2))
    images = np.clip(base.images[..., 0] + spots, 0, 255).astype(np.uint8)[..., None]
    return Bench(
        name="grades", task="multiclass", labels=("grade 1+", "grade 2+", "grade 3"), images=images,
        y=np.eye(len(GRADES), dtype=np.float32)[grade], patients=base.patients, pool=base.pool, test=base.test, image=base.image,
        augment=base.augment, model=base.model, training=base.training.model_copy(update={"label_smoothing": 0.0}), ordinal=True,
    )  # fmt: skip


def describe(bench: Bench) -> str:
    """One line: who is learnt from and who is held out."""
    asked = bench.readings(np.zeros((len(bench.test), bench.y.shape[1])))
    shares = ", ".join(f"{name} {float(np.nanmean(y)):.0%}" for name, (y, _) in asked.items())
    steps = bench.training.epochs * -(-len(bench.pool) // bench.training.batch_size)
    return (
        f"{bench.name}: {bench.model.name}{' (pretrained)' if bench.model.pretrained else ''}, {bench.image.size_px} px, learnt from "
        f"{len(bench.pool)} images of {len(np.unique(bench.patients[bench.pool]))} groups in {steps} steps of {bench.training.batch_size}; held "
        f"out: {len(bench.test)} images of {len(np.unique(bench.patients[bench.test]))} groups, positive: {shares}"
    )
