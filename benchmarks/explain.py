"""What does the main job find, and does the permutation test support it? Data sets by seeds, as JSON and Markdown.

    python benchmarks/explain.py breast_cancer checkerboard path/to/creditcard.csv --seeds 5 --out explain.json

Quality beside time: held-out score, effect of shuffling the conserved weights against random sets, top columns and
seconds. The last column of a CSV is the target. Nothing is tuned per data set.
"""

import argparse
import json
from pathlib import Path

import jax

from jaxscape import datasets, report
from jaxscape.explain import ExplainConfig, explain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    print("| data | seed | minima | TS | parts | AUC train | AUC test | conserved | random | p | top columns | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in options.data:
        for seed in range(options.seeds):
            dataset = datasets.prepare(datasets.load(name, seed=seed), seed=seed)
            row = report.summary(explain(dataset, ExplainConfig(seed=seed)))
            rows.append(row)
            score = "auc" if row["data"]["task"] == "binary" else "r2"
            land, test, done = row["landscape"], row["validation"], row["performance"]
            cells = [
                row["data"]["name"],
                seed,
                land["num_minima"],
                land["num_transition_states"],
                land["num_components"],
                f"{done[f'{score}_train']:.4f}",
                f"{done[f'{score}_test']:.4f}",
                f"{test[f'{score}_conserved_mean']:.3f}",
                f"{test[f'{score}_random_mean']:.3f} ± {test[f'{score}_random_std']:.3f}",
                f"{test['p_value']:.3f}",
                ", ".join(feature["name"] for feature in row["features"][:5]),
                f"{row['seconds']:.0f}",
            ]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            if options.out is not None:
                options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
