"""What is measured before a training's first step: its precision, whether compiled steps pay, and how long a step takes."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bedside.core.config import Train
from bedside.core.errors import UsageError
from bedside.core.plan import Choice, Plan
from bedside.train.compiling import COMPILE, compile_steps, compiler_problem, decided
from bedside.train.loop import Learner, fastest_precision, step_seconds
from bedside.train.memory import is_out_of_memory, release

LEAST_MINUTES = 10.0
"""With a smaller budget the minute that it takes to compile is not won back."""
LEAST_GAIN = 0.05
"""A compiled step must be quicker by this share, so that chance does not decide."""
TIMED = 3


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        precision: of the steps; seconds: of one, 0.0 where nothing had to be timed.
        compile: whether steps are compiled ("on" or "off") and why; None: nobody asked.
    """

    precision: str
    seconds: float
    compile: Choice | None = None


def calibrate(make: Callable[[str], Learner], plan: Plan, train: Train, *, repeats: bool) -> Calibration:
    """Resolve what the study leaves to measurement, with throw-away learners.

    Args:
        make: a learner of a precision with fresh weights.
        plan: of the training.
        train: what the study asks.
        repeats: whether another training is done again, and its choices hold.

    Raises:
        UsageError: COMPILER, when steps must be compiled and cannot be.
    """
    wanted, given = plan.precision, plan.steps is not None or repeats
    if wanted == "auto" and train.deterministic:
        wanted = "fp32"
    precision, seconds = (wanted, 0.0) if given and wanted != "auto" else fastest_precision(make, wanted)
    release()
    asked = decided(plan) or Choice(what=COMPILE, value=train.compile, because="asked for")
    if asked.value == "on":
        found = _steps(make(precision), 0 if given else TIMED)
        return Calibration(precision, median(found) if found else seconds, asked)
    if asked.value == "off":
        return Calibration(precision, seconds, decided(plan))
    reason = _no_need_to_measure(train, given=given)
    if reason:
        return Calibration(precision, seconds, Choice(what=COMPILE, value="off", because=reason))
    return _quicker(make, precision, seconds)


def _no_need_to_measure(train: Train, *, given: bool) -> str:
    if train.deterministic or given:
        return "what is measured may differ the next time, and this training has to repeat"
    if train.minutes is not None and train.minutes < LEAST_MINUTES:
        return f"in less than {LEAST_MINUTES:g} minutes compiling is not won back"
    return compiler_problem()


def _quicker(make: Callable[[str], Learner], precision: str, seconds: float) -> Calibration:
    """Time a few steps both ways; compiled ones must win clearly."""
    plain = step_seconds(make(precision), warm_up=1, timed=TIMED)
    release()
    try:
        fast = _steps(make(precision), TIMED)
    except UsageError as error:
        return Calibration(precision, seconds, Choice(what=COMPILE, value="off", because=error.sentence))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        because = "compiled steps need more memory than there is"
        return Calibration(precision, seconds, Choice(what=COMPILE, value="off", because=because))
    said = f"a step took {min(fast):.3g} s compiled and {min(plain):.3g} s as it is"
    if min(fast) > (1 - LEAST_GAIN) * min(plain):
        return Calibration(precision, seconds, Choice(what=COMPILE, value="off", because=said))
    return Calibration(precision, median(fast), Choice(what=COMPILE, value="on", because=said))


def _steps(learner: Learner, count: int) -> list[float]:
    """Durations of compiled steps."""
    compile_steps(learner)
    return step_seconds(learner, warm_up=1, timed=count) if count else []
