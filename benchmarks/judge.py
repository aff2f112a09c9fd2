"""Did a change make the product better? Tables with a known answer and real ones, beside the plainest controls.

    pip install -e '.[judge]'
    python benchmarks/judge.py --half choose          # for every choice
    python benchmarks/judge.py --half report          # once, at the end
    python benchmarks/judge.py --smoke                # one table, no extra package

Tables: `judge_tables.py` (65 generated, 30 of a published grid, 10 real ones in five splits, in two halves); methods:
`judge_methods.py`. Each method gets the same rows and is judged on others: 10,000 fresh ones of a generated table, the
held-out quarter of a real one. `score` is the AUC (of several classes the mean of each against the rest), of a quantity
R²; `auroc` that of the ranking of columns against the truth; `type1` the share of uninformative columns with p <= 0.05,
not adjusted, `power` the same of informative ones; `calls` the columns called at a false discovery rate of 5 %
(Benjamini & Hochberg) and `false_calls` those of them that are uninformative; `seconds` without compiling, which is
`compile_seconds`; `gradients` where networks are minimised. What methods share (the exploration, a fitted forest) is
charged to the first that needs it. Rows are written after every table; a run of the same commit goes on where it
stopped. A half is 69 or 76 tables: for a method of ten seconds some six minutes on two cores, for all methods here
about 85 processor minutes (`--methods` runs some of them).
"""

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from results import COMMIT, head, line, machine

RESULTS = Path(__file__).parent / "results"
SEEDS, RUNS = 5, 6  # of every generated family, of every task of the grid
FDR = 0.05
REFERENCE = "jaxscape"
NUM_BOOTSTRAP = 2000
SMOKE = ("signs-and-line/0",)


def judge(name: str, methods: Iterable[str]) -> list[dict[str, Any]]:
    """Run methods on one table."""
    import jax
    import judge_methods
    import judge_tables
    import scipy.stats
    from sklearn.metrics import r2_score, roc_auc_score

    table = judge_tables.load(name)
    judge_methods.forget()
    compiling: list[tuple[float, float]] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if "/compile/" in event:
            compiling.append((time.perf_counter() - seconds, time.perf_counter()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    rows = []
    for method in methods:
        compiling.clear()
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = judge_methods.METHODS[method](table.x, table.y, table.task, seed_of(name))
        if fitted is None:
            continue
        seconds, compiled = time.perf_counter() - began, covered(compiling)
        predicted = fitted.predict(table.x_fresh)
        if table.task == "regression":
            score = r2_score(table.y_fresh, predicted)
        else:
            score = roc_auc_score(table.y_fresh, predicted, multi_class="ovr")
        row: dict[str, Any] = {
            "table": name,
            "family": judge_tables.family_of(name),
            "method": method,
            "task": table.task,
            "rows": len(table.y),
            "columns": table.x.shape[1],
            "informative": None if table.informative is None else int(table.informative.sum()),
            "score": float(score),
            "seconds": round(max(seconds - compiled, 0.0), 3),
            "compile_seconds": round(compiled, 3),
            "gradients": fitted.gradients,
        }
        row |= dict.fromkeys(("auroc", "type1", "calls", "false_calls", "power"))
        p_values, truth = fitted.p_values, table.informative
        called = None
        if p_values is not None:
            groups = np.arange(len(p_values)) if fitted.groups is None else fitted.groups
            _, first = np.unique(groups, return_index=True)
            called = (scipy.stats.false_discovery_control(p_values[first]) <= FDR)[groups]
        if called is not None:
            row["calls"] = int(called.sum())
        if truth is not None and truth.any():
            row["auroc"] = float(roc_auc_score(truth, fitted.ranking))
        if truth is not None and p_values is not None:
            row["type1"] = float(np.mean(p_values[~truth] <= FDR))
            row["false_calls"] = int(np.sum(called & ~truth))
            row["power"] = float(np.mean(p_values[truth] <= FDR)) if truth.any() else None
        rows.append(row)
    jax.monitoring.unregister_event_duration_listener(listen)
    # The programs of some dozens of tables take more mappings than a process may have, and it dies.
    jax.clear_caches()
    return rows


def seed_of(name: str) -> int:
    return int(name.split("/")[1])


def start(cache: str) -> None:
    """Set up a worker: float64, compiled programs shared with the others."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def run(names: list[str], methods: list[str], out: Path | None, header: dict[str, Any], workers: int) -> dict[str, Any]:
    """Judge tables, writing what is known after each."""
    judged = header | {"rows": []}
    if out is not None and out.exists():
        before = json.loads(out.read_text())
        if before["commit"] == header["commit"]:
            judged["rows"] = before["rows"]
    done = {(row["table"], row["method"]) for row in judged["rows"]}
    wanted = [name for name in names if any((name, method) not in done for method in methods)]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as cache,
        concurrent.futures.ProcessPoolExecutor(workers, context, start, (cache,)) as pool,
    ):
        jobs = {pool.submit(judge, name, [m for m in methods if (name, m) not in done]): name for name in wanted}
        for job in concurrent.futures.as_completed(jobs):
            judged["rows"] += job.result()
            print(f"{jobs[job]}: {len(judged['rows'])} rows, {len(jobs)} tables", flush=True)
            if out is not None:
                judged["rows"].sort(key=lambda row: (names.index(row["table"]), methods.index(row["method"])))
                out.write_text(json.dumps({**judged, "rows": None}, indent=1)[:-6] + _lines(judged["rows"]))
    return judged


def _lines(rows: list[dict[str, Any]]) -> str:
    """Write a row a line, so that changes can be read."""
    return "[\n  " + ",\n  ".join(json.dumps(row) for row in rows) + "\n ]\n}\n"


# --- What it says ---------------------------------------------------------------------------------------------------


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasted: threads compile at once."""
    total, until = 0.0, -np.inf
    for first, last in sorted(spans):
        total += max(last - max(first, until), 0.0)
        until = max(until, last)
    return total


def summary_markdown(judged: dict[str, Any]) -> str:
    """Return the tables of a half as Markdown: all methods, then by family."""
    rows = judged["rows"]
    kinds = {"Generated tables": "", "The published grid": "grid-", "Real tables": "real-"}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    parts = []
    for title, prefix in kinds.items():
        chosen = [row for row in rows if kind_of(row["family"]) == prefix]
        if not chosen:
            continue
        number = len({row["table"] for row in chosen})
        parts.append(
            f"**{title}**, {number} of them. In brackets: how far the first row is ahead, and 95 % of it by "
            "bootstrap over families and tables."
        )
        parts.append(_all_methods(chosen, methods))
        parts.append("AUC or R² by family; then the AUROC of the ranking.")
        parts.append(_by_family(chosen, methods, "score"))
        if prefix != "real-":
            parts.append(_by_family(chosen, methods, "auroc"))
    return "\n\n".join(parts)


def kind_of(family: str) -> str:
    return next((prefix for prefix in ("grid-", "real-") if family.startswith(prefix)), "")


def _all_methods(rows: list[dict[str, Any]], methods: list[str]) -> str:
    scores = [("AUC", lambda row: row["task"] != "regression"), ("R²", lambda row: row["task"] == "regression")]
    heads = ["method", *(name for name, _ in scores), "ranking AUROC", "type I error", "power", "false of all calls"]
    heads += ["s", "compiling, s", "gradients"]
    lines = [head(heads)]
    for method in methods:
        own = {row["table"]: row for row in rows if row["method"] == method}
        reference = {row["table"]: row for row in rows if row["method"] == REFERENCE}
        cells = [method]
        for _, fits in scores:
            cells.append(_compared(own, reference, "score", fits))
        cells.append(_compared(own, reference, "auroc", lambda row: True))
        cells += [_mean(own, "type1"), _mean(own, "power")]
        calls, wrong = (sum(row[name] or 0 for row in own.values()) for name in ("calls", "false_calls"))
        known = any(row["false_calls"] is not None for row in own.values())
        cells.append(f"{wrong} of {calls}" if known else "")
        cells += [_mean(own, "seconds", 1), _mean(own, "compile_seconds", 1), _mean(own, "gradients", 0)]
        lines.append(line(cells))
    return "\n".join(lines)


def _compared(own: dict[str, Any], reference: dict[str, Any], name: str, fits: Any) -> str:
    """Return a mean, and by how much the reference is ahead, paired by table."""
    tables = [key for key, row in own.items() if row[name] is not None and fits(row)]
    if not tables:
        return ""
    values = np.array([own[key][name] for key in tables])
    fewer = len(tables) < sum(row[name] is not None and fits(row) for row in reference.values())
    mean = f"{values.mean():.3f}" + (f" of {len(tables)}" if fewer else "")
    paired = [key for key in tables if key in reference]
    if own is reference or not paired or all(own[key] is reference[key] for key in paired):
        return mean
    ahead = np.array([reference[key][name] - own[key][name] for key in paired])
    low, high = interval(ahead, [own[key]["family"] for key in paired])
    return f"{mean} ({ahead.mean():+.3f}, {low:+.3f} to {high:+.3f})"


def interval(values: np.ndarray, families: list[str]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by bootstrap over families (real tables), and the tables (splits) of each."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(np.array(families) == family) for family in dict.fromkeys(families)]
    drawn = np.empty(NUM_BOOTSTRAP)
    for i in range(NUM_BOOTSTRAP):
        chosen = [members[k] for k in rng.integers(len(members), size=len(members))]
        drawn[i] = values[np.concatenate([rng.choice(rows, len(rows)) for rows in chosen])].mean()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _mean(own: dict[str, Any], name: str, digits: int = 3) -> str:
    values = [row[name] for row in own.values() if row[name] is not None]
    return f"{np.mean(values):,.{digits}f}" if values else ""


def _by_family(rows: list[dict[str, Any]], methods: list[str], name: str) -> str:
    families = sorted({row["family"] for row in rows if row[name] is not None})
    heads = ["method", *(family.removeprefix("grid-").removeprefix("real-") for family in families)]
    lines = [head(heads)]
    for method in methods:
        own = {f: {r["table"]: r for r in rows if (r["method"], r["family"]) == (method, f)} for f in families}
        cells = [_mean(own[family], name) for family in families]
        if any(cells) and not lines[-1].endswith(line(cells)[1:]):  # the same model, ranked otherwise
            lines.append(line([method, *cells]))
    return "\n".join(lines)


def main() -> None:
    import judge_tables
    from judge_methods import EXTRAS, METHODS

    from jaxscape.report import versions

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("choose", "report"), default="choose")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tables", nargs="+", metavar="PART", help="only tables whose names hold one of these")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/judge-HALF.json")
    parser.add_argument("--smoke", action="store_true", help="one table, all methods that need no extra, no file")
    options = parser.parse_args()
    if options.smoke:
        names, methods, out = list(SMOKE), [name for name in METHODS if name not in EXTRAS], options.out
    else:
        every = judge_tables.names(seeds=SEEDS, runs=RUNS)
        names = [name for name in every if judge_tables.half(name) == options.half]
        names = [name for name in names if any(part in name for part in options.tables or [""])]
        methods = options.methods
        out = options.out or RESULTS / f"judge-{options.half}.json"
    header = {"title": "The judge", "half": "smoke" if options.smoke else options.half, "commit": COMMIT}
    header |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "notes": []}
    judged = run(names, methods, out, header, options.workers)
    print(summary_markdown(judged))
    if options.smoke:
        wanted = set(itertools.product(names, methods))
        missing = wanted - {(row["table"], row["method"]) for row in judged["rows"]}
        if missing or not all(np.isfinite(row["score"]) for row in judged["rows"]):
            raise SystemExit(f"judge: no result for {sorted(missing)}")


if __name__ == "__main__":
    main()
