"""Claims about what a training is said to have taken."""

import pytest
import torch

from bedside.core.run import Cost, CurvePoint
from bedside.train import meter
from bedside.train.checkpoint import Position
from bedside.train.meter import Meter, joules_between, microjoules


def zone(folder, name: str, value: int) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{value}\n")
    (folder / name / "max_energy_range_uj").write_text("1000000\n")


def test_energy_is_counted_once_for_each_package_and_a_counter_may_wrap(tmp_path):
    assert microjoules(tmp_path) is None
    for name, value in (("intel-rapl:0", 900_000), ("intel-rapl:0:0", 500_000), ("intel-rapl:1", 100_000)):
        zone(tmp_path, name, value)
    before = microjoules(tmp_path)
    assert sorted(before) == ["intel-rapl:0", "intel-rapl:1"]
    zone(tmp_path, "intel-rapl:0", 150_000)
    zone(tmp_path, "intel-rapl:1", 350_000)
    assert joules_between(before, microjoules(tmp_path)) == pytest.approx(0.5)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert microjoules(tmp_path) is None
    assert joules_between(before, None) is None


def test_without_a_counter_energy_is_processor_time_times_the_stated_watts_and_marked(monkeypatch):
    monkeypatch.setattr(meter, "microjoules", lambda: None)
    seconds = iter((10.0, 14.0))
    monkeypatch.setattr(meter, "cpu_seconds", lambda: next(seconds))
    one = Meter(Cost(wall_seconds=5.0, cpu_seconds=3.0, joules=7.0), 12.0, _counters=None, _cpu_began=meter.cpu_seconds())
    found = one.cost()
    assert (found.cpu_seconds, found.joules, found.measured) == (7.0, 7.0 + 4 * 12.0, False)


def test_shares_are_of_the_steps_and_of_all_processors():
    cost = Cost(wall_seconds=10.0, cpu_seconds=15.0, step_seconds=6.0, data_seconds=2.0)
    assert cost.data_wait_share == 0.25
    assert cost.utilisation(2) == 0.75
    assert Cost().data_wait_share == 0.0


def test_the_live_numbers_are_those_of_the_record_and_of_the_curve(monkeypatch):
    monkeypatch.setattr(meter, "microjoules", lambda: None)
    monkeypatch.setattr(meter, "cpu_seconds", lambda: 3.0)
    monkeypatch.setattr(meter.time, "perf_counter", lambda: 10.0)
    before = Cost(wall_seconds=2.0, cpu_seconds=1.0, joules=5.0)
    one = Meter(before, 10.0, step_seconds=3.0, data_seconds=1.0, steps=8, _began=6.0, _cpu_began=0.0, _counters=None)
    curve = tuple(CurvePoint(step=step, minutes=1.0, loss=0.5, score=score) for step, score in ((1, 0.7), (2, 0.9), (3, None)))
    position = Position(step=30, total_steps=120, seconds=60.0, resumed=1, precision="fp32", curve=curve)
    found = one.live(position, 0.4321, training="train-0")
    assert (found.minutes, found.minutes_left, found.loss, found.score) == (1.0, 3.0, 0.4321, 0.9)
    assert (found.seconds_per_step, found.data_wait_share) == (0.5, 0.25)
    assert (found.joules, found.measured) == (35.0, False)
    assert found.utilisation == one.cost().utilisation(torch.get_num_threads()) == 4.0 / 6.0 / torch.get_num_threads()
    assert 0 < found.memory_mb <= found.peak_memory_mb * 1.01
    assert str(found).endswith(" MB, 0.01 Wh (estimate), Dice 0.900")


def test_there_is_no_score_before_the_first_validation():
    position = Position(step=1, total_steps=2, seconds=1.0, resumed=0, precision="fp32")
    assert "Dice" not in str(Meter(Cost(), 10.0, steps=1).live(position, 1.0, training="train-0"))
