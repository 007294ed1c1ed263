"""Oracle: the same training, not compiled. With dynamo's backend for tests, since a CPU need not have a compiler."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import model_plan, training_plan
from test_training import IMAGES, N_STEPS, Interrupted, same, train_small
from torch import nn

from medcnn.errors import InputError
from medcnn.model import compilation, machine
from medcnn.model.backbones import build_model
from medcnn.model.compilation import compiled
from medcnn.model.machine import missing_for_compiling

CPU = torch.device("cpu")
HEAD_FIRST = training_plan(epochs=2, head_epochs=1, ema_decay=0.9, checkpoint_minutes=0, backbone_lr_factor=0.5)


def network() -> nn.Module:
    return build_model(model_plan(dropout=0.0), channels=1, n_outputs=2, size_px=16, seed=3)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were compiled, run as they stand."""
    seen: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", backend)
    return seen


def test_a_compiled_training_is_the_same_training(graphs: list[Any]) -> None:
    """Head first, moving average, steps of two sizes; names of weights and the checkpoint's as well."""
    wanted = HEAD_FIRST.model_copy(update={"compile": True})
    plain, quick = train_small(model=network(), plan=HEAD_FIRST), train_small(model=network(), plan=wanted)
    assert len(graphs) >= 2, "the frozen and the learning backbone have a graph each"
    assert list(quick.state_dict) == list(plain.state_dict)
    assert same(quick, plain)


def test_it_goes_on_from_the_checkpoint_of_one_that_was_not_compiled(graphs: list[Any], tmp_path: Path) -> None:
    wanted = HEAD_FIRST.model_copy(update={"compile": True})
    images = Interrupted(IMAGES, N_STEPS + 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train_small(images, model=network(), plan=HEAD_FIRST, checkpoint_dir=tmp_path)
    assert not graphs
    assert same(train_small(model=network(), plan=wanted, checkpoint_dir=tmp_path), train_small(model=network(), plan=HEAD_FIRST))
    assert graphs


def test_gradients_reach_the_weights_and_nothing_stays(graphs: list[Any]) -> None:
    model, images = network(), torch.rand(4, 1, 16, 16)
    names = list(model.state_dict())
    with compiled(model, CPU, wanted=True) as forward:
        forward(images).sum().backward()
        assert list(model.state_dict()) == names
    assert all(parameter.grad is not None for parameter in model.parameters())
    n_graphs = len(graphs)
    assert n_graphs > 0
    model(images)
    assert len(graphs) == n_graphs


def test_not_wanted_is_the_model_itself(graphs: list[Any]) -> None:
    model = network()
    with compiled(model, CPU, wanted=False) as forward:
        assert forward is model


# ---------------------------------------------------------------- what it needs


@pytest.mark.parametrize(
    ("device", "triton", "programs", "missing"),
    [
        ("cuda", True, {"gcc"}, ""),
        ("cuda", True, {"clang"}, ""),
        ("cuda", False, {"gcc"}, "triton"),
        ("cuda", True, {"g++"}, "a compiler (gcc, clang, cc)"),
        ("cpu", False, {"g++"}, ""),
        ("cpu", False, {"gcc"}, "a compiler (g++, clang++, c++)"),
    ],
)
def test_what_is_missing_is_named(device: str, triton: bool, programs: set[str], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert missing_for_compiling(device) == missing
    monkeypatch.setenv("CC" if device == "cuda" else "CXX", "mycc")
    assert (missing_for_compiling(device) == "") == (device == "cuda" and triton and "mycc" in programs)


def test_a_training_that_cannot_be_compiled_is_refused_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "missing_for_compiling", lambda device: "triton")
    with pytest.raises(InputError, match=r"training.compile is true, but triton is not installed here.*training.compile=false"):
        train_small(plan=HEAD_FIRST.model_copy(update={"compile": True}))
