"""How the command line compiles: fast, and what was compiled once is loaded the next time."""

import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import jax
import jaxlib.version
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from jaxscape import programs

_MOST_BYTES = 2**28  # the programs of about a hundred tables
_SAMPLE = 2**20
_PROCESSOR = {"vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features", "isa", "cpu"}


def compile_fast() -> None:
    """Compile for a CPU in two thirds of the time, for the rest of the process; call it before JAX is first used.

    The programs of a search run as fast without XLA's fusion emitters and the last of LLVM's optimisation. Nothing is
    done where XLA_FLAGS says what the user wants, where there may be another device, or in versions in which it was not
    tried: a flag that XLA does not know ends the process.
    """
    tried = (0, 10) <= jax.__version_info__[:2] < (0, 11)
    other_device = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    if tried and not other_device:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1")


def use_cache() -> Path | None:
    """Keep the library's programs in the user's cache folder and load them from it, for the rest of the process.

    Other versions and processors have folders of their own, which stay, but of all files together those used longest
    ago go beyond 256 MB. Nothing is done where JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE says what the
    user wants, where no folder can be made, or where XLA cannot load without complaint what it has just written. On
    other devices than one CPU it is JAX's own cache, which traces a program before it loads it.

    Returns:
        the folder in use, or None.
    """
    config: Any = jax.config  # It has an attribute for each setting, which types do not know.
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return None
    # On a Mac, older versions crash as they load a large program (github.com/uwplasma/vmex/pull/142).
    if sys.platform == "darwin" and jax.__version_info__ < (0, 10):
        return None
    one_cpu = [device.platform for device in jax.devices()] == ["cpu"]
    try:
        folder = _home() / digest()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return None
        _trim(folder.parent, _MOST_BYTES)
        if one_cpu and not _loads_what_it_writes():
            return None
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    if one_cpu:
        programs.keep_in(folder)
    else:
        # A full disk or an entry cut short costs time, and is nothing the user could mend.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
        config.update("jax_compilation_cache_dir", str(folder))
        reset_cache()
    return folder


def digest() -> str:
    """Name what compiled programs depend on beyond JAX's own key: the binary of jaxlib and the kind of processor."""
    found = hashlib.sha256(jaxlib.version.__version__.encode())
    for path in sorted(Path(jaxlib.version.__file__).parent.iterdir()):
        if path.suffix in (".so", ".pyd", ".dll", ".dylib"):
            found.update(f"{path.name} {path.stat().st_size}".encode())
            # All of it would take a second.
            with path.open("rb") as file:
                found.update(file.read(_SAMPLE))
                file.seek(-min(_SAMPLE, path.stat().st_size), os.SEEK_END)
                found.update(file.read())
    found.update(_processor().encode())
    return found.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    else:
        lines = sorted({line for line in lines if line.partition(":")[0].strip() in _PROCESSOR})
    return "\n".join([platform.machine(), *lines])


def _home() -> Path:
    usual = {"darwin": "Library/Caches", "win32": "AppData/Local"}.get(sys.platform, ".cache")
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (chosen if chosen.is_absolute() else Path.home() / usual) / "jaxscape"


def _is_ours(folder: Path) -> bool:
    """Say that nobody else can write there: what is loaded is run."""
    found = folder.stat()
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def _trim(folder: Path, most: int) -> None:
    """Delete the files used longest ago until no more than `most` bytes are left.

    JAX can do so itself (`jax_compilation_cache_max_size`), but only with another package, and looks at every file
    each time it writes one.
    """
    files = [(max(stat.st_atime, stat.st_mtime), stat.st_size, path) for path, stat in _files(folder)]
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > most:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # Another process may have put a new one in its place.
            if path.is_file():
                yield path, path.stat()


def _loads_what_it_writes() -> bool:
    """Try it in a folder of its own: on some processors XLA takes its own programs for foreign ones.

    It says so in some thousand letters for each, loaded or not (github.com/jax-ml/jax/issues/38445).
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said, _stderr_to(said):
        return programs.can_be_loaded(Path(folder)) and os.fstat(said.fileno()).st_size == 0


@contextmanager
def _stderr_to(file: IO[bytes]) -> Iterator[None]:
    usual = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(usual, 2)
        os.close(usual)
