#!/usr/bin/env python3
"""Peers that are Python packages, timed by cocoon-peers: for each line with a number N on stdin, appraises N times and prints the CPU seconds that it
took.

    timed.py tdx COLLATERAL.json QUOTE SECONDS_SINCE_1970
    timed.py nvidia REPORT CHAIN DRIVER_RIM VBIOS_RIM TIME
"""

import pathlib
import sys
import time


def tdx(collateral, quote, now):
    import dcap_qvl

    collateral = dcap_qvl.QuoteCollateralV3.from_json(pathlib.Path(collateral).read_text())
    quote = pathlib.Path(quote).read_bytes()
    return lambda: dcap_qvl.verify(quote, collateral, int(now))


def nvidia(report, chain, driver, vbios, when):
    from nvidia_peer import at, verdicts

    at(when)
    report, chain = pathlib.Path(report).read_bytes(), pathlib.Path(chain).read_bytes()

    def work():
        refused = [name for name, verdict in verdicts(report, chain, {"driver": driver, "vbios": vbios}).items() if not verdict]
        assert not refused, refused

    return work


def main():
    work = {"tdx": tdx, "nvidia": nvidia}[sys.argv[1]](*sys.argv[2:])
    for line in sys.stdin:
        start = time.process_time()
        for _ in range(int(line)):
            work()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
