"""Clusters of identical atoms: what leaves them unchanged is translation, rotation, inversion and permutation of atoms.

Host code (NumPy), behind the functions of `jaxscape.symmetry`; `zero_modes` is JAX, for the Hessian of an objective.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

_NUM_TRIALS = 40  # orientations tried where no pair of atoms has the same distances from each other and the centre
_SAME_DISTANCES = 1e-3
_COPY = 1e-7  # distance per atom at which two clusters are copies and the search for a better orientation ends
_MAX_SWEEPS = 20


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


def _align(fixed: Float[np.ndarray, "N 3"], atoms: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    best, shortest = atoms, np.inf
    for trial in _orientations(fixed, atoms):
        fitted, distance = _fit(fixed, trial)
        if distance < shortest:
            best, shortest = fitted, distance
        if shortest <= _COPY * np.sqrt(len(atoms)):
            break
    return best


def exchanges(reference: Float[np.ndarray, " P"], x: Float[np.ndarray, " P"]) -> list[Float[np.ndarray, " P"]]:
    """Return the copies of a cluster with two atoms exchanged, each turned to lie nearest to the reference."""
    fixed, atoms = reference.reshape(-1, 3), x.reshape(-1, 3)
    centre = fixed.mean(axis=0)
    fixed, atoms = fixed - centre, atoms - atoms.mean(axis=0)
    swapped = []
    for i, j in itertools.combinations(range(len(atoms)), 2):
        other = atoms.copy()
        other[[i, j]] = atoms[[j, i]]
        swapped.append((other @ _rotation(other, fixed) + centre).ravel())
    return swapped


def point_group_order(x: Float[np.ndarray, " P"], distance_tol: float) -> int:
    """Count the rotations, reflections and rotation-inversions that map a cluster onto itself."""
    atoms = x.reshape(-1, 3)
    atoms = atoms - atoms.mean(axis=0)
    # Where two atoms go fixes the move, but for a reflection in their plane: each trial is a move of its own.
    return sum(bool(cdist(atoms, trial).min(axis=1).max() <= distance_tol) for trial in _orientations(atoms, atoms))


def _fit(fixed: np.ndarray, atoms: np.ndarray) -> tuple[np.ndarray, float]:
    """Match atoms and rotate in turn until the matching stays."""
    shortest = np.inf
    for _ in range(_MAX_SWEEPS):
        atoms = atoms[linear_sum_assignment(cdist(fixed, atoms, "sqeuclidean"))[1]]
        atoms = atoms @ _rotation(atoms, fixed)
        distance = float(np.linalg.norm(atoms - fixed))
        if distance > shortest * (1 - 1e-9):
            break
        shortest = distance
    return atoms, distance


def _rotation(atoms: np.ndarray, fixed: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Return the proper rotation R for which `atoms @ R` is nearest to `fixed` (Kabsch 1976)."""
    left, _, right = np.linalg.svd(atoms.T @ fixed)
    left[:, -1] *= np.sign(np.linalg.det(left @ right)) or 1
    return np.asarray(left @ right)


def _frame(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Return the axes that two vectors span: along the first, orthogonal to it, orthogonal to both."""
    one = first / max(np.linalg.norm(first), 1e-300)
    other = second - (second @ one) * one
    other = other / max(np.linalg.norm(other), 1e-300)
    return np.stack([one, other, np.cross(one, other)])


def _orientations(fixed: np.ndarray, atoms: np.ndarray):  # type: ignore[no-untyped-def]
    """Yield the cluster and its inverse, turned so that two of its atoms lie where two of the reference lie.

    Pairs of atoms come in the order of how well their distances, from each other and from the centre, agree with those
    of the pair of the reference, so that for a copy one of the first fits.
    """
    if len(atoms) < 3:
        yield atoms
        return
    radii = np.linalg.norm(atoms, axis=1)
    fixed_radii = np.linalg.norm(fixed, axis=1)
    a = int(fixed_radii.argmax())
    across = np.linalg.norm(np.cross(fixed, fixed[a]), axis=1)
    b = int(across.argmax())
    target = _frame(fixed[a], fixed[b])
    mismatch = (
        (radii[:, None] - fixed_radii[a]) ** 2
        + (radii - fixed_radii[b]) ** 2
        + (cdist(atoms, atoms) - np.linalg.norm(fixed[a] - fixed[b])) ** 2
    )
    np.fill_diagonal(mismatch, np.inf)
    order = np.argsort(mismatch, axis=None, kind="stable")
    alike = int(np.sum(mismatch < _SAME_DISTANCES**2))
    for flat in order[: max(alike, min(_NUM_TRIALS, len(order) - len(atoms)))]:
        i, j = divmod(int(flat), len(atoms))
        for sign in (1, -1):
            trial = sign * atoms
            yield trial @ _frame(trial[i], trial[j]).T @ target
