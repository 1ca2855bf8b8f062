"""What `train --seeds` prints."""

from typing import TYPE_CHECKING

from rich.table import Table

from bedside.cli import show

if TYPE_CHECKING:
    from bedside.train.seeds import SeedSpread


def show_spread(found: "SeedSpread", digest: str) -> None:
    """One row for each seed, then what they say together."""
    table = Table(title=f"seeds {digest[:12]}: best mean Dice on fold {found.fold}")
    for name in ("seed", "run", "model", "Dice"):
        table.add_column(name, justify="right" if name in {"seed", "Dice"} else "left")
    for one in found.trainings:
        table.add_row(str(one.seed), one.run[:12], one.model[:12], f"{one.score:.4f}")
    out = show.console()
    out.print(table)
    out.print(f"mean {found.mean:.4f}, standard deviation {found.sd:.4f}, from {found.lowest:.4f} to {found.highest:.4f}")
    out.print(
        f"noise floor {found.noise_floor:.4f}: a difference below it may be chance of the seed"
        f" ({len(found.trainings)} seeds; the non_inferiority gate says so of a smaller margin, the superiority gate refuses a"
        " smaller gain)"
    )
