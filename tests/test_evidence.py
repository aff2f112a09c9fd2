"""The evidence against closed forms and quadrature, and the number of copies as a unit dies."""

import functools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.integrate import dblquad, quad
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from jaxscape import evidence, losses, models, quench
from jaxscape.evidence import EvidenceConfig, Outcome
from jaxscape.landscape.explore import start
from jaxscape.objective import from_rows, hessian, value, whiten


def linear(weights, x):
    return x @ weights[:, None]


def gaussian(noise=1.0):
    return Partial(losses.gaussian_errors, jnp.asarray(noise))


@pytest.fixture(scope="module")
def line():
    """Thirty rows of four columns: two matter, one a little, one not at all."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 4))
    y = x @ np.array([2.0, -1.0, 0.3, 0.0]) + 0.5 * rng.normal(size=30)
    return jnp.asarray(x), jnp.asarray(y), from_rows(linear, gaussian(), jnp.zeros(4), x, y, precision=1.0)


def exact(x, y, alphas, noise):
    """The marginal likelihood of linear regression: the rows are jointly Gaussian."""
    covariance = np.eye(len(y)) / noise + (x / alphas) @ x.T
    return multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)


def test_of_linear_regression_it_is_exact(line):
    x, y, objective = line
    alphas, noise = np.array([0.3, 2.0, 5.0, 100.0]), 3.0
    chosen = evidence.at(objective, alphas, noise)
    for each in (chosen, whiten(chosen)):
        found = quench(each, jnp.zeros((1, 4))).position[0]
        log_determinant = np.linalg.slogdet(hessian(each, found))[1]
        value = evidence.log_evidence(each, found, log_determinant)
        assert float(value) == pytest.approx(exact(x, y, alphas, noise), abs=1e-8)


def test_the_penalties_are_those_that_an_optimiser_finds(line):
    x, y, objective = line
    found = evidence.fit(objective, np.array([0, 1, 2, 2]), jnp.zeros((1, 4)), jnp.ones((1, 3)))
    best = minimize(
        lambda logs: -exact(x, y, np.exp(logs[[0, 1, 2, 2]]), np.exp(logs[3])), np.zeros(4), options={"gtol": 1e-8}
    )
    assert found.status[0] == Outcome.SETTLED
    assert float(found.log_evidence[0]) == pytest.approx(-best.fun, abs=1e-4)
    np.testing.assert_allclose(np.log(np.append(found.alphas[0], found.noises[0])), best.x, atol=0.02)


def test_the_group_that_does_nothing_is_off(line):
    _, _, objective = line
    config = EvidenceConfig(num_updates=200)
    found = evidence.fit(objective, np.arange(4), jnp.zeros((2, 4)), jnp.ones((2, 4)), config)
    assert evidence.awake(found).tolist() == [[True, True, True, False]] * 2
    assert abs(float(found.positions[0, 3])) < 1e-3


def test_of_logistic_regression_it_is_near_the_integral():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1))
    y = (rng.random(200) < 1 / (1 + np.exp(-1.5 * x[:, 0]))).astype(float)
    objective = evidence.at(
        from_rows(linear, losses.sigmoid_errors, jnp.zeros(1), x, y, precision=0.0), np.array([0.7])
    )
    found = quench(objective, jnp.zeros((1, 1))).position[0]
    lowest = 200 * float(value(objective, found))
    error = jax.jit(lambda w: 200 * value(objective, w[None]))
    integral, _ = quad(lambda w: math.exp(lowest - float(error(w))), -2, 6, points=[float(found[0])])
    wanted = -lowest + math.log(integral) + 0.5 * math.log(0.7 / (2 * math.pi))
    got = evidence.log_evidence(objective, found, jnp.log(hessian(objective, found)[0, 0]))
    assert float(got) == pytest.approx(wanted, abs=0.02)


@functools.cache
def unit():
    """One hidden unit without biases, v tanh(w x), and its evidence by quadrature."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 1))
    y = 1.5 * np.tanh(1.2 * x[:, 0]) + 0.3 * rng.normal(size=60)
    outputs = lambda p, x: p[1] * jnp.tanh(x * p[0])  # noqa: E731
    objective = from_rows(outputs, gaussian(), jnp.zeros(2), x, y, precision=1.0)
    alphas, noise = np.array([0.5, 0.4]), 9.0

    def integrand(v, w):
        residual = y - v * np.tanh(w * x[:, 0])
        return math.exp(-0.5 * noise * residual @ residual - 0.5 * (alphas[0] * w * w + alphas[1] * v * v) + 20)

    integral, _ = dblquad(integrand, -6, 6, -12, 12, epsabs=1e-10)
    log_z = (
        math.log(integral)
        - 20
        + 30 * math.log(noise / (2 * math.pi))
        + 0.5 * math.log(alphas.prod())
        - math.log(2 * math.pi)
    )
    return evidence.at(objective, alphas, noise), log_z


def test_of_a_network_with_its_copies_it_is_near_the_integral():
    objective, wanted = unit()
    found = quench(objective, jnp.ones((1, 2))).position[0]
    curvature = np.asarray(hessian(objective, found))
    copies = evidence.log_copies(np.array([[0, 1]]), np.asarray(found), 60 * curvature, odd=True)
    got = float(evidence.log_evidence(objective, found, np.linalg.slogdet(curvature)[1])) + copies
    assert copies == pytest.approx(math.log(2), abs=1e-3)
    assert got == pytest.approx(wanted, abs=0.1)


def test_copies_are_counted_from_all_to_one_as_units_die():
    sizes = (3, 4, 1)
    units = models.symmetry(sizes).layers[0].units
    rng = np.random.default_rng(0)
    x, curvature = 3 * rng.normal(size=21), 50 * np.eye(21)
    assert evidence.log_copies(units, x, curvature, odd=True) == pytest.approx(math.log(2**4 * 24), abs=1e-6)
    assert evidence.log_copies(units, x, curvature, odd=False) == pytest.approx(math.log(24), abs=1e-6)
    assert evidence.log_copies(units, 0 * x, curvature, odd=True) == 0
    twin = x.copy()
    twin[units[1]] = -twin[units[0]]  # the same unit, mirrored
    assert evidence.log_copies(units, twin, curvature, odd=True) == pytest.approx(math.log(2**4 * 12), abs=1e-6)
    counts = []
    for size in np.linspace(1, 0, 2000):
        dying = x.copy()
        dying[units[2]] *= size
        counts.append(evidence.log_copies(units, dying, curvature, odd=True))
    assert counts[-1] == pytest.approx(math.log(2**3 * 24), abs=1e-6)
    assert 0 <= np.max(-np.diff(counts)) < 0.02
    assert np.max(np.diff(counts)) < 1e-6


def test_a_group_that_nothing_depends_on_is_off_wherever_it_starts():
    x = np.random.default_rng(0).normal(size=(30, 2)) * np.array([1.0, 0.0])
    y = x[:, 0] + 0.1 * np.random.default_rng(1).normal(size=30)
    objective = from_rows(linear, gaussian(), jnp.zeros(2), x, y, precision=1.0)
    starts = jnp.array([[0.0, 0.7], [0.0, 0.2], [0.0, 0.0]])
    found = evidence.fit(objective, np.array([0, 1]), starts, jnp.ones((3, 2)))
    assert found.alphas[:, 1].tolist() == [evidence.ALPHAS[1]] * 3


def test_a_regression_without_noise_is_said_to_interpolate():
    x = np.random.default_rng(0).normal(size=(20, 2))
    objective = from_rows(linear, gaussian(), jnp.zeros(2), x, x @ np.array([1.0, 2.0]), precision=1.0)
    found = evidence.fit(objective, np.array([0, 1]), jnp.zeros((1, 2)), jnp.ones((1, 2)))
    assert found.status[0] == Outcome.INTERPOLATES
    assert np.isfinite(found.log_evidence[0])


def test_a_model_that_is_no_number_is_said_to_be_none():
    x = np.ones((5, 1))
    broken = from_rows(lambda w, x: x * jnp.log(w), gaussian(), jnp.ones(1), x, np.ones(5), precision=1.0)
    found = evidence.fit(broken, np.array([0]), -jnp.ones((1, 1)), jnp.ones((1, 1)))
    assert found.status[0] == Outcome.NONFINITE
    assert found.log_evidence[0] == -np.inf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o, g, s, a: (replace(o, outputs=None), g, s, a), "from_rows"),
        (lambda o, g, s, a: (whiten(o), g, s, a), "not whitened"),
        (lambda o, g, s, a: (o, g[:2], s, a), "groups must have shape"),
        (lambda o, g, s, a: (o, g, s, a[:, :2]), "alphas"),
        (lambda o, g, s, a: (o, g, s[:, :2], a), "starts must have shape"),
    ],
)
def test_misuse_is_named(line, change, words):
    with pytest.raises(ValueError, match=words):
        getattr(evidence.fit, "__wrapped__", evidence.fit)(
            *change(line[2], np.arange(4), jnp.zeros((1, 4)), jnp.ones((1, 4)))
        )


def test_penalties_that_tell_units_apart_are_refused():
    sizes = (2, 3, 1)
    params = models.init(jax.random.key(0), sizes)
    precision = np.full(13, 0.1)
    precision[0] = 0.2  # of the first input, to one unit alone
    x, y = np.ones((4, 2)), np.ones(4)
    objective = from_rows(models.mlp(), losses.squared_errors, params, x, y, precision=precision)
    with pytest.raises(ValueError, match="interchangeable"):
        start(objective, models.symmetry(sizes), jnp.zeros((1, 13)), jax.random.key(0))
