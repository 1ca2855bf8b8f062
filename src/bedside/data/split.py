"""Dividing patients, once, into a locked test split and cross-validation folds."""

from collections.abc import Collection, Iterable

from bedside.core.dataset import Splits
from bedside.core.digest import digest_bytes
from bedside.core.errors import UsageError


def split_patients(patients: Iterable[str], *, test: float, folds: int, seed: int, always_test: Collection[str] = ()) -> Splits:
    """Divide patients by the order of the hashes of (seed, name).

    Only the set of names and the three settings count: neither the order of `patients` nor the version of a random generator
    changes the result. Folds differ in size by at most one patient.

    Args:
        patients: names; one that comes several times (several cases) counts once.
        test: fraction for the locked test split, 0 <= test < 1; rounded half up, and at least one patient when above 0.
        folds: how many folds the rest is divided into; each holds at least one patient.
        seed: of the division.
        always_test: patients who are locked by name; the fraction is then of the others, and may be 0.

    Raises:
        UsageError: SPLIT_SETTINGS (a fraction or a number of folds that makes no sense, a locked name that nobody has) or
            TOO_FEW_PATIENTS.
    """
    if not 0 <= test < 1 or folds < 1:
        raise UsageError(
            f"A split needs 0 <= test < 1 and at least 1 fold; found test {test:g} and {folds} folds.", code="SPLIT_SETTINGS"
        )
    everyone = set(patients)
    if missing := sorted(set(always_test) - everyone):
        raise UsageError(
            f"split.always_test names {len(missing)} patients who are not among the accepted ones; correct the names.",
            code="SPLIT_SETTINGS",
        )
    locked = sorted(set(always_test))
    order = sorted(
        everyone - set(locked), key=lambda patient: (digest_bytes(f"{seed}:{patient}".encode("utf-8", "surrogatepass")), patient)
    )
    held_out = max(1, int(test * len(order) + 0.5)) if test > 0 else 0
    rest = order[held_out:]
    if len(rest) < folds:
        raise UsageError(
            f"Patients found: {len(everyone)}; {held_out + len(locked)} for the test split leave {len(rest)} for {folds} folds,"
            " and each fold needs at least one; lower split.folds or split.test, or bring more patients.",
            code="TOO_FEW_PATIENTS",
        )
    return Splits(
        test=tuple(sorted([*locked, *order[:held_out]])),
        folds=tuple(tuple(sorted(rest[number::folds])) for number in range(folds)),
    )


def extend_splits(
    before: Splits, patients: Iterable[str], *, test: float, folds: int, seed: int, always_test: Collection[str] = ()
) -> Splits:
    """Divide new patients without moving one who is divided already; patients who are gone are left out.

    The locked test split is filled up to its fraction of everybody, then each new patient goes to the smallest fold. New patients
    are taken in the order of the hashes of (seed, name), so their order on arrival plays no part.

    Args:
        before: the division so far; its number of folds stays.
        patients: everybody, old and new.
        test: fraction of everybody for the locked test split; it is never made smaller.
        folds: how many there are; must be the number of `before`.
        seed: of the division.
        always_test: patients who are locked by name, and do not count for the fraction.

    Raises:
        UsageError: SPLIT_SETTINGS (settings that make no sense or are not those of the division so far), TOO_FEW_PATIENTS (a
            fold would be empty).
    """
    everyone, locked = set(patients), set(always_test)
    known = {patient for group in (before.test, *before.folds) for patient in group}
    moved = locked & {patient for fold in before.folds for patient in fold}
    if not 0 <= test < 1 or folds != len(before.folds) or moved:
        raise UsageError(
            f"The split's settings have changed: the version before has {len(before.folds)} folds, and {len(moved)} patients whom"
            " split.always_test names were trained on already; set them back, or ingest everything again without --add.",
            code="SPLIT_SETTINGS",
        )
    held_out = [patient for patient in before.test if patient in everyone]
    groups = [[patient for patient in fold if patient in everyone] for fold in before.folds]
    held_out += sorted((everyone - known) & locked)
    order = sorted(
        everyone - known - locked, key=lambda name: (digest_bytes(f"{seed}:{name}".encode("utf-8", "surrogatepass")), name)
    )
    lacking = int(test * len(everyone - locked) + 0.5) - len([patient for patient in held_out if patient not in locked])
    to_test = order[: max(0, lacking)]
    for patient in order[len(to_test) :]:
        min(groups, key=len).append(patient)
    if not all(groups):
        raise UsageError(
            "A fold would be left without a patient; lower split.folds, or bring more patients.", code="TOO_FEW_PATIENTS"
        )
    return Splits(test=tuple(sorted([*held_out, *to_test])), folds=tuple(tuple(sorted(fold)) for fold in groups))
