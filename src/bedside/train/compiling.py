"""Compiled steps (`torch.compile`): the same function of the same weights under the same names, from code made for this machine.

The kernels are torch inductor's. On a processor they are C++, and a compiler must be there. Sums are taken in another order than
without, so the weights that come out differ in their last digits; whether a training is compiled is therefore kept with it.
"""

import os
import shutil
import sys
from pathlib import Path

import torch

from bedside.core.errors import UsageError
from bedside.core.plan import Choice, Plan
from bedside.train import randomness
from bedside.train.loop import Learner
from bedside.train.memory import is_out_of_memory

COMPILE = "compile"
"""The name of the choice in a plan."""


def compiler_problem() -> str:
    """Why steps cannot be compiled on this machine, or ""."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        return f"there is no C++ compiler ({Path(compiler).name}) on this machine; install one, or name it in CXX"
    return ""


def compile_steps(learner: Learner) -> None:
    """Compile the forward and backward pass of a learner now, in this process; neither weights nor random states change.

    Raises:
        UsageError: COMPILER, when it cannot be done here.
    """
    problem = compiler_problem() if learner.ranks.alone else "several processes share a step"
    if problem:
        raise refused(problem)
    before = randomness.now()
    torch.compiler.reset()  # what was compiled for learners before counts against a limit
    learner.whole.compile(dynamic=False, options={"compile_threads": 1})
    try:
        learner.rehearse()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise refused("torch cannot compile this network on this machine") from error
    randomness.put_back(before)


def refused(problem: str) -> UsageError:
    """What is said where steps must be compiled and cannot be."""
    return UsageError(f"Training steps cannot be compiled: {problem}; or set train.compile to off.", code="COMPILER")


def decided(plan: Plan) -> Choice | None:
    """Whether steps are compiled, where the plan already knows: it was asked, or another training is done again."""
    return next((choice for choice in plan.choices if choice.what == COMPILE and choice.value in {"on", "off"}), None)


def noted(plan: Plan, choice: Choice | None) -> Plan:
    """The plan with a choice that was made after it."""
    if choice is None or choice in plan.choices:
        return plan
    others = (other for other in plan.choices if other.what != choice.what)
    return plan.model_copy(update={"choices": (*others, choice)})
