"""Claims about what reading a series imports: a worker starts as fast as that."""

import subprocess
import sys
from copy import deepcopy

from pydicom.charset import convert_encodings, decode_bytes

from bedside.formats.dicom import Shared, assemble, look, read_folder
from bedside.formats.dicom_elements import Element, Elements
from bedside.formats.dicom_values import name

_READ = """
import sys
import bedside.ingest.pipeline
from pathlib import Path
from bedside.formats.dicom import read_folder
(found,) = read_folder(Path(sys.argv[1])).found
found.volume.array
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_an_uncompressed_series_is_read_without_any_library_for_images(series):
    said = subprocess.run([sys.executable, "-c", _READ, str(series())], capture_output=True, text=True, check=True).stdout.split()
    assert {"bedside", "numpy", "pydantic"} <= set(said)
    heavy = {"pydicom", "nibabel", "scipy", "highdicom", "gdcm", "_gdcm", "pandas", "dask", "matplotlib", "skimage", "torch"}
    assert not heavy & set(said)


def test_names_in_the_commonest_character_sets_read_as_pydicom_reads_them():
    for sets, value in (("ISO_IR 100", "Müller^Zoë"), ("ISO_IR 192", "Jiří^김"), ("", "Ångström")):
        raw = value.encode("latin-1" if sets == "ISO_IR 100" else "utf-8")
        data = raw + sets.encode()
        table = {0x00100010: Element("PN", 0, len(raw)), 0x00080005: Element("CS", len(raw), len(data))}
        codecs = convert_encodings([sets]) if sets else ["utf8"]
        expected = decode_bytes(raw, codecs, {"\r", "\n"})
        assert name(Elements(data=data, table=table), 0x00100010) == expected == value


def test_looks_keep_one_object_for_what_many_headers_say(series):
    paths = sorted(series().iterdir())
    shared = Shared()
    looks = [shared.look(deepcopy(look(path)), path) for path in paths]
    headers = [one.slices[0].header for one in looks]
    assert len({id(header.facts) for header in headers}) == len({id(one.series) for one in looks}) == 1
    assert all(one.path is path and one.slices[0].path is path for one, path in zip(looks, paths, strict=True))
    assert assemble(looks).found[0].source == read_folder(paths[0].parent).found[0].source
