"""What the command does around the job: its folder, its table for spreadsheets, its compilation cache."""

import csv
import json
import os
import re
import subprocess
import sys

import jax
import jax.monitoring
import numpy as np
import pandas as pd
import pytest

from jaxscape import __main__ as command
from jaxscape import compilation, files, programs, report
from jaxscape.table import explain
from jaxscape.table.datasets import DataError

NAMES = ["=HYPERLINK(1)", "+b", "-c", "@d", "'e", "f;=1+1", "-"]
SMALL = ["--hidden", "2", "--penalty", "0.01", "--target", "bought"]
COUNT = """
import collections, json, sys
import jax.monitoring
from jaxscape import __main__ as command
events = collections.Counter()
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: events.update([name.rsplit("/", 1)[-1]]))
code = command.main(keep_programs=True)
assert code == 0, code
json.dump(events, open(sys.argv[-1] + "/events.json", "w"))
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, len(NAMES)))
    data = pd.DataFrame(x, columns=NAMES)
    data["bought"] = np.where(x[:, 0] + 0.3 * rng.normal(size=80) > 0, "yes", "no")
    path = tmp_path_factory.mktemp("data") / "shop.csv"
    data.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def two_runs(table, tmp_path_factory):
    """The folder of the cache, and the report of two processes, one after the other, with what they wrote to stderr."""
    cache, outs, said = tmp_path_factory.mktemp("cache"), [tmp_path_factory.mktemp("out") for _ in range(2)], []
    # Not all of the suite's settings: optimised less, for speed.
    env = os.environ | {"XDG_CACHE_HOME": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    for out in outs:
        arguments = [sys.executable, "-c", COUNT, "explain", str(table), *SMALL, "--out", str(out)]
        done = subprocess.run(arguments, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    return cache, outs, said


def complains(folder):
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    code = [sys.executable, "-c", "import jax; jax.jit(lambda x: x + 1)(1.0)"]
    return [subprocess.run(code, env=env, capture_output=True, check=True).stderr for _ in range(2)][1] != b""


def test_what_one_process_compiled_the_next_one_loads(two_runs):
    cache, outs, said = two_runs
    if not any(cache.rglob("*.program")) and complains(cache):
        pytest.skip("XLA takes its own programs for foreign ones on this processor")
    compiled = [json.loads((out / "events.json").read_text())["backend_compile_duration"] for out in outs]
    # A few small ones of JAX's own are made each time, and one that tries whether loading works.
    assert compiled[0] >= 20
    assert compiled[1] < 8
    assert said == ["", ""]
    assert (outs[0] / "features.csv").read_bytes() == (outs[1] / "features.csv").read_bytes()
    (folder,) = (cache / "jaxscape").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_names_are_no_formulas_and_can_be_read_back(two_runs):
    path = two_runs[1][0] / "features.csv"
    assert not re.search(r'(^|[,;])"?[=+@\t\r]', path.read_text().replace("f;=", "f;"), re.MULTILINE)
    with path.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r") and not re.fullmatch(r"-?\d[-.\de]*", cell)]
    read = pd.read_csv(path)
    assert {name.removeprefix("'") for name in read["name"]} == set(NAMES)
    assert read.drop(columns="name").dtypes.map(pd.api.types.is_numeric_dtype).all()
    assert any(cell.startswith("-") for cell in cells)  # numbers below zero stay as they are


@pytest.mark.parametrize("first", "=+-@\t\r\n'")
def test_each_sign_that_may_begin_a_formula_is_kept_from_it(first):
    assert report.as_text(f"{first}a") == f"'{first}a"
    assert report.as_text(f"a{first}") == f"a{first}"


OLD = ("index.html", "summary.json", "features.csv", "figures/features.svg", "figures/disconnectivity.png")
KEPT = ("landscape.npz", "notes.txt", "figures/mine.png")


@pytest.fixture
def old_report(tmp_path):
    out = tmp_path / "report"
    (out / "figures").mkdir(parents=True)
    for name in (*OLD, *KEPT):
        (out / name).write_text(f"old {name}")
    return out


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_log_gets_a_line_now_and_then_instead_of_a_bar(old_report, table, monkeypatch, capsys):
    def slow(dataset, config, *, progress, **_):
        for part, seconds in ((0.1, 30.0), (0.2, 61.0), (0.3, 70.0), (0.4, 122.0)):
            monkeypatch.setattr(command.time, "monotonic", lambda now=began + seconds: now)
            progress(part, f"step {part}")
        raise KeyboardInterrupt

    began = command.time.monotonic()
    monkeypatch.setattr(explain, "explain_dataset", slow)
    assert command.main(["explain", str(table), *SMALL, "--out", str(old_report)]) == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if "step" in line]
    assert lines == ["jaxscape: 20%, step 0.2", "jaxscape: 40%, step 0.4"]


def test_the_old_page_is_gone_before_a_new_landscape_is_written(old_report, table, monkeypatch, capsys):
    def killed(dataset, config, *, checkpoint, **_):
        checkpoint.write_text("new")
        raise KeyboardInterrupt

    monkeypatch.setattr(explain, "explain_dataset", killed)
    assert command.main(["explain", str(table), *SMALL, "--out", str(old_report)]) == 130
    assert content(old_report) == {name: f"old {name}" for name in KEPT} | {"landscape.npz": "new"}
    # The same where there is nothing to go on from.
    (old_report / "index.html").touch()
    (old_report / "landscape.npz").unlink()
    assert command.main(["explain", str(table), *SMALL, "--out", str(old_report), "--resume"]) == 130
    assert not (old_report / "index.html").exists()


def test_a_resumed_exploration_keeps_its_page_until_there_is_a_new_one(old_report, table, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(explain, "explain_dataset", killed)
    before = content(old_report)
    assert command.main(["explain", str(table), *SMALL, "--out", str(old_report), "--resume"]) == 130
    assert content(old_report) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--penalty", "0"],
        ["--l2", "0.01"],
        ["--task", "regression"],
        ["--target=-c", "--loss", "auc"],
        ["--target", "z"],
        ["--resume"],
    ],
)
def test_bad_input_leaves_an_old_report_as_it_was(arguments, old_report, table, capsys):
    before = content(old_report)
    assert command.main(["explain", str(table), *SMALL, "--out", str(old_report), *arguments]) == 2
    assert content(old_report) == before
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_in_use_is_left_alone(old_report, table, monkeypatch, capsys):
    def busy(*_, **__):
        raise AssertionError("the job began")

    monkeypatch.setattr(explain, "explain_dataset", busy)
    with files.claimed(old_report):
        before = content(old_report)
        assert command.main(["explain", str(table), *SMALL, "--out", str(old_report)]) == 2
        assert content(old_report) == before
    error = capsys.readouterr().err
    assert error.startswith(f"jaxscape: {old_report} is in use")
    assert error.count("\n") == 1


def test_the_folder_is_held_during_the_job_and_free_afterwards(table, monkeypatch, tmp_path, capsys):
    tried = []

    def job(dataset, config, *, checkpoint, **_):
        with pytest.raises(BlockingIOError), files.claimed(checkpoint.parent):
            pass
        tried.append(checkpoint)
        raise DataError("enough")

    monkeypatch.setattr(explain, "explain_dataset", job)
    assert command.main(["explain", str(table), *SMALL, "--out", str(tmp_path / "deep" / "report")]) == 2
    assert tried == [tmp_path / "deep" / "report" / "landscape.npz"]
    assert list(tmp_path.iterdir()) == []


def settings():
    return jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache


def test_no_cache_where_there_is_no_folder_for_it(monkeypatch, tmp_path, recwarn):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilation.use_cache() is None
    assert settings() == (None, True)
    assert not recwarn.list


def test_no_cache_for_who_wants_none_or_another(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, mine in (("jax_enable_compilation_cache", False), ("jax_compilation_cache_dir", str(tmp_path / "mine"))):
        usual = getattr(jax.config, name)
        jax.config.update(name, mine)
        before = settings()
        assert compilation.use_cache() is None
        assert settings() == before
        jax.config.update(name, usual)
    assert list(tmp_path.iterdir()) == []


def test_no_cache_where_xla_complains_of_its_own_programs(monkeypatch, tmp_path, capfd):
    loads = programs.can_be_loaded

    def complain(folder):
        os.write(2, b"E0000 Machine type used for XLA:CPU compilation doesn't match the machine type for execution.\n")
        return loads(folder)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "can_be_loaded", complain)
    assert compilation.use_cache() is None
    assert settings() == (None, True)
    assert capfd.readouterr().err == ""


def test_the_folder_of_the_cache_tells_processors_and_binaries_apart(monkeypatch, tmp_path):
    def library(content):
        (tmp_path / "libjax.so").write_bytes(content)
        return compilation.digest()

    here = compilation.digest()
    monkeypatch.setattr(compilation.jaxlib.version, "__file__", str(tmp_path / "version.py"))
    big = bytes(5 * 2**20)
    found = [here, library(big), library(big + b"0"), library(b"1" + big), library(big + b"1"), library(b"")]
    assert library(big) == found[1]
    monkeypatch.setattr(compilation, "_processor", lambda: "another")
    assert len({*found, library(big)}) == len(found) + 1


def test_of_too_many_entries_the_newest_stay(tmp_path):
    for i, size in enumerate((40, 30, 20, 10)):
        path = tmp_path / f"digest{i % 2}" / f"{i}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (i, i))
    compilation._trim(tmp_path, 60)
    assert sorted(path.name for path in tmp_path.rglob("*-cache")) == ["1-cache", "2-cache", "3-cache"]
