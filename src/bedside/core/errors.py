"""The exception tree. Each branch is one exit code of the command line.

    BedsideError                exit 1   a defect of ours
    ├── UsageError              exit 2   wrong use: unknown option, missing folder
    │   └── ConfigError         exit 2   study.yaml or site.yaml is wrong; carries every problem at once
    ├── InputRejected           exit 3   bytes or values from outside that the contract does not allow
    ├── IntegrityError          exit 4   a digest, a chain or a lock does not hold
    ├── GateRefused             exit 5   a promotion gate said no
    ├── ResourceError           exit 6   out of disk, memory or a stated limit
    ├── UnsafeArtefact          exit 7   a file that could run code, or an action that is not authorised
    └── Interrupted             exit 8   stopped by a signal; the same command resumes

A message is one sentence: what was found, what was expected, what to do. It never carries a value from a patient's header.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, Self


class BedsideError(Exception):
    """Root of the tree: `code` is a stable machine-readable name, `sentence` is for people."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "DEFECT"

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code or self.default_code


class UsageError(BedsideError):
    """Wrong use of a command or function."""

    exit_code = 2
    default_code = "USAGE"


class Problem(NamedTuple):
    """One thing wrong with a configuration: `where` is the dotted path, `line` counts from 1 (0: not from a file)."""

    source: str
    line: int
    where: str
    what: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.where}: {self.what}" if self.where else f"{place}: {self.what}"


class ConfigError(UsageError):
    """The configuration is wrong; `problems` holds all of it, not the first."""

    default_code = "CONFIG"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the configuration"
        super().__init__("\n  ".join([head + ":", *map(str, self.problems)]))

    def __reduce__(self) -> tuple[type[Self], tuple[Sequence[Problem]]]:
        return type(self), (self.problems,)


class InputRejected(BedsideError):
    """Input from outside was refused; `code` names the rule (`DCM_TRUNCATED`, `NII_AFFINE`, ...)."""

    exit_code = 3
    default_code = "INPUT_REJECTED"


class IntegrityError(BedsideError):
    """A content digest, the ledger's chain or a lock does not hold."""

    exit_code = 4
    default_code = "INTEGRITY"


class GateRefused(BedsideError):
    """At least one promotion gate refused."""

    exit_code = 5
    default_code = "GATE_REFUSED"


class ResourceError(BedsideError):
    """Disk, memory or a stated limit is exhausted; what was there before is intact."""

    exit_code = 6
    default_code = "RESOURCE"


class UnsafeArtefact(BedsideError):
    """A file that could run code, a traversal, or an action that is not authorised."""

    exit_code = 7
    default_code = "UNSAFE_ARTEFACT"


class Interrupted(BedsideError):
    """Stopped by a signal after saving; the same command goes on from there."""

    exit_code = 8
    default_code = "INTERRUPTED"


_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Map a full disk (ENOSPC, quota, file-size limit) to `ResourceError`, and a read-only one to `UsageError`.

    Other OS errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ResourceError(
                f"The disk is full while {doing}; what was there before is intact, so free some space and repeat the command.",
                code="DISK_FULL",
            ) from error
        if error.errno == errno.EROFS:
            raise UsageError(
                f"The disk is read-only while {doing}; choose a folder that can be written (--folder, --out, --to).",
                code="READ_ONLY",
            ) from error
        raise
