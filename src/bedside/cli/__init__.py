"""The command line: one verb per step. Results on stdout, `--json` for programs, everything else on stderr."""

import json
import os
import signal
import sys
import traceback
from types import FrameType

from bedside.core.errors import BedsideError, ConfigError, GateRefused, Interrupted, ResourceError, UsageError, disk_errors
from bedside.core.heap import collect_seldom

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _Signalled(BaseException):
    """A signal asked the command to end; no `except Exception` of a library that is being imported may take it for its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name


def main() -> None:
    """Run the command line and exit with the code of core.errors; a traceback is only ever shown for a defect of ours."""
    try:
        code = run()
    except _Signalled:  # told again while it said why it ended
        code = Interrupted.exit_code
    _hear_no_more()
    sys.exit(code)


def run() -> int:
    """Run the command line and return its exit code."""
    for number in _STOPPING:
        signal.signal(number, _interrupt)
    try:
        prepare()
        from bedside.cli.app import application

        with disk_errors("writing a result"):
            application()(prog_name="bedside")
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            return 0
        if stop.code == UsageError.exit_code:
            _in_json(UsageError("The command line is not understood; stderr says why, and --help what is.", code="USAGE"))
        return stop.code if isinstance(stop.code, int) else 1
    except BedsideError as error:
        return _report(error)
    except _Signalled as stop:
        return _report(Interrupted(f"Stopped by {stop.name}; what was finished is kept, and the same command goes on."))
    except MemoryError:
        return _report(
            ResourceError("There is not enough memory; make the patch, the batch or the input smaller.", code="MEMORY")
        )
    except BrokenPipeError:
        return 0
    except PermissionError:
        return _report(
            UsageError(
                "This user may not read or write something that the command needs: the study folder, the source or the target;"
                " give the right to, or choose another folder.",
                code="NO_RIGHT",
            )
        )
    except Exception:  # noqa: BLE001 - the one place where a defect becomes exit 1
        traceback.print_exc()
        print("bedside: this is a defect of bedside, not of your input; please report the lines above.", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def prepare() -> None:
    """Settle for a process of our own what a library leaves to its caller, before anything large is imported.

    Plugins of pydantic, which any installed package may bring, would be shown every value that is validated; and looking for
    them takes a tenth of the start.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    collect_seldom()


def _hear_no_more() -> None:
    """What ends is told to again and again, by SLURM's batch shell for one; a signal that came now would change the exit code.

    Python puts back what a signal does by default, which is to kill, while it ends; what is ignored stays ignored.
    """
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _hear_no_more()
    raise _Signalled(number)


def _report(error: BedsideError) -> int:
    print(f"bedside: {error.sentence}", file=sys.stderr)  # noqa: T201
    if not isinstance(error, GateRefused):
        _in_json(error)
    return error.exit_code


def _in_json(error: BedsideError) -> None:
    """Say it for programs, once: a gate that refuses has printed its result, which says so, before it raises."""
    if "--json" in sys.argv:
        body: dict[str, object] = {"code": error.code, "exit": error.exit_code, "sentence": error.sentence}
        if isinstance(error, ConfigError):
            body["problems"] = [problem._asdict() for problem in error.problems]
        print(json.dumps({"error": body}))  # noqa: T201
