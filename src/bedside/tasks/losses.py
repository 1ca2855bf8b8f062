"""The losses of segmentation. This module imports torch; tasks import it inside `loss`."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bedside.core.labels import UNANNOTATED

SMOOTH = 1e-5


@dataclass(frozen=True)
class Terms:
    """Two terms: how well regions overlap, and how sure each voxel is.

    Attributes:
        overlap_share: of the overlap term in the loss; the rest is the voxel term.
        false_positive, false_negative: weights of the two errors in the overlap: 0.5 each is the Dice, anything else the Tversky
            index (Salehi et al. 2017).
        gamma: of the focal loss (Lin et al. 2017), 0 for plain cross-entropy.
    """

    overlap_share: float
    false_positive: float = 0.5
    false_negative: float = 0.5
    gamma: float = 0.0

    def mixed(self, overlap: torch.Tensor, voxel: torch.Tensor) -> torch.Tensor:
        """The loss."""
        return self.overlap_share * overlap + (1.0 - self.overlap_share) * voxel

    def overlap(self, found: torch.Tensor, true: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
        """One minus the mean index over structures, from the sums of probability, truth and their product, each (C,)."""
        errors = self.false_positive * (found - both) + self.false_negative * (true - both)
        return 1.0 - ((both + 0.5 * SMOOTH) / (both + errors + 0.5 * SMOOTH)).mean()

    def focused(self, logarithm: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each voxel from the logarithm of its probability, less where it is sure if `gamma` is above 0."""
        return -logarithm if self.gamma == 0 else -logarithm * (1.0 - logarithm.exp()).clamp_min(0.0) ** self.gamma


def exclusive(output: torch.Tensor, target: torch.Tensor, terms: Terms, possible: NDArray[np.bool_]) -> torch.Tensor:
    """Loss of softmax output, where each voxel is one structure.

    The overlap is taken over the whole batch ("batch Dice", Isensee et al. 2021), without the background. A voxel that may be
    one of several structures counts by the probability of all of them together (the marginal loss of Shi et al. 2021), and
    leaves the overlap of these structures alone; one that was not annotated counts nowhere, and its gradient is exactly 0.

    Args:
        output: (B, C, I, J, K) raw.
        target: (B, I, J, K), rows of `possible`.
        terms: what is added up.
        possible: (256, C) of `annotation.possible`.
    """
    output = output.float()
    if int(target.max()) < output.shape[1]:
        return _plain(output, target.long(), terms)
    logarithm = output.log_softmax(1)
    may_be = torch.from_numpy(possible).to(target.device)[target.long()].movedim(-1, 1)
    sure = may_be.sum(1, keepdim=True) == 1
    known = (sure | ~may_be)[:, 1:]
    probability = torch.where(known, logarithm[:, 1:].exp(), 0.0)
    truth = (may_be & sure)[:, 1:]
    over = (0, 2, 3, 4)
    overlap = terms.overlap(probability.sum(over), truth.sum(over), (probability * truth).sum(over))
    annotated = target != UNANNOTATED
    marginal = torch.where(may_be, logarithm, -torch.inf).logsumexp(1)[annotated].clamp_max(0.0)
    return terms.mixed(overlap, terms.focused(marginal).sum() / max(1, marginal.numel()))


def _plain(output: torch.Tensor, target: torch.Tensor, terms: Terms) -> torch.Tensor:
    """Every voxel is annotated: no array of (B, C, I, J, K) is made of the truth, and no softmax is computed twice."""
    logarithm = output.log_softmax(1)
    of_truth = logarithm.gather(1, target[:, None])[:, 0]
    count = output.shape[1]
    # in float64, because one number takes up the sum of many voxels
    both = torch.zeros(count, dtype=torch.float64, device=output.device)
    both = both.index_add(0, target.flatten(), of_truth.flatten().double().exp())
    true = torch.bincount(target.flatten(), minlength=count)
    found = logarithm[:, 1:].exp().sum((0, 2, 3, 4))
    return terms.mixed(terms.overlap(found, true[1:], both[1:].float()), terms.focused(of_truth).mean())


def overlapping(output: torch.Tensor, target: torch.Tensor, terms: Terms, members: NDArray[np.int8]) -> torch.Tensor:
    """Loss of sigmoid output, where a voxel may belong to several regions at once: overlap plus binary cross-entropy.

    Args:
        output: (B, R, I, J, K) raw.
        target: (B, I, J, K), rows of `members`.
        terms: what is added up.
        members: (256, R): 1 where a voxel of this code belongs to the region, 0 where it does not, -1 where nobody knows; what
            is unknown counts nowhere, and its gradient is exactly 0.
    """
    output = output.float()
    state = torch.from_numpy(members).to(target.device)[target.long()].movedim(-1, 1)
    known, truth = state >= 0, state == 1
    probability = torch.where(known, output.sigmoid(), 0.0)
    over = (0, 2, 3, 4)
    overlap = terms.overlap(probability.sum(over), truth.sum(over), (probability * truth).sum(over))
    logarithm = functional.logsigmoid(torch.where(truth, output, -output))[known]
    return terms.mixed(overlap, terms.focused(logarithm).sum() / max(1, logarithm.numel()))
