"""What does the main job find, and how sure is it? Data sets by seeds.

    python benchmarks/explain.py breast_cancer checkerboard path/to/creditcard.csv --seeds 5 --out explain.json
    python benchmarks/explain.py breast_cancer --hidden 5 5 --seeds 3

Quality beside time: held-out score, how many columns matter at a false discovery rate of 5 %, how often the first five
stay the same, the effect of shuffling the conserved weights against random sets and such as are matched in magnitude,
top columns and seconds, all at the paper's penalty. The last column of a CSV is the target. Nothing is tuned per data
set.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
from results import head, line, record, table
from smoke import arguments

from jaxscape import report
from jaxscape.table import datasets
from jaxscape.table.explain import explain_dataset
from jaxscape.table.problem import PAPER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--hidden", type=int, nargs="+", default=[5])
    parser.add_argument("--loss", default="likelihood")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--landscapes", type=Path, help="folder to keep landscapes in, and to take them from")
    parser.add_argument("--out", type=Path)
    options = arguments(
        parser, "checkerboard --seeds 1 --hidden 3 --rounds 1 --landscapes {folder} --out {folder}/explain.json"
    )
    jax.config.update("jax_enable_x64", True)
    rows, lines = [], []
    heads = ["data", "seed", "minima", "TS", "parts", "train", "test", "worst", "sure", "same top", "conserved"]
    heads += ["random", "p", "matched", "p matched", "top columns", "s"]
    print(head(heads), flush=True)
    for name in options.data:
        for seed in range(options.seeds):
            dataset = datasets.prepare(datasets.load(name, seed=seed), seed=seed)
            config = replace(PAPER, hidden=tuple(options.hidden), loss=options.loss, rounds=options.rounds, seed=seed)
            checkpoint = options.landscapes and options.landscapes / f"{dataset.name.split('.')[0]}_{seed}.npz"
            row = report.summary(explain_dataset(dataset, config, checkpoint=checkpoint, resume=True))
            rows.append(row)
            score = "r2" if row["data"]["task"] == "regression" else "auc"
            land, test, done, ranking = row["landscape"], row["validation"], row["performance"], row["ranking"]
            tested = test["p_value"] is not None
            cells = [
                row["data"]["name"],
                seed,
                land["num_minima"],
                land["num_transition_states"],
                land["num_components"],
                f"{done[f'{score}_train']:.4f}",
                f"{done[f'{score}_test']:.4f}",
                f"{done[f'{score}_test_of_all_models'][0]:.4f}",
                f"{ranking['num_certain']} of {row['data']['features']}",
                f"{ranking['same_top']} of {ranking['num_resamplings']}",
                f"{test[f'{score}_conserved_mean']:.3f}" if tested else "",
                f"{test[f'{score}_random_mean']:.3f} ± {test[f'{score}_random_std']:.3f}" if tested else "",
                f"{test['p_value']:.3f}" if tested else "",
                f"{test[f'{score}_matched_mean']:.3f} ± {test[f'{score}_matched_std']:.3f}" if tested else "",
                f"{test['p_value_matched']:.3f}" if tested else "",
                ", ".join(feature["name"] for feature in row["features"][:5]),
                f"{row['seconds']:.0f}",
            ]
            lines.append(cells)
            print(line(cells), flush=True)
            record(options.out, __doc__, rows, [table(heads, lines)])


if __name__ == "__main__":
    main()
