"""Clusters of identical atoms: what leaves them unchanged is translation, rotation, inversion and permutation of atoms.

Host code (NumPy), behind the functions of `jaxscape.symmetry`; `zero_modes` is JAX, for the Hessian of an objective.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

_NUM_TRIALS = 40  # orientations tried where no pair of atoms has the same distances from each other and the centre
_SAME_DISTANCES = 1e-3
_SAME_MOVE = 1e-2  # between the entries of two matrices that map a cluster onto itself
_COPY = 1e-7  # distance per atom at which two clusters are copies and the search for a better orientation ends
_MAX_SWEEPS = 20
_NUM_REFINED = 6  # of the orientations, those that match best


def zero_modes(x: Float[Array, " P"]) -> Float[Array, "6 P"]:
    """Return an orthonormal basis of the translations and infinitesimal rotations of a cluster."""
    atoms = x.reshape(-1, 3)
    centred = atoms - atoms.mean(axis=0)
    basis = jnp.eye(3, dtype=x.dtype)
    modes = [jnp.broadcast_to(axis, atoms.shape).ravel() / np.sqrt(len(atoms)) for axis in basis]
    for axis in basis:
        turned = jnp.cross(axis, centred).ravel()
        for mode in modes[3:]:
            turned = turned - jnp.vdot(mode, turned) * mode
        norm = jnp.linalg.norm(turned)
        modes.append(turned / jnp.where(norm > 0, norm, 1))
    return jnp.stack(modes)


def fingerprint(x: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M F"]:
    """Return the sorted distances between atoms, scaled so that far fingerprints prove two clusters distinct.

    Moving the atoms by d_i changes a distance by at most |d_i| + |d_j|, so that the distance between two fingerprints
    is at most sqrt(2) times that between the clusters up to symmetry.
    """
    atoms = x.reshape(len(x), -1, 3)
    distances = np.array([np.sort(pdist(cluster)) for cluster in atoms])
    return distances.reshape(len(x), -1) / np.sqrt(atoms.shape[1] - 1)


def align(reference: Float[np.ndarray, " P"], x: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M P"]:
    """Move each cluster to the copy nearest to the reference: exact for copies, otherwise the best of many trials."""
    fixed = reference.reshape(-1, 3)
    centre = fixed.mean(axis=0)
    moved = [_align(fixed - centre, atoms - atoms.mean(axis=0)) + centre for atoms in x.reshape(len(x), -1, 3)]
    return np.array(moved).reshape(x.shape)


def exchanges(
    reference: Float[np.ndarray, " P"], x: Float[np.ndarray, " P"]
) -> list[tuple[float, Callable[[], Float[np.ndarray, " P"]]]]:
    """List the copies of a cluster with two atoms exchanged, each turned to lie nearest to the reference.

    Returns:
        For each its squared distance from the reference, less a constant, and a function that makes it.
    """
    fixed, atoms = reference.reshape(-1, 3), x.reshape(-1, 3)
    centre = fixed.mean(axis=0)
    fixed, atoms = fixed - centre, atoms - atoms.mean(axis=0)

    def exchanged(i: int, j: int) -> Float[np.ndarray, " P"]:
        swapped = atoms.copy()
        swapped[[i, j]] = atoms[[j, i]]
        return np.asarray(swapped @ _rotation(swapped, fixed) + centre).ravel()

    # The overlap of all atoms, less what the exchange of two changes, has the singular values that the best rotation
    # leaves: no copy is made to know how far it is.
    first, second = np.triu_indices(len(atoms), 1)
    change = atoms[second] - atoms[first]
    overlap = atoms.T @ fixed + np.einsum("ka,kb->kab", change, fixed[first] - fixed[second])
    left, sizes, right = np.linalg.svd(overlap)
    sizes[:, -1] *= np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)
    distances = -2 * sizes.sum(axis=1)
    return [
        (float(distance), functools.partial(exchanged, int(i), int(j)))
        for distance, i, j in zip(distances, first, second, strict=True)
    ]


def point_group_order(x: Float[np.ndarray, " P"], distance_tol: float) -> int:
    """Count the rotations, reflections and rotation-inversions that map a cluster onto itself."""
    atoms = x.reshape(-1, 3)
    atoms = atoms - atoms.mean(axis=0)
    # Several pairs of atoms can lead to one move: moves are counted, not pairs.
    found: list[np.ndarray] = []
    for move in _turns(atoms, atoms):
        fits = cdist(atoms, atoms @ move).min(axis=1).max() <= distance_tol
        if fits and all(np.abs(move - other).max() > _SAME_MOVE for other in found):
            found.append(move)
    return max(len(found), 1)  # atoms on a line, which can be turned in no end of ways, have no frames


def _align(fixed: Float[np.ndarray, "N 3"], atoms: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    trials = _orientations(fixed, atoms)
    squares = np.sum((fixed[:, None] - trials[:, None]) ** 2, axis=3)
    matched, costs = [], []
    for trial, square in zip(trials, squares, strict=True):
        rows, columns = linear_sum_assignment(square)
        matched.append(trial[columns])
        costs.append(square[rows, columns].sum())
        if costs[-1] <= _COPY**2 * len(atoms):
            break
    best, shortest = atoms, np.inf
    for start in np.argsort(costs)[:_NUM_REFINED]:
        # Rotate and match in turn until the matching stays.
        candidate, distance = matched[start], np.inf
        for _ in range(_MAX_SWEEPS):
            turned = candidate @ _rotation(candidate, fixed)
            before, distance = distance, float(np.linalg.norm(turned - fixed))
            if distance > before * (1 - 1e-9):
                break
            candidate = turned[linear_sum_assignment(cdist(fixed, turned, "sqeuclidean"))[1]]
        if distance < shortest:
            best, shortest = turned, distance
    return best


def _rotation(atoms: np.ndarray, fixed: np.ndarray) -> Float[np.ndarray, "*batch 3 3"]:
    """Return the proper rotation R for which `atoms @ R` is nearest to `fixed` (Kabsch 1976); a batch in front."""
    left, _, right = np.linalg.svd(np.swapaxes(atoms, -1, -2) @ fixed)
    left[..., -1] *= np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)[..., None]
    return np.asarray(left @ right)


def _frames(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "n 3 3"]:
    """Return the axes that pairs of vectors span: along the first, orthogonal to it, orthogonal to both."""
    one = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-300)
    other = second - np.sum(second * one, axis=1, keepdims=True) * one
    other = other / np.maximum(np.linalg.norm(other, axis=1, keepdims=True), 1e-300)
    return np.stack([one, other, np.cross(one, other)], axis=1)


def _orientations(fixed: Float[np.ndarray, "N 3"], atoms: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "trials N 3"]:
    """Return the cluster turned by each of `_turns`."""
    return atoms @ _turns(fixed, atoms)


def _turns(fixed: Float[np.ndarray, "N 3"], atoms: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "trials 3 3"]:
    """Return the moves R, proper and improper, for which two rows of `atoms @ R` lie where two of the reference lie.

    Pairs of atoms come in the order of how well their distances, from each other and from the centre, agree with those
    of the pair of the reference, so that for a copy one of the first fits.
    """
    if len(atoms) < 3:
        return np.eye(3)[None]
    radii, fixed_radii = np.linalg.norm(atoms, axis=1), np.linalg.norm(fixed, axis=1)
    a = int(fixed_radii.argmax())
    b = int(np.linalg.norm(np.cross(fixed, fixed[a]), axis=1).argmax())
    mismatch = (
        (radii[:, None] - fixed_radii[a]) ** 2
        + (radii - fixed_radii[b]) ** 2
        + (cdist(atoms, atoms) - np.linalg.norm(fixed[a] - fixed[b])) ** 2
    )
    np.fill_diagonal(mismatch, np.inf)
    order = np.argsort(mismatch, axis=None, kind="stable")
    alike = int(np.sum(mismatch < _SAME_DISTANCES**2))
    pairs = order[: max(alike, min(_NUM_TRIALS, len(order) - len(atoms)))]
    i, j = np.divmod(pairs, len(atoms))
    target = _frames(fixed[[a]], fixed[[b]])[0]
    moves = [sign * np.swapaxes(_frames(sign * atoms[i], sign * atoms[j]), 1, 2) @ target for sign in (1, -1)]
    return np.stack(moves, axis=1).reshape(-1, 3, 3)
