"""What steps of the planned network cost on this machine, for the rules that need to know: images per second, memory.

A few real steps on random pixels, a few seconds at most, and only what some rule waits for. The logic stands apart from
torch (Bench), so that it can be tried without a machine to measure.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from medcnn.cohort import Fingerprint
from medcnn.config import Config, Rung
from medcnn.model.backbones import build_model, normalisation
from medcnn.model.batches import Batch, BatchSource, Deal, stream
from medcnn.model.device_augment import augmented
from medcnn.model.devices import autocast, choose_device, compute_settings, depthwise_in_float32
from medcnn.model.machine import Machine, Measured, free_memory_gb
from medcnn.model.optimisation import make_optimiser, set_training_mode
from medcnn.model.rules import machine_for, make_plan
from medcnn.model.rules_split import expected_parts
from medcnn.model.signature import Signature, count_outputs
from medcnn.plan import ModelPlan, Plan, TrainingPlan

SECONDS = 1.5  # by the clock, after which no further round of steps is timed for a network
STEP_SECONDS = 0.12  # a step that is timed on a CPU has as many images as take about this long
MOST_ROUNDS = 7
SHORT_SECONDS = 300.0  # a training shorter than this is not worth a coarser precision
N_DIFFERENT = 16  # images that are shown over and over: what they show does not change the cost
MEMORY_SIZES = (2, 4)  # images of the two steps whose memory is looked at
WORKSPACE = 1.5  # what a backward pass holds at its peak, over what was kept for it
STATE_COPIES = 5  # of the weights: themselves, gradients, AdamW's two moments, moving average


class Bench(Protocol):
    """Where steps of one network can be tried."""

    def seconds(self, n_images: int, precision: str) -> float:
        """Seconds of one training step, augmentation included: of the cores on a CPU, by the clock on a GPU."""

    def step_gb(self, n_images: int) -> float:
        """Memory that one training step needs at its peak, weights included; infinite when it does not fit."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What rules wait for. speed: minutes are to become epochs; precision: bfloat16 could be faster; memory: of a step."""

    speed: bool
    precision: bool
    memory: bool


def plan_by_measuring(found: Fingerprint, config: Config, machine: Machine, source: Callable[[Plan], BatchSource]) -> Plan:
    """As make_plan, after measuring what its rules need to know.

    source: a plan to N_DIFFERENT images as its training will see them, with any pixels (random_pixels). Raises InputError as
    make_plan does, and for a network that cannot be built for the images' size.
    """
    draft = make_plan(found, config, machine)
    here = machine_for(config, machine)
    needs = find_needs(config, here)
    if not (needs.speed or needs.precision or needs.memory):
        return draft
    networks: dict[Rung, tuple[ModelPlan, TrainingPlan]] = {"main": (draft.model, draft.training)}
    if draft.simple_cnn:
        networks["simple_cnn"] = (draft.simple_cnn.model, draft.simple_cnn.training)
    free_gb = _free_gb(here, config)
    parts = expected_parts(found, draft.split)
    n_models = parts.n_trainings * draft.ladder.n_seeds
    measured: dict[Rung, Measured] = {}
    for rung, (network, training) in networks.items():
        bench = TorchBench(draft, network, training, source(draft))
        with bench:
            n_shown = training.epochs * parts.n_train * n_models
            measured[rung] = measure(bench, training.batch_size, needs, n_shown=n_shown, free_gb=free_gb, whole_steps=here.device == "cuda")
    return make_plan(found, config, machine, measured)


def find_needs(config: Config, machine: Machine) -> Needs:
    """What the rules for this config on this machine wait for."""
    asked = config.training
    return Needs(
        speed=asked.minutes is not None,
        precision=asked.precision == "auto" and machine.bfloat16 and machine.device in {"cpu", "cuda"},
        memory=asked.accumulate == "auto" and machine.device in {"cpu", "cuda"},
    )


# ---------------------------------------------------------------- the logic


def measure(bench: Bench, batch_size: int, needs: Needs, *, n_shown: int, free_gb: float | None, whole_steps: bool) -> Measured:
    """Measure what is needed. n_shown: images that the whole training will show, over all models, in the unmeasured plan.

    free_gb: free memory of the device, None when it is not known. whole_steps: time steps of the planned size, as far
    as they fit (a GPU is faster on more images); else smaller ones, whose time for an image is the same on a CPU.
    """
    memory = Measured()
    if needs.memory and free_gb is not None:
        fixed_gb, image_gb = extrapolate(bench, MEMORY_SIZES)
        memory = Measured(fixed_gb=fixed_gb, image_gb=image_gb, free_gb=free_gb, estimated=not whole_steps)
    if not (needs.speed or needs.precision):
        return memory
    fitting = memory.n_fitting
    if fitting is not None and fitting < 1:
        return memory  # the rule on memory says what to do
    largest = batch_size if fitting is None else min(batch_size, fitting)
    n_images = largest if whole_steps else _images_for(bench, largest)
    speeds = time_steps(bench, n_images, compare=needs.precision, n_shown=n_shown)
    return Measured(
        images_per_second=speeds, n_timed=n_images, fixed_gb=memory.fixed_gb, image_gb=memory.image_gb, free_gb=memory.free_gb,
        estimated=memory.estimated,
    )  # fmt: skip


def extrapolate(bench: Bench, sizes: tuple[int, int]) -> tuple[float, float]:
    """(fixed GB, GB for each image) from the peaks of two steps: a straight line through them."""
    small, large = (bench.step_gb(n) for n in sizes)
    if not math.isfinite(large) or not math.isfinite(small):
        return 0.0, math.inf
    image_gb = max(0.0, (large - small) / (sizes[1] - sizes[0]))
    return max(0.0, small - sizes[0] * image_gb), image_gb


def _images_for(bench: Bench, largest: int) -> int:
    """Images of a step that takes about STEP_SECONDS, from the second of two small steps (the first warms up)."""
    few = min(2, largest)
    bench.seconds(few, "float32")
    each = bench.seconds(few, "float32") / few
    return max(few, min(largest, int(STEP_SECONDS / max(each, 1e-9))))


def time_steps(
    bench: Bench, n_images: int, *, compare: bool, n_shown: int, clock: Callable[[], float] = time.monotonic
) -> dict[str, float]:
    """Images per second in float32 and, when `compare` and the training is not short, in bfloat16: medians, turn by turn."""
    started = clock()
    bench.seconds(n_images, "float32")
    taken: dict[str, list[float]] = {"float32": [bench.seconds(n_images, "float32")]}
    if compare and n_shown / n_images * taken["float32"][0] >= SHORT_SECONDS:
        bench.seconds(n_images, "bfloat16")
        taken["bfloat16"] = [bench.seconds(n_images, "bfloat16")]
    while len(taken["float32"]) < MOST_ROUNDS and clock() - started < SECONDS:
        for precision, times in taken.items():
            times.append(bench.seconds(n_images, precision))
    return {precision: n_images / max(statistics.median(times), 1e-9) for precision, times in taken.items()}


# ---------------------------------------------------------------- torch


class TorchBench:
    """Real steps of a planned network from random weights, on the planned device; use it in a `with` block.

    On CUDA a step's memory is what torch allocated at its peak; on a CPU it is counted: what autograd keeps for the
    backward pass, half as much again for the pass itself, and STATE_COPIES of the weights.
    """

    def __init__(self, plan: Plan, network: ModelPlan, training: TrainingPlan, images: BatchSource) -> None:
        self.plan, self.training, self.images = plan, training, images
        self.device = choose_device(training.device)
        image, n_outputs = plan.image, count_outputs(plan.task, len(plan.labels))
        bare = network.model_copy(update={"pretrained": False, "weights": None, "lora_rank": 0})  # weights do not change the cost
        model = build_model(bare, channels=image.channels, n_outputs=n_outputs, size_px=image.size_px)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean, std = normalisation(bare, image.channels)
        self.signature = Signature(task=plan.task, mean=mean, std=std)
        self.optimiser = make_optimiser(self.model, training)
        self._settings: list[Any] = []

    def __enter__(self) -> "TorchBench":
        self._settings = [
            compute_settings(self.device, n_threads=self.training.n_threads),
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
        ]
        for setting in self._settings:
            setting.__enter__()
        set_training_mode(self.model, backbone_learns=not self.training.freeze_backbone)
        return self

    def __exit__(self, *problem: Any) -> None:
        for setting in reversed(self._settings):
            setting.__exit__(*problem)
        if self.device.type == "cuda":
            del self.model, self.optimiser
            torch.cuda.empty_cache()

    def seconds(self, n_images: int, precision: str) -> float:
        # On a CPU by the time of its cores: other work on the machine must not decide a plan.
        on_cpu = self.device.type == "cpu"
        clock = time.process_time if on_cpu else time.perf_counter
        share: float = 1 / torch.get_num_threads() if on_cpu else 1.0
        started = clock()
        batch = self._batch(n_images)
        loaded = clock()
        self._step(batch, precision)
        ended = clock()
        loading, computing = loaded - started, (ended - loaded) * share
        workers = self.training.n_workers or (0 if on_cpu else 1)  # for a GPU a thread reads ahead where no process does
        return max(computing, loading / workers) if workers else computing + loading

    def step_gb(self, n_images: int) -> float:
        precision = self.training.precision
        if self.device.type != "cuda":
            kept = _kept_bytes(lambda: self._step(self._batch(n_images), precision), self.model.parameters())
            weights: int = sum(parameter.nbytes for parameter in self.model.parameters())
            return (WORKSPACE * kept + STATE_COPIES * weights) / 1e9
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self._step(self._batch(n_images), precision)
        except torch.OutOfMemoryError:
            return math.inf
        peak: float = torch.cuda.max_memory_allocated(self.device) / 1e9
        return peak

    def _batch(self, n_images: int) -> Batch:
        deals = [Deal(0, np.arange(n_images) % N_DIFFERENT)]
        return next(stream(self.images, deals, n_workers=0, augment_on=self.training.augment_on))

    def _step(self, batch: Batch, precision: str) -> None:
        inputs = self.signature.inputs(augmented(batch.pixels.to(self.device), batch.draws), self.device)
        with depthwise_in_float32(self.model, self.device, precision):
            with autocast(self.device, precision):
                outputs = self.model(inputs)
            outputs.float().logsumexp(dim=1).mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def _kept_bytes(step: Callable[[], None], weights: Any) -> int:
    """Bytes that autograd keeps for the backward pass of a step, each storage once, without the weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in weights}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(kept.values())


def _free_gb(machine: Machine, config: Config) -> float | None:
    """Free memory of the device for each of the models that are trained side by side; None when it is not known."""
    if machine.device == "cuda":
        free = torch.cuda.mem_get_info(choose_device(config.training.device))[0] / 1e9
        return free / config.jobs
    known = free_memory_gb() if machine.device == "cpu" else None
    return None if known is None else known / config.jobs


def random_pixels(size_px: int, channels: int) -> np.ndarray:
    """Pixels to measure with, uint8 (N_DIFFERENT, size_px, size_px, channels)."""
    return np.random.default_rng(0).integers(0, 256, (N_DIFFERENT, size_px, size_px, channels), dtype=np.uint8)
