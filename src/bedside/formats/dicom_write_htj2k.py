"""Frames of the geometry proof as HTJ2K codestreams, which nothing that is installed here can encode.

They were encoded once, losslessly, by OpenJPH 0.26.3 (through imagecodecs 2026.3.6: `htj2k_encode(frame, reversible=True)`): the
K slices of the running numbers 0 .. I x J x K - 1 in a volume of `SHAPE`, as int16 frames of (rows, columns) = (J, I).
"""

from base64 import b64decode

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import UsageError

SHAPE = (36, 32, 8)
"""(I, J, K) of the volume whose frames are kept."""


def codestream(frame: NDArray[np.generic]) -> bytes:
    """The codestream of a frame (rows, columns) of the numbered volume.

    Raises:
        UsageError: DICOM_WRITE: it is another frame.
    """
    numbers = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    kept = (index for index in range(SHAPE[2]) if np.array_equal(frame, numbers[:, :, index].T))
    found = next(kept, None)
    if found is None or frame.dtype.itemsize != numbers.dtype.itemsize:
        raise UsageError("HTJ2K is kept for the frames of the geometry proof only; nothing here encodes it.", code="DICOM_WRITE")
    return b64decode(_STREAMS[found])


_STREAMS = (
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAFoAdeABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAFwAduABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAF4Ad+ABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAGAAeOABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAGIAeeABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAGQAeuABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAGYAe+ABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
    (
        "/0//UQApQAAAAAAkAAAAIAAAAAAAAAAAAAAAJAAAACAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
        "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMcAAf+TwAAqAGgAfOABIjQAwAASwAATgOsAh3QAIkX+AGI0AMAAE0AA"
        "FSCPxwECdACQEMgAAAB3VgDAABUwAAVgj8fj8apxAnUASARBkOAERhCB7LgAwAAWnAABaQB+9MMPP/rhRz/8+O/fr9fii3gAohBCCCHE/oARgA"
        "B79gAB7LwAwAAt2AAFrv7+/v7+/v7+/v7+/v7+/v77/wp6enp6enpxgn0Abtu2bdu27f95U9knv2Se/ZJ79knssAH/2Q=="
    ),
)
