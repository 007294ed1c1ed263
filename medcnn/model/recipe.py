"""Which settings of training go together. Imports no torch, so that a plan can be checked before anything heavy is loaded."""

from medcnn.errors import InputError
from medcnn.plan import TrainingPlan
from medcnn.tables import Task


def check_recipe(plan: TrainingPlan, task: Task) -> None:
    """Raise InputError for settings of loss, targets and imbalance that make no sense together or with the task."""
    mixed = plan.mixup > 0 or plan.cutmix > 0
    problems = {
        f"asymmetric, which is for several findings per image, but the task is {task}; use focal": (
            plan.loss == "asymmetric" and task != "multilabel"
        ),
        f"ordinal, which is for classes in their order, but the task is {task}; use cross_entropy": (
            plan.loss == "ordinal" and task != "multiclass"
        ),
        f"{plan.loss}, for which label smoothing is not defined; set training.label_smoothing=0": (
            plan.loss in {"asymmetric", "ordinal"} and plan.label_smoothing > 0
        ),
        "ordinal, for which a blend of two classes is not defined; set training.mixup=0 and training.cutmix=0": (
            plan.loss == "ordinal" and mixed
        ),
        f"{plan.loss}, but training.imbalance=logit_adjusted is derived for cross_entropy; use class_balanced": (
            plan.loss != "cross_entropy" and plan.imbalance == "logit_adjusted"
        ),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise InputError(f"training.loss is {problem}")
    if mixed and plan.batch_size < 2:
        raise InputError("training.mixup and training.cutmix need at least 2 images per step, but training.batch_size is 1")
