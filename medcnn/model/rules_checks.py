"""Combinations of settings that cannot be, refused before anything is trained."""

from medcnn.cohort import Fingerprint
from medcnn.config import Config, ModelConfig, SplitConfig
from medcnn.errors import InputError
from medcnn.model.recipe import check_recipe
from medcnn.model.rules_bags import check_bags
from medcnn.model.rules_image import check_stain
from medcnn.model.rules_model import OWN_NETWORKS, TRAINED
from medcnn.model.rules_split import Parts, expected_parts, n_dealt
from medcnn.plan import ModelPlan, Plan, SplitPlan, TrainingPlan


def check_asked(found: Fingerprint, config: Config) -> None:
    """Raise InputError for a config that contradicts itself or the cohort."""
    check_dealing(found, config.split)
    if config.training.minutes is not None and config.training.epochs != "auto":
        raise InputError(
            f"training.epochs is {config.training.epochs} and training.minutes is {config.training.minutes:g}; expected one of them, since "
            "minutes are turned into epochs: set the other to auto (epochs) or leave it out (minutes)"
        )
    check_weights(config.model)


def check_plan(decided: Plan, found: Fingerprint, config: Config) -> None:
    """Raise InputError for a plan, edited by hand perhaps, with what `make_plan` would have refused to decide."""
    if decided.task != found.task or tuple(decided.labels) != tuple(found.labels):
        raise InputError(
            f"task and labels are {decided.task} of {', '.join(decided.labels)}, but the cohort's are {found.task} of {', '.join(found.labels)}; "
            "they are no decision of the plan: change `task` or the section `data` of the config"
        )
    check_dealing(found, decided.split)
    check_split(decided.split)
    parts, ladder = expected_parts(found, decided.split), decided.ladder
    networks = [(decided.model, decided.training)]
    if decided.simple_cnn is not None:
        networks.append((decided.simple_cnn.model, decided.simple_cnn.training))
    for model, training in networks:
        check_weights(model)
        check_training(config, parts, model, training)
        check_recipe(training, found.task)
    check_stain(decided.image)
    check_bags(found, config, ladder.rungs, ladder.bag, decided.model.pretrained, decided.evaluation.levels)
    check_ladder(
        ladder.rungs, ladder.headline, pretrained=decided.model.pretrained, n_seeds=ladder.n_seeds, has_val=parts.n_val > 0,
        can_weigh=ladder.weights == "equal" or parts.n_to_fit > 0,
    )  # fmt: skip


def check_dealing(found: Fingerprint, split: SplitConfig) -> None:
    """Raise InputError for a split that needs what the cohort does not bring: its own parts, or sites."""
    if split.scheme == "given" and not n_dealt(found):
        raise InputError("split.scheme is given, but the cohort brings no split; set data.part_column or data.fold_column, or scheme: auto")
    if (split.scheme == "leave_site_out" or split.unit == "site") and len(found.sites) < 2:
        key = "split.scheme is leave_site_out" if split.scheme == "leave_site_out" else "split.unit is site"
        raise InputError(
            f"{key}, but the cohort names {len(found.sites)} sites; expected two or more: set data.site_column, or another split"
        )


def check_weights(model: ModelConfig) -> None:
    """Raise InputError for pretrained weights that do not exist."""
    if model.pretrained is True and model.name in OWN_NETWORKS:
        raise InputError(f"model.pretrained is true, but there are no pretrained weights of {model.name}; set model.pretrained=false")


def check_split(split: SplitPlan) -> None:
    """Raise InputError for parts that cannot be dealt."""
    if split.n_repeats > 1 and split.scheme not in {"kfold", "kfold_holdout"}:
        raise InputError(
            f"split.n_repeats is {split.n_repeats}, but split.scheme {split.scheme} deals once; expected kfold or kfold_holdout, or n_repeats 1"
        )


def check_training(config: Config, parts: Parts, model: ModelPlan, training: TrainingPlan) -> None:
    """Raise InputError for a training that lacks what it needs: validation rows, pretrained weights, images in a piece of a step."""
    needs_val = {f"training.patience is {training.patience}": training.patience > 0, "training.select is best": training.select == "best"}
    for words, needed in needs_val.items():
        if needed and not parts.n_val:
            raise InputError(
                f"{words}, which needs a validation part, but split.val_fraction is 0; set split.val_fraction to 0.15 or so, "
                "or training.select=last and training.patience=0"
            )
    if training.accumulate > training.batch_size:
        raise InputError(
            f"training.accumulate is {training.accumulate}, more than training.batch_size {training.batch_size}; expected at most one piece "
            "for each image"
        )
    if model.lora_rank and not model.pretrained:
        raise InputError(
            f"model.lora_rank is {model.lora_rank}, but the weights are random: adapters alone would leave them so; "
            "set model.pretrained=true or lora_rank 0"
        )
    if not parts.n_val and parts.n_trainings == 1 and _fits_on_val(config):
        raise InputError(
            "the split has no validation part and only one fold, so calibration and thresholds have no rows to be fitted on; set "
            "split.val_fraction, a scheme with folds, or calibration.method=none with thresholds of rule fixed"
        )


def _fits_on_val(config: Config) -> bool:
    return config.calibration.method != "none" or any(threshold.rule != "fixed" for threshold in config.evaluation.thresholds)


def check_ladder(rungs: tuple[str, ...], headline: str, *, pretrained: bool, n_seeds: int, has_val: bool, can_weigh: bool = True) -> None:
    """Raise InputError for rungs that cannot stand. can_weigh: weights need not be fitted, or have rows to be fitted on."""
    n_trained = sum(rung in TRAINED for rung in rungs)
    problems = {
        "names no rung; expected main at least": not rungs,
        f"names no rung that is trained ({', '.join(rungs)}), so there is no model to explain or to apply; add main, simple_cnn or frozen": (
            bool(rungs) and n_trained == 0 and not {"soup", "ensemble"} & {*rungs}
        ),
        f"names a rung twice: {', '.join(rungs)}; expected each once": len(set(rungs)) < len(rungs),
        "has frozen, which needs pretrained features, but model.pretrained is false; take frozen out, or set model.pretrained=true": (
            "frozen" in rungs and not pretrained
        ),
        "has soup, an average of models that differ in their seed, but ladder.n_seeds is 1; set n_seeds to 3 or so, or take soup out": (
            "soup" in rungs and n_seeds < 2
        ),
        "has soup, whose members are chosen on validation patients, but there are none; set split.val_fraction, or take soup out": (
            "soup" in rungs and not has_val
        ),
        "has ensemble, a mean of trained models, but would hold one; set n_seeds to 2 or more, name a second trained rung, or take it out": (
            "ensemble" in rungs and (n_trained == 0 or (n_trained == 1 and (n_seeds < 2 or "frozen" in rungs)))
        ),
    }
    problems[
        "has ensemble, whose weights would be fitted on validation rows or other folds, but there are none; set ladder.weights=equal"
    ] = "ensemble" in rungs and not can_weigh
    for problem, is_there in problems.items():
        if is_there:
            raise InputError(f"ladder.rungs {problem}")
    if headline not in rungs:
        raise InputError(f"ladder.headline is {headline}, which is not among ladder.rungs ({', '.join(rungs)}); name one of them, or auto")
