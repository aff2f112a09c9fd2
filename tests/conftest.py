"""Strict settings for every test: float64, no silent dtype promotion, shapes and types checked at run time."""

import os

import jax
import matplotlib as mpl
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Nearly all of the suite's time is compiling.
jax.config.update("jax_disable_most_optimizations", True)
if (0, 10) <= jax.__version_info__[:2] < (0, 11):  # a flag that XLA does not know ends the process
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
mpl.use("Agg")

# Before the first import of the library: wraps its functions.
install_import_hook("jaxscape", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Drop what a module compiled: the programs of the whole suite take nearly all mappings a process may have."""
    yield
    jax.clear_caches()
