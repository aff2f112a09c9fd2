"""The main job from the command line, on a small table: networks of a given size at a given penalty."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import scipy.special
from sklearn.metrics import roc_auc_score

from jaxscape import __main__ as command
from jaxscape import database
from jaxscape.analysis.attribution import Importance
from jaxscape.table import datasets
from jaxscape.table.explain import ranking

SMALL = ["--hidden", "2", "--penalty", "0.001"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    names = ["<script>alert(1)</script>", "plain", "$\\frac"]
    data = pd.DataFrame(x, columns=names)
    data["kind"] = rng.choice(["u", "v", "w"], 80)
    data["bought"] = np.where(x[:, 0] + 0.5 * rng.normal(size=80) > 0, "yes", "no")
    path = tmp_path_factory.mktemp("data") / "shop.csv"
    data.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def report(csv, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "deep" / "report"
    assert command.main(["explain", str(csv), "--target", "bought", "--out", str(out), *SMALL]) == 0
    return out


def test_the_summary_has_everything_and_the_informative_column_first(report):
    summary = json.loads((report / "summary.json").read_text())
    assert {*summary} >= {
        "schema_version", "data", "model", "landscape", "performance", "evidence", "baselines", "ranking", "conserved",
        "validation", "features", "seconds", "seed", "versions",
    }  # fmt: skip
    notes = summary["data"].pop("notes")
    assert any("bought = yes" in note for note in notes)
    assert summary["data"].pop("classes") == ["no", "yes"]
    assert summary["data"].pop("learnt_as") == "bought"
    assert not summary["data"].pop("weighted")
    assert summary["data"] == {"name": "shop.csv", "rows": 80, "features": 4, "target": "bought", "task": "binary"}
    assert summary["model"].pop("loss") == "likelihood"
    assert summary["model"] == {"hidden": [2], "activation": "tanh", "penalty": 0.001, "num_weights": 17}
    assert summary["evidence"] is None
    assert summary["landscape"]["num_minima"] >= 1
    assert summary["performance"]["auc_test"] > 0.8
    assert 0 < summary["validation"]["p_value"] <= 1
    assert summary["validation"]["num_draws"] == 500
    assert summary["features"][0]["name"] == "<script>alert(1)</script>"
    # The noise columns and the true one: what is certain is the true one alone.
    assert [feature["q_value"] <= 0.05 for feature in summary["features"]] == [True, False, False, False]
    assert summary["ranking"]["num_certain"] == 1
    assert summary["ranking"]["left_out_rows"] == 0  # at one weak penalty networks know every row by heart
    assert sum(feature["conserved_share"] for feature in summary["features"]) == pytest.approx(1)
    table = pd.read_csv(report / "features.csv")
    assert table["name"].tolist() == [feature["name"] for feature in summary["features"]]
    assert table["rank"].is_monotonic_increasing


def test_multiplicity_is_that_of_the_minima_and_grows_with_their_number(report):
    found = json.loads((report / "summary.json").read_text())["multiplicity"]
    assert found[-1]["of"] == "the minima"
    assert found[-1]["networks"] == json.loads((report / "summary.json").read_text())["landscape"]["num_minima"] > 1
    for kind in ("networks", "ambiguity", "discrepancy", "capacity"):
        values = [each[kind] for each in found]
        assert values == sorted(values)
    assert 0 <= found[-1]["discrepancy"] <= found[-1]["ambiguity"] <= 1
    assert 0 < found[-1]["capacity"] <= 1
    assert 'id="agreement"' in (report / "index.html").read_text()


def test_superbasins_are_compared_wherever_two_large_ones_merge(report):
    summary = json.loads((report / "summary.json").read_text())
    found, names = summary["superbasins"], [feature["name"] for feature in summary["features"]]
    assert found
    for each in found:
        assert min(each["minima"]) >= 5
        assert sum(each["minima"]) <= summary["landscape"]["num_minima"]
        assert set(each["first"]) <= set(names)
        assert 0 < each["q_value"] <= 1
        assert (each["energy"] is None) == (each["barrier"] is None)
    assert summary["landscape"]["mean_gap"] > 0
    assert "Along the tree" in (report / "index.html").read_text()


def test_the_page_stands_alone_and_escapes_what_comes_from_the_data(report):
    page = (report / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert len(page) < 2e6
    assert not re.search(r'(src|data)="|url\((?!#)|@import', page)
    assert set(re.findall(r'href="([^"]*)"', page)) & {"features.csv", "summary.json", "figures/"}
    drawings = {path.name: ElementTree.parse(path).getroot() for path in (report / "figures").iterdir()}
    assert set(drawings) == {
        "features.svg", "effects.svg", "disconnectivity.svg", "permutation_test.svg", "conserved_map.svg",
        "conserved_levels.svg",
    }  # fmt: skip
    # A name is text, whatever script it is in.
    texts = ["".join(text.itertext()) for text in drawings["effects.svg"].iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>alert(1)</script>" in texts


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_in_a_browser_the_cut_moves_minima_tell_and_a_phone_is_wide_enough(report, tmp_path):
    summary = json.loads((report / "summary.json").read_text())["landscape"]
    assert summary["num_minima"] > 1
    probe = """<script>
      const said = [document.getElementById("basins").textContent];
      for (const value of [0, 1000]) {
        document.getElementById("level").value = value;
        document.getElementById("level").dispatchEvent(new Event("input"));
        said.push(document.getElementById("basins").textContent);
      }
      document.querySelector("circle").dispatchEvent(new Event("mouseenter"));
      said.push(document.getElementById("about").textContent, document.documentElement.scrollWidth - innerWidth);
      document.documentElement.dataset.said = JSON.stringify(said);
    </script>"""
    page = (report / "index.html").read_text()
    failed = "<script>window.onerror = message => { document.documentElement.dataset.failed = message; };</script>"
    (tmp_path / "page.html").write_text(page.replace("<head>", f"<head>{failed}") + probe)
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--window-size=390,800", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "data-failed" not in done.stdout
    first, none, all_of_them, about, too_wide = json.loads(
        html.unescape(re.search(r'data-said="(.*?)"', done.stdout)[1])
    )
    assert "superbasin" in first
    assert "1 superbasin; that of the lowest minimum holds 1 of" in none
    assert f"holds {summary['num_minima']} of {summary['num_minima']} minima" in all_of_them
    assert about.startswith("minimum ")
    assert too_wide <= 0


def test_scores_are_those_of_the_rows_they_are_named_after(report, csv):
    # By the networks as a reader would write them, and scikit-learn's AUC.
    dataset = datasets.prepare(datasets.load(str(csv), target="bought"))
    minima = database.load(report / "landscape.npz").minima
    inputs = dataset.x_train.shape[1]

    def probabilities(x, rows):
        incoming, bias, outgoing = x[: 2 * inputs].reshape(inputs, 2), x[2 * inputs : 2 * inputs + 2], x[-3:-1]
        return scipy.special.expit(np.tanh(rows @ incoming + bias) @ outgoing + x[-1])

    summary = json.loads((report / "summary.json").read_text())
    performance = summary["performance"]
    for part, rows, labels in (("train", dataset.x_train, dataset.y_train), ("test", dataset.x_test, dataset.y_test)):
        together = np.mean([probabilities(x, rows) for x in minima.positions], axis=0)
        assert performance[f"auc_{part}"] == pytest.approx(roc_auc_score(labels, together))
    lowest = minima.positions[minima.energies.argmin()]
    auc = roc_auc_score(dataset.y_test, probabilities(lowest, dataset.x_test))
    assert performance["auc_test_of_lowest"] == pytest.approx(auc)
    assert summary["validation"]["auc_baseline"] == pytest.approx(auc)
    assert len({performance["auc_train"], performance["auc_test"], auc}) == 3


@pytest.mark.parametrize(
    ("target", "options", "score"),
    [("amount", [], "r2"), ("bought", ["--loss", "auc"], "auc")],
)
def test_regressions_and_other_losses_work_end_to_end(target, options, score, csv, tmp_path):
    data = pd.read_csv(csv)
    data["amount"] = 2 * data["plain"] - data["$\\frac"] + 0.1 * np.random.default_rng(1).normal(size=len(data))
    data.drop(columns="amount" if target == "bought" else "bought").to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "report"
    small = ["--hidden", "1", "--penalty", "0.001"]
    assert (
        command.main(["explain", str(tmp_path / "t.csv"), "--target", target, "--out", str(out), *small, *options]) == 0
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["performance"][f"{score}_test"] > 0.8
    first = "plain" if target == "amount" else "<script>alert(1)</script>"
    assert summary["features"][0]["name"] == first
    assert summary["features"][0]["q_value"] <= 0.05


def test_the_landscape_can_be_read_back(report):
    landscape = database.load(report / "landscape.npz")
    summary = json.loads((report / "summary.json").read_text())
    assert len(landscape.minima.energies) == summary["landscape"]["num_minima"]
    assert landscape.ledger.evaluations == summary["landscape"]["evaluations"]
    settings = json.loads(str(database.load_extra(report / "landscape.npz")["settings"]))
    assert settings["hidden"] == [2]


def test_resuming_with_other_settings_or_data_is_refused(report, csv, capsys):
    again = ["explain", str(csv), "--target", "bought", "--out", str(report), *SMALL, "--resume"]
    before = (report / "landscape.npz").read_bytes()
    assert command.main([*again, "--seed", "1"]) == 2
    assert "another seed" in capsys.readouterr().err
    other = report.parent / "other.csv"
    other.write_text(csv.read_text().replace(",no\n", ",yes\n", 1))
    assert command.main([argument.replace(str(csv), str(other)) for argument in again]) == 2
    assert "other data" in capsys.readouterr().err
    assert command.main([*again, "--hidden", "3"]) == 2
    assert "another hidden" in capsys.readouterr().err
    assert command.main([*again, "--penalty", "0.002"]) == 2
    assert "another penalty" in capsys.readouterr().err
    (report / "landscape.npz").write_bytes(before[:100])
    assert command.main(again) == 2
    assert "damaged" in capsys.readouterr().err
    (report / "landscape.npz").write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "no such file"),
        (["{csv}", "--target", "bough"], "closest is 'bought'"),
        (["{csv}", "--target", "kind", "--task", "binary"], "3 classes"),
        (["{csv}", "--target", "kind", "--loss", "auc"], "needs a target with two classes"),
        (["{csv}", "--target", "plain", "--loss", "balanced"], "the target is a quantity"),
        (["{csv}", "--task", "regression"], "text where numbers"),
        (["{csv}", "--penalty", "0"], "penalty must be positive, got 0.0"),
        (["{csv}", "--penalty", "-1"], "penalty must be positive, got -1.0"),
        (["{csv}", "--penalty", "nan"], "penalty must be positive, got nan"),
        (["{csv}", "--l2", "1e-3"], "write --penalty 1e-3"),
        (["{csv}", "--hidden", "2", "0"], "hidden must be at least 1"),
        (["{csv}", "--max-seconds", "0"], "max_seconds must be at least 1"),
        (["{csv}", "--workers", "0"], "workers must be at least 1"),
        (["{csv}", "--splits", "0"], "--splits must be at least 1"),
        (["{csv}", "--seed", "-1"], "seed must be between"),
        (["{csv}", "--out", "{csv}"], "is a file"),
        (["{csv}", "--out", "{csv}/below"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, message, csv, tmp_path, capsys):
    out = tmp_path / "report"
    filled = [argument.replace("{csv}", str(csv)) for argument in arguments]
    assert command.main(["explain", "--out", str(out), *filled]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("jaxscape: ")
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_penalty_that_is_no_number_is_answered_with_what_may_be_written(csv, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["explain", str(csv), "--penalty", "x"])
    assert end.value.code == 2
    assert "argument --penalty: 'x' is neither a number nor the word evidence" in capsys.readouterr().err


def test_killed_and_resumed_it_reports_the_same_landscape(csv, report, tmp_path):
    out = tmp_path / "report"
    arguments = [sys.executable, "-m", "jaxscape", "explain", str(csv), "--target", "bought", "--out", str(out), *SMALL]
    # Compiled as in this process (tests/conftest.py): other instructions round otherwise.
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 240
    while not (out / "landscape.npz").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / "landscape.npz").exists()
    assert not (out / "summary.json").exists()
    done = len(database.load(out / "landscape.npz").minima.energies)
    assert command.main([*arguments[3:], "--resume"]) == 0
    resumed, whole = database.load(out / "landscape.npz"), database.load(report / "landscape.npz")
    assert len(resumed.minima.energies) >= done
    np.testing.assert_allclose(resumed.minima.energies, whole.minima.energies, atol=1e-10)
    np.testing.assert_array_equal(resumed.transition_states.minima, whole.transition_states.minima)


def test_several_classes_and_layers_work_end_to_end(tmp_path):
    out = tmp_path / "report"
    arguments = ["explain", "iris", "--hidden", "2", "2", "--penalty", "0.01", "--out", str(out)]
    assert command.main(arguments) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["data"]["task"] == "multiclass"
    assert summary["data"]["classes"] == ["setosa", "versicolor", "virginica"]
    assert summary["model"]["num_weights"] == 4 * 2 + 2 + 2 * 2 + 2 + 2 * 3 + 3
    assert summary["performance"]["auc_test"] > 0.95
    assert summary["features"][0]["name"].startswith("petal")
    assert "3 classes" in (out / "index.html").read_text()


def test_what_is_not_used_ranks_below_by_the_evidence_it_would_add():
    increases = np.array([0.5, 0.0, -0.1, 0.0])
    draws = np.broadcast_to(increases, (1, 6, 4)).copy()
    measured = Importance(draws, np.arange(4), np.zeros(6, int), np.ones(1), np.ones(1), draws)
    order = ranking(measured, np.array([True, False, True, False]), np.array([0.0, -3.0, 0.0, 2.0]))
    assert np.argsort(-order).tolist() == [0, 2, 3, 1]
