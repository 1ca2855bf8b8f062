"""From a model's weights back to every scan, or a sentence that says where the chain ends."""

import shutil

import pytest

from bedside.core.custody import lineage, verify
from bedside.core.errors import IntegrityError
from bedside.core.workspace import Workspace


def put(workspace: Workspace, text: str) -> str:
    with workspace.staging() as staged:
        (staged / "file").write_text(text)
        return workspace.put(staged)


def chain(workspace: Workspace) -> dict[str, str]:
    """Two datasets, one model and a faster form of it, one evidence."""
    made = {name: put(workspace, name) for name in ("dataset", "other", "model", "run", "evidence", "fast", "table")}
    ledger = workspace.ledger
    for case in ("1", "2", "3"):
        ledger.append("case_accepted", inputs={"image": case * 64, "label": f"a{case}" * 32}, outputs={"case": f"b{case}" * 32})
    ledger.append("ingested", inputs={"c1": "b1" * 32, "c2": "b2" * 32}, outputs={"dataset": made["dataset"]})
    ledger.append("ingested", inputs={"c3": "b3" * 32}, outputs={"dataset": made["other"]})
    ledger.append("trained", inputs={"dataset": made["dataset"]}, outputs={"model": made["model"], "run": made["run"]})
    ledger.append(
        "evaluated", inputs={"model": made["model"], "dataset": made["dataset"]}, outputs={"evidence": made["evidence"]}
    )
    ledger.append("accelerated", inputs={"model": made["model"]}, outputs={"model": made["fast"], "evidence": made["table"]})
    return made


def test_a_model_leads_back_to_its_own_scans_and_no_others(workspace: Workspace) -> None:
    made = chain(workspace)
    history = verify(workspace, made["fast"])
    assert [event.action for event in history.events] == ["case_accepted", "case_accepted", "ingested", "trained", "accelerated"]
    assert history.scans == tuple(sorted(["1" * 64, "2" * 64, "a1" * 32, "a2" * 32]))
    assert (history.checked, history.absent) == (5, ())
    assert str(history.chain) == "8 events, chain intact"


def test_the_whole_study_is_checked_when_nothing_is_named(workspace: Workspace) -> None:
    chain(workspace)
    history = verify(workspace)
    assert len(history.events) == 8
    assert history.checked == 7
    assert len(history.scans) == 6


def test_changed_bytes_anywhere_in_the_lineage_are_found(workspace: Workspace) -> None:
    made = chain(workspace)
    path = workspace.store / made["dataset"] / "file"
    path.chmod(0o644)
    path.write_text("x")
    with pytest.raises(IntegrityError, match="changed"):
        verify(workspace, made["fast"])


def test_bytes_that_are_elsewhere_are_listed_and_not_an_error(workspace: Workspace) -> None:
    made = chain(workspace)
    shutil.rmtree(workspace.store / made["run"])
    history = verify(workspace, made["model"])
    assert history.absent == (made["run"],)
    assert history.checked == 2


def test_an_edited_ledger_is_refused_by_its_first_bad_line(workspace: Workspace) -> None:
    chain(workspace)
    data = workspace.ledger.path.read_bytes().splitlines(keepends=True)
    data[4] = data[4].replace(b'"c3"', b'"c9"')
    workspace.ledger.path.write_bytes(b"".join(data))
    with pytest.raises(IntegrityError, match="line 5"):
        verify(workspace)


def test_a_cut_tail_is_refused_when_a_head_is_given(workspace: Workspace) -> None:
    chain(workspace)
    head = workspace.ledger.verify().head
    data = workspace.ledger.path.read_bytes().splitlines(keepends=True)
    workspace.ledger.path.write_bytes(b"".join(data[:-1]))
    verify(workspace)
    with pytest.raises(IntegrityError, match="tail was cut"):
        verify(workspace, head=head)


def test_a_value_that_nothing_made_has_no_history(workspace: Workspace) -> None:
    chain(workspace)
    with pytest.raises(IntegrityError, match="no history") as caught:
        verify(workspace, put(workspace, "from nowhere"))
    assert caught.value.exit_code == 4


def test_a_lineage_that_runs_in_a_circle_ends(workspace: Workspace) -> None:
    workspace.ledger.append("accelerated", inputs={"model": "a" * 64}, outputs={"model": "b" * 64})
    workspace.ledger.append("accelerated", inputs={"model": "b" * 64}, outputs={"model": "a" * 64})
    assert len(lineage(workspace.ledger.events(), "a" * 64)) == 2
