"""The random states of a process, as values that can be kept.

No batch depends on them: each is drawn from its own generator, made of seed and step. They are kept for what a network or a task
may draw by itself, as dropout does.
"""

import random

import numpy as np
import torch

from bedside.core.record import Record


class Randomness(Record):
    """The states of Python's, numpy's and torch's generators.

    Attributes:
        python: version, state, and the second Gaussian number if one is held back.
        numpy: the key of the Mersenne Twister, its place, and the second Gaussian number as (is there, value).
        torch: of the processor, cuda: of each accelerator, as hexadecimal bytes.
    """

    python: tuple[int, tuple[int, ...], float | None]
    numpy: tuple[tuple[int, ...], int, int, float]
    torch: str
    cuda: tuple[str, ...] = ()


def seed_all(seed: int) -> None:
    """Begin every generator of this process at a seed."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 - for what others draw from it
    torch.manual_seed(seed)


def now() -> Randomness:
    """The states as they are."""
    python = random.getstate()
    _, key, place, held, value = np.random.get_state(legacy=True)  # noqa: NPY002 - for what others draw from it
    return Randomness(
        python=(python[0], python[1], python[2]),
        numpy=(tuple(int(word) for word in key), int(place), int(held), float(value)),
        torch=_hex(torch.get_rng_state()),
        cuda=tuple(_hex(state) for state in torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else (),
    )


def put_back(kept: Randomness) -> None:
    """Set the states to kept ones; those of accelerators only where as many are here."""
    random.setstate(kept.python)
    key, place, held, value = kept.numpy
    np.random.set_state(("MT19937", np.array(key, dtype=np.uint32), place, held, value))  # noqa: NPY002
    torch.set_rng_state(_tensor(kept.torch))
    if kept.cuda and torch.cuda.is_available() and torch.cuda.device_count() == len(kept.cuda):
        torch.cuda.set_rng_state_all([_tensor(state) for state in kept.cuda])


def _hex(state: torch.Tensor) -> str:
    return bytes(state.numpy()).hex()


def _tensor(kept: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(kept), dtype=torch.uint8)
