import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxscape import from_loss, lbfgs, objective, quench, surfaces
from jaxscape.search.lbfgs import LbfgsConfig
from jaxscape.search.points import Status


def rosenbrock(x, _):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_rosenbrock_converges_to_its_minimum_from_everywhere():
    problem = from_loss(rosenbrock, jnp.zeros(4))
    starts = jax.random.uniform(jax.random.key(0), (20, 4), minval=0, maxval=2)
    found = quench(problem, starts)
    assert np.all(found.status == Status.CONVERGED)
    np.testing.assert_allclose(found.position, 1, atol=1e-7)
    assert np.all(found.grad_rms <= 1e-6)  # the Hessian's largest eigenvalue is 1e3


def test_minima_are_minima_for_scipy():
    problem, _ = surfaces.xor()
    starts = 2 * jax.random.normal(jax.random.key(1), (10, problem.dim))
    found = quench(problem, starts)
    fun = jax.jit(functools.partial(objective.value_and_grad, problem))
    for position, energy in zip(found.position, found.energy, strict=True):
        peer = scipy.optimize.minimize(
            fun, np.asarray(position) + 1e-3, jac=True, method="BFGS", options={"gtol": 1e-9}
        )
        np.testing.assert_allclose(peer.fun, energy, atol=1e-12)


def test_the_result_does_not_depend_on_the_number_of_lanes():
    problem, _ = surfaces.xor()
    starts = 2 * jax.random.normal(jax.random.key(2), (20, problem.dim))
    one, many = quench(problem, starts, num_lanes=1), quench(problem, starts, num_lanes=7)
    np.testing.assert_allclose(one.energy, many.energy, atol=1e-12)
    np.testing.assert_allclose(one.position, many.position, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "start", "status"),
    [
        (lambda x, _: jnp.sum(jnp.sqrt(x)), -1.0, Status.NONFINITE),  # NaN at the start
        (lambda x, _: jnp.sum(-jnp.log(x)), 1.0, Status.MAX_EVALUATIONS),  # unbounded below
        (lambda x, _: jnp.sum(0 * x), 1.0, Status.CONVERGED),  # constant
        (lambda x, _: jnp.sum(x - jnp.log(x)), 5.0, Status.CONVERGED),  # NaN across a border, minimum inside
        (lambda x, _: jnp.sum(jnp.where(x > 0, x, jnp.nan)), 1.0, Status.NONFINITE),  # runs against the border
        (lambda x, _: jnp.sum(jnp.abs(x)), 0.7, Status.STALLED),  # a kink
    ],
)
def test_bad_losses_end_in_bounded_time_with_a_status(loss, start, status):
    found = quench(from_loss(loss, jnp.zeros(1)), jnp.array([[start]]), LbfgsConfig(max_evaluations=300))
    assert Status(int(found.status[0])) == status
    assert found.num_evaluations[0] <= 300


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (1e5, 0.0), (1e-12, 0.0), (1.0, 1e10), (1e-10, 3.0)])
def test_neither_the_scale_of_a_loss_nor_a_constant_changes_what_is_found(factor, offset):
    problem, _ = surfaces.mueller_brown()
    loss = from_loss(lambda x, _: factor * objective.value(problem, x) + offset, jnp.zeros(2))
    starts = jax.random.uniform(jax.random.key(0), (16, 2))
    found = quench(loss, starts)
    assert np.all(found.status == Status.CONVERGED)
    assert np.all(found.num_evaluations < 200)
    minima = scipy.optimize.minimize(
        lambda x: float(objective.value(problem, jnp.asarray(x))), [0.62, 0.03], method="Nelder-Mead"
    )
    nearest = np.linalg.norm(found.position - minima.x, axis=1).min()
    assert nearest < 1e-4
    plain = quench(problem, starts).position
    same = np.linalg.norm(found.position[:, None] - plain, axis=2).min(axis=1)
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_float32_stops_at_what_it_can_reach():
    problem = from_loss(rosenbrock, jnp.zeros(2, jnp.float32))
    found = quench(problem, jnp.zeros((1, 2), jnp.float32))
    assert found.position.dtype == jnp.float32
    np.testing.assert_allclose(found.position, 1, atol=1e-3)


def test_starts_of_the_wrong_shape_or_dtype_are_a_value_error():
    problem = from_loss(rosenbrock, jnp.zeros(2))
    data = from_loss(lambda x, centre: jnp.sum((x.astype(float) - centre) ** 2), jnp.zeros(2), jnp.ones(2))
    with pytest.raises(ValueError, match="float64 for starts of float32"):
        quench(data, jnp.zeros((4, 2), jnp.float32))
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        quench(problem, jnp.zeros((4, 3)))


@pytest.mark.parametrize("number", [1, 3, 4, 11])
def test_direction_is_that_of_the_dense_bfgs_inverse(number):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(number, 2, 5)) * rng.uniform(1e-9, 1e3, size=(number, 1, 1))
    pairs[:, 1] *= np.sign(np.sum(pairs[:, 0] * pairs[:, 1], axis=1))[:, None]
    history = lbfgs.empty_history(jnp.zeros(5), 4)
    for s, y in rng.normal(size=(6, 2, 5)):
        history = lbfgs.remember(history, jnp.asarray(s), jnp.asarray(y))
    history = lbfgs.forget(history, jnp.asarray(True))
    for s, y in pairs:
        history = lbfgs.remember(history, jnp.asarray(s), jnp.asarray(y))
        history = lbfgs.remember(history, jnp.asarray(y), jnp.asarray(s), jnp.asarray(False))  # is not wanted
        history = lbfgs.forget(history, jnp.asarray(False))
    history = lbfgs.remember(history, jnp.zeros(5), jnp.zeros(5))  # tells nothing
    pairs = pairs[-4:]
    s, y = pairs[-1]
    inverse = np.eye(5) * (s @ y) / (y @ y)
    for s, y in pairs:
        left = np.eye(5) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    gradient = rng.normal(size=5)
    np.testing.assert_allclose(lbfgs.direction(history, jnp.asarray(gradient)), -inverse @ gradient, rtol=1e-10)


RANDOM = {
    "lennard-jones": (surfaces.lennard_jones(7), 0.8),
    "mueller-brown": (surfaces.mueller_brown(), 0.5),
    "xor": (surfaces.xor(), 1.0),
    "schwefel": (surfaces.schwefel(), 200.0),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_minimum_is_recognised_at_once(name):
    (problem, _), width = RANDOM[name]
    found = quench(problem, width * jax.random.normal(jax.random.key(1), (8, problem.dim)))
    assert np.all(found.status == Status.CONVERGED)
    assert np.all(found.num_evaluations < 250)
    again = quench(problem, found.position)
    assert np.all(again.status == Status.CONVERGED)
    assert np.all(again.num_evaluations <= 10)
    np.testing.assert_allclose(again.position, found.position, atol=1e-5)


def test_off_a_steep_wall_it_goes_on():
    problem, _ = surfaces.lennard_jones(7)
    found = quench(problem, 0.2 * jax.random.normal(jax.random.key(0), (200, problem.dim)))  # atoms upon each other
    assert np.all(found.status == Status.CONVERGED)
    assert np.all(found.grad_rms < 1e-4)


@pytest.mark.parametrize("curvatures", [(1e5, 1e-5), (1e6, 1e-4), (1.0, 1e-9)])
def test_a_soft_direction_beside_a_stiff_one_is_followed_to_its_end(curvatures):
    bowl = from_loss(lambda x, d: 0.5 * jnp.sum(d * x**2), jnp.zeros(2), jnp.array(curvatures))
    found = quench(bowl, jnp.ones((1, 2)))
    assert found.status[0] == Status.CONVERGED
    np.testing.assert_allclose(found.position[0], 0, atol=1e-6)


def test_points_that_are_no_array_are_named():
    # Without the type checks of the other tests, which would answer first.
    code = (
        "import jax, jax.numpy as jnp, jaxscape as js\n"
        "o = js.from_loss(lambda x, _: jnp.sum(x**2), jnp.zeros(2))\n"
        "for call in (lambda: js.quench(o, [[0.0, 0.0]]), lambda: js.quench(o, jnp.zeros((0, 2))),\n"
        "             lambda: js.explore(o, js.Symmetry((), dim=2), [[0.0, 0.0]], jax.random.key(0))):\n"
        "    try:\n        call()\n    except ValueError as error:\n        print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.startswith("starts must") for line in run.stdout.splitlines()] == [True, True, True]
