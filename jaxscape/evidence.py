"""The penalties that the data support: those that maximise the evidence of a minimum.

The evidence (marginal likelihood) of a network is the partition function of its landscape at the temperature of the
data, one over their number, taken harmonically at a minimum: MacKay, Neural Comput. 4, 448 (1992), with a penalty for
each group of weights, such as those of one input (Neal, Bayesian Learning for Neural Networks, 1996, section 1.2.5:
automatic relevance determination). A group that the data do not need gets a penalty without bound.
"""

import enum
import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int
from scipy.special import erf, erfc, gammaln

from jaxscape.cores import on_device
from jaxscape.losses import gaussian_errors
from jaxscape.objective import Objective, Rows, check_points, value, value_grad_and_gauss_newton
from jaxscape.programs import program

ALPHAS = (1e-2, 1e6)  # the bounds of a penalty; at the upper one a weight is zero to all purposes
NOISES = (1e-4, 1e6)
AWAKE = 0.1  # a group of which the data determine fewer weights is off: it adds less than a tenth of a nat
_MOVING = 0.1  # nats
_LOG_DAMPING = (-6.0, 10.0)


class Outcome(enum.IntEnum):
    """How a search for penalties ended."""

    SETTLED = 1
    MOVING = 2  # in the last updates the evidence still changed by more than a tenth of a nat
    INTERPOLATES = 3  # the noise of a regression vanished: the model goes through every row
    NONFINITE = 4


@dataclass(frozen=True)
class EvidenceConfig:
    """How long to search.

    `num_first` Gauss-Newton steps at the first penalties, `num_updates` of the penalties after `num_steps` steps each,
    `num_first` steps at the last ones.
    """

    num_first: int = 15
    num_updates: int = 30
    num_steps: int = 3


class Evidence(NamedTuple):
    """What each of R restarts found.

    `alphas (R, G)`: the penalty of each group of weights, as in rows * energy = sum(errors) + sum(alpha * weights**2)
    / 2; `noises (R,)`: the precision of the noise of a regression, else 1; `log_evidence (R,)` in nats; `positions
    (R, P)`; `determined (R, G)`: how many weights of each group the data determine, from none to all; `status (R,)`:
    an `Outcome` each.
    """

    alphas: Float[Array, "R G"]
    noises: Float[Array, " R"]
    log_evidence: Float[Array, " R"]
    positions: Float[Array, "R P"]
    determined: Float[Array, "R G"]
    status: Int[Array, " R"]


def fit(
    objective: Objective,
    groups: Int[np.ndarray, " P"],
    starts: Float[Array, "R P"],
    alphas: Float[Array, "R G"],
    config: EvidenceConfig = EvidenceConfig(),
) -> Evidence:
    """Search penalties that maximise the evidence, from each of R starts on its own.

    MacKay's fixed point alpha = determined weights / sum of squares, where the determined weights of a group are their
    number less alpha times the trace of the inverse Hessian, and the precision of the noise (rows - determined
    weights) / sum of squared errors, in turn with Levenberg-Marquardt steps. The Hessian is Gauss and Newton's, so
    that no group determines less than nothing.

    Args:
        objective: from `from_rows`, with errors in nats; its precision is not used. Where its errors are
            `jax.tree_util.Partial(losses.gaussian_errors, noise)` the noise is searched too, from 1 on.
        groups: the group of each weight, counted from 0. Interchangeable units belong to the same groups.
        starts: where the restarts set out, a row each.
        alphas: the penalties they set out with: with a large one a group sleeps at first.
        config: how long to search.

    Returns:
        The ends of all restarts, in their order.

    Raises:
        ValueError: if the objective has no rows or is whitened, or shapes do not agree.

    >>> import jax.numpy as jnp
    >>> from jaxscape.objective import from_rows
    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, 0.0]])
    >>> y = jnp.array([2.0, 2.1, -2.1, -1.9])  # the second column does not matter
    >>> errors = Partial(gaussian_errors, jnp.asarray(1.0))
    >>> line = from_rows(lambda w, x: x @ w[:, None], errors, jnp.zeros(2), x, y, precision=1.0)
    >>> found = fit(line, np.array([0, 1]), jnp.zeros((1, 2)), jnp.ones((1, 2)))
    >>> found.positions.round(1).tolist()
    [[2.0, 0.0]]
    """
    if objective.outputs is None or objective.scale is not None:
        raise ValueError("the evidence needs an objective made by from_rows, not whitened")
    check_points(objective.dim, starts=starts)
    num_groups = int(np.max(groups)) + 1
    if np.shape(groups) != (objective.dim,) or np.shape(alphas) != (len(starts), num_groups):
        raise ValueError(
            f"groups must have shape ({objective.dim},) and alphas ({len(starts)}, {num_groups}), got "
            f"{np.shape(groups)} and {np.shape(alphas)}"
        )
    return _fit(objective, on_device(groups), starts, on_device(alphas, starts.dtype), config)


def compile_ahead(
    objective: Objective, num_restarts: int, num_groups: int, config: EvidenceConfig = EvidenceConfig()
) -> None:
    """Compile what `fit` runs for so many restarts and groups of weights, before it is asked to."""
    dtype = objective.data.weights.dtype
    shapes = [(objective.dim,), (num_restarts, objective.dim), (num_restarts, num_groups)]
    groups, starts, alphas = (
        jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, (int, dtype, dtype), strict=True)
    )
    _fit.compile_ahead(objective, groups, starts, alphas, config)


class _Here(NamedTuple):
    """Sums over the rows at one point, where noise has the precision 1: errors, gradient, Gauss-Newton matrix."""

    error: Float[Array, ""]
    gradient: Float[Array, " P"]
    curvature: Float[Array, "P P"]


class _State(NamedTuple):
    """One restart: the point `x` and what is known of it, `here`; `log_damping` to base 10; the penalties."""

    x: Float[Array, " P"]
    here: _Here
    log_damping: Float[Array, ""]
    alphas: Float[Array, " G"]
    noise: Float[Array, ""]


@program(static_argnames=("config",))
def _fit(objective: Objective, groups: Array, starts: Array, alphas: Array, config: EvidenceConfig) -> Evidence:
    # One after another: their matrices are large enough to fill a core, and a finished one holds up no other.
    run = functools.partial(_one_restart, objective, groups, config)
    return jax.lax.map(run, (starts, alphas))


def _one_restart(objective: Objective, groups: Array, config: EvidenceConfig, start: tuple[Array, Array]) -> Evidence:
    rows: Rows = objective.data
    number, gaussian = jnp.sum(rows.weights), _is_gaussian(rows)
    errors = Partial(gaussian_errors, jnp.ones((), start[0].dtype)) if gaussian else rows.errors
    likelihood = replace(objective, data=rows._replace(precision=jnp.zeros_like(rows.precision), errors=errors))
    sizes = jnp.zeros_like(start[1]).at[groups].add(1)
    updating = config.num_updates * config.num_steps

    def look(x: Array) -> _Here:
        error, gradient, curvature = value_grad_and_gauss_newton(likelihood, x)
        # Half the sum of squares: what does not depend on the model comes with the noise.
        constant = 0.5 * jnp.log(2 * jnp.pi) if gaussian else 0.0
        return _Here(number * (error - constant), number * gradient, number * curvature)

    def energy(x: Array, here: _Here, alphas: Array, noise: Array) -> Array:
        constant = 0.5 * number * jnp.log(noise / (2 * jnp.pi)) if gaussian else 0.0
        return noise * here.error - constant + 0.5 * jnp.sum(alphas[groups] * x**2)

    def judge(state: _State) -> tuple[Array, Array]:
        """Return the evidence, and how many weights of each group are determined."""
        penalty = state.alphas[groups]
        root = jnp.linalg.cholesky(state.noise * state.here.curvature + jnp.diag(penalty))
        log_evidence = -energy(state.x, state.here, state.alphas, state.noise) - jnp.sum(jnp.log(jnp.diag(root)))
        variances = jnp.sum(solve_triangular(root, jnp.eye(state.x.size, dtype=root.dtype), lower=True) ** 2, axis=0)
        free = jnp.zeros_like(sizes).at[groups].add(penalty * variances)
        return log_evidence + 0.5 * jnp.sum(jnp.log(penalty)), jnp.clip(sizes - free, 0, sizes)

    def renew(state: _State, determined: Array) -> _State:
        squares = jnp.zeros_like(sizes).at[groups].add(state.x**2)
        alphas = determined / jnp.maximum(squares, jnp.finfo(squares.dtype).tiny)
        # A group that determines nothing is off, whatever is left of its length.
        alphas = jnp.clip(jnp.where((squares > 0) & (determined > 0), alphas, ALPHAS[1]), *ALPHAS)
        left = jnp.maximum(number - determined.sum(), 1)
        error = jnp.maximum(2 * state.here.error, jnp.finfo(squares.dtype).tiny)
        noise = jnp.clip(left / error, *NOISES) if gaussian else state.noise
        # Where the search broke down, the penalties stay numbers.
        good = jnp.all(jnp.isfinite(alphas)) & jnp.isfinite(noise)
        return state._replace(alphas=jnp.where(good, alphas, state.alphas), noise=jnp.where(good, noise, state.noise))

    def step(state: _State) -> _State:
        """Take a Levenberg-Marquardt step, damped in proportion to the penalty; a step uphill is not taken."""
        penalty = state.alphas[groups]
        slope = state.noise * state.here.gradient + penalty * state.x
        curvature = state.noise * state.here.curvature + jnp.diag(penalty)
        change = -cho_solve(cho_factor(curvature + 10.0**state.log_damping * jnp.diag(penalty)), slope)
        there = look(state.x + change)
        fall = energy(state.x, state.here, state.alphas, state.noise)
        fall -= energy(state.x + change, there, state.alphas, state.noise)
        promised = -(slope @ change + 0.5 * change @ (curvature @ change))
        taken = fall >= 0  # never, where it is not a number
        gain = fall / jnp.where(promised > 0, promised, 1)
        factor = jnp.where(taken, jnp.where(gain > 0.75, -0.6, jnp.where(gain < 0.25, 0.3, 0.0)), 0.6)
        x, here = jax.tree.map(functools.partial(jnp.where, taken), (state.x + change, there), (state.x, state.here))
        log_damping = jnp.clip(state.log_damping + factor, *_LOG_DAMPING)
        return state._replace(x=x, here=here, log_damping=log_damping)

    def turn(carry: tuple[_State, Array, Array], i: Array) -> tuple[tuple[_State, Array, Array], None]:
        # One loop for all: what it does is compiled once.
        state, recent, determined = carry
        state = jax.lax.cond(i < last, step, lambda state: state, state)
        done = i - config.num_first + 1
        due = ((done > 0) & (done <= updating) & (done % config.num_steps == 0)) | (i == last)
        log_evidence, determined = jax.lax.cond(due, judge, lambda _: (recent[-1], determined), state)
        state = jax.lax.cond(due & (i < last), renew, lambda state, _: state, state, determined)
        return (state, jnp.where(due, jnp.append(recent[1:], log_evidence), recent), determined), None

    last = 2 * config.num_first + updating
    zero = jnp.zeros((), start[0].dtype)
    x, alphas = start[0], jnp.clip(start[1], *ALPHAS)
    # A slope of zero and an infinite error: the first step stays where it is, looks, and is taken.
    nothing = _Here(zero + jnp.inf, -alphas[groups] * x, jnp.zeros((x.size, x.size), x.dtype))
    state = _State(x, nothing, zero, alphas, zero + 1)
    carry = (state, jnp.full(4, -jnp.inf, zero.dtype), jnp.zeros_like(sizes))
    (state, recent, determined), _ = jax.lax.scan(turn, carry, jnp.arange(last + 1))
    log_evidence = recent[-1]
    moving = jnp.max(jnp.abs(log_evidence - recent[:-1])) > _MOVING
    conditions = [~jnp.isfinite(log_evidence), state.noise >= NOISES[1], moving]
    values = [Outcome.NONFINITE, Outcome.INTERPOLATES, Outcome.MOVING]
    status = jnp.select(conditions, [jnp.asarray(each.value) for each in values], Outcome.SETTLED.value)
    log_evidence = jnp.where(jnp.isfinite(log_evidence), log_evidence, -jnp.inf)
    return Evidence(state.alphas, state.noise, log_evidence, state.x, determined, status)


def _is_gaussian(rows: Rows) -> bool:
    return rows.errors.func is gaussian_errors


def at(
    objective: Objective,
    alphas: Float[Array, " P"] | Float[np.ndarray, " P"],
    noise: Float[Array, ""] | float = 1.0,
) -> Objective:
    """Return the objective of rows at given penalties.

    Args:
        objective: from `from_rows`.
        alphas: of each weight, `found.alphas[i][groups]`.
        noise: `found.noises[i]`, where the errors are Gaussian.
    """
    rows: Rows = objective.data
    dtype = rows.weights.dtype
    errors = Partial(gaussian_errors, jnp.asarray(noise, dtype)) if _is_gaussian(rows) else rows.errors
    return replace(objective, data=rows._replace(precision=_per_row(on_device(alphas), rows.weights), errors=errors))


@program
def _per_row(alphas: Array, weights: Array) -> Array:
    return alphas / jnp.sum(weights)


def log_evidence(objective: Objective, x: Float[Array, " P"], log_determinant: Float[Array, ""] | float) -> Array:
    """Return the evidence of one minimum, in nats, without its copies.

    -rows * energy - log det(rows * Hessian) / 2 + sum(log(rows * precision)) / 2.

    Args:
        objective: from `from_rows`, errors in nats; may be whitened.
        x: the minimum.
        log_determinant: of the Hessian of the objective there, such as `landscape.minima.log_determinants`.
    """
    rows: Rows = objective.data
    number = jnp.sum(rows.weights)
    scale = jnp.ones_like(x) if objective.scale is None else objective.scale
    curvature = log_determinant - 2 * jnp.sum(jnp.log(scale))
    return -number * value(objective, x) + 0.5 * (jnp.sum(jnp.log(rows.precision)) - curvature)


def log_copies(
    units: Int[np.ndarray, "units width"],
    x: Float[np.ndarray, " P"],
    hessian: Float[np.ndarray, "P P"],
    *,
    odd: bool,
) -> float:
    """Count the distinct copies of a network under exchanges (and signs) of its units; return the logarithm.

    Copies that lie within each other's posterior count once: two wells with the same curvature at a Mahalanobis
    distance d have 1 + erf(d / sqrt(8)) times the mass of one, each point counted in the nearer well. A unit that is
    dead is its own mirror image and that of every other dead unit, so that the count is continuous as a unit dies: from
    units! 2^units where all are alive and different down to 1 where all are dead.

    Args:
        units: the places of the weights of each, `layer.units`.
        x: the minimum.
        hessian: of rows * energy there.
        odd: the activation is odd.
    """
    weights = x[units]
    blocks = hessian[units[:, :, None], units[:, None, :]]
    mirrored = 2 * np.sqrt(np.maximum(np.einsum("ui,uij,uj->u", weights, blocks, weights), 0))
    total = float(gammaln(len(units) + 1)) + (float(np.sum(np.log1p(erf(mirrored / np.sqrt(8))))) if odd else 0.0)
    # A set of m units that are the same takes m! from all exchanges: its j-th finds j - 1 others before it.
    for i in range(len(units)):
        same = 1.0
        for j in range(i):
            difference = np.zeros_like(x)
            sign = np.sign(weights[i] @ weights[j]) if odd else 1.0
            difference[units[i]] = weights[i] - sign * weights[j]
            difference[units[j]] = weights[j] - sign * weights[i]
            same += erfc(np.sqrt(max(difference @ hessian @ difference, 0) / 8))
        total -= float(np.log(same))
    return total


def awake(evidence: Evidence) -> Bool[np.ndarray, "R G"]:
    """Say of which groups the data determine at least a tenth of a weight; the others may as well be zero."""
    return np.asarray(evidence.determined) >= AWAKE
