"""Every error has its exit code, and no message carries more than a sentence."""

import errno
import inspect
import re
from multiprocessing.reduction import ForkingPickler

import pytest

from bedside.core import errors
from bedside.core.errors import BedsideError, ConfigError, Problem, ResourceError, UsageError, disk_errors

TABLE = {
    "BedsideError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "InputRejected": 3,
    "IntegrityError": 4,
    "GateRefused": 5,
    "ResourceError": 6,
    "UnsafeArtefact": 7,
    "Interrupted": 8,
}


def tree() -> dict[str, type[BedsideError]]:
    found = vars(errors).values()
    return {item.__name__: item for item in found if inspect.isclass(item) and issubclass(item, BedsideError)}


def test_the_exit_codes_are_those_of_the_design() -> None:
    assert {name: item.exit_code for name, item in tree().items()} == TABLE


def test_every_branch_has_its_own_exit_code_and_name() -> None:
    branches = [item for item in tree().values() if item.__base__ is BedsideError]
    assert len({item.exit_code for item in branches}) == len(branches) == 7
    assert len({item.default_code for item in tree().values()}) == len(tree())


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+)\s+exit (\d)", errors.__doc__ or ""))
    assert {name: int(code) for name, code in drawn.items()} == TABLE


def test_all_problems_of_a_configuration_are_in_its_message() -> None:
    error = ConfigError([Problem("study.yaml", 3, "train.minutes", "too small"), Problem("study.yaml", 0, "", "empty")])
    assert str(error) == ("2 problems in the configuration:\n  study.yaml:3: train.minutes: too small\n  study.yaml: empty")
    assert str(ConfigError([Problem("x", 1, "", "y")])).startswith("1 problem in")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_in_any_of_its_forms_is_a_resource_error(number: int) -> None:
    with pytest.raises(ResourceError, match="while storing") as caught, disk_errors("storing"):
        raise OSError(number, "x")
    assert caught.value.code == "DISK_FULL"


def test_a_read_only_disk_asks_for_another_folder() -> None:
    with pytest.raises(UsageError, match="read-only while storing") as caught, disk_errors("storing"):
        raise OSError(errno.EROFS, "x")
    assert caught.value.code == "READ_ONLY"


def test_another_os_error_passes_unchanged() -> None:
    with pytest.raises(PermissionError), disk_errors("storing"):
        raise PermissionError(errno.EACCES, "x")


def test_every_error_survives_the_way_between_processes() -> None:
    for item in tree().values():
        error = item([Problem("study.yaml", 3, "", "wrong")]) if item is ConfigError else item("A sentence.", code="CODE")
        back = ForkingPickler.loads(ForkingPickler.dumps(error))
        assert type(back) is item
        assert (str(back), back.code, back.sentence) == (str(error), error.code, error.sentence)
