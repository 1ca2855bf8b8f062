"""An answer must come in time."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bedside.core.evidence import Verdict
from bedside.core.record import Part
from bedside.core.task import GateInput


class Latency(Part):
    """95 of 100 cases are answered within a time, measured end to end (read, preprocess, infer, postprocess).

    Attributes:
        p95_seconds: largest 95th percentile over the cases (linear interpolation between neighbours, as `numpy.percentile`).
        engine: name of the engine that must have done it; None: whichever was measured.
    """

    kind: ClassVar[str] = "gate"
    part_name: ClassVar[str] = "latency"

    p95_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    engine: str | None = None

    def judge(self, given: GateInput) -> Verdict:
        """Compare the candidate's timings with the limit."""
        evidence = given.candidate
        used = str(evidence.engine.get("name", "unknown"))
        if self.engine is not None and used != self.engine:
            because = f"The timings are those of the engine {used}; the rule asks for {self.engine}, so evaluate with that one."
            return Verdict(gate=self.part_name, passed=False, because=because, numbers={"engine": used})
        seconds = np.array([timing.seconds for timing in evidence.timings.values()], dtype=np.float64)
        if seconds.size == 0 or not np.isfinite(seconds).all():
            because = "Not every case has a time, or none was timed, so nothing shows that answers come in time."
            return Verdict(gate=self.part_name, passed=False, because=because, numbers={"engine": used})
        p95 = float(np.percentile(seconds, 95))
        passed = p95 <= self.p95_seconds
        return Verdict(
            gate=self.part_name,
            passed=passed,
            because=(
                f"95 of 100 cases took at most {p95:.3g} s with {used} (n={seconds.size}), which"
                f" {'is within' if passed else 'exceeds'} the limit of {self.p95_seconds:g} s."
            ),
            numbers={"p95_seconds": p95, "limit_seconds": self.p95_seconds, "n": int(seconds.size), "engine": used},
        )
