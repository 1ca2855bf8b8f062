"""Programs of the system that tests use; `.ci/run` installs them."""

import shutil
from collections.abc import Sequence

import pytest


def need_programs(
    untested: str, programs: Sequence[str], *, debian: str, path: str | None = None, besides: Sequence[str] = ()
) -> None:
    """Leave a test out, loudly, where a program that it needs is not there.

    Args:
        untested: what nobody looks at then, in capitals.
        programs: by name.
        debian: the packages that bring them.
        path: where to look; None: where the shell does.
        besides: what else is missing.
    """
    gone = [*(program for program in programs if shutil.which(program, path=path) is None), *besides]
    if gone:
        pytest.skip(f"{untested}: {', '.join(gone)} missing (Debian: {debian})")
