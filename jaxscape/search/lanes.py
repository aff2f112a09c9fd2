"""The engine: many jobs of any iterative kernel through a fixed number of lanes, none idle.

Under `vmap` a `while_loop` runs until its slowest member is done, so a batch of minimisations wastes most of its work
on members that finished long ago. Here a kernel step is one fixed amount of work, every lane takes it together, and
every few steps the lanes that are done hand in their result and get a new job, under one scalar `lax.cond`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def where(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    """Choose between two pytrees of equal structure by one boolean."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


class Kernel(NamedTuple):
    """An iterative computation for one lane.

    `init(job) -> state`, `step(state) -> state` (no data-dependent loop inside), `done(state) -> bool` and
    `result(state) -> result`; jobs, states and results are pytrees of arrays. `keep(done, state, new) -> state`: the
    state of a lane after a step; once it is done, `result` must not change any more.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any], Any]
    done: Callable[[Any], Bool[Array, ""]]
    result: Callable[[Any], Any]
    keep: Callable[[Bool[Array, ""], Any, Any], Any] = where


def advance(kernel: Kernel, states: Any, *, num_steps: int) -> Any:
    """Take `num_steps` steps on every lane; a lane that is done keeps its result."""

    def step(state: Any) -> Any:
        return kernel.keep(kernel.done(state), state, kernel.step(state))

    return jax.lax.fori_loop(0, num_steps, lambda _, lanes: jax.vmap(step)(lanes), states)


class _Queue(NamedTuple):
    states: Any  # (B, ...)
    job: Int[Array, " B"]  # the job of each lane; n where the queue has run dry
    next_job: Int[Array, ""]
    results: Any  # (n, ...)


def run(
    kernel: Kernel, jobs: Any, *, num_lanes: int, count: Int[Array, ""] | int | None = None, refill_every: int = 4
) -> Any:
    """Run every job to its end.

    Args:
        kernel: what to do with a job. It must end by itself: `done` becomes true after finitely many steps.
        jobs: a pytree whose leaves have the number of jobs `n` as their first axis.
        num_lanes: how many jobs are in work at once; more than `n` are not used.
        count: run only this many of the jobs, from the first; may be traced, so that one compiled program of capacity
            `n` serves any number. The results of the rest are zero.
        refill_every: steps between two looks for lanes that are done.

    Returns:
        The results in the order of the jobs, with a first axis of length `n`.

    Raises:
        ValueError: if there are no jobs, the leaves disagree about `n`, or there are no lanes.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(jobs)]
    n: int = max((shape[0] for shape in shapes if shape), default=0)
    if n == 0 or any(shape[:1] != (n,) for shape in shapes):
        raise ValueError(f"jobs need a common first axis of length at least 1, got arrays of shapes {shapes}")
    if num_lanes < 1 or refill_every < 1:
        raise ValueError(f"num_lanes and refill_every must be at least 1, got {num_lanes} and {refill_every}")
    num_lanes = min(num_lanes, n)
    count = jnp.asarray(n if count is None else count)
    init = jax.vmap(kernel.init)

    def take(index: Int[Array, " B"]) -> Any:
        return jax.tree.map(lambda leaf: leaf[jnp.minimum(index, n - 1)], jobs)

    def waiting(queue: _Queue) -> Bool[Array, " B"]:
        """Lanes with a result to hand in, or without a job while there is one."""
        idle = queue.job == n
        return jnp.where(idle, queue.next_job < count, jax.vmap(kernel.done)(queue.states))

    def refill(queue: _Queue) -> _Queue:
        free = waiting(queue)
        results = jax.tree.map(
            lambda buffer, new: buffer.at[jnp.where(free, queue.job, n)].set(new, mode="drop"),
            queue.results,
            jax.vmap(kernel.result)(queue.states),
        )
        next_job = queue.next_job + jnp.cumsum(free) - 1
        job = jnp.where(free, jnp.where(next_job < count, next_job, n), queue.job)
        states = jax.vmap(where)(free & (job < n), init(take(job)), queue.states)
        return _Queue(states, job, jnp.minimum(queue.next_job + free.sum(), count), results)

    def turn(queue: _Queue) -> _Queue:
        queue = jax.lax.cond(jnp.any(waiting(queue)), refill, lambda same: same, queue)
        return queue._replace(states=advance(kernel, queue.states, num_steps=refill_every))

    def blank(shape: jax.ShapeDtypeStruct) -> Array:
        return jnp.zeros(shape.shape, shape.dtype)

    # All lanes begin idle, so that `init` is compiled once, inside `refill`.
    idle = jnp.full(num_lanes, n)
    states = jax.tree.map(blank, jax.eval_shape(init, take(idle)))
    results = jax.eval_shape(jax.vmap(kernel.result), states)
    results = jax.tree.map(lambda leaf: blank(leaf.update(shape=(n, *leaf.shape[1:]))), results)
    queue = _Queue(states, idle, jnp.asarray(0), results)
    return jax.lax.while_loop(lambda queue: jnp.any(queue.job < n) | (queue.next_job < count), turn, queue).results
