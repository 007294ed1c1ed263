"""What a report is told. Every part may be missing: the report of a bare predictions file has little more than numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from medcnn.artifact import Stamp
from medcnn.cohort import Exclusion, Finding, Fingerprint, Flow
from medcnn.config import Config
from medcnn.evaluation.ensemble_weights import EnsembleWeights
from medcnn.evaluation.ladder import RungNumbers
from medcnn.evaluation.selection import Selection
from medcnn.plan import Plan
from medcnn.tables import Comparison, Record

Testing = Literal["internal", "internal-external", "external"]
CURVE_COLUMNS = ("curve", "label", "part", "level", "subset", "recalibration", "x", "y", "low", "high", "n", "threshold")


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold that was set before the test part was opened; rule p >= threshold.

    rule: how it was chosen, in words ("youden", "sensitivity at least 0.95", "fixed"). chosen_on: the rows it was chosen on.
    """

    label: str
    threshold: float
    rule: str = "fixed"
    chosen_on: str = ""


@dataclass(frozen=True, kw_only=True)
class ErrorImage:
    """One image that the model got wrong, and where the model looked.

    y: 0 or 1. p: probability. picture, heatmap: PNG bytes. method: how the heat map was made ("Grad-CAM").
    """

    image_id: str
    label: str
    y: float
    p: float
    threshold: float | None
    picture: bytes
    heatmap: bytes | None = None
    method: str = "Grad-CAM"


@dataclass(frozen=True, kw_only=True)
class BagPicture:
    """One bag of images (a slide, a study, a patient) that the rung mil predicted, and where its attention lay.

    image_id: of the image with most attention. y: 0 or 1. p: probability. n_half: how many images hold half of the attention.
    placed: the pictures, PNG bytes, are the mosaic of tiles and the attention over it; else images with most and with least
    (second: None for a bag of one image).
    """

    image_id: str
    label: str
    y: float
    p: float
    wrong: bool
    n_images: int
    n_half: int
    placed: bool
    picture: bytes
    second: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class RungFacts:
    """One rung of the ladder: what it is, what it predicts, what it cost. None: not known, or it has none.

    name: as in the config (prevalence, shortcuts, frozen, mil, simple_cnn, main, soup, ensemble). numbers: on the test rows.
    model: name of the network. n_models: how many are asked for one prediction, over folds, seeds and rungs; n_parameters: of
    one of them. cpu_seconds, gpu_seconds: training of all of them, and of those that they are made of.
    images_per_second: predictions of one image by one model, per CPU second. weights: how an ensemble weighs its rungs.
    """

    name: str
    numbers: RungNumbers
    model: str = ""
    n_models: int | None = None
    n_parameters: float | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    images_per_second: float | None = None
    weights: EnsembleWeights | None = None

    @property
    def is_headline(self) -> bool:
        """Whether the report is about this rung."""
        return self.numbers.to_headline is None


@dataclass(frozen=True, kw_only=True)
class FindingPicture:
    """One image that a finding of the audit names. kind: of the finding; group: number of the pair or group that it belongs to, from 0.

    lines: what is known of the image, in words. jpeg: the picture.
    """

    kind: str
    group: int
    image_id: str
    lines: Sequence[str]
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class SearchFacts:
    """A hyper-parameter search on this cohort and split. statement: what was searched, how and on whom, in words.

    keys: dotted keys that were searched; adopted: those at which the plan has the best setting's value.
    """

    statement: str
    keys: Sequence[str]
    adopted: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What a run used: watt-hours, kg of CO2 equivalents (None: unknown grid), and how that was found out, in words."""

    watt_hours: float
    kg_co2: float | None = None
    source: str = "codecarbon"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything that the report of one model says.

    records: `metrics.json`; curves: tidy, columns CURVE_COLUMNS, at most a few hundred rows per curve.
    predictions: image_id, patient_id, part, fold, y_LABEL, p_LABEL, covariates; p_LABEL as the records of `recalibration` saw it.
    split: image_id, patient_id, part, fold. counts: fold, part, n_images, n_patients, n_positive_LABEL.
    history: epoch, train_loss, val_loss, and where known fold, seed, val_auroc, learning_rate.
    ledger: one mapping per opening of the test part: when, who, config, predictions (hashes).
    model: name, n_parameters, multiply_adds, input_size_px, weights, images_per_second, training_seconds.
    recalibration: what the headline numbers went through ("none", "temperature", ...); recalibration_info: method, fitted_on, parameters.
    excluded: images that the audit took out, after the flow. hashes: what -> sha256; versions: package -> version.
    external: whether the tested images come from another site than the training images; None: unknown.
    ladder: the rungs, lowest first, one of them the headline; selection: the winner's AUROC corrected for having been chosen.
    search: None where this package has searched no settings on this split. energy: None where it was not measured. split_hash: sha256 of which image stands in which part of which fold.
    """

    name: str
    records: Sequence[Record]
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(CURVE_COLUMNS)))
    predictions: pd.DataFrame | None = None
    config: Config | None = None
    plan: Plan | None = None
    flow: Flow | None = None
    findings: Sequence[Finding] = ()
    pictures: Sequence[FindingPicture] = ()
    excluded: Sequence[Exclusion] = ()
    fingerprint: Fingerprint | None = None
    split: pd.DataFrame | None = None
    counts: pd.DataFrame | None = None
    thresholds: Sequence[OperatingPoint] = ()
    history: pd.DataFrame | None = None
    errors: Sequence[ErrorImage] = ()
    bags: Sequence[BagPicture] = ()
    ledger: Sequence[Mapping[str, Any]] = ()
    stamps: Sequence[Stamp] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    recalibration: str | None = None
    recalibration_info: Mapping[str, Any] = field(default_factory=dict)
    external: bool | None = None
    seed: int | None = None
    ladder: Sequence[RungFacts] = ()
    selection: Selection | None = None
    energy: Energy | None = None
    search: SearchFacts | None = None
    split_hash: str = ""

    @property
    def testing(self) -> Testing | None:
        """Whom the model was tested on; None: unknown.

        internal: patients of the same cohort; internal-external: each site by models of other sites of the same cohort
        (Collins et al. 2024, doi:10.1136/bmj-2023-074819); external: another cohort.
        """
        if self.external is not None or self.plan is None:
            return None if self.external is None else "external" if self.external else "internal"
        split = self.plan.split
        by_site = split.scheme == "leave_site_out" or (split.scheme == "kfold" and split.unit == "site")
        return "internal-external" if by_site else "internal"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One of the models of a comparison. model: as in RunFacts."""

    name: str
    records: Sequence[Record]
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(CURVE_COLUMNS)))
    model: Mapping[str, Any] = field(default_factory=dict)
    recalibration: str | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonFacts:
    """Everything that the report of several models on the same images says.

    sentences: what may be claimed and what not, in words, one each. same: what was checked to be the same (images, split, labels).
    """

    name: str
    models: Sequence[ModelFacts]
    comparisons: Sequence[Comparison]
    sentences: Sequence[str] = ()
    thresholds: Sequence[OperatingPoint] = ()
    same: Mapping[str, Any] = field(default_factory=dict)
    config: Config | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    correction: str = "holm"
    margin: float | None = None
