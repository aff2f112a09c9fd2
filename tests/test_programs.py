"""Programs that outlive the process: what they are known by, and what happens where they cannot be loaded."""

import functools
import gc
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import programs
from jaxscape.objective import from_loss, values


@pytest.fixture
def folder(tmp_path):
    programs.keep_in(tmp_path)
    traced.clear()
    yield tmp_path
    programs.keep_in(None)


traced = []


def of_the_library(function):
    """The function as if a module of the library defined it."""
    namespace = function.__globals__ | {"__name__": "jaxscape.made_up"}
    found = types.FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    found.__module__ = "jaxscape.made_up"
    return found


def made(constant, power=1, static=()):
    """A function as a new process would see it: a new object of the same content."""

    def scaled(x, times=1):
        traced.append(x)
        return {"scaled": (constant * x) ** power * times, "none": None}

    return programs.Program(of_the_library(scaled), static)


def test_the_next_process_traces_nothing(folder):
    for _ in range(2):
        found = made(np.arange(3.0))(jnp.ones(3))
        assert found["scaled"].tolist() == [0, 1, 2]
        assert found["none"] is None
    assert len(traced) == 1
    assert len(list(folder.iterdir())) == 1


def test_whatever_changes_the_program_changes_its_name(folder):
    calls = [
        lambda: made(2.0)(jnp.ones(3)),
        lambda: made(3.0)(jnp.ones(3)),
        lambda: made(2.0, power=2)(jnp.ones(3)),
        lambda: made(2.0)(jnp.ones(4)),
        lambda: made(2.0)(jnp.ones(3, jnp.float32)),
        lambda: made(2.0)(1.0),
        lambda: made(2.0, static=["times"])(jnp.ones(3), times=2),
        lambda: made(2.0, static=["times"])(jnp.ones(3), times=3),
        lambda: made(np.array([2.0, 2.0, 2.0]))(jnp.ones(3)),
        lambda: made(np.array([2.0, 2.0, 3.0]))(jnp.ones(3)),
    ]
    first = [call()["scaled"] for call in calls]
    assert len(traced) == len(calls) == len(list(folder.iterdir()))
    again = [call()["scaled"] for call in calls]
    assert len(traced) == len(calls)
    for mine, loaded in zip(first, again, strict=True):
        assert mine.dtype == loaded.dtype
        np.testing.assert_array_equal(mine, loaded)
    assert float(first[7][0]) == 6


def test_a_file_that_is_damaged_is_made_anew(folder):
    made(2.0)(jnp.ones(3))
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert made(2.0)(jnp.ones(3))["scaled"].tolist() == [2, 2, 2]
    assert len(traced) == 2
    assert made(2.0)(jnp.ones(3))["scaled"].tolist() == [2, 2, 2]
    assert len(traced) == 2


def test_what_users_wrote_is_compiled_as_ever(folder):
    objective = from_loss(lambda params, _: jnp.sum(params**2), jnp.zeros(2))
    assert values(objective, jnp.ones((3, 2))).tolist() == [2, 2, 2]
    assert not list(folder.iterdir())


def test_what_users_wrote_is_not_taken_for_something_else(folder):
    def loss(factor):
        class Loss(NamedTuple):
            power: int

            def __call__(self, params, _):
                return factor * jnp.sum(params**self.power)

        return Loss(2)

    # Equal as tuples, and of equal names.
    for factor in (1.0, 3.0):
        objective = from_loss(loss(factor), jnp.zeros(2))
        jax.clear_caches()  # as in a new process
        assert float(values(objective, jnp.ones((1, 2)))[0]) == 2 * factor
    for factor in (1.0, 3.0):

        @functools.wraps(jnp.sum)
        def lent(params, _, factor=factor):
            return factor * jnp.sum(params)

        assert float(values(from_loss(lent, jnp.zeros(2)), jnp.ones((1, 2)))[0]) == 2 * factor
    assert not list(folder.iterdir())


def test_a_rule_of_the_users_for_derivatives_is_no_part_of_the_library(folder):
    for factor in (1.0, 3.0):
        soft = jax.custom_jvp(jax.nn.softplus)
        soft.defjvps(lambda tangent, out, x, factor=factor: factor * tangent)

        def slope(x, soft=soft):
            return jax.grad(soft)(x)

        assert float(programs.Program(of_the_library(slope), ())(0.0)) == factor
    assert not list(folder.iterdir())


def test_settings_of_jax_are_part_of_the_name(folder):
    def draw(seed):
        return jax.random.normal(jax.random.key(seed), (2, 3))

    function = programs.Program(of_the_library(draw), ())
    usual = function(0)
    with jax.threefry_partitionable(False):
        other = function(0)
        np.testing.assert_array_equal(other, draw(0))
    assert not np.array_equal(usual, other)
    np.testing.assert_array_equal(function(0), usual)
    assert len(list(folder.iterdir())) == 2


def test_what_the_user_lets_go_of_is_not_kept(folder):
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    values(from_loss(lambda params, _, big=big: jnp.sum(params), jnp.zeros(2)), jnp.ones((1, 2)))
    del big
    jax.clear_caches()
    gc.collect()
    assert gone() is None


def test_threads_that_ask_at_once_trace_once(folder):
    function = made(2.0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: function(jnp.ones(3))["scaled"].sum(), range(8)))
    assert [float(each) for each in found] == [6] * 8
    assert len(traced) == 1


def test_inside_another_program_it_is_part_of_that(folder):
    function = made(2.0)
    assert jax.jit(lambda x: function(x)["scaled"] + 1)(jnp.ones(3)).tolist() == [3, 3, 3]
    assert jax.grad(lambda x: function(x)["scaled"].sum())(jnp.ones(3)).tolist() == [2, 2, 2]


def test_what_closes_over_a_value_that_is_not_known_yet_is_compiled_as_ever(folder):
    assert jax.jit(lambda scale: made(scale)(1.0)["scaled"])(2.0) == 2
    assert not list(folder.iterdir())


def test_an_error_of_the_function_is_the_callers_and_the_next_call_is_none_the_worse(folder):
    def picky(x):
        if x.ndim != 1:
            raise ValueError("one axis, please")
        return x

    function = programs.Program(of_the_library(picky), ())
    for _ in range(2):
        with pytest.raises(ValueError, match="one axis"):
            function(jnp.ones((2, 2)))
    assert function(jnp.ones(2)).tolist() == [1, 1]
