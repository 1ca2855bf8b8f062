"""Files on which GDCM ends its process, found among the seeded mutations, as series of three slices.

The door has learnt to refuse them since; with `UNGUARDED` a worker forgets that, and stands for the next such file.
"""

from .mutations import mutated, sound

UNGUARDED = "tests.hostile.unguarded"
CRASHES = (
    ("JPEG baseline", 537),
    ("JPEG baseline", 1050),
    ("JPEG extended", 522),
    ("JPEG lossless", 264),
    ("JPEG lossless", 361),
)


def write_crashing(folder, kind, number):
    """A series whose second slice costs the process that decodes it."""
    folder.mkdir(parents=True)
    first, _, last = sound(kind)
    for name, data in (("a.dcm", first), ("m.dcm", mutated(kind, number)), ("z.dcm", last)):
        (folder / name).write_bytes(data)
    return folder
