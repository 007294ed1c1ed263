"""Rules on bags of images: whether labels are of slides, what a bag is, and at which level numbers are then taken."""

from collections.abc import Sequence

from medcnn.cohort import Fingerprint
from medcnn.config import Config, Rung
from medcnn.errors import InputError
from medcnn.model.decisions import Decision
from medcnn.tables import Level

UNITS = {"study": "studies", "patient": "patients"}


def are_slide_labels(found: Fingerprint) -> bool:
    """Whether the images are tiles of slides and every tile of a slide has its slide's label: no tile was labelled by itself."""
    extra = found.extra
    return bool(extra.get("tiled")) and 0 < extra.get("n_studies", 0) < found.n_images and not extra.get("n_mixed_studies")


def bag(found: Fingerprint) -> Decision:
    """The study, which of tiles is the slide; the patient where no study is named."""
    if found.extra.get("n_studies"):
        return "study", "the cohort names studies (of tiles: their slides)"
    return "patient", "the cohort names no studies"


def slide_rungs(found: Fingerprint) -> Decision | None:
    """The ladder where labels are of slides; None where they are not, or mil could not learn them."""
    if not are_slide_labels(found) or found.task == "multilabel":
        return None
    chosen: tuple[Rung, ...] = ("prevalence", "shortcuts", "frozen", "mil")
    return chosen, (
        f"the labels are of {found.extra['n_studies']} slides, not of their {found.n_images} tiles: a network trained on tiles would be told "
        "wrong labels for many of them. Knowing nothing but the share of cases; shortcuts that see no disease; pretrained features, "
        "their predictions averaged over each slide; attention that learns which tiles count"
    )


def levels(found: Fingerprint, rungs: Sequence[Rung], decided_bag: Level) -> Decision:
    """What has the label."""
    unit: Level = decided_bag if "mil" in rungs else "study"
    if "mil" not in rungs and not are_slide_labels(found):
        return ("image",), "each image has its own label"
    chosen: tuple[Level, ...] = (unit,)
    words = f"the rung mil gives one prediction for each {unit}" if "mil" in rungs else "every tile has the label of its slide"
    if unit == "study" and found.n_patients < found.extra["n_studies"]:
        chosen = (unit, "patient")
        words += f", and {found.n_patients} patients have {found.extra['n_studies']} studies"
    return chosen, f"{words}: numbers on single images would count one answer many times"


def check_bags(
    found: Fingerprint, config: Config, rungs: Sequence[Rung], decided_bag: str, pretrained: bool, decided: Sequence[Level]
) -> None:
    """Raise InputError for a rung mil that cannot be learnt, or whose predictions would be counted wrongly."""
    if "mil" not in rungs:
        return
    n_mixed = found.extra.get("n_mixed_studies" if decided_bag == "study" else "n_mixed_patients", 0)
    problems = {
        "ladder.rungs has mil, which learns from pretrained features, but model.pretrained is false; take mil out, or set model.pretrained=true": not pretrained,
        f"ladder.rungs has mil, which learns one label or one class of each bag, but the task is multilabel ({', '.join(found.labels[:3])} ...); "
        "take mil out, or give one label": found.task == "multilabel",
        "ladder.bag is study, but the cohort names no study for every image; set data.study_column, or ladder.bag=patient": (
            decided_bag == "study" and not found.extra.get("n_studies")
        ),
        f"ladder.rungs has mil, but {n_mixed} {UNITS[decided_bag]} have images of different classes, so they have no class of their own; "
        "set data.study_column or ladder.bag to smaller bags, or take mil out": found.task == "multiclass" and n_mixed > 0,
        f"evaluation.levels starts with image, but the rung mil gives one prediction for each {decided_bag}: single images would count it "
        f"many times; set evaluation.levels=[{decided_bag}], or auto": decided[0] == "image",
        "evaluation.aggregation is noisy_or, which takes the images of a bag for independent, but the rung mil gives them all the bag's own "
        "prediction; set evaluation.aggregation=mean": config.evaluation.aggregation == "noisy_or",
    }
    for problem, is_there in problems.items():
        if is_there:
            raise InputError(problem)
