#!/usr/bin/env python3
"""Holds our verdicts on NVIDIA evidence against those of NVIDIA's own local verifier. `scripts/peers` installs it and runs this.

    nvidia.py COCOON EVIDENCE      COCOON: the program; EVIDENCE: a folder with manifest.json, as the evidence corpus has it

Exit code 1 if a verdict differs other than where DIFFERENCES says.
"""

import json
import pathlib
import subprocess
import sys

from nvidia_peer import at, verdicts

# (case, factor): why the two differ.
DIFFERENCES = {
    ("h100-535.86.09-rim-altered", "nvidia.fwid"): "we refuse a report without FWID, NVIDIA's tool skips the comparison",
}


def rims(case, folder):
    return {kind: folder / case["files"][f"{kind}_rim"] for kind in ("driver", "vbios") if f"{kind}_rim" in case["files"]}


def theirs(case, folder):
    at(case["verify_at"])
    report, chain = [(folder / case["files"][key]).read_bytes() for key in ("report", "chain_pem")]
    return verdicts(report, chain, rims(case, folder))


def ours(cocoon, case, folder):
    """Status of each of our factors."""
    report, chain = [str(folder / case["files"][key]) for key in ("report", "chain_pem")]
    command = [cocoon, "inspect", "nvidia", "--report", report, "--chain", chain, "--at", case["verify_at"], "--json"]
    for path in rims(case, folder).values():
        command += ["--rim", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return {factor["name"]: factor["status"] for factor in json.loads(run.stdout)["factors"]}


def main():
    cocoon, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    wrong = 0
    for case in json.loads((folder / "manifest.json").read_text())["cases"]:
        if case["kind"] != "nvidia-gpu":
            print(f"{case['id']}: not a GPU: the peer has another tool for switches")
            continue
        us = ours(cocoon, case, folder)
        for name, verdict in theirs(case, folder).items():
            mine = us.get(name, "absent")
            why = DIFFERENCES.get((case["id"], name), "")
            print(f"{case['id']:30}{name:22}NVIDIA {str(verdict):7}Cocoon {mine:10}{why}")
            if verdict != (mine == "pass") and not why:
                wrong += 1
                print(f"nvidia.py: {case['id']}: {name} differs", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
