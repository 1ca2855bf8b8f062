"""From a stored model to a report with the real engine: nothing stands in for anything."""

import numpy as np
import pytest

from bedside.core.config import Evaluate
from bedside.core.evidence import load_evidence
from bedside.evaluate.pipeline import digest_of, evaluate
from bedside.evaluate.report import write_report


def random_weights(folder):
    import torch
    from safetensors.torch import save_file

    from bedside.networks.unet import UNet

    torch.manual_seed(0)
    save_file(UNet(features=2, levels=2, residual_units=0).build(1, 3).state_dict(), folder / "weights.safetensors")


def too_wide(mask: np.ndarray) -> np.ndarray:
    return mask[:3]  # fewer voxels along one axis than the contract allows


@pytest.fixture
def model(study):
    return study.model(write=random_weights)


def test_an_untrained_model_is_scored_reported_and_chained(study, model):
    planned = [study.planned("a", "pa"), study.planned("b", "pb"), study.planned("flat", "pc", mask=too_wide(study.boxes()))]
    cases = study.dataset(planned).cases("test")
    found = evaluate(model, cases, settings=Evaluate(overlap=0.25, resamples=200))
    assert found.settings["failed"] == {"flat": "EXTENT"}
    assert found.model == model.digest
    assert found.engine == model.spec.engine
    assert all(0.0 <= value <= 1.0 for rows in found.scores["dice"].values() for value in rows.values())
    assert load_evidence(study.workspace, digest_of(found)) == found
    assert "EXTENT" in write_report(found, workspace=study.workspace).read_text(encoding="utf-8")
    assert study.workspace.ledger.verify().intact


def test_scores_repeat_exactly(study, model):
    cases = study.dataset([study.planned("a", "pa"), study.planned("b", "pb")]).cases("test")
    first, second = (evaluate(model, cases, settings=Evaluate(resamples=200)) for _ in range(2))
    assert first.scores == second.scores
    assert first.summaries == second.summaries
