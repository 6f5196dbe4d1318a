"""What identifies somebody is gone, wherever it stood; the image is unchanged bit for bit."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedEnhanceLib.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pydicom import Dataset

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from MedEnhanceLib.io.deidentify import Deidentifier, Patients, deidentify  # noqa: E402
from MedEnhanceLib.io.deidentify.patients import Person  # noqa: E402
from MedEnhanceLib.io.deidentify.replacements import (  # noqa: E402
    decoded,
    new_uid,
    shift_days,
    shifted,
    stored_bytes,
    texts,
    vr_of,
)
from MedEnhanceLib.io.deidentify.rules import Action, Rule, table  # noqa: E402

SECRET = bytes(range(32))
NAME, ID, PLACE = "Planted^Ignatius", "PID-774411", "Saint Planter Clinic"
WORDS = (
    "Planted", "Ignatius", "774411", "Planter", "Gruber", "19440611", "山田", "Oosterhout",
)  # fmt: skip
PIXELS = np.arange(24, dtype=np.uint16).reshape(4, 6)
Write = Callable[..., Path]


def image(**elements: Any) -> Dataset:
    """A CT slice of somebody who can be recognized by every attribute."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.1.77"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.826.0.1.3680043.1.77",
        "StudyInstanceUID": "1.2.826.0.1.3680043.1.7",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.1.8",
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.1.9",
        "StudyDate": "20110203",
        "StudyTime": "101112",
        "SeriesDate": "20110204",
        "AcquisitionDateTime": "20110203101112.5+0100",
        "Modality": "CT",
        "BodyPartExamined": "ABDOMEN",
        "PatientName": NAME,
        "PatientID": ID,
        "PatientBirthDate": "19440611",
        "InstitutionName": PLACE,
        "AccessionNumber": "ACC-Gruber",
        "ReferringPhysicianName": "Gruber^Anna",
        "ImagePositionPatient": [-10, 20, 5],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.8, 0.5],
        "SliceThickness": 2.5,
        "Rows": 4,
        "Columns": 6,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": PIXELS.tobytes(),
    } | elements
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(dataset: Dataset, name: str = "one.dcm") -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write_file


def cleaned(path: Path, **options: Any) -> tuple[Path, bytes]:
    """The one output of a run over the folder of `path`, and its bytes."""
    folder = path.parent.parent / "out"
    report = deidentify(path.parent, folder, **options)
    assert not report.failed, report.failed
    (result,) = folder.rglob("*.dcm")
    return result, result.read_bytes()


def assert_clean(data: bytes) -> None:
    for word in WORDS:
        for encoding in ("utf-8", "utf-16-le", "iso2022_jp", "latin-1"):
            if encoded := word.encode(encoding, "ignore"):
                assert encoded.lower() not in data.lower(), word


def plant_everywhere(dataset: Dataset) -> None:
    """The name in every VR that can hold it, nested, private, in overlays and unknown elements."""
    from pydicom import DataElement
    from pydicom import Dataset as Item

    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.OtherPatientNames = "Planted^Ignatius=山田^太郎=ヤマダ^タロウ"
    for keyword, vr, value in (
        ("RetrieveAETitle", "AE", "PLANTED"),
        ("PatientAge", "AS", "066Y"),
        ("FilterType", "SH", "Planted"),
        ("PerformingPhysicianName", "PN", "van Oosterhout^Jan"),
        ("CollimatorGridName", "SH", "Oosterhout 2"),
        ("ConvolutionKernel", "SH", "Ignatius 774411"),
        ("ProtocolName", "LO", NAME),
        ("ManufacturerModelName", "LO", f"scanner of {PLACE}"),
        ("ImageComments", "LT", f"{NAME} seen"),
        ("AdditionalPatientHistory", "LT", NAME),
        ("InstitutionAddress", "ST", PLACE),
        ("ContentDescription", "LO", NAME),
        ("SegmentDescription", "ST", NAME),
        ("TextValue", "UT", NAME),
        ("LongCodeValue", "UC", NAME),
        ("RetrieveURL", "UR", "http://host/Planted"),
        ("SecondaryReviewerName", "PN", NAME),
        ("ScanOptions", "CS", "PLANTED"),
        ("StorageMediaFileSetUID", "UI", "1.2.826.0.1.3680043.1.99"),
        ("DataCollectionDiameter", "DS", "1"),
    ):
        dataset[keyword] = DataElement(keyword, vr, value)
    dataset.add_new(0x00091001, "LO", NAME)
    dataset.add_new(0x00090010, "LO", "Planted private")
    dataset.add_new(0x00080F0F, "LO", NAME)  # an element that no dictionary knows
    dataset.add_new(0x50002500, "LO", NAME)
    dataset.add_new(0x60003000, "OW", b"Planted ")
    dataset.add_new(0x60001500, "LO", NAME)
    dataset.add_new(0xFFFCFFFC, "OB", b"Planted ")
    inner = Item()
    inner.add_new(0x00091001, "UN", b"Planted")
    inner.PatientName = NAME
    inner.ReferencedSOPInstanceUID = "1.2.826.0.1.3680043.1.78"
    inner.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    step = Item()
    step.ScheduledProcedureStepDescription = NAME
    step.PurposeOfReferenceCodeSequence = [inner]
    dataset.SourceImageSequence = [inner]
    dataset.RequestAttributesSequence = [step]
    dataset.ProcedureCodeSequence = [step]


def test_planted_identities_are_gone_from_every_byte(write: Write) -> None:
    dataset = image()
    plant_everywhere(dataset)
    path = write(dataset)
    data = bytearray(path.read_bytes())
    data[:16] = b"Planted Ignatius"
    path.write_bytes(bytes(data))
    result, after = cleaned(path)
    assert_clean(after)
    assert after[:128] == b"\0" * 128
    assert "Planted" not in str(result)
    read = pydicom.dcmread(result)
    assert not [element for element in read.iterall() if element.tag.is_private]
    assert read.ManufacturerModelName is None or read.ManufacturerModelName == ""
    source = read.SourceImageSequence[0]
    assert source.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert source.ReferencedSOPInstanceUID.startswith("2.25.")


def test_meta_information_does_not_name_who_sent_it(write: Write) -> None:
    dataset = image()
    dataset.file_meta.SourceApplicationEntityTitle = "PLANTED"
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.826.0.1.3680043.1.66"
    dataset.file_meta.PrivateInformation = b"Planted!"
    dataset.file_meta.ImplementationVersionName = "PLANTED"
    result, after = cleaned(write(dataset))
    assert_clean(after)
    read = pydicom.dcmread(result)
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in read.file_meta


def test_bytes_behind_the_pixels_and_the_file_are_dropped(write: Write) -> None:
    path = write(image(PixelData=PIXELS.tobytes() + b"Planted Ignatius"))
    result, after = cleaned(path)
    assert_clean(after)
    assert pydicom.dcmread(result).PixelData == PIXELS.tobytes()


def test_overlay_in_unused_bits_of_the_pixels_is_dropped(write: Write) -> None:
    stored = PIXELS | np.uint16(0x8000)
    dataset = image(PixelData=stored.tobytes(), BitsStored=12, HighBit=11)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 15)
    result, _ = cleaned(write(dataset))
    assert pydicom.dcmread(result).PixelData == PIXELS.tobytes()


def test_the_image_itself_stays_bit_for_bit(write: Write) -> None:
    path = write(image(PixelSpacing=["0.80000", "5E-1"]))
    before = pydicom.dcmread(path)
    result, _ = cleaned(path)
    after = pydicom.dcmread(result)
    assert after.PixelData == before.PixelData
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows",
                    "RescaleIntercept", "BodyPartExamined", "Modality"):  # fmt: skip
        tag = before.data_element(keyword).tag
        assert (
            pydicom.dcmread(path).get_item(tag).value == pydicom.dcmread(result).get_item(tag).value
        )


def test_the_result_says_what_was_done(write: Write) -> None:
    read = pydicom.dcmread(cleaned(write(image(BurnedInAnnotation="NO")))[0])
    assert read.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in read.DeidentificationMethodCodeSequence] == ["113100"]
    assert read.LongitudinalTemporalInformationModified == "REMOVED"
    assert read.BurnedInAnnotation == "NO"
    assert (str(read.PatientName), read.PatientID) == ("ANON-0001", "ANON-0001")
    assert read.StudyDate == read.AccessionNumber == ""
    assert "InstitutionName" not in read or not read.InstitutionName


def test_intervals_are_kept_and_the_birth_date_is_not(write: Write) -> None:
    path = write(image())
    options = {"mapping": path.parent.parent / "secret.json", "keep_intervals": True}
    read = pydicom.dcmread(cleaned(path, **options)[0])
    assert read.StudyDate != "20110203"
    assert shifted(read.StudyDate, "DA", 1) == read.SeriesDate
    assert read.AcquisitionDateTime == f"{read.StudyDate}101112.5+0100"
    assert read.StudyTime == "101112"
    assert not read.PatientBirthDate
    assert read.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [item.CodeValue for item in read.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107"]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"])
def test_transfer_syntax_stays(write: Write, syntax: str) -> None:
    dataset = image()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    plant_everywhere(dataset)
    result, _ = cleaned(write(dataset))
    read = pydicom.dcmread(result)
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.PixelData == PIXELS.tobytes()
    assert_clean(repr(read).encode())


def test_a_value_that_cannot_be_emptied_away_stops_the_file(write: Write) -> None:
    """A look-up table is numbers; a name in it is found in the bytes, and the tag is reported."""
    dataset = image()
    dataset.add_new(0x00281201, "OW", b"Ignatius")
    path = write(dataset)
    with pytest.raises(InputError, match=r"stands in \(0028,1201\)") as caught:
        deidentify(path.parent, path.parent.parent / "out")
    assert_clean(str(caught.value).encode())
    assert not (path.parent.parent / "out").exists()


def test_a_dataset_in_memory_is_copied_not_changed() -> None:
    dataset = image()
    dataset.add_new(0x00090010, "LO", "ACME")
    before = dataset.to_json()
    copied, changes = Deidentifier(SECRET).dataset(dataset)
    assert dataset.to_json() == before
    assert copied.PatientID == "ANON-0001"
    assert copied.PixelData == dataset.PixelData
    actions = {change.name: change.action for change in changes}
    assert actions["InstitutionName"] == "emptied"
    assert actions["PatientName"] == "replaced"
    assert actions["private elements"] == "removed"
    assert_clean(repr(changes).encode())


def test_the_same_secret_gives_the_same_uids_and_another_others() -> None:
    one, two, other = (
        Deidentifier(secret).dataset(image())[0].SOPInstanceUID for secret in (SECRET, SECRET, None)
    )
    assert one == two != other
    expected = int.from_bytes(
        __import__("hmac")
        .new(SECRET, b"uid\x001.2.826.0.1.3680043.1.77", hashlib.sha256)
        .digest()[:16],
        "big",
    )
    assert one == f"2.25.{expected}"


def test_well_known_uids_stay() -> None:
    atlas = "1.2.840.10008.1.4.1.1"  # Talairach brain atlas, a frame of reference
    related = [atlas, "1.2.826.0.1.3680043.1.9"]
    copied, _ = Deidentifier(SECRET).dataset(
        image(FrameOfReferenceUID=atlas, RelatedFrameOfReferenceUID=related)
    )
    assert copied.FrameOfReferenceUID == atlas
    assert copied.RelatedFrameOfReferenceUID == [atlas, new_uid(SECRET, related[1])]


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation is YES"),
        ({"Modality": "US"}, "modality US"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "captured"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "captured screen"),
        ({"EncapsulatedDocument": b"%PDF"}, "document"),
        ({"ContentSequence": []}, "free text"),
        ({"PixelData": None}, "image without its pixels"),
        ({"PixelData": None, "Rows": None}, "image without its pixels"),
        (
            {"PixelData": None, "Rows": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1"},
            "no image",
        ),
    ],
)
def test_what_cannot_be_cleaned_is_refused(elements: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Deidentifier(SECRET).dataset(image(**elements))


def test_text_in_pixels_is_written_only_where_allowed() -> None:
    copied, _ = Deidentifier(SECRET, allow_burned_in=True).dataset(image(BurnedInAnnotation="YES"))
    assert copied.BurnedInAnnotation == "YES"


def test_a_secondary_image_of_a_scanner_is_no_screen() -> None:
    kinds = ["DERIVED", "SECONDARY", "AXIAL"]
    assert Deidentifier(SECRET).dataset(image(ImageType=kinds))[0].ImageType == kinds


def test_a_wrong_profile_or_a_weak_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="no profile"):
        Deidentifier(SECRET, "clean everything")
    with pytest.raises(ConfigError, match="16 bytes"):
        Deidentifier(b"short")


def test_pseudonyms_are_numbered_and_unique() -> None:
    patients = Patients({Person("a"): "ANON-0002"})
    assert patients.pseudonym(Person("b")) == "ANON-0003"
    assert patients.pseudonym(Person("a")) == "ANON-0002"
    with pytest.raises(ConfigError, match="somebody else"):
        patients.name(Person("c"), "ANON-0003")
    with pytest.raises(ConfigError, match="called ANON-0002 already"):
        patients.name(Person("a"), "P1")


def test_the_table_is_recent_and_whole() -> None:
    found = table()
    assert found.edition >= "2026"
    assert len(found.tags) > 640
    assert found.rule(0x00100010, "PN") == Rule(Action.EMPTY, "table")
    assert found.rule(0x00091001, "LO") == Rule(Action.REMOVE, "private")
    assert found.rule(0x00020010, "UI") == Rule(Action.REMOVE, "ours")
    assert found.rule(0x00080080, "LO").action is Action.FIT
    assert found.rule(0x0020000D, "UI").action is Action.UID
    assert found.rule(0x00081030, "LO").action is Action.REMOVE
    assert found.rule(0x00280010, "US").action is Action.KEEP
    assert found.rule(0x00080016, "UI").action is Action.KEEP


@pytest.mark.parametrize("vr", ["PN", "DA", "DT", "TM", "AE", "UR", "ST", "LT", "UT", "UC"])
def test_no_name_date_address_or_free_text_is_kept_for_being_unlisted(vr: str) -> None:
    from pydicom._dicom_dict import DicomDictionary

    rules = [table().rule(tag, vr) for tag, entry in DicomDictionary.items() if entry[0] == vr]
    assert rules
    assert not [rule for rule in rules if rule.action in (Action.KEEP, Action.CLEAN)]


@pytest.mark.slow
@given(st.dates(), st.text(min_size=1))
def test_dates_move_into_the_past_by_the_patients_days(day: Any, patient: str) -> None:
    days = shift_days(SECRET, patient)
    assert -3650 <= days <= -1
    text = f"{day.year:04}{day.month:02}{day.day:02}"
    moved = shifted(text, "DA", days)
    assert moved is None or shifted(moved, "DA", -days) == text
    assert (moved is None) == (day.toordinal() + days < 1)


@given(st.text())
def test_new_uids_are_valid(uid: str) -> None:
    assert pydicom.uid.UID(new_uid(SECRET, uid)).is_valid


def test_a_stated_kind_counts_before_the_dictionarys() -> None:
    element = pydicom.DataElement
    assert vr_of(element(0x00091001, "LO", "x")) == "LO"
    assert vr_of(element("PatientName", "LO", "x")) == "LO"
    assert vr_of(element("PatientName", "UN", b"x")) == "PN"
    assert texts(element(0x00091001, "OB", "é".encode("latin-1"))) == ["é"]
    unknown = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(0x00091001), None, 1, b"x", 0, True, True
    )
    assert vr_of(unknown) == "UN"


def test_a_text_is_read_in_the_character_set_of_its_file() -> None:
    dataset = image(SpecificCharacterSet="ISO_IR 144", InstitutionName="Больница")
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    read = pydicom.dcmread(stream)
    assert decoded(read, 0x00080080).value == "Больница"
    assert stored_bytes(read.get_item(0x00080080)) == "Больница".encode("iso8859_5")


def test_a_value_without_a_meaning_fits_its_kind() -> None:
    from pydicom import DataElement

    from MedEnhanceLib.io.deidentify.replacements import _DUMMIES, _NUMBERS, dummy

    for vr in (*_NUMBERS, *_DUMMIES):
        element = DataElement(0x00091001, vr, dummy(vr))
        assert element.value is not None and not element.is_empty, vr
    assert dummy("SQ") is None


def test_a_secret_gives_the_same_days_and_uids_in_every_version() -> None:
    """Else a cohort that grows with its mapping would fall apart."""
    assert shift_days(SECRET, "ANON-0001") == -1348
    assert new_uid(SECRET, "1.2.3") == "2.25.323208961630152073077901537594917788276"
