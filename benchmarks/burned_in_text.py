"""How often text that is burned into radiographs is found, and how often text is found where nobody burned any.

    python -m benchmarks.burned_in_text ../shared/data [--n 30]
A made-up name and date, in a corner, white or grey, letters 1.5, 2.5 and 4% of the image's height, on every k-th image of
covid_cxr (shorter side 256 px) and on the DICOM radiographs. OCR (data.find_text) beside the core's own count of letters.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from medcnn.data.burned_in_text import text_in
from medcnn.data.dicom import read_dicom
from medcnn.data.quality import quality_of
from medcnn.data.quality_findings import LETTERS

TEXT = "DOE JOHN 1953-11-29"
SHARES = (0.015, 0.025, 0.04)
RADIOGRAPHS = ("wg04/RG2_RLE.dcm", "wg04/RG3_RLE.dcm", "wg04/MG1_J2KI.dcm", "pydicom_data/RG1_J2KI.dcm", "highdicom/dx_image.dcm", "cxr_himl/1.dcm", "derived/ok_mono2_8bit.dcm", "wg04/XA1_RLE.dcm")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=30)
    options = parser.parse_args()
    films = sorted((options.data / "covid_cxr" / "images").rglob("*.jpg"))
    chosen = films[:: max(1, len(films) // options.n)][: options.n]
    measure("covid_cxr", [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in chosen])
    measure("DICOM radiographs", [read_dicom(options.data / "dicom" / name) for name in RADIOGRAPHS])


def measure(name: str, pictures: list[np.ndarray]) -> None:
    started = time.process_time()
    print(f"{name}: {len(pictures)} images", flush=True)
    for share in (0.0, *SHARES):
        for shade in (255, 150) if share else (0,):
            burnt = [burned(picture, share, shade, corner=number % 4) if share else picture for number, picture in enumerate(pictures)]
            read = sum(text_in(picture)["text_lines"] > 0 for picture in burnt)
            letters = sum(float(quality_of(picture)["letters"]) >= LETTERS for picture in burnt)
            what = f"letters {share:.1%} of the height, grey {shade}" if share else "nothing burned in"
            print(f"  {what}: OCR {read}/{len(burnt)}, letters {letters}/{len(burnt)}", flush=True)
    print(f"  {(time.process_time() - started) / len(pictures) / (1 + 2 * len(SHARES)):.2f} CPU-s an image", flush=True)


def burned(picture: np.ndarray, share: float, shade: int, *, corner: int) -> np.ndarray:
    """A copy with TEXT in one of its corners; share: height of the letters over the image's height."""
    out = picture.copy()
    size = max(share * picture.shape[0], 6) / 21  # this font's capitals are 21 px high at scale 1
    (width, height), _ = cv2.getTextSize(TEXT, cv2.FONT_HERSHEY_SIMPLEX, size, max(1, round(2 * size)))
    x = 4 if corner % 2 == 0 else max(4, picture.shape[1] - width - 4)
    y = height + 6 if corner < 2 else picture.shape[0] - 8
    cv2.putText(out, TEXT, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, int(shade), max(1, round(2 * size)), cv2.LINE_AA)
    return out


if __name__ == "__main__":
    main()
