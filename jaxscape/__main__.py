"""The command line: `python -m jaxscape explain DATA`."""

import argparse
import contextlib
import gc
import io
import math
import os
import signal
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jaxscape.files import claimed
from jaxscape.table.datasets import EXAMPLES
from jaxscape.table.targets import Task

if TYPE_CHECKING:
    from rich.console import Console

    from jaxscape.table.explain import Explanation
    from jaxscape.table.splits import Splits


_INTERRUPTED = 130
_SECONDS_OF_TRACING = 2
_SECONDS_BETWEEN_LINES = 60  # of progress, where there is no terminal


def main(arguments: list[str] | None = None, *, keep_programs: bool = False) -> int:
    """Run the command line.

    Args:
        arguments: without the name of the program; by default those of the process.
        keep_programs: compile fast, and keep it in the user's cache folder, for the rest of the process.

    Returns:
        the exit code: 0; 2 for input that cannot be used; 130 if interrupted.
    """
    options, began = _parser().parse_args(arguments), time.time()
    try:
        return _explain(options, keep_programs=keep_programs)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is missing; install the table tools: pip install jinja2 pandas rich scikit-learn")
    except KeyboardInterrupt:
        checkpoint = options.out / "landscape.npz"
        saved = checkpoint.exists() and (options.resume or checkpoint.stat().st_mtime >= began)
        print("jaxscape: stopped" + (f"; go on with --resume --out {options.out}" if saved else ""), file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxscape", description="Loss landscapes of neural networks.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('jaxscape-landscapes')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    explain = commands.add_parser(
        "explain",
        help="which columns of a table drive a model of it?",
        description="Train networks on a table, explore their loss landscape, report the columns that drive them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    explain.add_argument("data", metavar="DATA", help=f"a .csv or .tsv file (or .gz), or one of {', '.join(EXAMPLES)}")
    explain.add_argument("--target", metavar="COLUMN", help="column to predict (default: the last one)")
    explain.add_argument("--weights", metavar="COLUMN", help="how much each row counts (default: all the same)")
    explain.add_argument("--task", choices=("auto", *get_args(Task)), default="auto", help="kind of target")
    explain.add_argument(
        "--hidden",
        type=int,
        nargs="+",
        metavar="N",
        help="hidden units of each hidden layer (default: as many as the data support; 5 with a fixed penalty)",
    )
    explain.add_argument(
        "--activation", choices=("tanh", "sin", "sigmoid", "softplus", "gelu"), default="tanh", help="of each unit"
    )
    explain.add_argument(
        "--loss",
        choices=("likelihood", "balanced", "auc"),
        default="likelihood",
        help="what is minimised; balanced: all classes count the same; auc: a smooth AUC of two classes",
    )
    explain.add_argument(
        "--penalty",
        type=_penalty,
        default="evidence",
        metavar="evidence|NUMBER",
        help="evidence: the data choose one for each column; a number: L2 strength of every weight, above 0",
    )
    explain.add_argument("--l2", help=argparse.SUPPRESS)
    explain.add_argument(
        "--max-seconds",
        type=float,
        default=math.inf,
        metavar="S",
        help="stop exploring then (default: when it is complete, or a budget of gradients is spent)",
    )
    explain.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="explore in N processes first: for machines of many cores and landscapes of many minima",
    )
    explain.add_argument(
        "--splits",
        type=int,
        default=1,
        metavar="N",
        help="ask the same of so many splits into training and held-out rows; each takes as long as the first",
    )
    explain.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same report")
    explain.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="folder for the report")
    explain.add_argument("--resume", action="store_true", help="go on with an interrupted exploration in DIR")
    return parser


def _penalty(text: str) -> float | str:
    try:
        return text if text == "evidence" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor the word evidence") from None


def _explain(options: argparse.Namespace, *, keep_programs: bool) -> int:
    import jax
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from jaxscape import compilation, report
    from jaxscape.cores import all_cores
    from jaxscape.table import datasets
    from jaxscape.table.explain import explain_dataset
    from jaxscape.table.problem import ExplainConfig, check
    from jaxscape.table.splits import over_splits

    if keep_programs:
        compilation.compile_fast()
    jax.config.update("jax_enable_x64", True)
    out: Path = options.out
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        return _fail(f"JAX finds no device of the kind that JAX_PLATFORMS={wanted} asks for: unset it, or {error}")
    if options.l2 is not None:
        return _fail(f"--l2 is now --penalty: write --penalty {options.l2}, or leave it out and let the data choose")
    if options.splits < 1:
        return _fail(f"--splits must be at least 1, got {options.splits}")
    if (problem := _unfit(out)) is not None:
        return _fail(problem)
    checkpoint = out / "landscape.npz"
    config = ExplainConfig(
        hidden=None if options.hidden is None else tuple(options.hidden),
        activation=options.activation,
        loss=options.loss,
        penalty=options.penalty,
        max_seconds=options.max_seconds,
        workers=options.workers,
        seed=options.seed,
    )
    interrupted: list[int] = []

    def interrupt(signum: int, frame: object) -> None:
        # An exception raised inside a callback of JAX can get lost: remember it for the next look.
        interrupted.append(signum)
        raise KeyboardInterrupt

    # Only the main thread is interrupted, and may say what happens then.
    in_main = threading.current_thread() is threading.main_thread()
    usual = signal.signal(signal.SIGINT, interrupt) if in_main else None
    console, bars = Console(), Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
    try:
        with claimed(out), Progress(*columns, TimeElapsedColumn(), console=bars, disable=not bars.is_terminal) as bar:
            task = bar.add_task("reading the table", total=1.0)
            told = time.monotonic()

            def show(fraction: float, text: str) -> None:
                nonlocal told
                if interrupted:
                    raise KeyboardInterrupt
                bar.update(task, completed=fraction, description=text)
                if bar.disable and time.monotonic() >= told + _SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    print(f"jaxscape: {fraction:.0%}, {text}", file=sys.stderr, flush=True)

            check(config)
            table = datasets.load(options.data, target=options.target, weights=options.weights, seed=options.seed)
            dataset = datasets.prepare(table, task=options.task, seed=options.seed)
            check(config, dataset)
            if keep_programs:
                compilation.use_cache()
            if not (options.resume and checkpoint.exists()):
                report.discard(out)  # It would soon stand beside the landscape of another job.
            # Not before the first programs are traced, which needs the interpreter.
            ahead = threading.Timer(_SECONDS_OF_TRACING, _import_ahead)
            ahead.daemon = True
            ahead.start()
            share = 1 / options.splits
            with all_cores():
                found = explain_dataset(
                    dataset,
                    config,
                    checkpoint=checkpoint,
                    resume=options.resume,
                    progress=lambda part, text: show(share * part, text),
                )
            show(0.98 * share, "writing the report")
            report.write(found, out)
            splits = None
            if options.splits > 1:

                def tell(part: float, text: str) -> None:
                    show(share + (0.98 - share) * part, text)

                with all_cores():
                    splits = over_splits(found, table, None, options.splits, tell)
                report.write(found, out, splits)
            show(1.0, "done")
    except datasets.DataError as error:
        return _fail(str(error))
    except BlockingIOError:
        return _fail(f"{out} is in use by another jaxscape: wait for it to end, or choose another folder with --out")
    except OSError as error:
        return _fail(f"cannot write to {out}: {error.strerror or error}")
    finally:
        if in_main:
            signal.signal(signal.SIGINT, usual)
    try:
        _print(console, found, splits, out)
        sys.stdout.flush()
    except OSError as error:
        return _fail(f"the report is in {out}, but the answer cannot be printed: {error.strerror or error}")
    return 0


def _unfit(out: Path) -> str | None:
    """Say why a report cannot be written to a folder, as far as can be told before the work."""
    try:
        if out.is_symlink() and not out.exists():
            return f"--out {out} is a link that leads nowhere"
        if out.exists() and not out.is_dir():
            return f"--out {out} is a file, not a folder"
        for name in ("index.html", "features.csv", "summary.json", "landscape.npz"):
            if (out / name).is_dir():
                return f"{out / name} is a folder, where a file is to be written: choose another --out"
    except OSError as error:
        return f"cannot write to {out}: {error.strerror or error}"
    return None


def _import_ahead() -> None:
    """Import what is needed later while programs compile: a second of reading files."""
    import matplotlib.figure  # noqa: F401
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.model_selection  # noqa: F401


def _print(console: "Console", found: "Explanation", splits: "Splits | None", out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from jaxscape import report

    sure = bool((found.ranking.q_values <= report.SIGNIFICANT).any())
    title = "Columns that drive the model" if sure else "Columns by importance, none of them with confidence"
    table = Table(title=title, title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("column")
    table.add_column("importance", justify="right")
    table.add_column("interval", justify="right")
    table.add_column("confident")
    for row in report.group_ranks(found)[:10]:
        importance, interval = f"{row['importance']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}"
        shown = (importance, interval) if row["used"] else ("not used", "")
        confident = "yes" if row["q_value"] <= report.SIGNIFICANT else ""
        table.add_row(str(row["rank"]), escape(row["name"]), *shown, confident)
    console.print(table)
    sentences = (report.baselines_verdict, report.verdict, report.conserved_verdict)
    said = (report.together_sentence(found), report.support_sentence(found), *(each(found)[1] for each in sentences))
    over = None if splits is None else report.splits_sentence(found, splits)
    for sentence in (*said, over):
        if sentence is None:
            continue
        console.print(sentence, markup=False, highlight=False)
    console.print(f"Report: {out / 'index.html'}", markup=False, highlight=False)


def _fail(message: str) -> int:
    print(f"jaxscape: {message}", file=sys.stderr)
    return 2


def run() -> None:
    """Run the command line as a program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows ? for ±
    gc.set_threshold(200_000, 20, 100)  # Tracing makes many objects that stay: looking for waste took half a second.
    code = main(keep_programs=True)
    # An orderly exit takes JAX half a second, and under threads that still compile it crashes.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
