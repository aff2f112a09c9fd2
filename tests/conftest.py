"""Strict settings for every test: float64, no silent dtype promotion, shapes and types checked at run time."""

from pathlib import Path

import jax
import matplotlib as mpl
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Nearly all of the suite's time is compiling.
jax.config.update("jax_disable_most_optimizations", True)
mpl.use("Agg")

_MAX_MAPPINGS = 30_000

# Before the first import of the library: wraps its functions.
install_import_hook("jaxscape", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Drop what was compiled before it takes all the mappings that a process may have, usually 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > _MAX_MAPPINGS:
        jax.clear_caches()
