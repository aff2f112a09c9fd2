"""From conserved weights to input features."""

import numpy as np
from jaxtyping import Bool, Float

from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.symmetry import Symmetry


def feature_scores(conserved: ConservedWeights, symmetry: Symmetry) -> Float[np.ndarray, "G features"]:
    """Score each input by the conserved weights that lead from it: the sum of their mean magnitudes.

    Args:
        conserved: from `conserved.conserved_weights`.
        symmetry: of the network; its first hidden layer holds the input weights.

    Returns:
        One score per group and input, not normalised.
    """
    return _per_input(np.abs(conserved.mean), conserved.mask, symmetry)


def member_scores(
    weights: Float[np.ndarray, "m P"], mask: Bool[np.ndarray, " P"], symmetry: Symmetry
) -> Float[np.ndarray, "m features"]:
    """Score each input by the conserved weights of each aligned member of a group: how far the members agree."""
    return _per_input(np.abs(weights), mask[None], symmetry)


def _per_input(magnitude: np.ndarray, mask: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    incoming = symmetry.layers[0].incoming
    scores: np.ndarray = (magnitude * mask)[:, incoming].sum(axis=1)
    return scores
