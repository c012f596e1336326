#!/usr/bin/env python3
"""Proves with the E prover what the model of the attested channel must and must not hold.

A proof that a secret is reached is an attack. If instead E has drawn all consequences without one (the clauses are satisfiable), there
is no attack in this model, with any number of sessions. Each variant is also asked whether the honest run takes place: none is secure only
because nothing happens.

    check.py                  all variants; exit 1 if a verdict is not the one that model.py states, or docs/formal.md does not say it
    check.py --show VARIANT   prints its problems, for another prover
"""

import argparse
import pathlib
import subprocess
import sys

from model import VARIANTS, honest, problem, secrets

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "formal.md"

# Every problem takes milliseconds; a model that no longer saturates must not stall the tests.
SECONDS = 60
MEGABYTES = 2000

REACHED = {"Unsatisfiable": True, "Satisfiable": False}


def reached(variant, goal):
    """Whether E finds a way, or has shown that there is none."""
    command = ["eprover", "--auto", "--silent", "--tptp3-in", f"--cpu-limit={SECONDS}", f"--memory-limit={MEGABYTES}"]
    try:
        run = subprocess.run(command, input=problem(variant, goal), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit("check.py: eprover is missing; install the Debian package eprover")
    status = [line.split()[-1] for line in run.stdout.splitlines() if "SZS status" in line]
    if len(status) != 1 or status[0] not in REACHED:
        sys.exit(f"check.py: {variant.name}: no verdict on {goal}: {status or run.stderr.strip()}")
    return REACHED[status[0]]


def wrong(variant, documented):
    """What is not as it must be."""
    for name, goal in secrets(variant).items():
        got = reached(variant, goal)
        print(f"{variant.name:24}{name:10}{'ATTACK' if got else 'secure'}")
        if got != (name == variant.lost):
            yield f"{variant.name}: {name} is {'lost' if got else 'safe'}, and must not be"
    for run in honest(variant):
        if not reached(variant, run):
            yield f"{variant.name}: the honest run does not take place: {run}"
    row = f"| `{variant.name}` | {variant.what} | {f'attack: {variant.lost}' if variant.lost else 'secure'} |"
    if row not in documented:
        yield f"{variant.name}: docs/formal.md lacks the row {row}"


def main():
    parser = argparse.ArgumentParser(description="Checks the model of the attested channel.")
    parser.add_argument("--show", choices=[variant.name for variant in VARIANTS], help="print its problems instead")
    shown = parser.parse_args().show
    if shown:
        variant = next(variant for variant in VARIANTS if variant.name == shown)
        for goal in [*secrets(variant).values(), *honest(variant)]:
            print(problem(variant, goal))
        return
    documented = DOCS.read_text().splitlines()
    faults = [fault for variant in VARIANTS for fault in wrong(variant, documented)]
    for fault in faults:
        print(f"check.py: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
