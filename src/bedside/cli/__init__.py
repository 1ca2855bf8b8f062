"""The command line: one verb per step. Results on stdout, `--json` for programs, everything else on stderr."""

import json
import signal
import sys
import traceback
from types import FrameType

from bedside.core.errors import BedsideError, ConfigError, Interrupted, ResourceError, disk_errors


def main() -> None:
    """Run the command line and exit with the code of core.errors; a traceback is only ever shown for a defect of ours."""
    sys.exit(run())


def run() -> int:
    """Run the command line and return its exit code."""
    from bedside.cli.app import application

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with disk_errors("writing a result"):
            application()(prog_name="bedside")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BedsideError as error:
        return _report(error)
    except MemoryError:
        return _report(
            ResourceError("There is not enough memory; make the patch, the batch or the input smaller.", code="MEMORY")
        )
    except BrokenPipeError:
        return 0
    except Exception:  # noqa: BLE001 - the one place where a defect becomes exit 1
        traceback.print_exc()
        print("bedside: this is a defect of bedside, not of your input; please report the lines above.", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(f"Stopped by {signal.Signals(number).name}; what was finished is kept, and the same command goes on.")


def _report(error: BedsideError) -> int:
    print(f"bedside: {error.sentence}", file=sys.stderr)  # noqa: T201
    if "--json" in sys.argv:
        body: dict[str, object] = {"code": error.code, "exit": error.exit_code, "sentence": error.sentence}
        if isinstance(error, ConfigError):
            body["problems"] = [problem._asdict() for problem in error.problems]
        print(json.dumps({"error": body}))  # noqa: T201
    return error.exit_code
