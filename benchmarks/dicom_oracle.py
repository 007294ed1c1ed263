"""Every DICOM file of a folder against DCMTK, gdcm and its own uncompressed twin: what is read, refused and why, and how well they agree.

    python -m benchmarks.dicom_oracle ../shared/data/dicom --out benchmarks/results/dicom_files.md

Needs the programs of DCMTK and gdcm (Debian: dcmtk, libgdcm-tools) and the extra dicom. DCMTK is told the window that was taken here (where there is none
in the file it makes one of its own), and pixels are compared before they are made square, which DCMTK does not do.
"""

import argparse
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pydicom

from medcnn.data import dicom
from medcnn.data.dicom_codecs import stored_frame
from medcnn.data.dicom_display import padding_mask
from medcnn.data.dicom_facts import header_facts
from medcnn.data.formats import UnreadableImage
from medcnn.data.pixel_record import Cell

JPEG_LS = {"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"}
# Same picture, stored otherwise: (ending, ending of the uncompressed or lossless twin).
TWINS = {
    "693_J2KR.dcm": "693_UNCR.dcm", "693_J2KI.dcm": "693_UNCI.dcm", "MR2_J2KR.dcm": "MR2_UNCR.dcm", "MR2_J2KI.dcm": "MR2_UNCI.dcm",
    "US1_J2KR.dcm": "US1_UNCR.dcm", "US1_J2KI.dcm": "US1_UNCI.dcm", "CT2_J2KR.dcm": "CT2_RLE.dcm", "CT2_J2KI.dcm": "CT2_RLE.dcm",
    "RG2_J2KR.dcm": "RG2_RLE.dcm", "RG2_J2KI.dcm": "RG2_RLE.dcm", "RG3_J2KR.dcm": "RG3_RLE.dcm", "RG3_J2KI.dcm": "RG3_RLE.dcm",
    "XA1_J2KR.dcm": "XA1_RLE.dcm", "XA1_J2KI.dcm": "XA1_RLE.dcm", "NM1_J2KR.dcm": "NM1_RLE.dcm", "NM1_J2KI.dcm": "NM1_RLE.dcm",
    "VL1_J2KR.dcm": "VL1_RLE.dcm", "VL1_J2KI.dcm": "VL1_RLE.dcm", "RG2_JPLY.dcm": "RG2_RLE.dcm", "RG3_JPLY.dcm": "RG3_RLE.dcm",
    "XA1_JPLY.dcm": "XA1_RLE.dcm", "NM1_JPLY.dcm": "NM1_RLE.dcm", "MG1_JPLY.dcm": "MG1_J2KI.dcm", "CT2_JPLL.dcm": "CT2_RLE.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm", "MR_small_RLE.dcm": "MR_small.dcm",
    "emri_small_jpeg_2k_lossless.dcm": "emri_small.dcm", "emri_small_jpeg_ls_lossless.dcm": "emri_small.dcm", "JPEG2000.dcm": "JPEG2000_UNC.dcm",
    "eCT_Supplemental.dcm": "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
}  # fmt: skip


@dataclass
class Row:
    """One file of the table."""

    name: str
    outcome: str = "in"
    reason: str = ""
    syntax: str = ""
    record: dict[str, Cell] = field(default_factory=dict)
    kind: str = ""
    dcmtk: str = ""
    gdcm: str = ""
    twin: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = sorted(path.relative_to(options.folder).as_posix() for path in options.folder.rglob("*") if path.is_file())
    rows = [examine(options.folder, name) for name in names if name not in {"index.csv", "README.md"}]
    text = table_of(rows)
    if options.out:
        options.out.write_text(text)
    print(summary_of(rows))


def examine(folder: Path, name: str) -> Row:
    """Read the middle frame of one file and compare it."""
    row, path = Row(name), folder / name
    data = path.read_bytes()
    try:
        dataset = dicom.open_dataset(data, name)
        row.syntax = str(dicom.syntax_name(pydicom.uid.UID(str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")))))
        row.kind = str(header_facts(dataset)["object_kind"])
        header = dicom.image_header(dataset, name)
        frame = header.n_frames // 2
        _, header = dicom.decode_dicom(data, frame, where=name)
    except UnreadableImage as error:
        row.outcome, row.reason = error.kind, error.reason
        return row
    row.record = dict(header.record)
    dicom.transfer_syntax(dataset, name)
    shown, padding = as_shown(dataset, frame, header)
    row.dcmtk = against_dcmtk(path, dataset, frame, shown, padding, row.record)
    row.gdcm = against_gdcm(path, dataset, frame)
    twin = next((folder / other for other in names_ending(folder, TWINS.get(path.name))), None)
    row.twin = against_twin(dataset, twin, frame) if twin else ""
    return row


def names_ending(folder: Path, name: str | None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob(name)] if name else []


def as_shown(dataset: pydicom.Dataset, frame: int, header: dicom.ImageHeader) -> tuple[np.ndarray, np.ndarray]:
    """The picture before its pixels are made square, and True where it is padding."""
    pixels, _ = dicom._levels(dataset, frame, header, "first")
    if pixels.ndim == 3:
        return pixels, np.zeros(pixels.shape[:2], bool)
    padding = padding_mask(dataset, stored_frame(dataset, frame).values)
    return pixels, np.zeros(pixels.shape, bool) if padding is None else padding


# ---------------------------------------------------------------- the oracles


def against_dcmtk(path: Path, dataset: pydicom.Dataset, frame: int, shown: np.ndarray, padding: np.ndarray, record: dict[str, Cell]) -> str:
    program = "dcml2pnm" if str(dataset.file_meta.TransferSyntaxUID) in JPEG_LS else "dcmj2pnm"
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "a.pnm"
        command = [program, "-q", "+F", str(frame + 1), "-S", "-O", *window_options(record), "+op", str(path), str(out)]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - a program that the reader installed
        if done.returncode or not out.exists():
            return "cannot read it"
        theirs = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    theirs = theirs if theirs.ndim == 2 else cv2.cvtColor(theirs, cv2.COLOR_BGR2RGB)
    if theirs.shape != shown.shape:
        return f"another shape: {theirs.shape[1]} x {theirs.shape[0]}"
    return difference(shown[~padding], theirs[~padding])


def window_options(record: dict[str, Cell]) -> list[str]:
    step, centre, width = record["voi_step"], record.get("window_center"), record.get("window_width")
    if step == "window":
        return ["+Wi", str(int(str(record["window_index"])) + 1), *(["+Wfs"] if record["voi_function"] == "SIGMOID" else [])]
    if step == "voi_lut":
        return ["+Wl", str(int(str(record["window_index"])) + 1)]
    if step == "percentiles":  # from low to high, both included: the standard's linear window is one wider
        return ["+Ww", str(float(str(centre)) + 0.5), str(float(str(width)) + 1), "+Wfl"]
    return ["-W"]


def against_gdcm(path: Path, dataset: pydicom.Dataset, frame: int) -> str:
    """Stored values, where gdcm is not the one that gave them here."""
    ours = stored_frame(dataset, frame)
    if ours.decoder == "gdcm" or ours.values.ndim == 3:
        return ""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "a.dcm"  # in a process of its own: gdcm ends the process over some files
        done = subprocess.run(["gdcmconv", "--raw", str(path), str(out)], capture_output=True, check=False)  # noqa: S603, S607 - as above
        if done.returncode or not out.exists():
            return "cannot read it"
        plain = pydicom.dcmread(out)
    raw, bits = bytes(plain.PixelData), int(plain.BitsAllocated)
    size = ours.values.size * (bits // 8)
    if bits == 1 or len(raw) < size * (frame + 1):
        return "another size"
    kind = "i" if int(plain.PixelRepresentation) else "u"
    theirs = np.frombuffer(raw[size * frame : size * (frame + 1)], f"<{kind}{bits // 8}").reshape(ours.values.shape)
    return difference(ours.values, theirs)


def against_twin(dataset: pydicom.Dataset, twin: Path, frame: int) -> str:
    other = dicom.open_dataset(twin.read_bytes(), twin)
    ours, theirs = stored_frame(dataset, frame, to_rgb=True).values, stored_frame(other, frame, to_rgb=True).values
    if ours.shape != theirs.shape:
        return f"{twin.name}: another shape"
    scale = 255 / max(int(theirs.max()) - int(theirs.min()), 1)
    return f"{twin.name}: {difference(ours, theirs, scale=scale)}"


def difference(ours: np.ndarray, theirs: np.ndarray, *, scale: float = 1.0) -> str:
    """`equal`, or the mean and largest absolute difference; scale: grey levels of 255 for one step of the values."""
    gap = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
    return "equal" if not gap.any() else f"mean {gap.mean() * scale:.3g}, max {gap.max() * scale:.3g}"


# ---------------------------------------------------------------- words


def table_of(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["# The DICOM files, one by one", "", *summary_of(rows).splitlines(), "", "## Read", ""]
    lines += ["| file | kind | transfer syntax | decoder | photometric | bits | steps | DCMTK | gdcm (stored) | twin |", "|---" * 10 + "|"]
    for row in rows:
        if row.outcome == "in":
            cells = [row.name, row.kind, row.syntax, row.record["decoder"], row.record["photometric"], row.record["bits_stored"]]
            lines.append(f"| {' | '.join(map(str, [*cells, steps_of(row.record), row.dcmtk, row.gdcm, row.twin]))} |")
    lines += ["", "## Refused", "", "| file | transfer syntax | why | reason |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.syntax} | {row.outcome} | {row.reason} |" for row in rows if row.outcome != "in"]
    return "\n".join(lines) + "\n"


def steps_of(record: dict[str, Cell]) -> str:
    steps = []
    if record.get("modality_step") == "rescale":
        steps.append(f"rescale {record['rescale_slope']:g}, {record['rescale_intercept']:g}")
    elif record.get("modality_step") == "lut":
        steps.append("modality LUT")
    if record["voi_step"] == "window":
        function = "" if record["voi_function"] == "LINEAR" else f" {str(record['voi_function']).lower()}"
        steps.append(f"window{function} {record['window_center']:g}, {record['window_width']:g} (1 of {record['n_windows']})")
    elif record["voi_step"] != "none":
        steps.append(str(record["voi_step"]).replace("voi_lut", "VOI LUT").replace("_", " "))
    steps += [str(record["colour_step"])] if record.get("colour_step") in {"palette", "ybr"} else []
    steps += [f"padding {float(str(record['padding_fraction'])):.0%}"] if record.get("padding_fraction") else []
    steps += ["inverted"] * bool(record["inverted"])
    steps += [f"made square ({record['pixel_aspect']:g})"] * bool(record["resampled"])
    return "; ".join(steps)


def summary_of(rows: list[Row]) -> str:
    good = [row for row in rows if row.outcome == "in"]
    lines = [
        f"{len(rows)} files: {len(good)} read, {len(rows) - len(good)} refused ({counted(row.outcome for row in rows if row.outcome != 'in')})."
    ]
    lines.append(f"Decoders: {counted(str(row.record['decoder']) for row in good)}.")
    for oracle in ("dcmtk", "gdcm", "twin"):
        said = [str(getattr(row, oracle)).rpartition(": ")[2] if oracle == "twin" else str(getattr(row, oracle)) for row in good]
        lines.append(f"{oracle}: {counted(verdict(text) for text in said if text)}.")
    return "\n".join(lines)


def verdict(text: str) -> str:
    if not text.startswith("mean"):
        return text.split(":")[0]
    largest = float(text.rpartition(" ")[2])
    return "within 1 level" if largest <= 1 else "within 3 levels" if largest <= 3 else "further apart"


def counted(words: "object") -> str:
    return ", ".join(f"{n} {word}" for word, n in Counter(words).most_common())  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
