"""Result files: what was measured, beside the commit, the machine and the versions it was measured with.

A file is JSON with `title`, `command`, `commit`, `date`, `machine`, `versions`, `tables` and, where a benchmark wrote
it, `rows`, the measurements that its tables sum up; in those kept in `results/` also `notes` and `figures`. A table
has a `caption`, `columns` and `rows` of texts. `readme.py` makes a page of the files in `results/`.
"""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Table = dict[str, Any]


def commit() -> str:
    """The commit that is checked out here, with a plus where the library differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "jaxscape") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


# When the program starts: what runs is what was loaded then, whatever is committed in the meantime.
COMMIT = commit()


def machine() -> str:
    """Number and kind of processors, and the accelerator if JAX has one."""
    import jax

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    kind = jax.devices()[0].device_kind
    accelerator = "" if kind == "cpu" else f"; {kind}"
    return f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}{accelerator}"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Table:
    return {"caption": caption, "columns": list(columns), "rows": [[str(cell) for cell in row] for row in rows]}


def line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def head(columns: Sequence[str]) -> str:
    return line(columns) + "\n" + "|---" * len(columns) + "|"


def markdown(table: Table) -> str:
    caption = [table["caption"], ""] if table["caption"] else []
    return "\n".join([*caption, head(table["columns"]), *map(line, table["rows"])])


def record(path: Path | None, doc: str, rows: Any, tables: list[Table]) -> None:
    """Write a result file, if a path is given; its title is the first line of the program's docstring."""
    from jaxscape.report import versions

    if path is None:
        return
    content = {
        "title": doc.splitlines()[0],
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": COMMIT,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "tables": tables,
        # JSON knows no NaN: what could not be measured is null.
        "rows": json.loads(json.dumps(rows), parse_constant=lambda _: None),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
