"""Small pictures of the images that the audit's findings name: the pair, the group, or the most striking ones."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medcnn.cohort import Finding
from medcnn.config import Config
from medcnn.report.facts import FindingPicture
from medcnn.tables import label_names

THUMBNAIL_PX = 192  # longer side
JPEG_QUALITY = 82
MOST_GROUPS, MOST_IN_GROUP, MOST_ALONE = 8, 3, 10  # of one finding
MOST_BYTES = 2_000_000  # of all findings together; the later ones go without
WITHOUT = frozenset(
    {"missing_labels", "small_class", "patient_in_two_classes", "left_out", "unreadable"}
)  # nothing to be seen in the pixels
PICTURES = "pictures.json"


def write_pictures(
    folder: Path, findings: Sequence[Finding], manifest: pd.DataFrame, config: Config, ingested: Path, *, show: bool
) -> None:
    """Write `pictures.json` and a JPEG for each image shown, the longer side THUMBNAIL_PX; show: False writes an empty list."""
    from medcnn.data.formats import UnreadableImage
    from medcnn.data.ingest import row_reader

    read = row_reader(config.data, ingested)
    number = {str(image): row for row, image in enumerate(manifest["image_id"])}
    rows: list[dict[str, Any]] = []
    files: dict[str, str] = {}
    n_bytes = 0
    for finding, group, image in _wanted(findings) if show else ():
        if image not in number or n_bytes > MOST_BYTES:
            continue
        row = manifest.iloc[number[image]]
        if image not in files:
            try:
                jpeg = _thumbnail(read(str(row["path"]), int(row["frame"])))
            except UnreadableImage as error:
                rows.append(_row(finding, group, row, "", str(error)))
                continue
            files[image] = f"{len(files):04d}.jpg"
            (folder / files[image]).write_bytes(jpeg)
            n_bytes += len(jpeg)
        rows.append(_row(finding, group, row, files[image], ""))
    (folder / PICTURES).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_pictures(folder: Path) -> list[FindingPicture]:
    """What write_pictures wrote, for the report."""
    rows = json.loads((folder / PICTURES).read_text(encoding="utf-8"))
    shown = [row for row in rows if row["file"]]
    return [
        FindingPicture(
            kind=row["kind"], group=row["group"], image_id=row["image_id"], lines=row["lines"], jpeg=(folder / row["file"]).read_bytes()
        )
        for row in shown
    ]


def _wanted(findings: Iterable[Finding]) -> Iterable[tuple[Finding, int, str]]:
    """(finding, number of the group, image_id): groups whole as far as they go, else images one by one in the finding's order."""
    for finding in findings:
        if finding.kind in WITHOUT:
            continue
        if finding.groups:
            for number, group in enumerate(finding.groups[:MOST_GROUPS]):
                yield from ((finding, number, image) for image in group[:MOST_IN_GROUP])
        else:
            yield from ((finding, number, image) for number, image in enumerate(finding.image_ids[:MOST_ALONE]))


def _row(finding: Finding, group: int, row: pd.Series, file: str, problem: str) -> dict[str, Any]:
    names = label_names(row.to_frame().T)
    labels = [name for name in names if row[f"y_{name}"] == 1]
    none = f"not {names[0]}" if len(names) == 1 and row[f"y_{names[0]}"] == 0 else "no label"
    lines = [", ".join(labels[:3]) or none, f"patient {row['patient_id']}"]
    if "given_part" in row and isinstance(row["given_part"], str):
        lines.append(f"part {row['given_part']}")
    return {"kind": finding.kind, "group": group, "image_id": str(row["image_id"]), "lines": lines, "file": file, "problem": problem}


def _thumbnail(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    scale = THUMBNAIL_PX / max(height, width)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    small = cv2.resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=how)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR) if small.ndim == 3 and small.shape[2] == 3 else small
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
