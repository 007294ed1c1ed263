"""The machine as torch and the system describe it; what is read from the system's files, on files made up for it."""

import pytest
import torch

from medcnn.model.machine import Machine, Measured, cpu_computes_bfloat16, free_memory_gb, inspect_machine


def test_this_machine_is_seen_as_torch_sees_it():
    machine = inspect_machine()
    assert machine.n_cores >= 1
    assert machine.memory_gb > 0.1
    assert (machine.device == "cuda") == torch.cuda.is_available()
    assert (machine.gpu_memory_gb > 0) == torch.cuda.is_available()
    if machine.device == "cpu":
        assert machine.bfloat16 == machine.cpu_bfloat16 == cpu_computes_bfloat16()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu sse2 avx2 avx512f", False),
        ("vendor: avx512_bf16", False),
    ],
)
def test_bfloat16_of_a_cpu_is_read_from_its_flags(tmp_path, line, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert cpu_computes_bfloat16(tmp_path / "cpuinfo") is expected


def test_a_system_that_does_not_tell_is_not_guessed_at(tmp_path):
    assert cpu_computes_bfloat16(tmp_path / "absent") is False
    assert free_memory_gb(tmp_path / "absent") is None


def test_free_memory_is_what_the_system_has_and_the_container_allows(tmp_path):
    memory, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    memory.write_text("MemTotal:       20000000 kB\nMemFree:  1 kB\nMemAvailable:   10000000 kB\n")
    assert free_memory_gb(memory, limit) == pytest.approx(10.24)
    limit.write_text("max\n")
    assert free_memory_gb(memory, limit) == pytest.approx(10.24)
    limit.write_text("4000000000\n")
    assert free_memory_gb(memory, limit) == pytest.approx(4.0)


def test_images_that_fit_use_at_most_80_percent():
    assert Measured().n_fitting is None
    assert Measured(fixed_gb=1.0, image_gb=0.5, free_gb=10).n_fitting == 14
    assert Measured(fixed_gb=9.0, image_gb=0.5, free_gb=10).n_fitting == 0
    assert Measured(image_gb=float("inf"), free_gb=10).n_fitting == 0


@pytest.mark.parametrize(("n_cores", "n_processes", "expected"), [(16, 1, 16), (16, 4, 4), (7, 4, 1), (2, 4, 1)])
def test_processes_share_the_cores(n_cores, n_processes, expected):
    assert Machine(n_cores=n_cores, memory_gb=1, n_processes=n_processes).cores_per_gpu == expected


def test_the_processes_are_those_of_torchrun(monkeypatch):
    assert inspect_machine().n_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert inspect_machine().n_processes == 3
