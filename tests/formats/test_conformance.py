"""A validator of DICOM's modules that is not ours finds nothing broken by de-identification, and nothing wrong with our masks."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from bedside.core.deidentification import Deidentification
from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier
from bedside.formats.identity_studies import write_studies
from bedside.formats.seg import write_seg

from .identified import SOP, decoded, encoded, person
from .segmented import MAKER, NAMES, a_mask, affine_of, rotation, series
from .validator import ValidatorDied, bundled_files, errors_between, errors_in, errors_of, need_validator

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # some of pydicom's files are wrong on purpose
KEY = Identity("pseudonym", b"a secret of this test")
LITTLE = Deidentifier(KEY, Deidentification(dates="remove", patient_characteristics=False))
MUCH = Deidentifier(KEY, Deidentification(dates="keep", device=True, institution=True, descriptors=True, safe_private=True))


@pytest.fixture
def validator() -> None:
    """Leaves the test out, loudly, where there is no validator."""
    need_validator()


def new_errors(path: Path, engine: Deidentifier, out: Path) -> frozenset[str] | None:
    """What the validator says of the written file alone; None where the engine refuses the received one, or it dies of that."""
    received = path.read_bytes()
    try:
        written = engine.file(received).data
        before = errors_in(received, out)
    except (InputRejected, ValidatorDied):
        return None
    return errors_in(written, out) - before


@pytest.mark.parametrize("engine", [LITTLE, MUCH], ids=["nothing kept", "everything kept that may be"])
@pytest.mark.usefixtures("validator")
def test_objects_of_every_kind_stay_as_sound_as_they_were(tmp_path: Path, engine: Deidentifier) -> None:
    """pydicom's own test files: images of many encodings, reports, plans, doses, waveforms."""
    found = {}
    for path in bundled_files():
        errors = new_errors(path, engine, tmp_path / "out.dcm")
        if errors is not None:
            found[path.name] = errors
    assert len(found) >= 50
    assert {name: errors for name, errors in found.items() if errors} == {}


@pytest.mark.parametrize("engine", [LITTLE, MUCH], ids=["nothing kept", "everything kept that may be"])
@pytest.mark.usefixtures("validator")
def test_invented_studies_stay_as_sound_as_they_were(tmp_path: Path, engine: Deidentifier) -> None:
    answers = write_studies(tmp_path / "studies", patients=1)
    found = [new_errors(answer.path, engine, tmp_path / "out.dcm") for answer in answers]
    assert [errors for errors in found if errors is not None] == [frozenset()] * sum(answer.comes_out for answer in answers)


@pytest.mark.usefixtures("validator")
def test_files_of_one_patient_agree_on_what_is_the_patients_the_studys_and_the_seriess(tmp_path: Path) -> None:
    paths = []
    for number in (1, 2, 3):
        data = person()
        data.InstanceNumber, data.SOPInstanceUID = number, f"{SOP}.{number}"
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(MUCH.file(encoded(data)).data)
    assert errors_between(paths) == []
    other = dcmread(paths[0])
    other.DeidentificationMethod, other.SOPInstanceUID = "another", f"{SOP}.9"
    other.save_as(tmp_path / "other.dcm")
    assert errors_between([*paths, tmp_path / "other.dcm"]) != []


@pytest.mark.usefixtures("validator")
def test_the_validator_would_say_what_is_missing(tmp_path: Path) -> None:
    path = next(path for path in bundled_files() if path.name == "CT_small.dcm")
    data = dcmread(path)
    del data.StudyInstanceUID
    data.save_as(tmp_path / "broken.dcm")
    (error,) = errors_of(tmp_path / "broken.dcm") - errors_of(path)
    assert "StudyInstanceUID" in error
    assert "Type 1" in error


@pytest.mark.usefixtures("validator")
def test_a_mask_of_an_oblique_series_has_no_error(tmp_path: Path) -> None:
    found = series(tmp_path / "series", affine_of(rotation(37.0, np.array((1, 2, 3)))))
    write_seg(tmp_path / "mask.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER)
    assert errors_of(tmp_path / "mask.dcm") == frozenset()


def test_sequences_that_must_have_an_item_get_one_that_says_nothing() -> None:
    data = dcmread(next(path for path in bundled_files() if path.name == "test-SR.dcm"))
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = "Zqarzt^Otto", "Zqklinik"
    observer.VerificationDateTime, observer.VerifyingObserverIdentificationCodeSequence = "20200229101112", Sequence()
    flow, wave = Dataset(), Dataset()
    flow.FlowIdentifier = b"ZQ"
    wave.UnformattedTextValue, wave.ReferencedWaveformChannels = "Zqmustermann", [1, 2]
    data.VerifyingObserverSequence, data.FlowIdentifierSequence = Sequence([observer, observer]), Sequence([flow])
    data.WaveformAnnotationSequence = Sequence([wave])
    after = decoded(LITTLE.file(encoded(data)).data)
    (observed,) = after.VerifyingObserverSequence
    assert (observed.VerifyingObserverName, observed.VerifyingOrganization) == ("REMOVED", "REMOVED")
    assert observed.VerificationDateTime == "19000101000000"
    assert [item.FlowIdentifier for item in after.FlowIdentifierSequence] == [b"\0\0"]
    assert [item.UnformattedTextValue for item in after.WaveformAnnotationSequence] == ["REMOVED"]


@pytest.mark.parametrize(("sop_class", "left"), [(EnhancedMRImageStorage, "REMOVED"), (MRImageStorage, None)])
def test_a_free_text_that_enhanced_objects_must_have_becomes_a_dummy_elsewhere_it_goes(sop_class: str, left: str | None) -> None:
    data = person()
    data.SOPClassUID, data.MetaboliteMapDescription = sop_class, "of Zqmustermann"
    assert decoded(LITTLE.file(encoded(data)).data).get("MetaboliteMapDescription") == left
