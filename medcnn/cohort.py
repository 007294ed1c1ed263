"""What is known of a cohort besides its tables: who came in (Flow), what is wrong (Finding), what it is (Fingerprint)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medcnn.tables import Task

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """One file (or image, or table row) that did not get in. where: path or image_id; reason: a sentence; kind: a word to count by."""

    where: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How many files, images and patients came in, and why any were left out.

    n_found: files (or table rows) looked at; n_files of them came in; one file may hold several images (frames).
    tiles: of whole slides, how many lie on the `grid`, and how many of these were left out for which reason.
    """

    source: str
    n_found: int
    n_files: int
    n_images: int
    n_patients: int
    excluded: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()
    tiles: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Number of exclusions of each kind, most frequent first."""
        kinds = [exclusion.kind for exclusion in self.excluded]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing the audit saw. error: stops the run unless the config accepts or excludes the kind, with a reason.

    image_ids: all images concerned. exclude_ids: those that leave the cohort when the config excludes this kind. groups: the
    image_ids that belong together (of copies: those that show one picture), the first two of each the pair to look at.
    """

    severity: Severity
    kind: str
    text: str
    todo: str
    image_ids: tuple[str, ...] = ()
    exclude_ids: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a cohort is: the facts from which the plan is made. Quantiles are (min, 5%, median, 95%, max).

    prevalence: label -> share of 1 among the labelled images. n_labelled: label -> images with a label. scanners,
    photometric: how many images say so (photometric: MONOCHROME1 is stored inverted and was turned round when read).
    intensity: grey values of a fixed sample of decoded images (data/fingerprint.py says which); blank: none was decoded.
    """

    task: Task
    labels: tuple[str, ...]
    n_images: int
    n_patients: int
    n_labelled: dict[str, int]
    n_positive: dict[str, int]
    n_positive_patients: dict[str, int]
    prevalence: dict[str, float]
    images_per_patient: tuple[float, ...]
    height_px: tuple[float, ...]
    width_px: tuple[float, ...]
    aspect_ratio: tuple[float, ...]
    bit_depths: dict[str, int]
    channels: dict[str, int]
    sites: dict[str, int]
    parts: dict[str, int]
    n_bytes: int = 0
    scanners: dict[str, int] = field(default_factory=dict)
    photometric: dict[str, int] = field(default_factory=dict)
    intensity: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def write_json(value: Flow | Fingerprint | Sequence[Finding], path: Path) -> None:
    """Write one of the above as JSON."""
    plain = [asdict(item) for item in value] if isinstance(value, Sequence) else asdict(value)
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_flow(path: Path) -> Flow:
    """Read `flow.json`."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["excluded"] = tuple(Exclusion(**row) for row in tree["excluded"])
    tree["notes"] = tuple(tree["notes"])
    return Flow(**tree)


def read_findings(path: Path) -> list[Finding]:
    """Read `findings.json`."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    lists = ("image_ids", "exclude_ids")
    return [
        Finding(**{**row, **{name: tuple(row[name]) for name in lists}, "groups": tuple(tuple(group) for group in row.get("groups", ()))})
        for row in rows
    ]


def read_fingerprint(path: Path) -> Fingerprint:
    """Read `fingerprint.json`."""
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Fingerprint(
        **{  # type: ignore[arg-type]  # a file that does not fit raises TypeError
            key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()
        }
    )
