"""The number of steps of a budget in minutes, corrected where the machine turns out slower or faster than it began."""

from bedside.core.run import PlannedSteps
from bedside.train.checkpoint import Position

REPLAN_AT = (0.08, 0.25, 0.5, 0.75, 0.9)
REPLAN_BEYOND = 0.1


class Replans:
    """Keeps a budget of minutes on a machine whose speed changes: says when the number of steps has to be corrected.

    At a few fixed shares of the budget the speed since the last look is extrapolated; a plan that is off by more than 10 % is
    corrected. With `train.steps` there is no budget and nothing is ever corrected.
    """

    def __init__(self, position: Position, minutes: float | None) -> None:
        self.budget_seconds = 60 * minutes if minutes is not None else None
        self.seconds, self.step = position.seconds, position.step

    def due(self, position: Position) -> int | None:
        """Return the corrected total after this step, or None where the plan stands."""
        budget = self.budget_seconds
        if budget is None or position.step >= position.total_steps or position.step == self.step:
            return None
        if not any(self.seconds < share * budget <= position.seconds for share in REPLAN_AT):
            return None
        rate = (position.seconds - self.seconds) / (position.step - self.step)
        self.seconds, self.step = position.seconds, position.step
        total = position.step + max(1, int((budget - position.seconds) / rate))
        return total if abs(total - position.total_steps) > REPLAN_BEYOND * position.total_steps else None


class Replay:
    """Follows the corrections that another training made, step by step, whatever the time is.

    Args:
        schedule: as recorded, the first plan in front.
    """

    def __init__(self, schedule: tuple[PlannedSteps, ...]) -> None:
        self.first = schedule[0].total
        self.corrections = schedule[1:]

    def due(self, position: Position) -> int | None:
        """Return the total that was taken up after this step, or None where none was or it is taken up already."""
        later = [plan for plan in self.corrections if plan.at == position.step and plan not in position.schedule]
        return later[0].total if later else None
