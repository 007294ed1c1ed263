import numpy as np

from medcnn.data.augment import ViewedImages, build_augmentation
from medcnn.plan import AugmentPlan

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1)).astype(np.uint8)
AUGMENTATION = build_augmentation(AugmentPlan(policy="generic"), size_px=16, channels=1)


def test_the_views_of_a_new_image_do_not_depend_on_its_company() -> None:
    source, order = ViewedImages(IMAGES, AUGMENTATION, 0), np.array([3, 0, 5])
    together = source.batch(np.arange(6), 7)
    assert np.array_equal(source.batch(order, 7), together[order])
    assert np.array_equal(ViewedImages(IMAGES[order], AUGMENTATION, 0).batch(np.arange(3), 7), together[order])
    assert not np.array_equal(source.batch(np.arange(6), 8), together)
    assert not np.array_equal(ViewedImages(IMAGES, AUGMENTATION, 1).batch(np.arange(6), 7), together)


def test_without_an_epoch_or_augmentation_it_is_the_image() -> None:
    rows = np.array([2, 1])
    assert np.array_equal(ViewedImages(IMAGES, AUGMENTATION, 0).batch(rows, None), IMAGES[rows])
    assert np.array_equal(ViewedImages(IMAGES, None, 0).batch(rows, 3), IMAGES[rows])
