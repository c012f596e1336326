"""What can be told of a stream from what its host saw: reads the lines of `cocoon-leak` on standard input.

For each padding profile a random forest (200 trees) and a logistic regression guess topic, length and question from the sizes and times of what
passed, in 6-fold cross-validation. For topic and length no question is in two folds, so that none is known again. Of both classifiers the
better one counts. Chance is what they reach, of padded streams, with labels that were dealt out anew: mean and standard deviation of many
deals, and p, the share of these that is as good as the truth.
"""

import json
import sys

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FIRST = 60  # reads that are looked at one by one
DEALS = 39


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


def classifiers():
    yield RandomForestClassifier(n_estimators=200, random_state=0, n_jobs=-1)
    # Sees a shift of many cells that is too small in each.
    yield make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def accuracy(label, x, labels, questions):
    """Of labels for each stream."""
    if label == "question":
        folds = StratifiedKFold(n_splits=6, shuffle=True, random_state=0).split(x, labels)
    else:
        folds = StratifiedGroupKFold(n_splits=6, shuffle=True, random_state=0).split(x, labels, questions)
    folds = list(folds)
    return max(cross_val_score(classifier, x, labels, cv=folds).mean() for classifier in classifiers())


def dealt(label, labels, questions, random):
    """Labels by chance, each as often as before: a question keeps to one topic, and is as often short and long."""
    if label == "topic":
        topics = dict(zip(questions, labels))
        topics = dict(zip(topics, random.permutation(list(topics.values()))))
        return np.array([topics[question] for question in questions])
    if label == "length":
        labels = labels.copy()
        for question in set(questions):
            labels[questions == question] = random.permutation(labels[questions == question])
        return labels
    return random.permutation(labels)


def main():
    streams = [json.loads(line) for line in sys.stdin]
    random = np.random.default_rng(0)
    costs, reached = {}, {"topic": [], "length": [], "question": []}
    for pad in (0, 1):
        of_profile = [stream for stream in streams if stream["pad"] == pad]
        x = np.stack([features(stream) for stream in of_profile])
        seconds = [(s["reads"][-1][0] - s["reads"][0][0]) / 1e6 for s in of_profile]
        down = [sum(n for _, n, d in s["reads"] if d == 1) for s in of_profile]
        costs[pad] = {
            "bytes": float(np.median(down)),
            "seconds": float(np.median(seconds)),
            "first_ms": float(np.nanmedian([s["first_ms"] or np.nan for s in of_profile])),
        }
        questions = np.array([stream["question"] for stream in of_profile])
        for label, cells in reached.items():
            labels = np.array([stream[label] for stream in of_profile])
            truth = accuracy(label, x, labels, questions)
            cells.append(f"{truth:.3f}")
            if pad == 1:
                deals = np.array(
                    [accuracy(label, x, dealt(label, labels, questions, random), questions) for _ in range(DEALS)]
                )
                p = (1 + (deals >= truth).sum()) / (1 + DEALS)
                cells += [f"{deals.mean():.3f} ± {deals.std():.3f}", f"{p:.2f}"]
    print(f"{len(streams) // 2} streams of each profile\n")
    print("| What the host can tell | `pad=0` | `pad=1` | by chance | p |\n|---|---|---|---|---|")
    for label, cells in reached.items():
        print(f"| {label} | {' | '.join(cells)} |")
    print("\n| What it costs, median | `pad=0` | `pad=1` |\n|---|---|---|")
    for name, key in (("bytes to the client", "bytes"), ("seconds", "seconds"), ("ms to the first text", "first_ms")):
        print(f"| {name} | {costs[0][key]:.4g} | {costs[1][key]:.4g} |")


main()
