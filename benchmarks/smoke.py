"""Does every benchmark still run? The smallest run of each, two at a time; exits 1 if one fails.

    python benchmarks/smoke.py

One alone: `python benchmarks/NAME.py --smoke`. What needs an extra package is left out; each program says so.
"""

import argparse
import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
AT_ONCE = 2
LONGEST = 600  # seconds for one
NO_BENCHMARKS = ("judge_tables", "readme", "smoke")
# Those that share compiled programs with later ones, and those that take long, go first.
FIRST = ("judge", "explain", "completeness", "attribution", "push_off")


def arguments(parser: argparse.ArgumentParser, smoke: str) -> argparse.Namespace:
    """Parse the command line, where `--smoke` stands for the options `smoke`; `{folder}` there is a temporary one."""
    parser.add_argument("--smoke", action="store_true", help=f"the smallest run of all of this: {smoke}")
    given = sys.argv[1:]
    if "--smoke" in given:
        folder = tempfile.mkdtemp(prefix="smoke-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        given = [*shlex.split(smoke.format(folder=folder)), *given]
    return parser.parse_args(given)


def names() -> list[str]:
    programs = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
    found = [name for name in programs if name not in NO_BENCHMARKS]
    return sorted(found, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def run(name: str, cache: str) -> bool:
    # Nearly all of the time is compiling, and much of it the same programs; the judge's tables are of full size.
    settings = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0" if name == "judge" else "1",
    }
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--smoke"]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=LONGEST)
        ok, said = done.returncode == 0, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        ok, said = False, f"not done after {LONGEST} s"
    print(f"{'ok' if ok else 'FAILED':6} {name:14} {time.perf_counter() - began:5.1f} s", flush=True)
    if not ok:
        print(said, flush=True)
    return ok


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    # Not above: environments of peers, which have no jaxscape, take `arguments` from here.
    from jaxscape import compilation

    compilation.compile_fast()  # what is run inherits it
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="smoke-") as cache, ThreadPoolExecutor(AT_ONCE) as pool:
        ok = list(pool.map(lambda name: run(name, cache), names()))
    print(f"{sum(ok)} of {len(ok)} ran, {time.perf_counter() - began:.0f} s")
    sys.exit(not all(ok))


if __name__ == "__main__":
    main()
