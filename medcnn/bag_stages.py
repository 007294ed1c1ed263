"""The rung mil, joined: bags of the manifest to a trained attention, to one prediction for each bag, and to each image's weight in it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medcnn.members import Member
from medcnn.plan import Plan
from medcnn.tables import label_matrix, read_table

if TYPE_CHECKING:
    from medcnn.model.mil import Bags

Inputs = Mapping[str, Path]
ATTENTION_TABLE = "attention.parquet"


def bag_codes(manifest: pd.DataFrame, bag: str) -> np.ndarray:
    """The bag of each row, int64 (n,): its study within its patient, or its patient."""
    columns = ["patient_id", "study_id"] if bag == "study" else ["patient_id"]
    codes: np.ndarray = manifest.groupby(columns, sort=True).ngroup().to_numpy(np.int64)
    return codes


def _places(inputs: Inputs, features: np.ndarray) -> Any:
    """Where each image stands in the features: in the row that it has in the cache, whose pixels need not be read."""
    from medcnn.data.cache import INDEX, CachedImages

    return CachedImages(features, read_table(inputs["cache"] / INDEX))


def bags_of(manifest: pd.DataFrame, cached: Any, decided: Plan, image_ids: Iterable[str]) -> "Bags":
    """The bags among some images, their rows those of the cache (and of its features)."""
    from medcnn.model.mil import make_bags

    places, n = cached.rows(manifest["image_id"]), len(cached)
    bag, patients, y = np.full(n, -1, np.int64), np.full(n, -1, np.int64), np.full((n, len(decided.labels)), np.nan)
    bag[places], patients[places] = bag_codes(manifest, decided.ladder.bag), pd.factorize(manifest["patient_id"], sort=True)[0]
    y[places] = label_matrix(manifest, decided.labels)
    return make_bags(cached.rows(image_ids), bag, y, patients)


def fit_mil(member: Member, decided: Plan, inputs: Inputs, fresh: tuple[Any, Any], features: np.ndarray) -> tuple[Any, Any]:
    """Train the attention of one fold and seed: the network, and the TrainingResult. fresh: the planned network and its signature."""
    import torch

    from medcnn.model.attention import AttentionShape, BagNetwork
    from medcnn.model.mil import DROPOUT, train_mil
    from medcnn.model.signature import count_outputs

    manifest, split = read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet")
    of_fold, cached = split[split["fold"] == member.fold], _places(inputs, features)
    train, val = (bags_of(manifest, cached, decided, of_fold.loc[of_fold["part"] == part, "image_id"]) for part in ("train", "val"))
    backbone, signature = fresh
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(member.seed(decided))
        model = BagNetwork.around(backbone, count_outputs(decided.task, len(decided.labels)), AttentionShape(), dropout=DROPOUT)
    training = decided.training
    result = train_mil(
        model, features, train, val, signature=signature, seed=member.seed(decided), device=training.device, n_threads=training.n_threads
    )
    return model, result


def predict_mil(
    folder: Path, decided: Plan, inputs: Inputs, features: np.ndarray, wanted: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One model's logits and probabilities (n, n_labels) for each wanted row, those of its bag, and the row's weight in it, (n,)."""
    from medcnn.model.card import load_model
    from medcnn.model.mil import predict_bags

    manifest, cached = read_table(inputs["audit"] / "manifest.parquet"), _places(inputs, features)
    model, card = load_model(folder)
    bags = bags_of(manifest, cached, decided, wanted["image_id"])
    training = decided.training
    logits, p, weights = predict_bags(model, features, bags, signature=card, device=training.device, n_threads=training.n_threads)  # type: ignore[arg-type]
    return over_images(bags, cached.rows(wanted["image_id"]), logits, p, weights)


def predict_new_bags(
    model: Any, card: Any, images: Any, bag: np.ndarray, decided: Plan, kept: dict[Any, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """One model's logits and probabilities (n, n_labels) for each new image, those of its bag.

    images: a source of batches; bag: int (n,), 0 to the number of bags. kept: the features of these images so far, by the
    colours that they were brought to: every model of a run has the same backbone.
    """
    from medcnn.model.mil import look, make_bags, predict_bags

    training = decided.training
    if card.stain_target not in kept:
        kept[card.stain_target] = look(
            model, images, len(bag), signature=card, device=training.device, precision=training.precision,
            engine=decided.prediction.engine, n_threads=training.n_threads,
        )  # fmt: skip
    bags = make_bags(np.arange(len(bag)), bag, np.full((len(bag), len(decided.labels)), np.nan), bag)
    found = predict_bags(model, kept[card.stain_target], bags, signature=card, device=training.device, n_threads=training.n_threads)
    logits, p, _ = over_images(bags, np.arange(len(bag)), *found)
    return logits, p


def over_images(
    bags: "Bags", rows: np.ndarray, logits: np.ndarray, p: np.ndarray, weights: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was predicted of bags, for each of these rows, all of which are in a bag."""
    of_row = np.repeat(np.arange(len(bags)), [len(own) for own in bags.rows])
    order = np.argsort(np.concatenate(bags.rows), kind="stable")
    place = order[np.searchsorted(np.concatenate(bags.rows)[order], rows)]
    return logits[of_row[place]], p[of_row[place]], np.concatenate(weights)[place]


def one_row_a_bag(predictions: pd.DataFrame, rung: str, decided: Plan) -> pd.DataFrame:
    """Predictions of mil with one row for each bag, so that recalibration counts a bag once; those of other rungs as they are."""
    if rung != "mil":
        return predictions
    bag = ["patient_id", "study_id"] if decided.ladder.bag == "study" else ["patient_id"]
    return predictions.drop_duplicates(["part", "fold", *bag]).reset_index(drop=True)


def write_attention(draft: Path, tables: Sequence[pd.DataFrame]) -> None:
    """`attention.parquet`: image_id, part, fold, attention (the mean over the models that predict the image's fold and part)."""
    together = pd.concat([table[["image_id", "part", "fold", "attention"]] for table in tables], ignore_index=True)
    mean = together.groupby(["fold", "part", "image_id"], as_index=False, sort=True)["attention"].mean()
    mean.to_parquet(draft / ATTENTION_TABLE, index=False)
