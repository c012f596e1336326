"""What can be told of a stream from what its host saw: reads the lines of `cocoon-leak` on standard input.

For each padding profile a random forest (500 trees) guesses topic and length, in 10-fold cross-validation, from the sizes and times of what passed.
Beside the accuracy: what guessing reaches (the largest class), and the standard error of the folds.
"""

import json
import sys

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

FIRST = 60  # reads that are looked at one by one


def features(stream):
    reads = stream["reads"]
    out = []
    for direction in (0, 1):
        times = np.array([t for t, _, d in reads if d == direction], dtype=float)
        sizes = np.array([n for _, n, d in reads if d == direction], dtype=float)
        gaps = np.diff(times, prepend=reads[0][0]) if len(times) else np.zeros(0)
        fixed = lambda values: np.pad(values[:FIRST], (0, max(0, FIRST - len(values))))
        summary = [len(sizes), sizes.sum(), times[-1] - reads[0][0] if len(times) else 0]
        for values in (sizes, gaps):
            summary += [values.mean(), values.std(), values.max()] if len(values) else [0, 0, 0]
        out.append(np.concatenate([summary, fixed(sizes), fixed(gaps)]))
    return np.concatenate(out)


def main():
    streams = [json.loads(line) for line in sys.stdin]
    result = {}
    for pad in (0, 1):
        of_profile = [stream for stream in streams if stream["pad"] == pad]
        x = np.stack([features(stream) for stream in of_profile])
        seconds = [(s["reads"][-1][0] - s["reads"][0][0]) / 1e6 for s in of_profile]
        down = [sum(n for _, n, d in s["reads"] if d == 1) for s in of_profile]
        result[pad] = {
            "bytes": float(np.median(down)),
            "seconds": float(np.median(seconds)),
            "first_ms": float(np.nanmedian([s["first_ms"] for s in of_profile])),
        }
        for label in ("topic", "length"):
            y = np.array([stream[label] for stream in of_profile])
            forest = RandomForestClassifier(n_estimators=500, random_state=0, n_jobs=-1)
            folds = StratifiedKFold(n_splits=10, shuffle=True, random_state=0)
            scores = cross_val_score(forest, x, y, cv=folds)
            chance = np.bincount(y).max() / len(y)
            result[pad][label] = (scores.mean(), scores.std() / len(scores) ** 0.5, chance)
    print(f"{len(streams) // 2} streams of each profile\n")
    print("| What the host can tell | Chance | pad=0 | pad=1 |\n|---|---|---|---|")
    for label in ("topic", "length"):
        cells = [f"{result[pad][label][0]:.2f} ± {result[pad][label][1]:.2f}" for pad in (0, 1)]
        print(f"| {label} | {result[0][label][2]:.2f} | {cells[0]} | {cells[1]} |")
    print("\n| What it costs, median | pad=0 | pad=1 |\n|---|---|---|")
    for name, key in (("bytes to the client", "bytes"), ("seconds", "seconds"), ("ms to the first text", "first_ms")):
        print(f"| {name} | {result[0][key]:.4g} | {result[1][key]:.4g} |")


main()
