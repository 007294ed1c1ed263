import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn

from medcnn.errors import InputError, MissingExtra, RunError
from medcnn.model import openvino_engine
from medcnn.model.openvino_engine import compile_openvino, import_openvino, weights_digest
from medcnn.model.simple_cnn import SimpleCNN

needs_openvino = pytest.mark.skipif(not openvino_engine.is_installed(), reason="needs the extra openvino")
SHAPE = (3, 32, 32)


def inputs(n: int) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(n))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return (SimpleCNN(3, 2) if name == "simple_cnn" else timm.create_model(name, num_classes=2)).eval()


@needs_openvino
@pytest.mark.parametrize("name", ["simple_cnn", "tf_efficientnet_lite0", "resnet18"])
def test_the_scores_are_torchs(name: str) -> None:
    model = network(name)
    compiled = compile_openvino(model, SHAPE, precision="float32", n_threads=1)
    for n in (5, 1, 3):
        with torch.inference_mode():
            expected = model(inputs(n)).numpy()
        scores = compiled(inputs(n).numpy())
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@needs_openvino
def test_it_is_compiled_once_for_the_same_weights_and_twice_gives_the_same_bits() -> None:
    model = network("simple_cnn")
    first = compile_openvino(model, SHAPE, precision="float32", n_threads=1)
    assert compile_openvino(model, SHAPE, precision="float32", n_threads=1) is first
    again = compile_openvino(network("simple_cnn"), SHAPE, precision="float32", n_threads=1)
    assert again is not first
    assert np.array_equal(first(inputs(4).numpy()), again(inputs(4).numpy()))
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert compile_openvino(model, SHAPE, precision="float32", n_threads=1) is not first


@needs_openvino
@pytest.mark.parametrize(("amx", "hint"), [(False, "f32"), (True, "bf16")])
def test_bfloat16_is_taken_only_where_the_cpu_multiplies_it(amx: bool, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(openvino_engine, "has_amx", lambda: amx)
    make = openvino_engine._compiled
    monkeypatch.setattr(openvino_engine, "_compiled", lambda model, example, hint, n: seen.append(hint) or make(model, example, hint, n))
    model = network("simple_cnn")
    scores = compile_openvino(model, SHAPE, precision="bfloat16", n_threads=1)(inputs(4).numpy())
    assert seen == [hint]
    np.testing.assert_allclose(scores, model(inputs(4)).detach().numpy(), rtol=0.05 if amx else 1e-4, atol=0.01 if amx else 1e-6)


@needs_openvino
def test_scores_that_are_not_torchs_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "_compiled", lambda *_: lambda images: np.ones((len(images), 2), np.float32))
    with pytest.raises(RunError, match=r"differ from torch's by .* use prediction.engine=torch"):
        compile_openvino(network("simple_cnn"), SHAPE, precision="float32", n_threads=1)


@needs_openvino
def test_a_network_it_does_not_take_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(images).mean(dim=(2, 3))

    with pytest.raises(InputError, match=r"OpenVINO does not take this Odd: .* use prediction.engine=torch"):
        compile_openvino(Odd().eval(), SHAPE, precision="float32", n_threads=1)


@needs_openvino
def test_nothing_is_told_of_its_use() -> None:
    """OpenVINO sends its import to a web service unless somebody opted out; the stub that it carries sends nothing."""
    code = (
        "from medcnn.model.openvino_engine import import_openvino; import_openvino(); import sys;"
        "from openvino.tools.ovc import convert_impl, telemetry_utils;"
        "print(convert_impl.tm.__name__, telemetry_utils.tm.__name__, sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub"] * 2 + ["None"]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"medcnn\[openvino\]"):
        import_openvino()


def test_the_digest_sees_every_value() -> None:
    model = network("simple_cnn")
    before = weights_digest(model)
    assert weights_digest(network("simple_cnn")) == before
    model.features[0][1].running_mean[0] += 1e-3  # type: ignore[index]
    assert weights_digest(model) != before
