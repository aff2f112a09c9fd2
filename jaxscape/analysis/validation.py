"""Does a model depend on some of its weights? Disturb them, and as many others to compare."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxscape.programs import program

Intervention = Literal["shuffle", "resample", "zero", "replace"]


class PermutationTest(NamedTuple):
    """Scores of a model before and after disturbing some of its weights.

    `baseline ()`: untouched; `conserved (S,)`: after each of S disturbances of the chosen set; `random (R,)`: for each
    of R random sets of the same size in each stratum, the mean score after S disturbances; `p_value ()`: how often a
    random set does at least as much damage as the chosen one, the chosen one counted in.
    """

    baseline: Float[Array, ""]
    conserved: Float[Array, " S"]
    random: Float[Array, " R"]
    p_value: Float[Array, ""]


class Effect(NamedTuple):
    """How much more the chosen set hurts than random ones: `size`: the difference of the mean scores, with the interval
    `low` to `high` that holds 95 % of the random sets; `standardised`: in standard deviations of the random sets."""

    size: float
    low: float
    high: float
    standardised: float


def effect(test: PermutationTest) -> Effect:
    """Say how large the effect of a permutation test is; positive where the chosen set matters more than random ones.

    >>> test = PermutationTest(jnp.asarray(1.0), jnp.full(3, 0.5), jnp.array([0.8, 0.9, 1.0]), jnp.asarray(0.25))
    >>> round(effect(test).size, 6)
    0.4
    """
    differences = test.random - test.conserved.mean()
    low, high = jnp.quantile(differences, jnp.array([0.025, 0.975], differences.dtype))
    spread = float(differences.std())
    size = float(differences.mean())
    return Effect(size, float(low), float(high), size / spread if spread > 0 else float("nan"))


def auc(
    labels: Float[Array, " N"], scores: Float[Array, " N"], weights: Float[Array, " N"] | None = None
) -> Float[Array, ""]:
    """Return the area under the ROC curve, ties counted half; NaN if only one class is there.

    `weights`: what each row counts; all the same by default.

    >>> float(auc(jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([0.1, 0.4, 0.35, 0.8])))
    0.75
    """
    ranked = jnp.sort(scores)
    low, high = (jnp.searchsorted(ranked, scores, side=side) for side in ("left", "right"))
    if weights is not None:
        ones, zeros = weights * labels, weights * (1 - labels)
        below = jnp.append(0, jnp.cumsum(zeros[jnp.argsort(scores)]))
        return jnp.vdot(ones, below[low] + below[high]) / (2 * ones.sum() * zeros.sum())
    mean_rank = (low + high + 1).astype(labels.dtype) / 2
    positive, negative = labels.sum(), (1 - labels).sum()
    return (jnp.vdot(labels, mean_rank) - positive * (positive + 1) / 2) / (positive * negative)


def auc_of_pairs(positive: Float[Array, " N"], negative: Float[Array, " M"]) -> Float[Array, ""]:
    """Return the area under the ROC curve from the scores of either class: the share of pairs in the right order.

    The same as `auc`, and for some thousand pairs ten times faster than sorting.

    >>> float(auc_of_pairs(jnp.array([0.35, 0.8]), jnp.array([0.1, 0.4])))
    0.75
    """
    difference = positive[:, None] - negative
    return (jnp.mean(difference > 0, dtype=positive.dtype) + jnp.mean(difference >= 0, dtype=positive.dtype)) / 2


def macro_auc(
    labels: Float[Array, " N"], scores: Float[Array, "N K"], weights: Float[Array, " N"] | None = None
) -> Float[Array, ""]:
    """Return the mean over K classes of the AUC of each against the rest; labels are 0 to K - 1 as floats.

    The scores of a row are to be comparable between rows, such as probabilities. `weights`: as in `auc`.
    """
    classes = jnp.arange(scores.shape[1], dtype=labels.dtype)
    each = jax.vmap(lambda k, column: auc((labels == k).astype(labels.dtype), column, weights))(classes, scores.T)
    return each.mean()


def r2(
    targets: Float[Array, " N"], predictions: Float[Array, " N"], weights: Float[Array, " N"] | None = None
) -> Float[Array, ""]:
    """Return the coefficient of determination: 1 minus squared error over the variance of the targets."""
    left, mean = (targets - predictions) ** 2, jnp.average(targets, weights=weights)
    return 1 - jnp.average(left, weights=weights) / jnp.average((targets - mean) ** 2, weights=weights)


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
    first, last = (jnp.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
    rank = jnp.arange(mask.size) - first.astype(int)
    before = jnp.append(0, jnp.cumsum(mask[order]))  # how many of the mask, in the order of the strata
    wanted = before[last] - before[first]
    return jnp.zeros_like(mask).at[order].set((rank < wanted) & (ordered >= 0))


def magnitude_strata(
    x: Float[np.ndarray, " P"], strata: Int[np.ndarray, " P"], *, size: int = 5
) -> Int[np.ndarray, " P"]:
    """Divide each stratum into bins of `size` weights of similar magnitude, for random sets matched in magnitude.

    Weights of stratum -1 stay there. A bin whose weights are all in the chosen set leaves no choice: where the chosen
    weights are simply the largest, the matched sets are the same as the chosen one, and the test finds nothing.
    """
    order = np.lexsort((-np.abs(x), strata))
    ordered = strata[order]
    rank = np.arange(x.size) - np.searchsorted(ordered, ordered)
    bins = np.empty(x.shape, int)
    bins[order] = np.where(ordered < 0, -1, ordered * x.size + rank // size)
    return bins


def num_sets(mask: Bool[np.ndarray, " P"], strata: Int[np.ndarray, " P"]) -> int:
    """Count the sets that have as many weights in each stratum as `mask`: what a permutation test draws from."""
    used = strata >= 0
    return math.prod(
        math.comb(int(np.sum(strata == each)), int(np.sum(mask & (strata == each)))) for each in np.unique(strata[used])
    )


def overlap(mask: Bool[np.ndarray, " P"], strata: Int[np.ndarray, " P"]) -> float:
    """Return the share of a random set of this kind that is expected to be in `mask` itself."""
    used = np.unique(strata[strata >= 0])
    chosen = np.array([np.sum(mask & (strata == each)) for each in used])
    sizes = np.array([np.sum(strata == each) for each in used])
    return float(np.sum(chosen**2 / sizes) / chosen.sum())


def matched_sets(
    rng: np.random.Generator,
    x: Float[np.ndarray, " P"],
    mask: Bool[np.ndarray, " P"],
    strata: Int[np.ndarray, " P"],
    num_draws: int,
    *,
    ratio: float = 1.5,
) -> Bool[np.ndarray, "R P"]:
    """Draw sets of weights as large as those of `mask`, but other ones, wherever there are any.

    Args:
        rng: the source of randomness.
        x: the weights.
        mask: the chosen weights.
        strata: of each weight; another one of the same stratum takes its place, and none of stratum -1.
        num_draws: sets, R.
        ratio: a chosen weight is replaced by one of a magnitude no further from its own than by this factor, each no
            more than once; where there is none left it stays in the set.
    """
    sizes = np.log(np.maximum(np.abs(x), np.finfo(float).tiny))
    drawn = np.zeros((num_draws, x.size), bool)
    for row in drawn:
        free = (strata >= 0) & ~mask
        for place in rng.permutation(np.flatnonzero(mask)):
            alike = (strata == strata[place]) & (np.abs(sizes - sizes[place]) <= np.log(ratio))
            near = np.flatnonzero(free & alike)
            taken = rng.choice(near) if near.size else place
            row[taken], free[taken] = True, False
    return drawn


def resample(
    key: PRNGKeyArray, x: Float[Array, " P"], mask: Bool[Array, " P"], strata: Int[Array, " P"]
) -> Float[Array, " P"]:
    """Replace each masked entry of `x` by one drawn, with replacement, from all entries of its stratum."""
    order = jnp.argsort(strata)
    first, last = (jnp.searchsorted(strata[order], strata, side=side) for side in ("left", "right"))
    place = jax.random.uniform(key, x.shape, x.dtype) * (last - first).astype(x.dtype)
    drawn = first + jnp.floor(place).astype(first.dtype)
    return jnp.where(mask, x[order[jnp.minimum(drawn, last - 1)]], x)


def permutation_test(
    key: PRNGKeyArray,
    score: Callable[[Float[Array, " P"]], Float[Array, ""]],
    x: Float[Array, "*m P"] | Float[np.ndarray, "*m P"],
    mask: Bool[Array, " P"] | Bool[np.ndarray, " P"],
    *,
    strata: Int[Array, " P"] | Int[np.ndarray, " P"] | None = None,
    control: Int[Array, " P"] | Int[np.ndarray, " P"] | None = None,
    sets: Bool[np.ndarray, "R P"] | None = None,
    intervention: Intervention = "shuffle",
    replacement: Float[Array, " P"] | None = None,
    num_draws: int = 500,
    num_shuffles: int = 100,
) -> PermutationTest:
    """Test whether disturbing the masked weights hurts a model more than disturbing as many random ones.

    Both the chosen set and each random one are judged by the mean score over equally many disturbances: under the null
    hypothesis that the chosen set is a random one, its rank among them is uniform.

    Args:
        key: a JAX random key.
        score: a pure JAX function of the weights, higher is better; on held-out data.
        x: the weights of the model, or of several, one per row, aligned: the disturbances then take them in turn.
        mask: the chosen weights.
        strata: the layer of each weight; shuffles and random sets stay within layers. Weights marked -1 take no part.
            One stratum by default.
        control: random sets have as many weights as the mask in each stratum of this kind, `strata` by default;
            `magnitude_strata` compares with weights that are as large.
        sets: the sets to compare with, such as `matched_sets`, instead of `num_draws` random ones; each has as many
            weights in each stratum as the mask.
        intervention: "shuffle" the set among itself (that of the paper), "resample" it from the weights of its
            stratum, set it to "zero", or "replace" it.
        replacement: the weights that "replace" puts in, such as the mean of a group.
        num_draws: random sets.
        num_shuffles: disturbances of each set.

    Returns:
        The scores and the p-value; see `effect` for how large the effect is.

    Raises:
        ValueError: if no weight is chosen, or one of stratum -1 is, a score is not finite, or the intervention is
            unknown or lacks its replacement, or `sets` are of another size.
    """
    if intervention not in get_args(Intervention):
        raise ValueError(f"intervention must be one of {', '.join(get_args(Intervention))}, got {intervention!r}")
    if (replacement is None) == (intervention == "replace"):
        raise ValueError("the intervention 'replace' needs a replacement, the others take none")
    # What is of the size of a model is NumPy's: a dtype of one kind is one compiled program.
    chosen, models = np.asarray(mask), np.atleast_2d(x)
    layers = np.zeros(chosen.shape, int) if strata is None else np.asarray(strata, int)
    if not chosen.any() or np.any(chosen & (layers < 0)):
        raise ValueError("mask must choose at least one weight, and none of stratum -1")
    constant = np.zeros(chosen.shape, models.dtype) if replacement is None else np.asarray(replacement)
    if sets is not None:
        wanted, found = ([np.sum(each & (layers == k), axis=-1) for k in np.unique(layers)] for each in (chosen, sets))
        if sets.shape[1:] != chosen.shape or not all(np.all(a == b) for a, b in zip(wanted, found, strict=True)):
            raise ValueError("each of the sets must have as many weights in each stratum as the mask")
    bins = layers if control is None else np.asarray(control, int)
    run: Callable[..., PermutationTest] = _run  # It takes NumPy's arrays, too.
    test = run(key, models, chosen, layers, bins, sets, constant, score, intervention, num_draws, num_shuffles)
    if not all(np.all(np.isfinite(scores)) for scores in (test.baseline, test.conserved, test.random)):
        raise ValueError("the score is not finite: an AUC needs rows of both classes")
    return test


@program(static_argnames=("score", "intervention", "num_draws", "num_shuffles"))
def _run(
    key: PRNGKeyArray,
    models: Array,
    mask: Array,
    strata: Array,
    control: Array,
    sets: Array | None,
    constant: Array,
    score: Callable[[Array], Array],
    intervention: Intervention,
    num_draws: int,
    num_shuffles: int,
) -> PermutationTest:
    disturb = {"shuffle": shuffle, "resample": resample}.get(
        intervention, lambda key, x, chosen, strata: jnp.where(chosen, constant, x)
    )
    turns = models[jnp.arange(num_shuffles) % len(models)]

    def disturbed(draw: tuple[PRNGKeyArray, Array]) -> Array:
        key, chosen = draw
        keys = jax.random.split(key, num_shuffles)
        return jax.vmap(lambda key, x: score(disturb(key, x, chosen, strata)))(keys, turns)

    conserved_key, random_key = jax.random.split(key)
    keys = jax.random.split(random_key, (num_draws if sets is None else len(sets), 2))
    if sets is None:
        sets = jax.lax.map(lambda key: random_mask(key, mask, control), keys[:, 0])
    # The chosen set is the first of all: what disturbs a set is compiled once.
    keys = jnp.concatenate([conserved_key[None], keys[:, 1]])
    scores = jax.lax.map(disturbed, (keys, jnp.concatenate([mask[None], sets])))
    conserved, random = scores[0], scores[1:].mean(axis=1)
    # A random set that is the chosen one does as much damage; rounding must not decide whether it does more.
    scale = jnp.maximum(jnp.max(jnp.abs(random)), jnp.max(jnp.abs(conserved)))
    tied = conserved.mean() + 64 * jnp.finfo(random.dtype).eps * scale
    p_value = (1 + jnp.sum(random <= tied)) / (1 + len(random))
    return PermutationTest(jax.vmap(score)(models).mean(), conserved, random, p_value)
