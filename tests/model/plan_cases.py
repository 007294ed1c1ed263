"""Made-up fingerprints, configs and machines for the tests of the plan's rules."""

from typing import Any

from medcnn.cohort import Fingerprint
from medcnn.config import Config, Rung
from medcnn.model.machine import Machine, Measured
from medcnn.model.rules import make_plan
from medcnn.plan import Plan

CPU = Machine(n_cores=2, memory_gb=16, wheel_weights=True)
FAST_CPU = Machine(n_cores=2, memory_gb=16, wheel_weights=True, bfloat16=True, cpu_bfloat16=True)
GPU = Machine(n_cores=16, memory_gb=128, device="cuda", gpu_memory_gb=80, bfloat16=True, wheel_weights=True)
GIVEN_PARTS = {"train": 3500, "val": 500, "test": 1000}


def quantiles(value: float) -> tuple[float, ...]:
    return (value,) * 5


def cohort(short: int = 256, **facts: Any) -> Fingerprint:
    """4,000 patients with 5,000 grey images of one size, 30% ill."""
    known: dict[str, Any] = {
        "task": "binary",
        "labels": ("ill",),
        "n_images": 5000,
        "n_patients": 4000,
        "n_labelled": {"ill": 5000},
        "n_positive": {"ill": 1500},
        "n_positive_patients": {"ill": 1200},
        "prevalence": {"ill": 0.3},
        "images_per_patient": (1, 1, 1, 2, 4),
        "height_px": quantiles(short),
        "width_px": quantiles(short),
        "aspect_ratio": quantiles(1.0),
        "bit_depths": {"8": 5000},
        "channels": {"1": 5000},
        "sites": {},
        "parts": {},
    }
    return Fingerprint(**{**known, **facts})


def config(**sections: Any) -> Config:
    return Config.model_validate({"name": "trial", "data": {"source": "phantom"}, **sections})


def plan(found: Fingerprint | None = None, machine: Machine = CPU, measured: dict[Rung, Measured] | None = None, **sections: Any) -> Plan:
    return make_plan(found or cohort(), config(**sections), machine, measured)
