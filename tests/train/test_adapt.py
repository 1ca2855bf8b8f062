"""Claims about beginning with other weights: what fits is taken, what rests does not move by a bit, and rates apply."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from bedside.core import custody
from bedside.core.config import load
from bedside.core.digest import digest_file
from bedside.core.errors import ConfigError, UsageError
from bedside.engines.torch import load_network
from bedside.networks.unet import UNet
from bedside.tasks.segmentation import Segmentation
from bedside.train.adapt import Layers, matching
from bedside.train.begin import find_parent, settled
from bedside.train.pipeline import plan, train

from .conftest import write_study


@pytest.fixture
def parent(config, dataset):
    config = load(config.workspace.folder, overrides=["train.steps=4", "train.seed=9"])
    return train(config, dataset)


def tuned(config, parent, *overrides, steps=4):
    return load(config.workspace.folder, overrides=[f"train.from={parent}", f"train.steps={steps}", *overrides])


def test_a_training_begins_with_the_weights_of_its_parent(config, dataset, parent):
    rates = '{"*": 1e-12}'  # next to nothing is learned, so what comes out is what went in
    run = train(
        tuned(config, parent.model, f"train.layer_rates={rates}", "train.ema=0.0", "train.weight_decay=0", steps=1), dataset
    )
    mine, theirs = load_file(run.best().weights), load_file(parent.best().weights)
    weights = [name for name in mine if name.endswith("weight")]
    assert weights
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-9) for name in weights)


def test_the_parent_stands_in_model_run_and_ledger_and_verify_walks_back_through_it(config, dataset, parent):
    run = train(tuned(config, parent.model[:12]), dataset)
    assert run.best().spec.parent == run.record.parent == parent.model
    assert run.record.begun.taken == run.record.begun.of
    assert [incident.code for incident in run.record.incidents] == ["BEGUN_FROM"]
    event = config.workspace.ledger.last("trained")
    assert event.inputs["parent"] == parent.model
    behind = [event.action for event in custody.verify(run.best()).events]
    assert behind == ["ingested", "trained", "trained"]


def test_a_resumed_fine_tuning_gives_the_weights_of_one_that_was_never_stopped(config, dataset, parent):
    staged = "train.unfreeze=[{at: 0, layers: decoder}, {at: 0.5, layers: all}]"
    whole = train(tuned(config, parent.model, staged, steps=6), dataset)
    from bedside.core.errors import Interrupted
    from bedside.train.sitting import Sitting

    plain, done = Sitting._do_step, []

    def stop_after_four(self):
        if len(done) == 4:
            self._save()
            raise Interrupted("stopped")
        done.append(1)
        return plain(self)

    Sitting._do_step = stop_after_four
    try:
        with pytest.raises(Interrupted):
            train(tuned(config, parent.model, staged, steps=6), dataset, fresh=True)
    finally:
        Sitting._do_step = plain
    again = train(tuned(config, parent.model, staged, "train.checkpoint_minutes=3", steps=6), dataset)
    found = train(tuned(config, parent.model, staged, steps=6), dataset)
    assert digest_file(found.best().weights) == digest_file(whole.best().weights) == digest_file(again.best().weights)


def test_frozen_weights_and_their_running_means_do_not_move_by_a_bit(config, dataset, parent):
    run = train(tuned(config, parent.model, "train.unfreeze=[{at: 0, layers: [model.2]}]"), dataset)
    mine, theirs = load_file(run.best().weights), load_file(parent.best().weights)
    moved = {name for name in mine if not torch.equal(mine[name], theirs[name])}
    assert moved
    assert all(name.startswith("model.2") for name in moved)


def test_layers_join_in_at_their_share_of_the_steps(config, dataset, parent):
    later = "train.unfreeze=[{at: 0, layers: decoder}, {at: 0.75, layers: all}]"
    three = train(tuned(config, parent.model, later, steps=4), dataset)
    theirs = load_file(parent.best().weights)
    mine = load_file(three.best().weights)
    assert not torch.equal(mine["model.0.conv.weight"], theirs["model.0.conv.weight"])
    layers = Layers({}, ((0.0, frozenset("a")), (0.75, frozenset("b"))))
    assert [layers.learning(step / 4) for step in range(4)] == [frozenset("a")] * 3 + [frozenset("ab")]


def test_a_rate_of_a_layer_multiplies_its_steps(config, dataset, parent):
    """The first step of Adam has the size of the rate, whatever the gradient."""
    still = ["train.ema=0.0", "train.weight_decay=0"]
    run = train(tuned(config, parent.model, 'train.layer_rates={"model.0": 0.01}', *still, steps=1), dataset)
    mine, theirs = load_file(run.best().weights), load_file(parent.best().weights)
    moved = {name: float((mine[name] - theirs[name]).abs().max()) for name in mine if name.endswith("conv.weight")}
    slow = [size for name, size in moved.items() if name.startswith("model.0")]
    quick = [size for name, size in moved.items() if not name.startswith("model.0")]
    # the average of weights takes a tenth of the old ones at first: a rate of 2e-3 in one step of warm-up
    assert max(slow) == pytest.approx(0.01 * max(quick), rel=0.05)


def test_other_classes_get_a_new_head_and_the_rest_is_taken(config, dataset, parent):
    net = UNet(features=4, levels=2, residual_units=0).build(1, 3)
    weights = load_file(parent.best().weights)
    head = frozenset(name for name in net.state_dict() if name.startswith("model.2"))
    start = matching(net, weights, parent=parent.model, head=head, same=False)
    assert set(net.state_dict()) - set(start.tensors) == head
    assert "the output head is new" in start.matched.said


def test_weights_of_another_network_are_refused(config, dataset, parent):
    with pytest.raises(UsageError) as caught:
        train(tuned(config, parent.model, "network.features=6"), dataset)
    assert caught.value.code == "PARENT_MISMATCH"


def test_a_pattern_without_a_layer_is_refused_with_the_names_there_are(config, dataset, parent):
    with pytest.raises(UsageError, match=r"No weight of the network is called encoder\.9"):
        train(tuned(config, parent.model, "train.unfreeze=[{at: 0, layers: [encoder.9]}]"), dataset)


@pytest.mark.parametrize("change", ["train.unfreeze=[{at: 0, layers: all}]", "train.layer_rates={'a b': 1}"])
def test_freezing_without_a_parent_and_odd_patterns_are_wrong_in_the_study(config, change):
    with pytest.raises(ConfigError):
        load(config.workspace.folder, overrides=[change])


def test_what_is_open_in_the_study_is_the_parents(config, dataset, parent):
    bare = load(config.workspace.folder, overrides=["network=null", "train.patch=null", f"train.from={parent.model}"])
    found = settled(bare).study
    assert found.network == config.study.network
    assert found.train.patch == (16, 16, 16)
    assert found.preprocess == parent.best().spec.preprocessing


def test_weights_from_outside_become_a_value_of_the_store_once(config, dataset, parent, tmp_path):
    net = load_network(parent.best())
    save_file({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "theirs.safetensors")
    asked = load(config.workspace.folder, overrides=[f"train.from={tmp_path / 'theirs.safetensors'}", "train.steps=4"])
    before = len(config.workspace.digests())
    assert plan(asked, dataset).done_before is False
    assert len(config.workspace.digests()) == before
    run = train(asked, dataset)
    assert train(asked, dataset) == run
    event = config.workspace.ledger.last("adopted")
    assert event.outputs["weights"] == run.record.parent
    assert event.facts["source"] == digest_file(tmp_path / "theirs.safetensors")
    assert [event.action for event in custody.verify(run.best()).events] == ["ingested", "adopted", "trained"]
    assert run.record.begun.head  # nobody knows the classes of such a file
    assert find_parent(config.workspace, run.record.parent).model is None


def test_a_bundle_with_the_same_classes_keeps_its_head(config, dataset, parent, tmp_path):
    bundle = tmp_path / "bundle"
    for folder in ("configs", "models"):
        (bundle / folder).mkdir(parents=True)
    (bundle / "configs" / "inference.json").write_text(json.dumps({"network_def": {"_target_": "UNet", "x": "$print(1)"}}))
    channels = {"0": "background", "1": "ball"}
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": channels}}}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(load_network(parent.best()).state_dict(), bundle / "models" / "model.pt")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for path in sorted(bundle.rglob("*.*")):
            archive.write(path, f"theirs/{path.relative_to(bundle)}")
    folder = train(load(config.workspace.folder, overrides=[f"train.from={bundle}", "train.steps=2"]), dataset)
    zipped = train(load(config.workspace.folder, overrides=[f"train.from={tmp_path / 'bundle.zip'}", "train.steps=2"]), dataset)
    assert folder == zipped
    assert not folder.record.begun.head
    assert folder.record.begun.taken == folder.record.begun.of


def test_a_study_says_from_and_its_tree_is_read_back(tmp_path):
    config = load(write_study(tmp_path / "balls", **{"from": "ab" * 32}))
    again = type(config.study).model_validate(config.study.model_dump(mode="json"))
    assert again == config.study
    assert again.train.parent == "ab" * 32
    assert isinstance(again.task, Segmentation)
