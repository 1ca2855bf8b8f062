"""The study by which a seeded export is read, in the tests and in `benchmarks/deidentification.py`."""

from .conftest import SECTIONS

CONTRACT = {
    "modality": "CT",
    "spacing_mm": [0.5, 5.0],
    "labels": {"background": 0, "bone": 1},
    "clinical": {"age": {"kind": "number", "range": [0, 120]}},
}
SOURCE = {"images": "images", "labels": "labels", "identity": "pseudonym", "clinical": "clinical.csv"}


def seeded_study(name):
    """Its tree: three patients and a clinical table, names hidden behind pseudonyms."""
    return {**SECTIONS, "study": name, "contract": CONTRACT, "source": SOURCE, "split": {"test": 0.34, "folds": 2, "seed": 0}}
