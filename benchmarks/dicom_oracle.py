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
import imagecodecs
import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder

from medcnn.data import dicom
from medcnn.data.dicom_codecs import frame_bytes, stored_frame
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
    "examples_jpeg2k.dcm": "US1_UNCR.dcm", "HTJ2K_08_RGB.dcm": "HTJ2KLossless_08_RGB.dcm", "SC_rgb_32bit.dcm": "SC_rgb.dcm", "SC_rgb_expb_32bit.dcm": "SC_rgb.dcm",
    "SC_rgb_32bit_2frame.dcm": "SC_rgb_2frame.dcm", "SC_rgb_expb_32bit_2frame.dcm": "SC_rgb_2frame.dcm",
    **{
        f"CTImage.dcm_{name}.dcm": "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm"
        for name in (
            "BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2", "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99",
            "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90", "JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91",
            "JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80", "JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81",
            "JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70", "JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57",
            "LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2", "RLELosslessTransferSyntax_1.2.840.10008.1.2.5",
        )
    },
}  # fmt: skip


REASONS = {
    "wg04/RG3_JPLY.dcm": "a few values overshoot 10 bits after lossy compression: they are clipped here, while DCMTK and gdcm drop the high bit, which turns white into black",
    "pydicom_data/HTJ2K_08_RGB.dcm": "OpenJPH lets 657 of 921,600 overshooting samples wrap round; ours differ from the lossless twin by 4 levels at most",
    "pydicom_data/SC_ybr_full_uncompressed.dcm": "rounding of YBR to RGB",
    "dcm4che/YBR_FULL-RLE.dcm": "rounding of YBR to RGB",
    "pydicom_data/SC_rgb_32bit.dcm": "DCMTK takes no more than 16 bits in colour",
    "pydicom_data/SC_rgb_32bit_2frame.dcm": "DCMTK takes no more than 16 bits in colour",
    "pydicom_data/SC_rgb_expb_32bit.dcm": "DCMTK takes no more than 16 bits in colour",
    "pydicom_data/SC_rgb_expb_32bit_2frame.dcm": "DCMTK takes no more than 16 bits in colour",
    "pydicom_wheel/SC_rgb_jpeg.dcm": "the header says RGB, the JPEG stream YBR: DCMTK refuses the contradiction",
    "dcm4che/will-jxl.dcm": "JPEG XL: neither DCMTK nor gdcm knows it",
}


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
    second: str = ""
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
    row.second = against_second_decoder(dataset, frame)
    twin = next((folder / other for other in names_ending(folder, TWINS.get(path.name))), None)
    row.twin = against_twin(dataset, path, twin, frame) if twin else ""
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
    spare = bits - int(plain.BitsStored)  # gdcm leaves unused bits as they stand, overlays and unextended signs among them
    return difference(ours.values, (theirs << spare) >> spare)


def against_second_decoder(dataset: pydicom.Dataset, frame: int) -> str:
    """Stored values by another of pydicom's plugins: the best there is for JPEG 2000, which DCMTK does not read."""
    ours = stored_frame(dataset, frame)
    try:
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        others = [plugin for plugin in reversed(decoder.available_plugins) if plugin != ours.decoder]
    except NotImplementedError:
        return ""
    for plugin in others if dataset.file_meta.TransferSyntaxUID.is_encapsulated else []:
        try:
            theirs = decoder.as_array(dataset, index=frame, raw=True, decoding_plugin=plugin)[0]
        except Exception:  # noqa: BLE001, S112 - the next plugin is asked
            continue
        return f"{plugin}: {difference(ours.values, theirs)}"
    if "High-Throughput" in dataset.file_meta.TransferSyntaxUID.name:
        return f"OpenJPH: {difference(ours.values, imagecodecs.htj2k_decode(frame_bytes(dataset, frame)))}"
    return ""


def against_twin(dataset: pydicom.Dataset, path: Path, twin: Path, frame: int) -> str:
    other = dicom.open_dataset(twin.read_bytes(), twin)
    if dataset.BitsStored != other.BitsStored:
        shown = [dicom.decode_dicom(place.read_bytes(), frame, where=place)[0] for place in (path, twin)]
        return f"{twin.name}, as shown: {difference(*shown)}"
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
    lines = [
        "# The DICOM files, one by one",
        "",
        "Made by `python -m benchmarks.dicom_oracle`. A twin is the same picture stored without compression; a lossy one differs from it.",
        "",
        *summary_of(rows).splitlines(),
        "",
        "## Read",
        "",
    ]
    lines += [
        "| file | kind | transfer syntax | decoder | photometric | bits | steps | DCMTK | gdcm (stored) | second decoder (stored) | twin (stored) | note |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        if row.outcome == "in":
            cells = [row.name, row.kind, row.syntax, row.record["decoder"], row.record["photometric"], row.record["bits_stored"]]
            lines.append(
                f"| {' | '.join(map(str, [*cells, steps_of(row.record), row.dcmtk, row.gdcm, row.second, row.twin, note_of(row)]))} |"
            )
    lines += ["", "## Refused", "", "| file | transfer syntax | why | reason |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.syntax} | {row.outcome} | {row.reason} |" for row in rows if row.outcome != "in"]
    return "\n".join(lines) + "\n"


def note_of(row: Row) -> str:
    jpeg_2000 = "JPEG 2000" in row.syntax and row.dcmtk == "cannot read it"
    return REASONS.get(row.name, "DCMTK has no JPEG 2000 without a licence" if jpeg_2000 else "")


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
    lines += ["", "Differences are in grey levels of 255 for pictures as shown and for twins, in stored values for the rest.", ""]
    lines.append(f"Decoders: {counted(str(row.record['decoder']) for row in good)}.")
    titles = {
        "dcmtk": "DCMTK, as shown",
        "gdcm": "gdcm, stored values",
        "second": "Second decoder, stored values",
        "twin": "Twin, stored values",
    }
    for oracle, title in titles.items():
        said = [str(getattr(row, oracle)).rpartition(": ")[2] for row in good]
        lines += ["", f"{title}: {counted(verdict(text) for text in said if text)}."]
    apart = [row.name for row in good if verdict(row.dcmtk) == "further apart" or verdict(row.gdcm) == "further apart"]
    lines += ["", *(f"Apart: {name}: {REASONS.get(name, 'NOT EXPLAINED')}." for name in apart)]
    unread = [
        row for row in good if row.dcmtk == "cannot read it" and not row.second and not row.twin and row.gdcm in {"", "cannot read it"}
    ]
    lines += ["", f"Read here, and by no oracle: {', '.join(row.name for row in unread) or 'none'}."]
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
