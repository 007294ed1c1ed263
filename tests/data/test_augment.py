"""Augmentation: the same pixels in 0, 1 or 2 workers, other pixels in each epoch, magnitudes as stated, no network."""

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage, stats

from medcnn.data import augment
from medcnn.data.augment import Augmentation, AugmentedImages, build_augmentation, random_words, sample_seeds
from medcnn.data.policies import POLICIES, Policy
from medcnn.errors import InputError
from medcnn.plan import AugmentPlan


def build(policy, size_px=32, channels=3, strength=1.0):
    return build_augmentation(AugmentPlan(policy=policy, strength=strength), size_px=size_px, channels=channels)


def blobs(n=6, size_px=32, channels=3, seed=0):
    """Smooth random images, uint8 (n, S, S, C)."""
    rough = np.random.default_rng(seed).random((n, size_px, size_px, channels))
    smooth = ndimage.gaussian_filter(rough, (0, 3, 3, 0), mode="nearest")
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return (20 + (smooth - low) / (high - low) * 200).astype(np.uint8)


# ---------------------------------------------------------------- random numbers


def test_words_are_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert random_words(np.array([1234567], np.uint64), 5)[0].tolist() == published


def test_seeds_follow_from_the_image_alone():
    rows = np.array([5, 0, 17, 3])
    seeds = sample_seeds(1, 2, rows)
    assert seeds.dtype == np.uint64
    assert sample_seeds(1, 2, rows[[2, 0]]).tolist() == seeds[[2, 0]].tolist()
    assert sample_seeds(1, 2, rows, np.zeros(4, int)).tolist() == seeds.tolist()


def test_seeds_differ_between_images_epochs_seeds_and_shows():
    rows = np.arange(5000)
    dealt = [sample_seeds(seed, epoch, rows, np.full(5000, shows)) for seed in (0, 1) for epoch in (0, 1) for shows in (0, 1)]
    assert len(np.unique(np.concatenate(dealt))) == 8 * 5000


def test_numbers_are_even_and_independent_between_neighbours():
    u = random_words(sample_seeds(0, 0, np.arange(20_000)), 8) * 2.0**-64
    assert all(stats.kstest(column, "uniform").pvalue > 1e-4 for column in u.T)
    columns = np.column_stack([u[1:], u[:-1]])
    assert np.abs(np.corrcoef(columns.T) - np.eye(16)).max() < 0.04


# ---------------------------------------------------------------- the same pixels everywhere


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_does_not_depend_on_its_batch(policy, channels):
    source = AugmentedImages(blobs(channels=channels), build(policy, channels=channels), seed=4)
    whole = source.batch(np.arange(6), 1)
    assert whole.shape == (6, 32, 32, channels)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(source.batch(np.array([3, 1]), 1), whole[[3, 1]])
    assert source.augmentation is not None
    alone = source.augmentation(source.images[2], int(sample_seeds(4, 1, np.array([2]))[0]))
    np.testing.assert_array_equal(alone, whole[2])
    assert (whole != source.images).mean() > 0.5


@pytest.mark.parametrize("policy", POLICIES)
def test_epochs_seeds_and_shows_differ_and_the_cohort_is_untouched(policy):
    images = blobs()
    before = images.copy()
    source = AugmentedImages(images, build(policy), seed=0)
    rows = np.arange(6)
    first = source.batch(rows, 0)
    np.testing.assert_array_equal(source.batch(rows, 0), first)
    others = [source.batch(rows, 1), AugmentedImages(images, build(policy), 1).batch(rows, 0), source.batch(rows, 0, np.ones(6, int))]
    assert all((other != first).any(axis=(1, 2, 3)).all() for other in others)
    np.testing.assert_array_equal(images, before)


def test_no_epoch_or_no_policy_is_no_change():
    images = blobs()
    assert build("none") is None
    np.testing.assert_array_equal(AugmentedImages(images, build("generic"), 0).batch(np.array([4, 2]), None), images[[4, 2]])
    np.testing.assert_array_equal(AugmentedImages(images, None, 0).batch(np.array([4, 2]), 0), images[[4, 2]])


class Batches:
    """The dataset of a loader: item b is the b-th batch of an epoch."""

    def __init__(self, source, epoch):
        self.source, self.epoch = source, epoch

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.source.batch(np.arange(number * 3, number * 3 + 3), self.epoch)


def loaded(dataset, n_workers):
    from torch.utils.data import DataLoader

    context = "fork" if n_workers else None
    loader = DataLoader(dataset, batch_size=None, num_workers=n_workers, multiprocessing_context=context, collate_fn=None)
    return np.stack([np.asarray(item) for item in loader])


@pytest.mark.parametrize("policy", ["chest_xray", "histology", "ultrasound"])
def test_workers_do_not_change_a_pixel(policy):
    source = AugmentedImages(blobs(n=12), build(policy), seed=7)
    alone = {epoch: loaded(Batches(source, epoch), 0) for epoch in (0, 1)}
    assert (alone[0] != alone[1]).mean() > 0.5
    for n_workers in (1, 2):
        for epoch in (0, 1):
            np.testing.assert_array_equal(loaded(Batches(source, epoch), n_workers), alone[epoch])


def _batch_digest(source):
    return hashlib.sha256(source.batch(np.arange(6), 3).tobytes()).hexdigest()


def test_spawned_process_makes_the_same_pixels():
    source = AugmentedImages(blobs(), build("chest_xray"), seed=7)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_batch_digest, (source,)) == _batch_digest(source)


@pytest.mark.parametrize("policy", POLICIES)
def test_pickled_source_makes_the_same_pixels(policy):
    source = AugmentedImages(blobs(), build(policy), seed=7)
    assert _batch_digest(pickle.loads(pickle.dumps(source))) == _batch_digest(source)  # noqa: S301 - our own


def test_mapped_images_travel_as_a_path(tmp_path):
    np.save(tmp_path / "images.npy", blobs(n=200))
    mapped = AugmentedImages(np.load(tmp_path / "images.npy", mmap_mode="r"), build("chest_xray"), seed=7)
    sent = pickle.dumps(mapped)
    assert len(sent) < 5000
    back = pickle.loads(sent)  # noqa: S301 - our own
    np.testing.assert_array_equal(back.images, mapped.images)
    assert _batch_digest(back) == _batch_digest(mapped)


class Naive:
    """What albumentations' own examples do: a Compose with a seed inside the dataset."""

    def __init__(self, image):
        import albumentations

        self.image, self.compose = image, albumentations.Compose([albumentations.Affine(rotate=(-90, 90), p=1)], seed=0)

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.compose(image=self.image)["image"]


class Ours(Naive):
    """The same picture as images 0 to 3 of a cohort."""

    def __init__(self, image):
        self.source = AugmentedImages(np.stack([image] * 4), build("generic"), 0)

    def __getitem__(self, number):
        return self.source.batch(np.array([number]), 0)[0]


def test_albumentations_left_to_itself_repeats_in_each_worker_and_ours_does_not():
    image = blobs(n=1)[0]
    naive = loaded(Naive(image), 2)
    np.testing.assert_array_equal(naive[0], naive[1])  # items 0 and 1 come from different workers
    np.testing.assert_array_equal(loaded(Naive(image), 2), naive)  # and the second epoch repeats the first
    ours = loaded(Ours(image), 2)
    assert all((ours[a] != ours[b]).any() for a in range(4) for b in range(a))


NO_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    print("reached for the network:", args, file=sys.stderr)
    sys.exit(3)
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
import numpy as np
from medcnn.data.augment import build_augmentation
from medcnn.data.policies import POLICIES
from medcnn.plan import AugmentPlan
for policy in POLICIES:
    augmentation = build_augmentation(AugmentPlan(policy=policy), size_px=32, channels=3)
    print(policy, "albumentations" in sys.modules, augmentation(np.zeros((32, 32, 3), np.uint8), 1).shape)
"""


def test_nothing_reaches_for_the_network_and_xrays_do_not_load_albumentations():
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    loads = dict(line.split()[:2] for line in done.stdout.splitlines())
    assert loads["chest_xray"] == loads["xray"] == "False"
    assert loads["fundus"] == "True"


# ---------------------------------------------------------------- magnitudes


def only(size_px=33, channels=3, strength=1.0, **magnitudes):
    return Augmentation(Policy(**magnitudes), strength, size_px, channels)


SEEDS = sample_seeds(0, 0, np.arange(4000))


def test_affine_stays_within_the_policy_and_reaches_its_ends():
    matrices = only(rotation=12, scale=0.15, shift=0.08)._draw(SEEDS).matrices
    linear = matrices[:, :, :2]
    zoom = 1 / np.sqrt(np.linalg.det(linear))
    angle = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    centre = np.full(2, 16.0)
    shift = (linear @ centre + matrices[:, :, 2] - centre) / 33
    for drawn, end in ((angle, 12), (np.log(zoom), np.log(1.15)), (shift[:, 0], 0.08), (shift[:, 1], 0.08)):
        assert drawn.min() < -0.99 * end < 0.99 * end < drawn.max()
        assert np.abs(drawn).max() <= end * (1 + 1e-9)
        assert stats.kstest(drawn / end, "uniform", (-1, 2)).pvalue > 1e-4


def test_pixels_lie_where_the_matrix_says():
    augmentation = only(rotation=30, scale=0.3, shift=0.1, channels=1)
    image = blobs(n=1, size_px=33, channels=1)
    for seed in SEEDS[:5]:
        matrix = augmentation._draw(np.array([seed])).matrices[0]
        # Ours maps (x, y) of the new image to (x, y) of the old one, scipy (row, column) to (row, column).
        swapped = matrix[::-1, [1, 0, 2]]
        expected = ndimage.affine_transform(image[0, :, :, 0].astype(float), swapped[:, :2], swapped[:, 2], order=1, mode="constant")
        ours = augmentation.batch(image, np.array([seed]))[0, :, :, 0]
        inside = ndimage.binary_erosion(expected > 0, iterations=2)
        assert inside.sum() > 300
        assert np.abs(ours - expected)[inside].max() < 4
        assert np.abs(ours - expected)[inside].mean() < 0.6


def test_all_eight_symmetries_exactly_and_evenly():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    augmentation = build("histology", size_px=16, strength=0)
    members = [np.rot90(flipped, turns) for turns in range(4) for flipped in (image[0], image[0][:, ::-1])]
    counts = np.zeros(8)
    for seed in SEEDS[:400]:
        found = [number for number, member in enumerate(members) if np.array_equal(member, augmentation.batch(image, np.array([seed]))[0])]
        assert len(found) == 1
        counts[found[0]] += 1
    assert stats.chisquare(counts).pvalue > 1e-4


def test_mirror_is_left_to_right():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    made = [build("fundus", size_px=16, strength=0).batch(image, np.array([seed]))[0] for seed in SEEDS[:60]]
    mirrored = sum(np.array_equal(one, image[0][:, ::-1]) for one in made)
    assert mirrored + sum(np.array_equal(one, image[0]) for one in made) == 60
    assert 15 < mirrored < 45


@pytest.mark.parametrize("policy", ["chest_xray", "xray", "ultrasound", "generic"])
def test_left_stays_left_and_up_stays_up(policy):
    image = np.full((1, 32, 32, 3), 60, np.uint8)
    image[:, 4:14, 4:14] = 200  # a mark at the upper left
    for seed in SEEDS[:200]:
        made = build(policy).batch(image, np.array([seed]))[0].astype(float)
        assert made[:16, :16].mean() > max(made[:16, 16:].mean(), made[16:, :16].mean(), made[16:, 16:].mean())


@pytest.mark.parametrize("policy", ["chest_xray", "xray", "ultrasound", "generic"])
def test_strength_zero_changes_nothing(policy):
    images = blobs()
    np.testing.assert_array_equal(AugmentedImages(images, build(policy, strength=0), 0).batch(np.arange(6), 0), images)


@pytest.mark.parametrize("policy", ["chest_xray", "ultrasound", "generic"])
def test_strength_scales_the_change(policy):
    images, rows = blobs(n=60), np.arange(60)
    change = [
        np.abs(AugmentedImages(images, build(policy, strength=s), 0).batch(rows, 0) - images.astype(float)).mean()
        for s in (0.25, 0.5, 1, 2)
    ]
    assert change == sorted(change)
    assert change[1] < 0.75 * change[2]


def test_tone_is_gamma_then_contrast_then_brightness():
    augmentation = only(gamma=0.25, contrast=0.2, brightness=0.1, channels=1)
    draws = augmentation._draw(SEEDS[:50])
    signed = 2 * (random_words(SEEDS[:50], 8)[:, 5:] * 2.0**-64) - 1
    grey = np.arange(256) / 255
    for table, (gamma, contrast, brightness) in zip(draws.tables, signed, strict=True):
        expected = (grey ** (1.25**gamma) - 0.5) * 1.2**contrast + 0.5 + 0.1 * brightness
        np.testing.assert_allclose(table, np.clip(expected, 0, 1) * 255, atol=0.51)
    assert draws.matrices is draws.colours is draws.stains is draws.blurs is draws.noises is None


def test_noise_has_the_stated_spread():
    flat = np.full((1, 64, 64, 1), 128, np.uint8)
    augmentation = only(noise=0.05, size_px=64, channels=1)
    spread = [augmentation.batch(flat, np.array([seed]))[0].std() / 255 for seed in SEEDS[:300]]
    assert max(spread) == pytest.approx(0.05, rel=0.05)
    assert np.mean(spread) == pytest.approx(0.025, rel=0.1)
    one, other = (augmentation.batch(flat, SEEDS[n : n + 1])[0].astype(float).ravel() for n in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_colour_turns_and_saturates_but_leaves_grey_and_brightness():
    matrices = only(hue=10, saturation=0.3)._draw(SEEDS[:100]).colours.astype(float)
    np.testing.assert_allclose(matrices @ np.ones(3), 1, atol=1e-5)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(luma @ matrices, np.broadcast_to(luma, (100, 3)), atol=1e-5)
    red = np.array([200.0, 60, 60])
    chroma = np.linalg.norm((augment._YIQ @ (matrices @ red).T)[1:], axis=0) / np.linalg.norm((augment._YIQ @ red)[1:])
    assert 1 / 1.3 - 1e-6 <= chroma.min() < 0.85 < 1.2 < chroma.max() <= 1.3 + 1e-6


def test_stain_changes_the_amount_of_each_dye():
    """Beer-Lambert by hand: a pixel of pure haematoxylin and eosin, whose amounts are scaled and offset."""
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    amounts = np.array([0.5, 0.4, 0.0])
    pixel = 255 * np.exp(-amounts @ vectors)
    image = np.broadcast_to(np.round(pixel), (1, 33, 33, 3)).astype(np.uint8)
    augmentation = only(stain=0.3)
    signed = 2 * (random_words(SEEDS[:20], 14)[:, 8:] * 2.0**-64) - 1
    for seed, numbers in zip(SEEDS[:20], signed, strict=True):
        new = amounts * 1.3 ** numbers[:3] + 0.1 * numbers[3:]
        expected = np.clip(255 * np.exp(-new @ vectors), 0, 255)
        np.testing.assert_allclose(augmentation.batch(image, np.array([seed]))[0, 5, 5], expected, atol=2)


def test_blur_flattens():
    images = np.random.default_rng(0).integers(0, 256, (1, 33, 33, 3), dtype=np.uint8)
    seed = SEEDS[np.argmax(random_words(SEEDS, 15)[:, 14])][None]
    blurred = only(blur=0.05).batch(images, seed)[0].astype(float)
    expected = ndimage.gaussian_filter(images[0].astype(float), (0.05 * 33, 0.05 * 33, 0), mode="mirror")
    assert np.abs(blurred - expected).mean() < 1.5


def test_rare_transforms_happen_as_often_as_stated():
    augmentation = build("ultrasound")
    chance = POLICIES["ultrasound"].rare[0][2]
    assert (augmentation._draw(SEEDS).rare[:, 0] * 2.0**-64 < chance).mean() == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize("images", [np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 32, 32, 1), np.uint8), np.zeros((2, 32, 32, 3))])
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(InputError, match=r"uint8 images of shape \(32, 32, 3\)"):
        build("generic").batch(images, SEEDS[:2])
