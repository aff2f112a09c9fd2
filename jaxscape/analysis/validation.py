"""Does a model depend on some of its weights? Shuffle them among themselves, and as many random ones to compare."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class PermutationTest(NamedTuple):
    """Scores of a model before and after shuffling some of its weights.

    `baseline ()`: untouched; `conserved (S,)`: after each of S shuffles of the chosen set; `random (R,)`: for each of R
    random sets of the same size in each stratum, the mean score after S shuffles; `p_value ()`: how often a random set
    does at least as much damage as the chosen one, the chosen one counted in.
    """

    baseline: Float[Array, ""]
    conserved: Float[Array, " S"]
    random: Float[Array, " R"]
    p_value: Float[Array, ""]


def auc(labels: Float[Array, " N"], scores: Float[Array, " N"]) -> Float[Array, ""]:
    """Return the area under the ROC curve, ties counted half; NaN if only one class is there.

    >>> float(auc(jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([0.1, 0.4, 0.35, 0.8])))
    0.75
    """
    ranked = jnp.sort(scores)
    low, high = (jnp.searchsorted(ranked, scores, side=side) for side in ("left", "right"))
    mean_rank = (low + high + 1).astype(labels.dtype) / 2
    positive, negative = labels.sum(), (1 - labels).sum()
    return (jnp.vdot(labels, mean_rank) - positive * (positive + 1) / 2) / (positive * negative)


def r2(targets: Float[Array, " N"], predictions: Float[Array, " N"]) -> Float[Array, ""]:
    """Return the coefficient of determination: 1 minus squared error over the variance of the targets."""
    return 1 - jnp.sum((targets - predictions) ** 2) / jnp.sum((targets - targets.mean()) ** 2)


def shuffle(
    key: PRNGKeyArray, x: Float[Array, " P"], mask: Bool[Array, " P"], strata: Int[Array, " P"]
) -> Float[Array, " P"]:
    """Shuffle the masked entries of `x` among themselves, those of each stratum apart."""
    index = jnp.arange(x.size)
    slots = jnp.lexsort((index, ~mask, strata))
    sources = jnp.lexsort((jax.random.uniform(key, x.shape), ~mask, strata))
    return x.at[slots].set(jnp.where(mask[slots], x[sources], x[slots]))


def random_mask(key: PRNGKeyArray, mask: Bool[Array, " P"], strata: Int[Array, " P"]) -> Bool[Array, " P"]:
    """Draw a mask with as many entries in each stratum as `mask` has; entries of stratum -1 are never drawn."""
    order = jnp.lexsort((jax.random.uniform(key, mask.shape), strata))
    ordered = strata[order]
    rank = jnp.arange(mask.size) - jnp.searchsorted(ordered, ordered).astype(int)
    wanted = jnp.sum((strata[None] == ordered[:, None]) & mask[None], axis=1)
    return jnp.zeros_like(mask).at[order].set((rank < wanted) & (ordered >= 0))


def permutation_test(
    key: PRNGKeyArray,
    score: Callable[[Float[Array, " P"]], Float[Array, ""]],
    x: Float[Array, " P"],
    mask: Bool[Array, " P"],
    *,
    strata: Int[Array, " P"] | None = None,
    num_draws: int = 500,
    num_shuffles: int = 100,
) -> PermutationTest:
    """Test whether shuffling the masked weights hurts a model more than shuffling as many random ones.

    Both the chosen set and each random one are judged by the mean score over equally many shuffles: under the null
    hypothesis that the chosen set is a random one, its rank among them is uniform.

    Args:
        key: a JAX random key.
        score: a pure JAX function of the weights, higher is better; on held-out data.
        x: the weights of the model.
        mask: the chosen weights.
        strata: the layer of each weight; shuffles and random sets stay within layers. Weights marked -1 take no part.
            One stratum by default.
        num_draws: random sets.
        num_shuffles: shuffles of each set.

    Returns:
        The scores and the p-value.

    Raises:
        ValueError: if no weight is chosen, or one of stratum -1 is, or a score is not finite.
    """
    mask = jnp.asarray(mask)
    strata = jnp.zeros(x.shape, int) if strata is None else jnp.asarray(strata)
    if not bool(jnp.any(mask)) or bool(jnp.any(mask & (strata < 0))):
        raise ValueError("mask must choose at least one weight, and none of stratum -1")
    test = _run(key, x, mask, strata, score, num_draws, num_shuffles)
    if not all(bool(jnp.all(jnp.isfinite(scores))) for scores in (test.baseline, test.conserved, test.random)):
        raise ValueError("the score is not finite: an AUC needs rows of both classes")
    return test


@functools.partial(jax.jit, static_argnames=("score", "num_draws", "num_shuffles"))
def _run(
    key: PRNGKeyArray,
    x: Array,
    mask: Array,
    strata: Array,
    score: Callable[[Array], Array],
    num_draws: int,
    num_shuffles: int,
) -> PermutationTest:
    def shuffled(key: PRNGKeyArray, chosen: Array) -> Array:
        return jax.vmap(lambda key: score(shuffle(key, x, chosen, strata)))(jax.random.split(key, num_shuffles))

    def one_draw(key: PRNGKeyArray) -> Array:
        mask_key, shuffle_key = jax.random.split(key)
        return shuffled(shuffle_key, random_mask(mask_key, mask, strata)).mean()

    conserved_key, random_key = jax.random.split(key)
    conserved = shuffled(conserved_key, mask)
    random = jax.lax.map(one_draw, jax.random.split(random_key, num_draws))
    p_value = (1 + jnp.sum(random <= conserved.mean())) / (1 + num_draws)
    return PermutationTest(score(x), conserved, random, p_value)
