"""Write benchmarks/README.md from the files in benchmarks/results.

    python benchmarks/readme.py           writes it
    python benchmarks/readme.py --check   says whether it is what would be written, and exits 1 if not

No figure is typed into the page by hand.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from results import markdown

FOLDER = Path(__file__).parent
PAGE = FOLDER / "README.md"
FIRST = ("judge-report", "judge-choose", "attribution", "explain", "explain-two-layers", "conserved", "sensitivity")
INTRODUCTION = """# What was measured

Written by `python benchmarks/readme.py` from the files in [results](results): change those, not this page. Losses stand
beside wins. Each section carries the commit that it was measured at; what changed since is in the
[changelog](../CHANGELOG.md). Nothing has been measured on a GPU or TPU yet.

Each program says in its first lines what it asks, and takes `--smoke` for the smallest run of all of its code;
`python benchmarks/smoke.py` does that for all of them."""


def measured(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    date = f" ({content['date']})" if "date" in content else ""
    return f"Measured at {content['commit']}{date} on {content['machine']}; {versions}."


def tables(content: dict[str, Any]) -> list[str]:
    if "half" not in content:
        return [markdown(table) for table in content["tables"]]
    from judge import summary_markdown

    return [summary_markdown(content)]


def section(content: dict[str, Any]) -> str:
    half = f", half `{content['half']}`" if "half" in content else ""
    parts = [f"## {content['title']}{half}"]
    if "command" in content:
        parts.append(f"    {content['command']}")
    parts += [measured(content), *tables(content)]
    parts += [f"![{content['title']}](figures/{name})" for name in content.get("figures", [])]
    if content.get("notes"):
        parts.append("\n".join(f"- {note}" for note in content["notes"]))
    return "\n\n".join(parts)


def page() -> str:
    paths = {path.stem: path for path in (FOLDER / "results").glob("*.json")}
    names = [name for name in FIRST if name in paths] + sorted(set(paths) - set(FIRST))
    parts = [INTRODUCTION]
    for name in names:
        try:
            parts.append(section(json.loads(paths[name].read_text(encoding="utf-8"))))
        except (ValueError, KeyError) as error:
            sys.exit(f"{paths[name]} is not a result file as results.py describes it: {error!r}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if something would change")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("benchmarks/README.md is not what the results say: run python benchmarks/readme.py")


if __name__ == "__main__":
    main()
