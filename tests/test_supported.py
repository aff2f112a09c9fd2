"""The main job as it is by default, at the penalties that the data support, from the command line on a small table."""

import json
import signal
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from jaxscape import __main__ as command
from jaxscape import database
from jaxscape.table import datasets, explain, problem

COLUMNS = ["c0", "c1", "c2", "driver", "c4", "c5", "c6", "kind"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 7))
    data = pd.DataFrame(x, columns=COLUMNS[:-1])
    data["kind"] = rng.choice(["u", "v", "w"], 200)
    data["bought"] = np.where(x[:, 3] + 0.5 * rng.normal(size=200) > 0, "yes", "no")
    path = tmp_path_factory.mktemp("data") / "shop.csv"
    data.to_csv(path, index=False)
    return path


def arguments(csv, out):
    return ["explain", str(csv), "--target", "bought", "--out", str(out)]


@pytest.fixture(scope="module")
def report(csv, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    assert command.main(arguments(csv, out)) == 0
    return out


def test_the_one_column_that_drives_is_named_and_no_other(report):
    summary = json.loads((report / "summary.json").read_text())
    assert summary["model"]["penalty"] == "evidence"
    assert sorted(feature["name"] for feature in summary["features"]) == sorted(COLUMNS)
    assert [feature["rank"] for feature in summary["features"]] == list(range(1, 9))
    assert summary["features"][0]["name"] == "driver"
    assert summary["ranking"]["held_out_rows"] == 60
    assert summary["ranking"]["left_out_rows"] == 140
    assert [feature["q_value"] <= 0.05 for feature in summary["features"]] == [True] + 7 * [False]
    # Those that no network uses come last, and have nothing to lose.
    used = [feature["used"] for feature in summary["features"]]
    assert used == sorted(used, reverse=True)
    assert all(feature["importance"] == 0 for feature in summary["features"] if not feature["used"])
    assert set(summary["baselines"]) == {"linear", "forest", "boosting"}
    assert all(0.8 < each["test"] <= 1 for each in summary["baselines"].values())
    assert summary["performance"]["auc_test"] > 0.9
    evidence = summary["evidence"]
    assert min(evidence["penalties"], key=evidence["penalties"].get) == "driver"
    most = max(size["log_evidence"] for size in evidence["sizes"])
    as_good = [size["units"] for size in evidence["sizes"] if size["log_evidence"] >= most - 0.5]
    assert min(as_good) == evidence["units"] == summary["model"]["hidden"]
    assert sum(size["weight"] for size in evidence["sizes"]) == pytest.approx(1)
    page = (report / "index.html").read_text()
    assert page.index("How well the networks predict") < page.index(
        "The columns that matter most: <strong>driver</strong>"
    )
    assert page.count("<figure ") == len(list((report / "figures").glob("*.svg")))


def test_the_minima_are_those_of_the_loss_at_the_penalties_in_the_summary(report, csv):
    # As a reader would write it, with the weights in the file as they are.
    dataset = datasets.prepare(datasets.load(str(csv), target="bought"))
    summary = json.loads((report / "summary.json").read_text())
    (units,) = summary["evidence"]["units"]
    minima = database.load(report / "landscape.npz").minima
    inputs = database.load_extra(report / "landscape.npz")["inputs"]
    x, signs = dataset.x_train[:, inputs], 2 * dataset.y_train - 1
    columns = np.array(list(summary["evidence"]["penalties"].values()))[dataset.column[inputs]]
    bias, outgoing, last = summary["evidence"]["other_penalties"]
    alphas = np.concatenate([np.repeat(columns, units), np.full(units, bias), np.full(units, outgoing), [last]])

    def loss(weights):
        hidden = np.tanh(x @ weights[: -2 * units - 1].reshape(-1, units) + weights[-2 * units - 1 : -units - 1])
        errors = np.logaddexp(0, -signs * (hidden @ weights[-units - 1 : -1] + weights[-1]))
        return (errors.sum() + 0.5 * alphas @ weights**2) / len(x)

    lowest = minima.positions[minima.energies.argmin()]
    assert loss(lowest) == pytest.approx(summary["landscape"]["lowest_loss"], rel=1e-9)
    slopes = scipy.optimize.approx_fprime(lowest, loss)
    assert np.abs(slopes).max() < 1e-6
    assert np.abs(scipy.optimize.approx_fprime(1.1 * lowest, loss)).max() > 1e-3


def test_interrupted_and_resumed_it_is_the_same_to_the_bit(report, csv, tmp_path, monkeypatch, capsys):
    out, advance, rounds = tmp_path / "report", problem.explore.advance, []

    def interrupted(*given, **named):
        rounds.append(1)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return advance(*given, **named)

    monkeypatch.setattr(problem.explore, "advance", interrupted)
    assert command.main(arguments(csv, out)) == 130
    assert f"go on with --resume --out {out}" in capsys.readouterr().err
    assert not (out / "summary.json").exists()
    assert command.main([*arguments(csv, out), "--resume"]) == 0
    whole = int(database.load_extra(report / "landscape.npz")["round"]) - 1
    assert len(rounds) == whole + 1 > 2
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (out, report))
    assert one | {"seconds": 0} == other | {"seconds": 0}
    assert (out / "features.csv").read_bytes() == (report / "features.csv").read_bytes()
    with np.load(out / "landscape.npz") as one, np.load(report / "landscape.npz") as other:
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    landscape, extra = database.load(out / "landscape.npz"), database.load_extra(out / "landscape.npz")
    database.save(out / "landscape.npz", landscape, extra=extra | {"scale": 2 * extra["scale"]})
    assert command.main([*arguments(csv, out), "--resume"]) == 2
    assert "was made at other penalties" in capsys.readouterr().err
    assert command.main([*arguments(csv, out), "--resume", "--penalty", "0.01"]) == 2
    assert "another penalty" in capsys.readouterr().err


def test_ctrl_c_does_not_wait_for_the_importance_of_the_columns(csv, tmp_path, monkeypatch, capsys):
    released, threads, main = threading.Event(), [], threading.main_thread()

    def measured(*given, **named):
        threads.append(threading.current_thread())
        signal.pthread_kill(main.ident, signal.SIGINT)
        released.wait(60)
        raise AssertionError("waited for")

    monkeypatch.setattr(explain, "column_importance", measured)
    try:
        assert command.main(arguments(csv, tmp_path / "report")) == 130
        # A call of a compiled program, which this stands for, would not let go of the thread that is interrupted.
        assert not released.is_set()
        assert main not in threads
    finally:
        released.set()
    assert "stopped; go on with --resume" in capsys.readouterr().err


def test_other_losses_take_the_penalties_of_the_likelihood(csv, tmp_path):
    found = []
    for loss in ("balanced", "auc"):
        options = ["--loss", loss, "--hidden", "1", "--out", str(tmp_path / loss)]
        assert command.main([*arguments(csv, tmp_path), *options]) == 0
        found.append(json.loads((tmp_path / loss / "summary.json").read_text()))
        assert found[-1]["features"][0]["name"] == "driver"
        assert found[-1]["features"][0]["q_value"] <= 0.05
        assert found[-1]["performance"]["auc_test"] > 0.9
    balanced, auc = found
    assert balanced["evidence"] == auc["evidence"]
    assert balanced["landscape"]["lowest_loss"] != auc["landscape"]["lowest_loss"]
