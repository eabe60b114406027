"""What a leaking split adds to UAR: one frozen model under three kinds of split, on EmoDB and CREMA-D, as a table.

`make leaks` trains and evaluates the six experiments experiments/leak-*.json and then prints this table. It reads
results.csv of each and computes nothing that `ser eval` does not: mean, SD and t-interval of the UAR over splits, the
difference to the honest split with Welch's interval, and how many test clips are of speakers who trained.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from scipy import stats

from ser_eval import run_folder

KINDS = {
    "random": "clips at random",
    "per-emotion": "speakers drawn per emotion",
    "independent": "no speaker on two sides",
}
CORPORA = {"emodb": "EmoDB", "cremad": "CREMA-D"}


def main(runs: Path) -> None:
    """Print the table.

    Args:
        runs: the folder of all runs (SER_RUNS)
    """
    print("| corpus | split | seeds | clips of training speakers | UAR (SD) | 95 % over splits | price in points |")
    print("|---|---|---|---|---|---|---|")
    for corpus, title in CORPORA.items():
        scores = {kind: _scores(runs / f"leak-{corpus}-{kind}") for kind in KINDS}
        honest = scores["independent"]
        for kind, words in KINDS.items():
            uar = scores[kind]
            low, high = stats.t.interval(0.95, len(uar) - 1, uar.mean(), stats.sem(uar))
            price = "-"
            if kind != "independent":
                between = stats.ttest_ind(uar, honest, equal_var=False)
                from_, to = between.confidence_interval(0.95)
                price = f"{100 * (uar.mean() - honest.mean()):+.1f} ({100 * from_:+.1f} to {100 * to:+.1f})"
            shared = 100 * _shared(runs / f"leak-{corpus}-{kind}")
            print(
                f"| {title} | {words} | {len(uar)} | {shared:.0f} % | {uar.mean():.3f} ({uar.std(ddof=1):.3f}) "
                f"| {low:.3f} to {high:.3f} | {price} |"
            )


def _scores(folder: Path) -> pd.Series[float]:
    """UAR of every seed."""
    file = folder / run_folder.RESULTS
    if not file.is_file():
        sys.exit(f"{file} is not there; `make leaks` trains and evaluates what this table needs")
    return pd.read_csv(file)["uar"].astype(float)


def _shared(folder: Path) -> float:
    """Share of the test clips whose speaker also has clips in training, over all seeds."""
    clips = 0
    shared = 0
    for run in run_folder.find_runs(folder):
        table = run.split()
        trained = set(table.loc[table["split"] == "train", "actor"])
        tested = table.loc[table["split"] == "test", "actor"]
        clips += len(tested)
        shared += int(tested.isin(trained).sum())
    return shared / clips


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
