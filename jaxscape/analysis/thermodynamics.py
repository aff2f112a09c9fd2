"""Basin volumes, occupation and heat capacity in the harmonic superposition approximation.

Each minimum stands for a harmonic well and for all its copies: Wales, *Energy Landscapes* (2003), section 7.1. For a
loss the temperature is that of a Boltzmann distribution over parameters, exp(-loss / T).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from jaxscape.landscape.database import Landscape


def log_volumes(
    energies: Float[np.ndarray, " M"],
    log_determinants: Float[np.ndarray, " M"],
    log_orders: Float[np.ndarray, " M"],
    temperatures: Float[np.ndarray, " K"],
) -> Float[np.ndarray, "K M"]:
    """Return the logarithm of the configuration integral over the well of each minimum and of its copies.

    Args:
        energies: of the minima.
        log_determinants: logarithms of the determinants of their Hessians, zero modes left out.
        log_orders: logarithms of the orders of their point groups: a point of higher symmetry has fewer copies.
        temperatures: in units of the energy, positive.

    Returns:
        -E/T - log det(H)/2 - log order, up to a constant that is the same for all minima (the size of the symmetry
        group and the factor of the temperature that all wells share).

    Raises:
        ValueError: if a temperature is not positive, no minimum is given, or a determinant is not known.
    """
    temperatures = np.asarray(temperatures, float)
    if np.any(temperatures <= 0) or len(energies) == 0:
        raise ValueError("temperatures must be positive, and there must be at least one minimum")
    if not np.all(np.isfinite(log_determinants)):
        raise ValueError("log_determinants are not all known: Hessians of large networks are not diagonalised")
    return -np.asarray(energies) / temperatures[:, None] - log_determinants / 2 - log_orders


def occupation(log_volume: Float[np.ndarray, "K M"]) -> Float[np.ndarray, "K M"]:
    """Return the probability of each minimum (with its copies) at each temperature.

    >>> flat_and_steep = log_volumes(np.zeros(2), np.log([1.0, 9.0]), np.zeros(2), np.array([0.1]))
    >>> occupation(flat_and_steep).round(2).tolist()
    [[0.75, 0.25]]
    """
    return np.exp(log_volume - logsumexp(log_volume, axis=1, keepdims=True))


def free_energies(
    log_volume: Float[np.ndarray, "K M"], labels: Int[np.ndarray, " M"], temperatures: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "K groups"]:
    """Return -T log(volume) of each group of minima, such as the superbasins of a cut, up to a shared constant."""
    groups = [logsumexp(log_volume[:, labels == label], axis=1) for label in range(labels.max() + 1)]
    return -np.asarray(temperatures)[:, None] * np.stack(groups, axis=1)


def heat_capacity(landscape: Landscape, temperatures: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Return the heat capacity dU/dT of the configuration, in units of the Boltzmann constant.

    Every direction that is no zero mode is worth 1/2, and a cluster, taken not to be linear, has six zero modes; add as
    much again for the kinetic energy of atoms.

    Args:
        landscape: its minima, with determinants.
        temperatures: in units of the energy, positive.

    Raises:
        ValueError: if a temperature is not positive, there is no minimum, or a determinant is not known.
    """
    minima, symmetry = landscape.minima, landscape.symmetry
    weights = occupation(log_volumes(minima.energies, minima.log_determinants, minima.log_orders, temperatures))
    variance = np.sum(weights * (minima.energies - (weights @ minima.energies)[:, None]) ** 2, axis=1)
    num_modes = symmetry.dim - (6 if symmetry.num_atoms else 0)
    return num_modes / 2 + variance / np.asarray(temperatures) ** 2
