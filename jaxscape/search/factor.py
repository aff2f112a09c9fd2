"""Factors of small dense matrices, one after another where LAPACK finds them.

XLA spreads a batch of calls of LAPACK over the threads of its pool and waits for them; where two programs do so at once
they can wait for each other for ever (jaxlib 0.10.2, ParallelBatchMap: four explorations in four threads did). Searches
run in a thread for each core.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_F = TypeVar("_F", bound=Callable[..., Any])


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Return the eigenvalues of a symmetric matrix, the lowest first, and its eigenvectors as columns."""
    return _singly(_eigh)(matrix)


def cholesky(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the lower factor of a positive definite matrix, read from its lower half; NaN where it is not definite."""
    return _singly(_cholesky)(matrix)


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


def _cholesky(matrix: Array) -> Array:
    return jnp.linalg.cholesky(matrix, symmetrize_input=False)


def _singly(function: _F) -> _F:
    return _sequential(function) if jax.default_backend() == "cpu" else function


_sequential = functools.cache(jax.custom_batching.sequential_vmap)
