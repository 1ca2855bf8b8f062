"""Pictures of the worst and the median case: three planes of every case on disk until it is known which two they are."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside.core.case import Case
from bedside.core.errors import disk_errors
from bedside.core.evidence import Evidence
from bedside.core.workspace import Workspace
from bedside.evaluate.measure import CaseScores, Scoring, worst_first
from bedside.evaluate.planes import Picture, load, save, three_planes

PICTURED = ("worst", "median")


@dataclass(frozen=True)
class Album:
    """Keeps a picture of every case during the pass, so that nothing is predicted twice.

    Attributes:
        folder: for the pictures of this pass; removed by the caller.
        scoring: says which metric leads, and so which structure of a case the planes go through: its worst.
    """

    folder: Path
    scoring: Scoring

    def keep(self, case: Case, found: CaseScores, answer: NDArray[np.generic]) -> None:
        """Write the picture of one case in which something was annotated; `answer` is (I, J, K)."""
        if not found.scored:
            return
        reference = np.asarray(case.volumes["label"].array[0])
        leading = self.scoring.definitions[0]
        rows = found.values[leading.name]
        worst = (min if leading.higher_is_better else max)(rows, key=lambda label: rows[label])
        planes = three_planes(case.image, reference, answer, focus=self.scoring.structures.index(worst))
        with disk_errors("keeping pictures"):
            save(self.folder / f"{case.id}.npz", Picture(case.id, case.patient, worst, planes))

    def publish(self, workspace: Workspace, digest: str, evidence: Evidence, measured: Sequence[CaseScores]) -> None:
        """Keep the pictures of the worst and of the median patient (the worst case of each) beside the evidence's digest."""
        order = worst_first(evidence)
        leading = evidence.definitions[0]
        pick = min if leading.higher_is_better else max
        target = _folder(workspace, digest)
        with disk_errors("keeping pictures"):
            target.mkdir(parents=True, exist_ok=True)
            for name, patient in zip(PICTURED, (order[0], order[len(order) // 2]), strict=True):
                own = [case for case in measured if case.patient == patient and case.scored]
                chosen = pick(own, key=lambda case: case.mean(leading.name))
                shutil.copyfile(self.folder / f"{chosen.case}.npz", target / f"{name}.npz")


def pictures(workspace: Workspace, digest: str) -> dict[str, Picture]:
    """The pictures kept for some evidence ("worst", "median"), as far as they are still there: they are a cache."""
    found = {name: load(_folder(workspace, digest) / f"{name}.npz") for name in PICTURED}
    return {name: picture for name, picture in found.items() if picture is not None}


def _folder(workspace: Workspace, digest: str) -> Path:
    return workspace.scratch / "overlays" / digest
