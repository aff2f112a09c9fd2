"""The doubly nudged elastic band: a chain of images between two minima whose highest points are close to saddles.

Trygubenko & Wales, J. Chem. Phys. 120, 2082 (2004): each image feels the gradient across the band, the springs
along it, and the part of the springs across it that does not oppose the gradient; tangents after Henkelman & Jónsson,
J. Chem. Phys. 113, 9978 (2000). The band gives starts for eigenvector-following and need not converge: few
images, few steps.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxscape.objective import Objective, check_points, value_and_grad
from jaxscape.programs import program
from jaxscape.search import lanes, lbfgs
from jaxscape.search.lbfgs import History

_HISTORY = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BandConfig:
    """Settings of the band.

    `spring`: strength of the springs, 1 where a stretch by one spacing pulls as hard as the landscape across the band;
    `max_step`: longest step of an image; `max_steps`: steps of the whole band; `num_images` (static): between
    the two ends.
    """

    spring: Float[Array, ""] | float = 1.0
    max_step: Float[Array, ""] | float = 0.1
    max_steps: Int[Array, ""] | int = 8
    num_images: int = field(default=8, metadata={"static": True})


class Band(NamedTuple):
    """Bands, the ends not among the images.

    `images (n, K, P)`, `energies (n, K)`, unit `tangents (n, K, P)`, `maxima (n, K)`: images above both neighbours,
    `num_evaluations (n,)`: gradients.
    """

    images: Float[Array, "*batch K P"]
    energies: Float[Array, "*batch K"]
    tangents: Float[Array, "*batch K P"]
    maxima: Bool[Array, "*batch K"]
    num_evaluations: Int[Array, "*batch"]


class BandState(NamedTuple):
    """One lane: `start (P,)`, `end (P,)`, their `end_energies (2,)`, `images (K, P)`, `energies (K,)`,
    `tangents (K, P)`, `force (K, P)` on the images, `step (K, P)` to take next, `history`, `num_steps ()`.
    """

    start: Float[Array, " P"]
    end: Float[Array, " P"]
    end_energies: Float[Array, "2"]
    images: Float[Array, "K P"]
    energies: Float[Array, " K"]
    tangents: Float[Array, "K P"]
    force: Float[Array, "K P"]
    step: Float[Array, "K P"]
    history: History
    num_steps: Int[Array, ""]


def _unit(rows: Float[Array, "K P"]) -> Float[Array, "K P"]:
    norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(norms > 0, norms, 1)


def _rowdot(a: Float[Array, "K P"], b: Float[Array, "K P"]) -> Float[Array, "K 1"]:
    return jnp.sum(a * b, axis=1, keepdims=True)


def _tangents(chain: Float[Array, "points P"], energies: Float[Array, " points"]) -> Float[Array, "images P"]:
    """Return the direction to the higher neighbour; at extrema both, weighted by the differences in energy."""
    ahead, behind = chain[2:] - chain[1:-1], chain[1:-1] - chain[:-2]
    up, down = energies[2:] - energies[1:-1], energies[1:-1] - energies[:-2]
    larger, smaller = jnp.maximum(abs(up), abs(down)), jnp.minimum(abs(up), abs(down))
    rising = energies[2:] > energies[:-2]
    mixed = ahead * jnp.where(rising, larger, smaller)[:, None] + behind * jnp.where(rising, smaller, larger)[:, None]
    monotone = jnp.where(((up > 0) & (down > 0))[:, None], ahead, behind)
    return _unit(jnp.where(((up > 0) == (down > 0))[:, None], monotone, mixed))


def init(start: Float[Array, " P"], end: Float[Array, " P"], energies: Float[Array, "2"], num_images: int) -> BandState:
    """Set out from the straight line; the first step evaluates it."""
    fractions = jnp.arange(1, num_images + 1, dtype=start.dtype)[:, None] / (num_images + 1)
    images = start + fractions * (end - start)
    nothing = jnp.zeros_like(images)
    history = lbfgs.empty_history(images.ravel(), _HISTORY)
    zeros = jnp.zeros(num_images, start.dtype)
    return BandState(start, end, energies, images, zeros, nothing, nothing, nothing, history, jnp.asarray(0))


def step(objective: Objective, state: BandState, config: BandConfig) -> BandState:
    """Move the images, evaluate them, and choose their next steps."""
    images = state.images + state.step
    energies, gradients = jax.vmap(functools.partial(value_and_grad, objective))(images)
    chain = jnp.concatenate([state.start[None], images, state.end[None]])
    tangents = _tangents(chain, jnp.concatenate([state.end_energies[:1], energies, state.end_energies[1:]]))
    across = gradients - _rowdot(gradients, tangents) * tangents
    # Springs as stiff as the landscape across the band: the same setting then serves losses of any scale.
    lengths = jnp.linalg.norm(chain[1:] - chain[:-1], axis=1)
    mean_length = jnp.maximum(lengths.mean(), jnp.finfo(lengths.dtype).tiny)
    stiffness = config.spring * jnp.sqrt(jnp.mean(jnp.sum(across**2, axis=1))) / mean_length
    springs = stiffness * (2 * chain[1:-1] - chain[2:] - chain[:-2])
    along = stiffness * (lengths[:-1] - lengths[1:])[:, None] * tangents
    springs_across = springs - _rowdot(springs, tangents) * tangents
    downhill = _unit(across)
    force = across + along + springs_across - _rowdot(springs_across, downhill) * downhill
    finite = jnp.all(jnp.isfinite(energies)) & jnp.all(jnp.isfinite(force))
    safe = jnp.where(finite, force, 0)
    known = finite & (state.num_steps > 0)
    history = lbfgs.remember(state.history, state.step.ravel(), (safe - state.force).ravel(), known)
    following = lbfgs.direction(history, safe.ravel()).reshape(safe.shape)
    norms = jnp.linalg.norm(following, axis=1, keepdims=True)
    longest = jnp.max(norms)
    following = following * jnp.minimum(1, config.max_step / jnp.where(longest > 0, longest, 1))
    return BandState(
        start=state.start,
        end=state.end,
        end_energies=state.end_energies,
        images=images,
        energies=energies,
        tangents=tangents,
        force=safe,
        step=following,
        history=history,
        num_steps=jnp.where(finite, state.num_steps + 1, config.max_steps),
    )


def result(state: BandState) -> Band:
    """Return where a band stands."""
    chain = jnp.concatenate([state.end_energies[:1], state.energies, state.end_energies[1:]])
    maxima = (chain[1:-1] > chain[:-2]) & (chain[1:-1] >= chain[2:])
    return Band(state.images, state.energies, state.tangents, maxima, state.num_steps * len(state.energies))


def kernel(objective: Objective, config: BandConfig) -> lanes.Kernel:
    """Return the relaxation as a kernel for `lanes.run`: jobs are `(start (P,), end (P,))`, results are `Band`s."""

    def begin(job: tuple[Array, Array]) -> BandState:
        energies = jnp.stack([value_and_grad(objective, x)[0] for x in job])
        return init(*job, energies, config.num_images)

    return lanes.Kernel(
        init=begin,
        step=lambda state: step(objective, state, config),
        done=lambda state: state.num_steps >= config.max_steps,
        result=result,
        keep=lbfgs.keep,
    )


@program(static_argnames=("num_lanes",))
def relax(
    objective: Objective,
    starts: Float[Array, "n P"],
    ends: Float[Array, "n P"],
    config: BandConfig = BandConfig(),
    *,
    num_lanes: int = 4,
    count: Int[Array, ""] | int | None = None,
) -> Band:
    """Relax a band between each start and its end.

    Args:
        objective: the landscape.
        starts: minima, one per row.
        ends: the minima to reach; of networks, the copies nearest to the starts (`symmetry.align`).
        config: settings.
        num_lanes: bands in work at once.
        count: relax only this many of the rows, from the first.

    Returns:
        One band per row. Each of its `maxima`, with the tangent there, is a start for `eigenvector_following.search`;
        a band without one never rises above its ends.

    Raises:
        ValueError: if the shapes of `starts` and `ends` differ or do not fit the objective.
    """
    check_points(objective.dim, starts=starts, ends=ends)
    if starts.shape != ends.shape:
        raise ValueError(f"starts and ends must be as many, got {len(starts)} and {len(ends)}")

    return lanes.run(kernel(objective, config), (starts, ends), num_lanes=num_lanes, count=count, refill_every=1)
