"""Claims about what a process may use: the smallest limit counts."""

import resource

import pytest

from bedside.adapters.machine import machine, own_groups


@pytest.fixture
def cgroups(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    return tmp_path


def test_slurm_memory_and_cores_are_limits(cgroups):
    free = machine(environ={}, cgroups=cgroups)
    given = machine(environ={"SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "512"}, cgroups=cgroups)
    assert given.cores == 1
    assert given.memory_mb == pytest.approx(512 * 1.048576)
    assert given.memory_mb < free.memory_mb
    assert machine(environ={"SLURM_MEM_PER_NODE": "700"}, cgroups=cgroups).memory_mb == pytest.approx(700 * 1.048576)


def test_a_control_group_limits_memory_and_processors(cgroups):
    (cgroups / "memory.max").write_text("900000000\n")
    (cgroups / "cpu.max").write_text("50000 100000\n")
    found = machine(environ={}, cgroups=cgroups)
    assert found.memory_mb == 900
    assert found.cores == 1


def test_a_version_1_group_limits_memory(cgroups):
    (cgroups / "memory").mkdir()
    (cgroups / "memory" / "memory.limit_in_bytes").write_text("800000000\n")
    assert machine(environ={}, cgroups=cgroups).memory_mb == 800


def test_nonsense_from_outside_limits_nothing(cgroups):
    free = machine(environ={}, cgroups=cgroups)
    (cgroups / "cpu.max").write_text("\u00b2 100000\n")
    odd = {"SLURM_CPUS_PER_TASK": "2(x3)", "SLURM_MEM_PER_NODE": "-5", "SLURM_MEM_PER_CPU": ""}
    assert machine(environ=odd, cgroups=cgroups) == free


def test_an_address_space_limit_is_a_limit(cgroups):
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (20_000_000_000, before[1]))
    try:
        assert machine(environ={}, cgroups=cgroups).memory_mb <= 20_000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_the_groups_of_a_process_stay_below_the_mount(cgroups):
    assert all(group == cgroups or cgroups in group.parents for group in own_groups(cgroups))
