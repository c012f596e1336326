"""The corpus that tokenizers are compared on: 10,000 lines, the same in every run and on every machine.

`enclave/inference/src/tokenizer/vectors.rs` makes the same lines in Rust.  A line is made of fragments that a SplitMix64 generator chooses. `python3 corpus.py` prints JSON.
"""

import json
import pathlib

LINES = 10_000
PER_DIGEST = 100

# Among them U+FFFD, which is what a server makes of invalid UTF-8.
FRAGMENTS = json.loads((pathlib.Path(__file__).parent / "fragments.json").read_text())
JOINERS = ["", "", " ", " ", " ", "", "\n", "'"]


class Random:
    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % n


def lines():
    random = Random(1)
    for _ in range(LINES):
        line = ""
        for _ in range(1 + random.below(12)):
            fragment = FRAGMENTS[random.below(len(FRAGMENTS))]
            times = 1 + random.below(4) if random.below(8) == 0 else 1
            line += fragment * times + JOINERS[random.below(len(JOINERS))]
        yield line


if __name__ == "__main__":
    print(json.dumps(list(lines())))
