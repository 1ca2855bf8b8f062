"""What the trainings of `train --seeds` leave in the ledger, for those that write it and those that read it."""

COMPARED = "seeds_compared"
"""The event; its fact `noise_floor` is in the unit of its fact `metric`."""
METRIC = "dice"
"""The one metric whose spread is measured, as the mean over structures on the left-out fold."""
