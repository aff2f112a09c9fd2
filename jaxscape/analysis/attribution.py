"""From conserved weights to input features."""

import numpy as np
from jaxtyping import Bool, Float

from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.symmetry import Symmetry


def feature_scores(conserved: ConservedWeights, symmetry: Symmetry) -> Float[np.ndarray, "G features"]:
    """Score each input by the conserved weights that lead from it: the sum of the magnitudes of their means.

    Args:
        conserved: from `conserved.conserved_weights`.
        symmetry: of the network; its first hidden layer holds the input weights.

    Returns:
        One score per group and input, not normalised.
    """
    return input_scores(conserved.mean, conserved.mask, symmetry)


def input_scores(
    weights: Float[np.ndarray, "n P"], mask: Bool[np.ndarray, "*n P"], symmetry: Symmetry
) -> Float[np.ndarray, "n features"]:
    """Score each input of each network by the sum of the magnitudes of its masked input weights.

    For the aligned members of a group, the spread of these scores says how far the members agree.
    """
    incoming = symmetry.layers[0].incoming
    scores: Float[np.ndarray, "n features"] = (np.abs(weights) * mask)[:, incoming].sum(axis=1)
    return scores
