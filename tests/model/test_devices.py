import pytest
import torch
from torch import nn

from medcnn.errors import InputError
from medcnn.model.devices import autocast, choose_device, compute_settings, depthwise_in_float32, seed_generators

CPU = torch.device("cpu")


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"training.device=auto or cpu"):
        choose_device(name)


def test_a_second_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda:0").index == 0
    with pytest.raises(InputError, match="1 CUDA devices"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "meta", ""])
def test_a_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected auto, cpu, cuda"):
        choose_device(name)


def test_seeding_is_torchs() -> None:
    torch.manual_seed(12)
    expected = torch.rand(3)
    seed_generators(CPU, 12)
    assert torch.equal(torch.rand(3), expected)


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with compute_settings(CPU, n_threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), compute_settings(CPU, n_threads=before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_gpu_may_use_tf32_and_no_stopwatch_and_all_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> tuple[str, bool, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings()
    assert before == ("highest", False, True)
    with compute_settings(CPU):
        assert settings() == before
    with pytest.raises(ZeroDivisionError), compute_settings(torch.device("cuda")):
        assert settings() == ("high", True, False)
        raise ZeroDivisionError
    assert settings() == before


def test_depthwise_convolutions_stay_in_float32_for_the_time_being() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    seen = []
    for module in model:
        module.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    kinds, names = [type(module) for module in model], list(model.state_dict())
    images = torch.randn(1, 4, 5, 5)
    with depthwise_in_float32(model, CPU, "bfloat16"), autocast(CPU, "bfloat16"):
        model(images)
        assert list(model.state_dict()) == names
    assert seen == [torch.float32, torch.bfloat16]
    assert [type(module) for module in model] == kinds
    with autocast(CPU, "bfloat16"):
        model(images)
    assert seen[2:] == [torch.bfloat16, torch.bfloat16]


def test_float32_is_not_cast() -> None:
    with autocast(CPU, "float32"):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.float32
