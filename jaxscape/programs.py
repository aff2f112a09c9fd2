"""Functions compiled by JAX whose programs outlive the process, so that the next one need not even trace them.

JAX's own cache of compiled programs is asked for a program after it has been traced and lowered, which takes longer
than to load it. Here a program is known by what it would be made from: the sources of this package, the function with
all that its closures hold, and the shapes and types of its arguments.
"""

import contextlib
import enum
import functools
import hashlib
import importlib.metadata
import inspect
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

import jax
import numpy as np
from jax.experimental import serialize_executable

from jaxscape import files

P = ParamSpec("P")
R = TypeVar("R")

# What they define changes with their versions only.
_PACKAGES = ("jax", "jaxlib", "jaxtyping", "numpy", "optax")
_KNOWN = {*_PACKAGES, "builtins", "functools", "jaxscape"}

_MOST_KNOWN = 32  # of one function, in memory
_JITTED = type(jax.jit(lambda x: x))
_CACHED = type(functools.cache(lambda: None))
_SCALARS = (bool, int, float, complex, str, bytes)

_folder: Path | None = None


def keep_in(folder: Path | None) -> None:
    """Store the programs of every `Program` in a folder from now on and load them from there; with None, do not.

    Files in it are trusted: whoever can write there can run code here. It should be for one kind of processor and one
    binary of jaxlib, see `compilation.digest`.
    """
    global _folder
    _folder = folder


def kept_in() -> Path | None:
    """Return the folder that programs are stored in, if any."""
    return _folder


def can_be_loaded(folder: Path) -> bool:
    """Try whether XLA loads a program that it has just written to a folder."""
    path = folder / "trial.program"
    _store(path, jax.jit(lambda x: x + 1).lower(1.0).compile())
    loaded = _load(path, jax.tree.structure(((1.0,), {})))
    return loaded is not None and bool(loaded(1.0) == 2.0)


class Program(Generic[P, R]):
    """A function as compiled by `jax.jit`, its types kept; see `program`."""

    def __init__(self, function: Callable[P, R], static_argnames: Iterable[str]) -> None:
        functools.update_wrapper(self, function)
        self.__name__: str = function.__name__
        self.__qualname__: str = function.__qualname__
        self._function = function
        self._static = frozenset(static_argnames)
        self._names = tuple(inspect.signature(function).parameters)
        self._jitted: Any = jax.jit(function, static_argnames=tuple(static_argnames))
        self._known: dict[Any, Future[Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R
        if _folder is not None:
            static, traced = self._split(args, kwargs)
            compiled = self._compiled(_folder, static, traced, args, kwargs)
            if compiled is not None:
                result = compiled(*traced[0], **traced[1])
                return result
        result = self._jitted(*args, **kwargs)
        return result

    def compile_ahead(self, *args: Any, **kwargs: Any) -> None:
        """Compile it for such arguments; a `jax.ShapeDtypeStruct` may stand for an array."""
        if _folder is None or self._compiled(_folder, *self._split(args, kwargs), args, kwargs) is None:
            self._jitted.lower(*args, **kwargs).compile()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind it, as functions are: what documents modules takes it for one."""
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        return self.__qualname__

    def _split(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the static arguments, then the others."""
        named = [*zip(self._names, args, strict=False), *kwargs.items()]
        static = tuple((name, value) for name, value in named if name in self._static)
        positional = tuple(value for name, value in named[: len(args)] if name not in self._static)
        return static, (positional, {name: value for name, value in kwargs.items() if name not in self._static})

    def _compiled(self, folder: Path, static: Any, traced: Any, args: Any, kwargs: Any) -> Any:
        """Return the program for such arguments, which the first thread that asks for it loads or makes.

        It is None inside another program, and where its name cannot be told.
        """
        leaves, structure = jax.tree.flatten(traced)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return None
        kinds = tuple(map(jax.typeof, leaves))
        place = (static, structure, kinds, _settings())
        with self._lock:
            mine = place not in self._known
            future = self._known.setdefault(place, Future())
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        if mine:
            try:
                what = (static, structure, self._function, tuple(map(str, kinds)), str(place[-1]), _surroundings())
                if (name := _name(what)) is None:
                    with self._lock:  # It is kept by `jax.jit`, and here it would keep alive what the user let go.
                        self._known.pop(place, None)
                    future.set_result(None)
                    return None
                compiled = _load(folder / f"{name}.program", structure)
                if compiled is None:
                    compiled = self._jitted.lower(*args, **kwargs).compile()
                    _store(folder / f"{name}.program", compiled)
                future.set_result(compiled)
            except BaseException as error:
                with self._lock:
                    self._known.pop(place, None)
                future.set_exception(error)
                raise
        return future.result()


def _store(path: Path, compiled: Any) -> None:
    results = jax.tree.unflatten(compiled.out_tree, range(compiled.out_tree.num_leaves))
    try:
        content = pickle.dumps((results, serialize_executable.serialize(compiled)[0]))
    except Exception:  # What holds constants, or cannot be pickled, is made anew each time.
        return
    with contextlib.suppress(OSError), files.replacing(path) as file:
        file.write(content)


def _load(path: Path, arguments: Any) -> Any:
    try:
        results, content = pickle.loads(path.read_bytes())
        _load_lapack()
        return serialize_executable.deserialize_and_load(content, arguments, jax.tree.structure(results))
    except Exception:  # Whatever a file cut short or of another time brings about: it is made anew.
        return None


@functools.cache
def _load_lapack() -> None:
    """A program that calls LAPACK finds it only where one was lowered in this process, and crashes elsewhere."""
    jax.jit(jax.lax.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), np.float32))


@overload
def program(function: Callable[P, R], /) -> Program[P, R]: ...


@overload
def program(*, static_argnames: Iterable[str]) -> Callable[[Callable[P, R]], Program[P, R]]: ...


def program(function: Callable[P, R] | None = None, /, *, static_argnames: Iterable[str] = ()) -> Any:
    """Compile a function as `jax.jit` does, and keep its programs where `keep_in` says so.

    >>> @program
    ... def double(x: float) -> float:
    ...     return 2 * x
    >>> double(3.0).item()
    6.0
    """
    static = tuple(static_argnames)
    return (lambda function: Program(function, static)) if function is None else Program(function, static)


class _UnknownError(Exception):
    """Something whose content cannot be told, such as a function of the user's."""


def _settings() -> tuple[Any, ...]:
    """Return JAX's settings as they are here and now, in this thread."""
    return tuple(getattr(jax.config, name) for name in _setting_names())


@functools.cache
def _setting_names() -> tuple[str, ...]:
    config: Any = jax.config
    return tuple(sorted(name for name in config.values if hasattr(config, name)))


@functools.cache
def _surroundings() -> tuple[str, ...]:
    """What programs depend on beside their functions and JAX's settings: sources, versions, flags of XLA."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return (sources.hexdigest(), sys.version, os.environ.get("XLA_FLAGS", ""), *versions)


def _name(value: Any) -> str | None:
    """Return a hash of what a program is made from, None where that cannot be told."""
    try:
        return _digest(value, {}, [])[:32]
    except (_UnknownError, ValueError, RecursionError):  # ValueError: a cell of a closure that is not filled yet
        return None


def _digest(value: Any, known: dict[int, tuple[str, Any]], above: list[int]) -> str:
    """Return a hash of all that a value consists of; functions are their names, codes and closures.

    `known` keeps what it has seen alive, lest another gets its id; `above` holds the ids of what the value is part of.
    """
    if id(value) in above:
        return f"part of what is {len(above) - above.index(id(value))} above"
    if id(value) not in known:
        text, parts = _parts(value)
        hashed = hashlib.sha256(text)
        for part in parts:
            hashed.update(_digest(part, known, [*above, id(value)]).encode())
        known[id(value)] = hashed.hexdigest(), value
    return known[id(value)][0]


def _parts(value: Any) -> tuple[bytes, Iterable[Any]]:
    """Return what is to be said of a value itself, and the values it consists of.

    Raises:
        _UnknownError: for what is not of the packages that are known, such as functions and classes of the user's, also
            where they pass for others.
    """
    kind = type(value)
    if value is None or value is ... or kind in _SCALARS:
        return f"{kind.__name__} {value!r}".encode(), ()
    if isinstance(value, np.dtype):
        return f"dtype {value.str}".encode(), ()
    if isinstance(value, (type, types.BuiltinFunctionType)):
        return f"{kind.__name__} {_known_name(value)}".encode(), ()
    name = _known_name(kind)
    if isinstance(value, enum.Enum):
        return f"{name} {value.name}".encode(), ()
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        if isinstance(value, jax.core.Tracer) or not isinstance(value.dtype, np.dtype):  # keys of random numbers
            raise _UnknownError(kind)
        array = np.asarray(value)
        return f"array {array.dtype.str} {array.shape} ".encode() + array.tobytes(), ()
    parts: Iterable[Any]
    if isinstance(value, types.CodeType):
        parts = value.co_code, value.co_consts, value.co_names, value.co_firstlineno
    elif isinstance(value, types.FunctionType):
        _check_known(value.__globals__.get("__name__"))  # `functools.wraps` lends a function another's module.
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = _known_name(value), value.__code__, value.__defaults__, value.__kwdefaults__, cells
    elif isinstance(value, types.MethodType):
        parts = value.__func__, value.__self__
    elif isinstance(value, jax.tree_util.PyTreeDef):
        parts = value.node_data(), value.children()
    elif isinstance(value, functools.partial):
        parts = value.func, value.args, value.keywords
    elif isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, (tuple, list)):
        parts = value
    elif isinstance(value, frozenset):
        parts = sorted(_digest(each, {}, []) for each in value)
    elif isinstance(value, (_JITTED, _CACHED, Program)):
        parts = (getattr(value, "__wrapped__"),)  # noqa: B009  (types do not know it)
    elif hasattr(value, "__dict__") and not isinstance(value, types.ModuleType):
        parts = (vars(value),)
    else:
        raise _UnknownError(kind)
    return f"{name} {len(parts)}".encode(), parts


def _known_name(value: Any) -> str:
    _check_known(value.__module__)
    return f"{value.__module__}.{value.__qualname__}"


def _check_known(module: str | None) -> None:
    if (module or "builtins").partition(".")[0] not in _KNOWN:
        raise _UnknownError(module)
