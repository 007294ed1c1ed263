"""Attention over bags: planted signals are found, bags of any size are seen as they are alone, and what cannot be learnt is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from medcnn.errors import InputError
from medcnn.model import mil
from medcnn.model.attention import AttentionShape, BagNetwork, GatedAttention, softmax_within
from medcnn.model.mil import Bags, make_bags, predict_bags, train_mil
from medcnn.model.signature import Signature

WIDTH, N_BAGS = 12, 160
SIGNATURE = Signature(task="binary", mean=(0.5,), std=(0.25,))


class Backbone(nn.Module):
    """A network whose features are its input."""

    def __init__(self, n_outputs: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, n_outputs)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(images)
        return scores


def network(n_outputs: int = 2, seed: int = 0) -> BagNetwork:
    torch.manual_seed(seed)
    return BagNetwork.around(Backbone(n_outputs), n_outputs, AttentionShape(width=16, n_hidden=8))


def planted(seed: int = 0, *, n_bags: int = N_BAGS, size: int = 25) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bags of noise; in every other bag two images carry a mark. Features (n, WIDTH), bag (n,), y (n, 1), which are marked (n,)."""
    rng = np.random.default_rng(seed)
    bag = np.repeat(np.arange(n_bags), size)
    features = rng.normal(size=(len(bag), WIDTH)).astype(np.float32)
    positive = bag % 2 == 1
    marked = positive & (np.arange(len(bag)) % size < 2)
    features[marked, :3] += 2.5
    return features, bag, positive[:, None].astype(float), marked


def trained(rows: np.ndarray, val: np.ndarray, data: tuple[np.ndarray, ...], **changes: Any) -> tuple[BagNetwork, Any]:
    features, bag, y, _ = data
    model = network()
    train, tuned = (make_bags(part, bag, y, bag) for part in (rows, val))
    result = train_mil(model, features, train, tuned, **({"signature": SIGNATURE, "seed": 3, "device": "cpu", "n_threads": 1} | changes))
    return model, result


def test_a_planted_sign_is_found_and_beats_the_mean_of_the_images() -> None:
    data = planted()
    features, bag, y, marked = data
    seen, unseen = np.flatnonzero(bag < 110), np.flatnonzero(bag >= 110)
    model, result = trained(seen[bag[seen] < 90], seen[bag[seen] >= 90], data)
    bags = make_bags(unseen, bag, y, bag)
    _, p, weights = predict_bags(model, features, bags, signature=result.signature, device="cpu", n_threads=1)
    by_mil = roc_auc_score(bags.y[:, 0], p[:, 0])
    from sklearn.linear_model import LogisticRegression

    alone = LogisticRegression().fit(features[seen], y[seen, 0]).predict_proba(features)[:, 1]  # each image told its bag's label
    by_mean = roc_auc_score(bags.y[:, 0], [alone[rows].mean() for rows in bags.rows])
    assert by_mil > 0.95
    assert by_mil > by_mean + 0.05
    inside = [number for number, rows in enumerate(bags.rows) if marked[rows].any()]
    found = [roc_auc_score(marked[bags.rows[number]], weights[number]) for number in inside]
    assert np.mean(found) > 0.9


def test_without_validation_bags_inner_folds_say_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mil, "PATIENCE", 3)
    asked: list[int] = []

    def scripted(_: Any, held: Bags) -> float:
        """Log-loss of an inner fold: lowest after its 4th epoch in the mean over the three, after another in each of them."""
        asked.append(len(held))
        epoch, fold = (len(asked) - 1) // 3 + 1, (len(asked) - 1) % 3
        return abs(epoch - (3, 4, 5)[fold])

    monkeypatch.setattr(mil._Trainer, "_loss", scripted)
    data = planted(n_bags=48, size=3)
    _, result = trained(np.arange(len(data[1])), np.arange(0), data)
    assert result.chosen_epoch == len(result.history) == 4
    assert len(asked) == 3 * (4 + mil.PATIENCE)
    assert asked[:3] == [16, 16, 16]
    assert "val_loss" not in result.history


def test_the_best_epoch_is_taken_and_training_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mil, "PATIENCE", 4)
    data = planted(n_bags=60, size=5)
    bag = data[1]
    model, result = trained(np.flatnonzero(bag < 40), np.flatnonzero(bag >= 40), data)
    losses = result.history["val_loss"].to_numpy()
    assert result.chosen_epoch == losses.argmin() + 1
    assert len(losses) == min(mil.EPOCHS, result.chosen_epoch + mil.PATIENCE)
    val = make_bags(np.flatnonzero(bag >= 40), bag, data[2], bag)
    logits = predict_bags(model, data[0], val, signature=result.signature, device="cpu")[0]
    assert mil.log_loss(logits, val.y, "binary") == pytest.approx(losses.min(), rel=1e-6)


def test_the_same_seed_gives_the_same_bits_and_leaves_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mil, "EPOCHS", 3)
    data = planted(n_bags=30, size=5)
    rows = np.arange(len(data[1]))
    one, other = (trained(rows, rows[:0], data) for _ in range(2))
    different = trained(rows, rows[:0], data, seed=4)
    torch.manual_seed(11)
    model, before = network(), torch.random.get_rng_state()
    bags = make_bags(rows, data[1], data[2], data[1])
    train_mil(model, data[0], bags, bags.part(np.arange(4)), signature=SIGNATURE, seed=0, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, other[1].state_dict[name]) for name, tensor in one[1].state_dict.items())
    assert any(not torch.equal(tensor, different[1].state_dict[name]) for name, tensor in one[1].state_dict.items())


def test_a_bag_is_predicted_alike_in_any_company_and_order() -> None:
    features, bag, y, _ = planted(n_bags=9, size=7)
    model = network().eval()
    keep = np.flatnonzero(np.random.default_rng(0).random(len(bag)) > 0.5)  # bags of different sizes
    logits, _, weights = predict_bags(model, features, make_bags(keep, bag, y, bag), signature=SIGNATURE, device="cpu")
    for number, code in enumerate(np.unique(bag[keep])):
        rows = keep[bag[keep] == code]
        alone, _, own = predict_bags(model, features, make_bags(rows[::-1], bag, y, bag), signature=SIGNATURE, device="cpu")
        assert np.allclose(alone[0], logits[number], atol=1e-6)
        assert np.allclose(own[0], weights[number], atol=1e-6)
        assert own[0].sum() == pytest.approx(1, abs=1e-5)


def test_attention_is_the_published_formula() -> None:
    torch.manual_seed(0)
    attention = GatedAttention(5, 3, AttentionShape(width=4, n_hidden=6)).eval()
    x = torch.randn(8, 5)
    outputs, weights = attention(x, torch.zeros(8, dtype=torch.int64), 1)
    hidden = torch.relu(x @ attention.squeeze[0].weight.T + attention.squeeze[0].bias)
    gate = torch.sigmoid(hidden @ attention.gates.weight.T + attention.gates.bias)
    scores = (torch.tanh(hidden @ attention.values.weight.T + attention.values.bias) * gate) @ attention.weigh.weight[0]
    expected = torch.softmax(scores, dim=0)
    assert torch.allclose(weights, expected, atol=1e-6)
    assert torch.allclose(outputs[0], attention.classifier((expected[:, None] * hidden).sum(dim=0)), atol=1e-6)


def test_softmax_within_survives_large_scores() -> None:
    scores, bag = torch.tensor([1000.0, 999.0, -1000.0, 5.0]), torch.tensor([0, 0, 0, 1])
    assert torch.allclose(softmax_within(scores, bag, 2), torch.cat([torch.softmax(scores[:3], 0), torch.ones(1)]))


def test_called_with_images_each_is_its_own_bag() -> None:
    model = network().eval()
    images = torch.randn(4, WIDTH)
    one_by_one = torch.cat([model.attention(model.trunk(image[None]), torch.zeros(1, dtype=torch.int64), 1)[0] for image in images])
    assert torch.allclose(model(images), one_by_one, atol=1e-6)


def test_bags_have_the_labels_of_their_images() -> None:
    y = np.array([[0.0], [1], [np.nan], [0], [np.nan], [np.nan]])
    bag = np.array([7, 7, 7, 2, 2, 5])
    bags = make_bags(np.array([4, 0, 2, 1, 5, 3]), bag, y, bag * 10)
    assert [rows.tolist() for rows in bags.rows] == [[3, 4], [5], [0, 1, 2]]
    assert np.array_equal(bags.y, [[0], [np.nan], [1]], equal_nan=True)
    assert bags.patients.tolist() == [20, 50, 70]
    assert len(make_bags(np.arange(0), bag, y, bag)) == 0


@pytest.mark.parametrize(
    ("task", "y", "words"),
    [
        ("multilabel", np.ones((4, 2)), "one label or one class"),
        ("binary", np.zeros((4, 1)), "no positive"),
        ("multiclass", np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), "1 of 4 training bags have images of different classes"),
    ],
)
def test_what_cannot_be_learnt_is_refused(task: Any, y: np.ndarray, words: str) -> None:
    bags = Bags([np.array([number]) for number in range(4)], y, np.arange(4))
    empty = Bags([], y[:0], np.arange(0))
    with pytest.raises(InputError, match=words):
        train_mil(network(), np.zeros((4, WIDTH), np.float32), bags, empty, signature=SIGNATURE.model_copy(update={"task": task}), seed=0)


def test_a_class_of_one_patient_has_no_inner_folds() -> None:
    bags = Bags([np.array([number]) for number in range(4)], np.array([[1.0], [1], [0], [0]]), np.array([5, 5, 6, 7]))
    empty = Bags([], bags.y[:0], np.arange(0))
    with pytest.raises(InputError, match="inner folds"):
        train_mil(network(), np.zeros((4, WIDTH), np.float32), bags, empty, signature=SIGNATURE, seed=0, device="cpu")


def test_a_large_bag_is_drawn_from_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mil, "MOST_IMAGES", 10)
    monkeypatch.setattr(mil, "AT_ONCE", 30)
    monkeypatch.setattr(mil, "EPOCHS", 2)
    data = planted(n_bags=12)
    rows = np.arange(len(data[1]))
    model, result = trained(rows, rows[data[1] < 4], data)
    assert len(result.history) == 2
    bags = make_bags(rows, data[1], data[2], data[1])
    whole = predict_bags(model, data[0], bags, signature=SIGNATURE, device="cpu")
    monkeypatch.setattr(mil, "AT_ONCE", 10**6)
    assert np.allclose(whole[0], predict_bags(model, data[0], bags, signature=SIGNATURE, device="cpu")[0], atol=1e-6)


def test_classes_of_bags_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    bag = np.repeat(np.arange(180), 6)
    features = rng.normal(size=(len(bag), WIDTH)).astype(np.float32)
    features[np.arange(len(bag)) % 6 == 0] += 4 * np.eye(WIDTH, dtype=np.float32)[np.arange(180) % 3]  # one image of six tells the class
    y = np.eye(3)[bag % 3]
    torch.manual_seed(0)
    model = BagNetwork.around(Backbone(3), 3, AttentionShape(width=16, n_hidden=8))
    seen, unseen = (make_bags(np.flatnonzero(part), bag, y, bag) for part in (bag < 120, bag >= 120))
    result = train_mil(model, features, seen, unseen, signature=SIGNATURE.model_copy(update={"task": "multiclass"}), seed=0, device="cpu")
    _, p, _ = predict_bags(model, features, unseen, signature=result.signature, device="cpu")
    assert (p.argmax(axis=1) == unseen.y.argmax(axis=1)).mean() > 0.9
    assert np.allclose(p.sum(axis=1), 1)
