"""Eigenpairs, the polish, eigenvector-following and the push-off."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

from jaxscape import eigenpair, eigenvector_following, from_loss, lbfgs, newton, objective, quench, surfaces, symmetry
from jaxscape.search import steepest_descent
from jaxscape.search.points import Status


def mueller_brown_gradient(position):
    heights, a, b, c, x0, y0 = np.array(
        [
            [-200, -100, -170, 15],
            [-1, -1, -6.5, 0.7],
            [0, 0, 11, 0.6],
            [-10, -10, -6.5, 0.7],
            [1, 0, -0.5, -1],
            [0, 0.5, 1.5, 1],
        ],
        float,
    )
    x, y = position[0] - x0, position[1] - y0
    terms = heights * np.exp(a * x**2 + b * x * y + c * y**2)
    return np.array([np.sum(terms * (2 * a * x + b * y)), np.sum(terms * (b * x + 2 * c * y))])


# Published to six decimals, refined here by SciPy on a gradient of its own.
MINIMA = [(-0.558224, 1.441726), (0.623499, 0.028038), (-0.050011, 0.466694)]
SADDLES = [(-0.822002, 0.624313), (0.212487, 0.292988)]


def refined(points):
    return np.array(
        sorted(scipy.optimize.root(mueller_brown_gradient, point, tol=1e-12).x.tolist() for point in points)
    )


@pytest.fixture(scope="module")
def mueller_brown_saddles():
    problem, _ = surfaces.mueller_brown()
    starts = jax.random.uniform(
        jax.random.key(0), (64, 2), minval=jnp.array([-1.3, -0.2]), maxval=jnp.array([0.8, 1.6])
    )
    vectors = jax.random.normal(jax.random.key(1), starts.shape)
    found = eigenvector_following.search(problem, starts, vectors)
    polished = newton.polish(problem, found.point.position, index=1)
    good = np.asarray((found.point.status == Status.CONVERGED) & (polished.point.status == Status.CONVERGED))
    return problem, jax.tree.map(lambda leaf: leaf[good], polished)


def distinct(points):
    return np.unique(np.round(np.asarray(points), 6), axis=0)


def test_mueller_brown_minima_from_random_starts():
    problem, _ = surfaces.mueller_brown()
    starts = jax.random.uniform(
        jax.random.key(0), (64, 2), minval=jnp.array([-1.3, -0.2]), maxval=jnp.array([0.8, 1.6])
    )
    found = quench(problem, starts)
    np.testing.assert_allclose(distinct(found.position[found.status == Status.CONVERGED]), refined(MINIMA), atol=1e-6)


def test_mueller_brown_transition_states_from_random_starts(mueller_brown_saddles):
    _, polished = mueller_brown_saddles
    np.testing.assert_allclose(distinct(polished.point.position), refined(SADDLES), atol=1e-6)
    assert np.all(np.sum(polished.eigenvalues < 0, axis=1) == 1)


def test_the_push_off_goes_downhill_to_both_minima(mueller_brown_saddles):
    problem, polished = mueller_brown_saddles
    saddles = eigenvector_following.TransitionState(polished.point, polished.eigenvalues[:, 0], polished.eigenvector)
    found = eigenvector_following.push_off(problem, saddles)
    minima = refined(MINIMA)
    for end, other in ((found.minus, found.plus), (found.plus, found.minus)):
        assert np.all(end.status == Status.CONVERGED)
        assert np.all(end.energy < saddles.point.energy)
        assert np.all(np.linalg.norm(end.position - other.position, axis=1) > 0.1)
        nearest = np.linalg.norm(np.asarray(end.position)[:, None] - minima, axis=2).min(axis=1)
        np.testing.assert_allclose(nearest, 0, atol=1e-6)


def test_the_way_down_from_a_saddle_never_rises(mueller_brown_saddles):
    problem, polished = mueller_brown_saddles
    saddles = eigenvector_following.TransitionState(polished.point, polished.eigenvalues[:, 0], polished.eigenvector)
    before = np.broadcast_to(saddles.point.energy, (2, len(saddles.eigenvalue)))
    where = np.broadcast_to(saddles.point.position, (2, *saddles.point.position.shape))
    for steps in range(1, 60):
        config = eigenvector_following.PushOffConfig(descent=lbfgs.LbfgsConfig(max_step=0.05, max_evaluations=steps))
        found = eigenvector_following.push_off(problem, saddles, config)
        energies = np.stack([found.minus.energy, found.plus.energy])
        positions = np.stack([found.minus.position, found.plus.position])
        assert np.all(energies <= before + 1e-9)
        assert np.linalg.norm(positions - where, axis=2).max() < 0.051
        before, where = energies, positions
    assert np.all(before < saddles.point.energy - 1)


def test_a_search_that_only_climbs_says_so_in_bounded_time():
    bowl = from_loss(lambda x, _: jnp.sum(x**2), jnp.zeros(3))
    found = eigenvector_following.search(bowl, jnp.ones((2, 3)), jnp.ones((2, 3)))
    assert np.all(found.point.status == Status.LOST_NEGATIVE_CURVATURE)


def test_a_push_off_without_a_way_down_fails():
    bowl = from_loss(lambda x, _: jnp.sum(x**2), jnp.zeros(3))
    polished = newton.polish(bowl, jnp.ones((1, 3)))
    fake = eigenvector_following.TransitionState(polished.point, polished.eigenvalues[:, 0], polished.eigenvector)
    found = eigenvector_following.push_off(bowl, fake)
    assert found.minus.status[0] == found.plus.status[0] == Status.PUSHOFF_FAILED


@pytest.mark.parametrize("dim", [1, 2, 30])
def test_lowest_eigenpair_is_that_of_dense_eigh(dim):
    rng = np.random.default_rng(dim)
    matrix = rng.normal(size=(dim, dim))
    matrix = jnp.asarray(matrix + matrix.T)
    values, vectors = np.linalg.eigh(matrix)
    start = jnp.asarray(rng.normal(size=dim))
    pair = eigenpair.lowest(lambda v: matrix @ v, start, num_steps=dim + 5)
    np.testing.assert_allclose(pair.value, values[0], atol=1e-10)
    np.testing.assert_allclose(abs(vectors[:, 0] @ pair.vector), 1, atol=1e-8)
    assert jnp.vdot(pair.vector, start) >= 0


def test_few_lanczos_steps_bound_the_error_by_the_residual():
    values = jnp.linspace(-1.0, 5.0, 50)
    pair = eigenpair.lowest(lambda v: values * v, jnp.ones(50), num_steps=6)
    assert pair.value >= -1
    assert jnp.abs(values - pair.value).min() <= pair.residual + 1e-12


def test_an_exhausted_krylov_space_gives_no_spurious_pair():
    # The start is an eigenvector: one step says it all, the rest is rounding noise.
    pair = eigenpair.lowest(lambda v: jnp.array([4.0, 5.0, 6.0]) * v, jnp.array([0.0, 1.0, 0.0]), num_steps=3)
    np.testing.assert_allclose(pair.value, 5.0)
    np.testing.assert_allclose(pair.vector, [0, 1, 0], atol=1e-12)


def test_polish_reaches_the_floor_and_certifies_the_index():
    problem, _ = surfaces.xor()
    found = quench(problem, 2 * jax.random.normal(jax.random.key(3), (8, problem.dim)))
    polished = newton.polish(problem, found.position + 1e-3)
    assert np.all(polished.point.status == Status.CONVERGED)
    assert np.all(polished.point.grad_rms < 1e-13)
    dense = jax.jit(jax.vmap(functools.partial(objective.hessian, problem)))(polished.point.position)
    np.testing.assert_allclose(polished.eigenvalues, np.linalg.eigvalsh(dense), atol=1e-9)
    assert np.all(polished.eigenvalues > 0)


def test_a_point_reached_in_one_step_is_certified_where_it_is():
    # Newton lands on the saddle at the origin at once; the Hessian at the start has no negative eigenvalue.
    surface = from_loss(lambda x, _: x[0] ** 2 / 2 + (x[0] - 0.05) * x[1] ** 2 + x[1] ** 4, jnp.zeros(2))
    polished = newton.polish(surface, jnp.array([[0.2, 0.0]]))
    np.testing.assert_allclose(polished.eigenvalues[0], [-0.1, 1.0], atol=1e-9)


def test_polish_does_not_call_a_point_stationary_that_is_not():
    slope = from_loss(lambda x, _: jnp.sum(x) + jnp.sum(jnp.exp(-x)) * 1e-30, jnp.zeros(2))
    assert newton.polish(slope, jnp.zeros((1, 2))).point.status[0] != Status.CONVERGED


def test_ritz_values_bracket_eigenvalues_within_their_residuals():
    rng = np.random.default_rng(5)
    basis, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    true = np.sort(rng.normal(size=40))
    matrix = jnp.asarray(basis * true @ basis.T)
    pairs = eigenpair.ritz(lambda v: matrix @ v, jnp.asarray(rng.normal(size=40)), num_steps=12)
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(true - value).min() <= residual + 1e-12
    assert pairs.values[0] >= true[0] - 1e-12


def test_the_polish_without_a_hessian_ends_where_the_dense_one_does():
    problem, _ = surfaces.xor()
    starts = quench(problem, jax.random.normal(jax.random.key(0), (4, problem.dim))).position + 1e-3
    dense = newton.polish(problem, starts)
    polished, residuals = newton.polish_matrix_free(problem, starts)
    np.testing.assert_allclose(polished.point.position, dense.point.position, atol=1e-8)
    np.testing.assert_allclose(polished.eigenvalues[:, :2], dense.eigenvalues[:, :2], atol=1e-8)
    assert np.all(residuals < 1e-8)


def test_push_offs_end_where_the_gradient_flow_ends():
    # Seven atoms: an accurate integration by SciPy from a small push.
    problem, group = surfaces.lennard_jones(7)
    starts = jax.random.uniform(jax.random.key(0), (24, 21), minval=-1.5, maxval=1.5)
    minima = quench(problem, starts).position
    pushed = minima + 0.3 * jax.random.normal(jax.random.key(1), minima.shape)
    ends = eigenvector_following.search(problem, pushed, jax.random.normal(jax.random.key(2), minima.shape)).point
    polished = newton.polish(problem, ends.position, index=1)
    good = np.flatnonzero(
        (polished.point.status == Status.CONVERGED) & (np.sum(polished.eigenvalues < 0, axis=1) == 1)
    )[:8]
    assert len(good) == 8
    saddles = eigenvector_following.TransitionState(
        jax.tree.map(lambda leaf: leaf[good], polished.point),
        polished.eigenvalues[good, 0],
        polished.eigenvector[good],
    )
    steepest = eigenvector_following.PushOffConfig(path=steepest_descent.PathConfig())
    found = eigenvector_following.push_off(problem, saddles, steepest)
    gradient = jax.jit(lambda x: objective.value_and_grad(problem, x)[1])
    for row in range(8):
        for sign, end in ((-1, found.minus), (1, found.plus)):
            start = saddles.point.position[row] + sign * 1e-3 * saddles.eigenvector[row]
            flow = scipy.integrate.solve_ivp(
                lambda _, x: -np.asarray(gradient(x)), (0, 20), start, method="LSODA", rtol=1e-8, atol=1e-10
            )
            last = quench(problem, jnp.asarray(flow.y[:, -1:].T), lbfgs.LbfgsConfig(max_step=0.01)).position[0]
            _, distance = symmetry.align(group, np.asarray(last), np.asarray(end.position[row])[None])
            assert distance[0] < 1e-4


def test_a_path_that_runs_out_of_steps_says_so():
    problem, _ = surfaces.mueller_brown()
    start = jnp.array([[-0.7, 0.7]])
    config = steepest_descent.PathConfig(max_steps=3)
    assert steepest_descent.descend(problem, start, config).status[0] == Status.MAX_EVALUATIONS
    path = steepest_descent.descend(problem, start)
    assert path.status[0] == Status.CONVERGED
    assert np.abs(np.asarray(path.position[0]) - np.array(MINIMA)).max(axis=1).min() < 0.15
