"""The verbs. Each is a thin skin: what it does the library does in the same words."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedside.cli import options, plans, show
from bedside.cli.app import HERE, app, mirrored
from bedside.cli.bars import bars
from bedside.cli.options import Folder, Json, ModelName, Overrides, StudyPath, WhatIf
from bedside.core.errors import GateRefused, UsageError

if TYPE_CHECKING:
    from bedside.core.config import Config
    from bedside.promote.pipeline import Promotion


@app.command()
def ingest(
    study: StudyPath = HERE,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of scans (or .zip, .tar.gz of it), as in the study's source.")
    ] = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Make a version of the newest dataset: its cases and the new ones; else it stands alone."),
    ] = False,
    prove: Annotated[
        bool, typer.Option("--prove", help="Read phantoms in every geometry and syntax instead, and print errors in mm.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Every row of --prove.")] = False,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Check scans against the contract and store those that keep it as a dataset."""
    if prove:
        from bedside.cli.prove_view import run

        return run(json=json, verbose=verbose, what_if=what_if)
    if source is None:
        raise UsageError("Say where the scans are: bedside ingest STUDY --from FOLDER.", code="NO_SOURCE")
    config = options.load_config(study, overrides, folder)
    from bedside.adapters.nursery import fork_ahead
    from bedside.formats.archive import received
    from bedside.ingest.pipeline import ingest as step
    from bedside.ingest.pipeline import plan, summary

    if config.site.executor == "processes":
        fork_ahead("bedside.formats.header_pass", "bedside.ingest.convert")
    with received(source, config.workspace.scratch) as place, bars(quiet=json) as progress:
        if what_if:
            planned = plan(config, place, add=add, progress=progress)
            return show.as_json(planned) if json else show.plan(planned, verb="ingest")
        dataset = step(config, place, add=add, progress=progress)
    mirrored(config, quiet=json)
    return show.as_json(summary(dataset)) if json else show.dataset(dataset)


@app.command()
def evaluate(
    study: StudyPath = HERE,
    model: ModelName = "latest",
    split: Annotated[
        str, typer.Option("--split", help="test (locked, every reading is recorded), fold0, development, ...")
    ] = "test",
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Score a model per patient and structure, with intervals, and write a report."""
    config = options.load_config(study, overrides, folder)
    found = options.find_model(config, model)
    from bedside.core.dataset import Dataset
    from bedside.evaluate.pipeline import digest_of
    from bedside.evaluate.pipeline import evaluate as step
    from bedside.evaluate.report import write_report
    from bedside.promote.policy import freeze

    dataset = Dataset(found.spec.dataset, config.workspace)
    if what_if:
        planned = plans.evaluation(found, dataset, split)
        return show.as_json(planned) if json else show.plan(planned, verb="evaluate")
    freeze(config.workspace.ledger, config.promote)
    with bars(quiet=json) as progress:
        evidence = step(found, dataset.cases(split), settings=config.study.evaluate, progress=progress)
    digest = digest_of(evidence)
    report = write_report(evidence, config.workspace)
    mirrored(config, quiet=json)
    if json:
        return show.as_json({"evidence": digest, "report": str(report), **evidence.model_dump(mode="json")})
    show.evidence(evidence, digest)
    return typer.echo(f"report: {report}")


def evidence_digest(config: "Config", model: str) -> str:
    """Digest of the newest evidence of a model."""
    newest = ""
    for event in config.workspace.ledger.events():
        if event.action == "evaluated" and event.inputs.get("model") == model:
            newest = event.outputs["evidence"]
    if not newest:
        raise UsageError("This model was not evaluated yet; run bedside evaluate first.", code="NOT_YET")
    return newest


@app.command()
def promote(
    study: StudyPath = HERE,
    model: ModelName = "latest",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put the model before the present one back in production.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger (with --rollback).")] = "",
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Put a model into production if every gate lets it through; a refusal exits 5."""
    from bedside.core.evidence import load_evidence
    from bedside.promote import release
    from bedside.promote.pipeline import judge
    from bedside.promote.pipeline import promote as step

    config = options.load_config(study, overrides, folder)
    if rollback:
        if what_if:
            back = plans.rollback(config.workspace)
            return show.as_json(back) if json else show.plan(back, verb="promote --rollback")
        event = release.rollback(config.workspace, reason=reason or "not stated")
        return show.as_json(event) if json else typer.echo(f"model {event.inputs['model'][:12]} is in production again")
    found = options.find_model(config, model)
    evidence = load_evidence(config.workspace, evidence_digest(config, found.digest))
    decision = (judge if what_if else step)(found, evidence, config.promote)
    if json:
        show.as_json(decision)
    elif what_if:
        show.verdicts(decision.verdicts, title="bedside promote would find this (nothing was done)")
    else:
        show.promotion(decision)
    return _exit_if_refused(decision)


def _exit_if_refused(decision: "Promotion") -> None:
    if not decision.passed:
        refused = ", ".join(verdict.gate for verdict in decision.refusals)
        raise GateRefused(f"Not promoted: refused by {refused}.")


@app.command()
def accelerate(
    study: StudyPath = HERE,
    model: ModelName = "latest",
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Try faster forms of a model on real cases; one that is not faster here, or moves a Dice, is rejected by name."""
    config = options.load_config(study, overrides, folder)
    found = options.find_model(config, model)
    from bedside.accelerate.pipeline import try_stages
    from bedside.core.dataset import Dataset

    settings = config.study.accelerate
    if what_if:
        planned = plans.acceleration(found, settings)
        return show.as_json(planned) if json else show.plan(planned, verb="accelerate")
    cases = Dataset(found.spec.dataset, config.workspace).cases("calibrate", limit=settings.cases)
    with bars(quiet=json) as progress:
        table = try_stages(found, cases, settings=settings, progress=progress)
    mirrored(config, quiet=json)
    if json:
        return show.as_json(table)
    show.acceleration(table)
    return typer.echo(f"chosen: {table.chosen}")


@app.command()
def verify(
    study: StudyPath = HERE,
    model: Annotated[str, typer.Option("--model", help="Walk back from this model: digest, latest, fast or production.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Walk back from this digest (a run, dataset, evidence).")] = "",
    head: Annotated[str, typer.Option("--head", help="SEQ:HASH written down elsewhere; makes a cut tail visible.")] = "",
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Check the ledger's chain, hash every stored value again, and walk from a value back to the scans."""
    from bedside.core import custody

    config = options.load_config(study, overrides, folder)
    workspace = config.workspace
    if not workspace.exists():
        raise UsageError("There is no ledger in this study folder yet; run bedside ingest first.", code="NOT_YET")
    wanted = options.find_model(config, model).digest if model else workspace.find(subject) if subject else ""
    if what_if:
        count = sum(1 for _ in workspace.ledger.events())
        text = f"verify would read {count} events and hash {len(workspace.digests())} stored values; it never writes"
        return show.as_json({"events": count, "values": len(workspace.digests())}) if json else typer.echo(text)
    history = custody.verify(workspace, wanted, head=head or None)
    return show.as_json(history) if json else show.history(history)


@app.command()
def runs(
    study: StudyPath = HERE,
    production_at: Annotated[
        str, typer.Option("--production-at", metavar="DATE", help="Which model was in production then (ISO 8601, UTC).")
    ] = "",
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """List runs and their scores, jobs, unfinished trainings and who is in production; or who was in production when."""
    from bedside.cli.history import list_runs, show_production, show_runs
    from bedside.cli.jobs import RunsListed, list_jobs, list_unfinished, show_waiting

    config = options.load_config(study, overrides, folder)
    if what_if:
        return show.nothing("runs only reads the ledger; nothing would change", json=json)
    if production_at:
        return show_production(config.workspace, _date(production_at), json=json)
    listed, jobs, unfinished = list_runs(config.workspace), list_jobs(config), list_unfinished(config.workspace)
    if json:
        return show.as_json(RunsListed(runs=tuple(listed), jobs=tuple(jobs), unfinished=tuple(unfinished)))
    show_waiting(jobs, unfinished)
    return None if not listed and (jobs or unfinished) else show_runs(listed)


def _date(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError("The date is not ISO 8601; write 2026-11-21 or 2026-11-21T08:30:00+01:00.", code="DATE") from error
    if len(text) <= len("2026-11-21"):
        found = found.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@app.command()
def schema(
    site: Annotated[bool, typer.Option("--site", help="The schema of site.yaml instead of study.yaml.")] = False,
    overrides: Overrides = None,
    _json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Print the JSON schema of study.yaml (or site.yaml), with every registered part."""
    from bedside.core.config import Study
    from bedside.core.site import Site

    if overrides:
        raise UsageError("schema has no settings to override; it prints the schema of the files.", code="USAGE")
    if what_if:
        return show.nothing("schema only prints; nothing would change", json=_json)
    return show.as_json((Site if site else Study).model_json_schema(mode="validation"))


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option("--folder", help="Study folder of the demo; made if it is not there.")] = Path("demo"),
    patients: Annotated[int, typer.Option("--patients", min=12, help="Patients of the generated cohort.")] = 36,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Run the whole chain on a generated cohort: DICOM in, a promoted, exported and verified model out."""
    from bedside.demo import demo as chain
    from bedside.demo import plan

    if what_if:
        planned = plan(folder, patients=patients, overrides=overrides or ())
        return show.as_json(planned) if json else show.plan(planned, verb="demo")
    with bars(quiet=json) as progress:
        result = chain(folder, patients=patients, overrides=overrides or (), progress=progress)
    if json:
        show.as_json(result.summary())
        return _exit_if_refused(result.promotion)
    show.dataset(result.dataset)
    show.run(result.run)
    show.evidence(result.evidence, result.evidence_digest)
    show.promotion(result.promotion)
    show.acceleration(result.acceleration)
    show.mirrored(result.mirrored)
    typer.echo(f"report: {result.report}")
    typer.echo(f"the chain took {result.seconds:.0f} s")
    show.history(result.history)
    return _exit_if_refused(result.promotion)
