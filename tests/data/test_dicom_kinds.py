"""What an object is, from header words as modalities write them."""

import pytest
from made_dicom import RAMP, make_dicom

from medcnn.data.dicom_kinds import object_kind, why_not

SECONDARY_CAPTURE, CR, DX, DX_RAW = "7", "1", "1.1", "1.1.1"
CT, MR, US, TOMOSYNTHESIS, OPHTHALMIC = "2", "4", "6.1", "13.1.3", "77.1.5.1"


@pytest.mark.parametrize(
    ("sop_class", "modality", "image_type", "more", "kind"),
    [
        (CR, "CR", "", {}, "projection"),
        (SECONDARY_CAPTURE, "CR", "", {}, "projection"),  # a radiograph converted from another format, as in the RSNA set
        (DX, "", "ORIGINAL\\PRIMARY", {}, "projection"),
        (DX_RAW, "DX", "ORIGINAL\\PRIMARY", {}, "raw_projection"),
        (CR, "CR", "", {"PresentationIntentType": "FOR PROCESSING"}, "raw_projection"),
        (CT, "CT", "ORIGINAL\\PRIMARY\\AXIAL", {}, "slice"),
        (CT, "CT", "ORIGINAL\\PRIMARY\\LOCALIZER", {}, "localizer"),
        (CT, "CT", "DERIVED\\SECONDARY\\REFORMATTED", {}, "derived"),
        (MR, "MR", "DERIVED\\PRIMARY\\PROJECTION IMAGE\\MIP", {}, "derived"),
        (MR, "MR", "ORIGINAL\\PRIMARY\\M\\SE", {}, "slice"),
        (SECONDARY_CAPTURE, "CT", "DERIVED\\SECONDARY\\SCREEN SAVE", {}, "capture"),
        (SECONDARY_CAPTURE, "CT", "DERIVED\\PRIMARY\\DOSE REPORT", {}, "capture"),
        (SECONDARY_CAPTURE, "CT", "DERIVED\\PRIMARY", {}, "capture"),
        (SECONDARY_CAPTURE, "OT", "", {}, "capture"),
        (TOMOSYNTHESIS, "MG", "DERIVED\\PRIMARY\\TOMOSYNTHESIS", {}, "slice"),
        (US, "US", "ORIGINAL\\PRIMARY\\TEE", {}, "ultrasound"),
        (OPHTHALMIC, "OP", "ORIGINAL\\PRIMARY", {}, "photograph"),
        ("999", "", "", {}, "unknown"),
    ],
)
def test_kinds(sop_class: str, modality: str, image_type: str, more: dict[str, str], kind: str) -> None:
    dataset = make_dicom(
        RAMP, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{sop_class}", Modality=modality, ImageType=image_type.split("\\"), **more
    )
    assert object_kind(dataset) == kind


def test_who_fits() -> None:
    assert why_not("projection", "CHEST", "fitting", "chest_xray") is None
    assert why_not("projection", None, "fitting", "chest_xray") is None
    assert "shows HIP" in str(why_not("projection", "HIP", "fitting", "chest_xray"))
    assert why_not("projection", "HIP", "fitting", "xray") is None
    assert why_not("slice", None, "fitting", "generic") is None
    assert "a slice" in str(why_not("slice", None, "fitting", "xray"))
    assert why_not("slice", None, "all", "xray") is None
    assert why_not("slice", "HIP", ("slice",), "chest_xray") is None
    assert "data.objects: [slice]" in str(why_not("projection", None, ("slice",), "auto"))
