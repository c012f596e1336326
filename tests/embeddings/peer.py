"""Times torch on the lines of a file: `peer.py MODEL TEXTS THREADS SECONDS`. For `scripts/bench --embeddings`.

What sentence-transformers does with a list of texts: longest first, 32 at a time, padded to the longest, the mean over tokens, scaled
to length 1. Prints texts, tokens and seconds of the fastest pass over all lines, as JSON.
"""

import json
import pathlib
import sys
import time

import torch
from tokenizers import Tokenizer
from transformers import BertModel

BATCH = 32


def main():
    model, texts, threads, seconds = sys.argv[1:]
    torch.set_num_threads(int(threads))
    tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    net = BertModel.from_pretrained(model, add_pooling_layer=False).eval()
    texts = sorted(pathlib.Path(texts).read_text().splitlines(), key=len, reverse=True)
    started, fastest, tokens = time.monotonic(), float("inf"), 0
    while time.monotonic() - started < float(seconds):
        begin, tokens = time.monotonic(), 0
        for first in range(0, len(texts), BATCH):
            encoded = tokenizer.encode_batch(texts[first : first + BATCH])
            mask = torch.tensor([one.attention_mask for one in encoded])
            ids = torch.tensor([one.ids for one in encoded])
            with torch.inference_mode():
                rows = net(input_ids=ids, attention_mask=mask).last_hidden_state
                wide = mask.unsqueeze(-1).float()
                torch.nn.functional.normalize((rows * wide).sum(1) / wide.sum(1), dim=1)
            tokens += int(mask.sum())
        fastest = min(fastest, time.monotonic() - begin)
    print(json.dumps({"texts": len(texts), "tokens": tokens, "seconds": fastest}))


if __name__ == "__main__":
    main()
