"""The command line's application, which the verbs' modules add themselves to."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from typer.core import TyperCommand

from bedside.cli import show
from bedside.cli.bars import bars

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer.models import CommandInfo

    from bedside.core.config import Config

HERE = Path("study.yaml")
app = typer.Typer(
    name="bedside",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from bedside import __version__

        typer.echo(f"bedside {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Medical images from the scanner to a decision at the bedside, every step provable.

    Exit codes: 0 yes; 1 a defect of ours; 2 wrong use; 3 input rejected; 4 integrity broken; 5 a gate refused; 6 out of disk,
    memory or a limit; 7 unsafe artefact or not authorised; 8 interrupted, resumable.
    """


class Comparing(TyperCommand):
    """A verb that also takes the word diff before two things to compare; a folder called that is `./diff` there."""

    said_as: ClassVar[tuple[str, ...]] = ()

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Put what the verb calls a comparison in the place of the word."""
        at = 1 if args[:1] == ["--json"] else 0
        compared = args[at + 1 : at + 3]
        if args[at : at + 1] == ["diff"] and len(compared) == 2 and not any(word.startswith("-") for word in compared):
            args = [*args[:at], *self.said_as, *args[at + 1 :]]
        return super().parse_args(ctx, args)


class ComparingVersions(Comparing):
    """`diff A B` is `--diff A B`."""

    said_as = ("--diff",)


def mirrored(config: "Config", *, quiet: bool) -> None:
    """Let the version store and the tracker catch up with the ledger, and say what they did."""
    from bedside.mirror import mirror

    with bars(quiet=quiet) as progress:
        show.mirrored(mirror(config, progress=progress))


_VERB_MODULES = (
    "bedside.cli.verbs",
    "bedside.cli.train",
    "bedside.cli.ensemble",
    "bedside.cli.predict",
    "bedside.cli.datasets",
    "bedside.cli.deidentify",
    "bedside.cli.init",
    "bedside.cli.quality",
    "bedside.cli.labels",
    "bedside.cli.recreate",
    "bedside.cli.retrain",
)
"""Modules whose import adds verbs."""
_VERBS = {
    "init": "Propose a study.yaml for a folder of scans.",
    "ingest": "Check scans against the contract and store them.",
    "deidentify": "Write DICOM files without identity, certified.",
    "datasets": "List versions of the dataset, compare two.",
    "quality": "Report outliers, groups and leaks of a dataset.",
    "labels": "Show a label map, or compare two.",
    "train": "Train in the study's minutes; goes on by itself.",
    "ensemble": "Make one model of the models of several folds.",
    "recreate": "Do a run again and compare it with itself.",
    "retrain": "Train on newer data, compare old and new model.",
    "evaluate": "Score a model per patient and structure.",
    "promote": "Put a model into production if every gate agrees.",
    "accelerate": "Keep forms of a model that are faster and the same.",
    "predict": "Masks, surfaces and DICOM SEG of received series.",
    "verify": "Check the chain, and every stored byte again.",
    "runs": "List runs, and who is in production.",
    "schema": "Print the JSON schema of study.yaml or site.yaml.",
    "demo": "Run the whole chain on a generated cohort.",
}
"""What the list of verbs says of each, in the order of the chain; one line of a narrow terminal."""


def application() -> typer.Typer:
    """The whole command line, every verb added."""
    for module in _VERB_MODULES:
        import_module(module)
    order = list(_VERBS)
    for command in app.registered_commands:
        command.short_help = _VERBS[_name(command)]
    app.registered_commands.sort(key=lambda command: order.index(_name(command)))
    return app


def _name(command: "CommandInfo") -> str:
    return command.name or command.callback.__name__ if command.callback else ""
