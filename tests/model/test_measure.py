"""The logic of measuring on made-up benches whose costs are known; real steps on a CPU against torch's own books."""

import dataclasses
import math
import time

import pytest
import torch
from model_cases import Arrays
from plan_cases import CPU, FAST_CPU, GPU, cohort, config
from torch import nn

from medcnn.model.machine import Machine, Measured
from medcnn.model.measure import (
    MOST_ROUNDS,
    SECONDS,
    Needs,
    TorchBench,
    _kept_bytes,
    extrapolate,
    find_needs,
    measure,
    plan_by_measuring,
    random_pixels,
    time_steps,
)
from medcnn.model.rules import make_plan

ALL = Needs(speed=True, precision=True, memory=True)


class MadeUpBench:
    """A machine whose steps cost what is written here. asked: every step that was tried, (n_images, precision)."""

    def __init__(self, *, per_image=None, hiccups=(), fixed_gb=1.0, image_gb=0.1, largest=10**9):
        self.per_image = per_image or {"float32": 0.02, "bfloat16": 0.01}
        self.hiccups, self.fixed_gb, self.image_gb, self.largest = set(hiccups), fixed_gb, image_gb, largest
        self.asked, self.now = [], 0.0

    def seconds(self, n_images, precision):
        self.asked.append((n_images, precision))
        taken = n_images * self.per_image[precision] * (50 if len(self.asked) in self.hiccups else 1)
        self.now += taken
        return taken

    def step_gb(self, n_images):
        return self.fixed_gb + self.image_gb * n_images if n_images <= self.largest else math.inf


# ---------------------------------------------------------------- speed


def timed(bench, n_images=8, *, compare=True, n_shown=10**9):
    return time_steps(bench, n_images, compare=compare, n_shown=n_shown, clock=lambda: bench.now)


def test_speeds_are_images_per_second_of_each_precision():
    found = timed(MadeUpBench())
    assert found["float32"] == pytest.approx(50)
    assert found["bfloat16"] == pytest.approx(100)


def test_a_hiccup_does_not_change_the_median():
    quick = {"float32": 0.002, "bfloat16": 0.001}
    assert timed(MadeUpBench(per_image=quick, hiccups=[4])) == pytest.approx(timed(MadeUpBench(per_image=quick)))


def test_bfloat16_is_not_tried_for_a_short_training_nor_unasked():
    # 50 images a second: 300 s are 15,000 images
    assert set(timed(MadeUpBench(), n_shown=15_000)) == {"float32", "bfloat16"}
    assert set(timed(MadeUpBench(), n_shown=14_999)) == {"float32"}
    assert set(timed(MadeUpBench(), compare=False)) == {"float32"}


def test_measuring_ends_in_time():
    slow = MadeUpBench(per_image={"float32": 0.1, "bfloat16": 0.1})
    timed(slow)
    assert slow.now < SECONDS + 6 * 8 * 0.1
    quick = MadeUpBench(per_image={"float32": 1e-6, "bfloat16": 1e-6})
    timed(quick)
    assert len(quick.asked) == 2 * (MOST_ROUNDS + 1)


def test_steps_on_a_cpu_are_small_and_on_a_gpu_whole():
    def largest(**options):
        bench = MadeUpBench()
        found = measure(bench, 64, ALL, n_shown=10**9, **options)
        assert max(n for n, _ in bench.asked) == found.n_timed
        return found.n_timed

    assert largest(free_gb=100, whole_steps=False) == 6  # 0.12 s at 0.02 s an image
    assert largest(free_gb=100, whole_steps=True) == 64
    assert largest(free_gb=5, whole_steps=True) == 30  # (0.8 x 5 GB - 1 GB) / 0.1 GB


# ---------------------------------------------------------------- memory


def test_memory_is_a_straight_line_through_two_steps():
    assert extrapolate(MadeUpBench(fixed_gb=3, image_gb=0.25), (2, 4)) == pytest.approx((3, 0.25))
    assert extrapolate(MadeUpBench(largest=3), (2, 4)) == (0.0, math.inf)


def test_memory_that_is_not_known_stays_unknown():
    found = measure(MadeUpBench(), 64, ALL, n_shown=10**9, free_gb=None, whole_steps=False)
    assert found.image_gb is None
    assert found.images_per_second


def test_a_network_that_does_not_fit_is_not_timed():
    bench = MadeUpBench(largest=1)
    assert measure(bench, 64, ALL, n_shown=10**9, free_gb=8, whole_steps=True).n_fitting == 0
    assert not bench.asked


# ---------------------------------------------------------------- what is needed


@pytest.mark.parametrize(
    ("machine", "training", "needs"),
    [
        (CPU, {}, (False, False, True)),
        (CPU, {"accumulate": 1}, (False, False, False)),
        (CPU, {"minutes": 5}, (True, False, True)),
        (FAST_CPU, {}, (False, True, True)),
        (FAST_CPU, {"precision": "float32"}, (False, False, True)),
        (GPU, {"precision": "bfloat16", "accumulate": 1}, (False, False, False)),
        (dataclasses.replace(GPU, device="mps"), {}, (False, False, False)),
    ],
)
def test_only_what_a_rule_waits_for_is_measured(machine, training, needs):
    found = find_needs(config(training=training), machine)
    assert (found.speed, found.precision, found.memory) == needs


def test_nothing_is_built_when_nothing_is_needed():
    def refuse(decided):
        raise AssertionError("no image is needed")

    asked = config(training={"accumulate": 1})
    assert plan_by_measuring(cohort(), asked, CPU, refuse) == make_plan(cohort(), asked, CPU)


# ---------------------------------------------------------------- real steps


def source(decided):
    return Arrays(random_pixels(decided.image.size_px, decided.image.channels))


def bench_of(**sections):
    decided = make_plan(cohort(32), config(**{"ladder": {"rungs": ["main"]}, **sections}), Machine(n_cores=1, memory_gb=8))
    return TorchBench(decided, decided.model, decided.training, source(decided))


def test_a_real_step_takes_time_that_grows_with_the_images():
    bench = bench_of(model={"name": "small_vgg"}, training={"n_threads": 1, "device": "cpu"})
    with bench:
        bench.seconds(2, "float32")
        few, many = (min(bench.seconds(n, "float32") for _ in range(3)) for n in (2, 64))
    assert 0 < few < many


def test_torchs_generator_and_threads_are_left_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    bench = bench_of(model={"name": "simple_cnn"}, training={"n_threads": 2, "device": "cpu"})
    with bench:
        bench.seconds(4, "float32")
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == 1


def test_what_is_kept_for_the_backward_pass_is_counted_by_hand():
    layers = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    images = torch.rand(8, 100)

    def step():
        layers(images).sum().backward()

    # the input of the first layer, and the ReLU's output, which both the ReLU and the second layer keep
    assert _kept_bytes(step, layers.parameters()) == 4 * (8 * 100 + 8 * 50)


def test_memory_of_a_real_network_grows_by_its_feature_maps():
    bench = bench_of(model={"name": "simple_cnn"}, training={"device": "cpu", "n_threads": 1})
    with bench:
        fixed_gb, image_gb = extrapolate(bench, (2, 4))
    n_parameters = sum(parameter.numel() for parameter in bench.model.parameters())
    assert fixed_gb == pytest.approx(5 * 4 * n_parameters / 1e9, rel=0.1)
    # 32 maps of 32 x 32 pixels, 64 of 16 x 16, 128 of 8 x 8: at least the outputs of convolution and norm are kept
    maps = 32 * 32**2 + 64 * 16**2 + 128 * 8**2
    assert 2 * 4 * maps < 1e9 * image_gb / 1.5 < 8 * 4 * maps


def test_a_plan_by_measuring_says_what_was_seen_and_is_made_in_time():
    started = time.process_time()
    asked = config(training={"minutes": 30, "n_threads": 1, "device": "cpu"})
    decided = plan_by_measuring(cohort(32), asked, CPU, source)
    assert time.process_time() - started < 5
    assert "images a second were measured here" in decided.reasons["training.epochs"]
    assert "images a second were measured here" in decided.reasons["simple_cnn.training.epochs"]
    assert "GB (estimated)" in decided.reasons["training.accumulate"]


def test_a_measurement_is_what_the_rules_then_use():
    asked = config(ladder={"rungs": ["main"]})
    measured = {"main": Measured(images_per_second={"float32": 1, "bfloat16": 2})}
    assert make_plan(cohort(), asked, FAST_CPU, measured).training.precision == "bfloat16"
    assert make_plan(cohort(), asked, FAST_CPU).training.precision == "float32"
