import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxscape import losses, models
from jaxscape.objective import from_loss, from_rows, hessian, ravel, value_and_grad, whiten
from jaxscape.search.gauss_newton import GaussNewtonConfig
from jaxscape.search.points import Status
from jaxscape.search.quench import quench

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))


def affine(params, x):
    return x @ params[:, None]


def scalar(params, x):
    return jnp.zeros_like(x) + params


def test_ridge_regression_takes_one_step_and_two_to_see_that_it_did():
    y, precision = RNG.normal(size=60), np.array([1e-3, 1e-1, 10.0, 1e3])
    problem = from_rows(affine, losses.squared_errors, jnp.zeros(4), X, y, precision=precision)
    exact = np.linalg.solve(2 * X.T @ X / 60 + np.diag(precision), 2 * X.T @ y / 60)
    for o in (problem, whiten(problem)):
        scale = 1 if o.scale is None else np.asarray(o.scale)
        found = quench(o, jnp.asarray(RNG.normal(size=(3, 4))), GaussNewtonConfig())
        assert np.all(found.status == Status.CONVERGED)
        np.testing.assert_allclose(scale * found.position, np.broadcast_to(exact, (3, 4)), atol=1e-11)
        # 1 + P + P / 6 gradients a step.
        assert np.all(found.num_evaluations <= 12 * (1 + 4))


def test_logistic_regression_is_that_of_scikit_learn():
    y = (X[:, 0] + RNG.normal(size=60) > 0).astype(float)
    peer = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-12, max_iter=1000).fit(X, y)
    problem = from_rows(affine, losses.sigmoid_errors, jnp.zeros(4), X, y, precision=0.5 / 60)
    found = quench(problem, jnp.asarray(10 * RNG.normal(size=(4, 4))), GaussNewtonConfig(), num_lanes=3)
    assert np.all(found.status == Status.CONVERGED)
    np.testing.assert_allclose(found.position, np.broadcast_to(peer.coef_, (4, 4)), atol=1e-6)


@pytest.fixture(scope="module")
def network():
    sizes = (4, 3, 1)
    params = models.init(jax.random.key(0), sizes)
    y = X[:, 0] * X[:, 1] + np.tanh(2 * X[:, 2]) + 0.3 * RNG.normal(size=60)
    groups = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1), params)
    groups[0].weights[:] = np.array([0.3, 0.3, 1.0, 1e3])[:, None]
    # Errors in nats with a noise precision of 10: stiff along what the data tell, soft along what the penalties hold.
    problem = from_rows(
        models.mlp("tanh"),
        jax.tree_util.Partial(lambda beta, f, y: 0.5 * beta * (f[:, 0] - y) ** 2, jnp.asarray(10.0)),
        params,
        X,
        y,
        precision=np.asarray(ravel(groups)) / 60,
    )
    return whiten(problem), 3 * jax.random.normal(jax.random.key(1), (12, problem.dim))


def test_every_start_of_a_network_ends_in_a_minimum(network):
    problem, starts = network
    found = quench(problem, starts, GaussNewtonConfig())
    assert np.all(found.status == Status.CONVERGED)
    curvatures = jax.jit(lambda xs: jax.lax.map(lambda x: jnp.linalg.eigvalsh(hessian(problem, x)), xs))
    assert np.all(curvatures(found.position)[:, 0] > 0)
    assert np.all(found.grad_rms < 1e-10)
    energy, gradient = jax.jit(jax.vmap(lambda x: value_and_grad(problem, x)))(found.position)
    np.testing.assert_allclose(energy, found.energy, rtol=1e-12)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(gradient**2, axis=1)), found.grad_rms, atol=1e-12)
    per_step = 1 + problem.dim + problem.dim // 6
    assert np.all(found.num_evaluations % per_step == 0)
    assert np.median(found.num_evaluations) / per_step < 60  # with the Gauss-Newton matrix alone it crawls
    one = quench(problem, starts, GaussNewtonConfig(), num_lanes=1)
    np.testing.assert_allclose(one.position, found.position, atol=1e-7)


def test_a_minimum_is_recognised_at_once_and_stays_put(network):
    problem, starts = network
    found = quench(problem, starts, GaussNewtonConfig())
    again = quench(problem, found.position, GaussNewtonConfig())
    assert np.all(again.status == Status.CONVERGED)
    assert np.all(again.num_evaluations <= 4 * (1 + problem.dim + problem.dim // 6))
    np.testing.assert_allclose(again.position, found.position, atol=1e-7)


def test_steps_are_capped_and_counted(network):
    problem, starts = network
    found = quench(problem, starts, GaussNewtonConfig(max_step=0.1, max_steps=6))  # the first evaluates the start
    assert np.all(found.status == Status.MAX_EVALUATIONS)
    moved = np.linalg.norm(found.position - starts, axis=1)
    assert np.all(moved <= 0.5 + 1e-12)
    assert np.any(moved > 0.3)


@pytest.mark.parametrize(
    ("errors", "precision", "start", "status"),
    [
        (lambda f, y: jnp.sqrt(f[:, 0]), 0.1, -1.0, Status.NONFINITE),  # NaN at the start
        (lambda f, y: -jnp.log(f[:, 0]), 0.0, 1.0, Status.MAX_EVALUATIONS),  # unbounded below
        (lambda f, y: 0 * f[:, 0], 0.0, 1.0, Status.CONVERGED),  # constant
        (lambda f, y: f[:, 0] - jnp.log(f[:, 0]), 0.0, 5.0, Status.CONVERGED),  # NaN across a border, minimum inside
        (lambda f, y: jnp.where(f[:, 0] > 0, f[:, 0], jnp.nan), 0.0, 1.0, Status.NONFINITE),  # runs against the border
        (lambda f, y: jnp.abs(f[:, 0]), 0.0, 0.7, Status.STALLED),  # a kink
        (lambda f, y: jnp.abs(f[:, 0] - 0.1) + 0.3 * f[:, 0], 0.0, 0.7, Status.STALLED),  # one not alike on both sides
        (lambda f, y: f[:, 0], 2.0, 3.0, Status.CONVERGED),  # no curvature but the penalty's
        (lambda f, y: (f[:, 0] - y) ** 4, 0.0, 3.0, Status.CONVERGED),  # flat at the minimum
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bad_errors_end_in_bounded_time_with_a_status(errors, precision, start, status, dtype):
    x = np.zeros((3, 1), dtype)
    problem = from_rows(scalar, errors, jnp.zeros(1, dtype), x, x[:, 0] + dtype(0.5), precision=precision)
    found = quench(problem, jnp.full((1, 1), start, dtype), GaussNewtonConfig(max_steps=300))
    assert Status(int(found.status[0])) == status
    assert found.position.dtype == dtype


@pytest.mark.parametrize("factor", [1e-12, 1e8])
def test_the_scale_of_the_loss_changes_nothing(network, factor):
    problem, starts = network

    def scaled(f, y):
        return factor * 5.0 * (f[:, 0] - y) ** 2

    rows, scale = problem.data, np.asarray(problem.scale)
    params = problem.unravel(starts[0])
    other = from_rows(models.mlp("tanh"), scaled, params, rows.x, rows.y, precision=factor * np.asarray(rows.precision))
    found = quench(other, starts[:4] * scale, GaussNewtonConfig())
    assert np.all(found.status == Status.CONVERGED)
    one = quench(problem, found.position / scale, GaussNewtonConfig())
    np.testing.assert_allclose(one.position, found.position / scale, atol=1e-6)


def test_what_has_no_rows_is_named():
    bowl = from_loss(lambda x, _: jnp.sum(x**2), jnp.zeros(2))
    with pytest.raises(ValueError, match="from_rows"):
        quench(bowl, jnp.zeros((1, 2)), GaussNewtonConfig())
