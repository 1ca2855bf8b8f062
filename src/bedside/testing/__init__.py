"""Conformance suites: what every task, network, engine and gate must keep, for those who write one.

    from bedside.testing import check_gate

    def test_my_gate_conforms():
        check_gate(MyGate(margin=0.02))

Our own tests run them over every registered part. A broken promise is an `AssertionError` that says which one. The suites need
no test framework, and import torch only where they use it.
"""

from bedside.testing.parts import check_engine, check_gate, check_network, check_part
from bedside.testing.samples import (
    CONTRACT,
    SIDE,
    GateExample,
    gate_example,
    sample_case,
    sample_classroom,
    sample_evidence,
    tiny_model,
)
from bedside.testing.tasks import check_task

__all__ = [
    "CONTRACT",
    "SIDE",
    "GateExample",
    "check_engine",
    "check_gate",
    "check_network",
    "check_part",
    "check_task",
    "gate_example",
    "sample_case",
    "sample_classroom",
    "sample_evidence",
    "tiny_model",
]
