"""Is a tile in focus? What ink and folds cover is told from the whole slide's overview (tissue.py)."""

import cv2
import numpy as np

SHARPNESS_MPP = 1.0  # microns per pixel at which focus is judged, so that slides of different resolution compare


def sharpness(pixels: np.ndarray, mpp: float) -> float:
    """Variance of the Laplacian of the grey picture at SHARPNESS_MPP (Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548).

    pixels: uint8 (h, w, 3) RGB, mpp microns each; a coarser picture is judged as it is, and comes out sharper than it
    would at SHARPNESS_MPP. In-focus H&E tissue lies above 100, empty glass near 0, whatever the focus.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if mpp < SHARPNESS_MPP:
        size = tuple(max(3, round(side * mpp / SHARPNESS_MPP)) for side in grey.shape[::-1])
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    spread = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))[1]
    return float(spread[0, 0] ** 2)
