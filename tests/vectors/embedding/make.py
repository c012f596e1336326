"""Writes what `tokenizers` and `transformers` make of texts with BERT models for embeddings.

    python3 make.py [MODEL]    needs torch==2.15.0 transformers==5.24.0 tokenizers==0.23.3 safetensors

`tiny/` is a model with random weights, in each of the types that we read, and a vocabulary of single letters and some pieces.
`tiny.json` has texts and their embeddings, by transformers in F32. MODEL is the folder of all-MiniLM-L6-v2 (`scripts/model fetch
--embedding`): `minilm.json` is the same of it. `*.txt` are digests of the tokens of 10,000 lines, made of the fragments of
`fragments.json` and of `../tokenizer`: each of 100 lines, as `../tokenizer/make.py` has them. Special tokens in texts are text.
The tests in `enclave/inference/src/embedding/vectors.rs` compare.
"""

import hashlib
import json
import pathlib
import struct
import sys
import unicodedata

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tokenizer"))
import corpus  # noqa: E402

corpus.FRAGMENTS += json.loads((HERE / "fragments.json").read_text())
LINES = list(corpus.lines())
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["the", "and", "un", "##able", "##ing", "##s", "embed", "##ding", "world", "hello", "token", "##iz", "##er", "[unused1]", "##ﬀ", "2026"]
# Kinds of normalisation, by the settings that differ from those of uncased models.
VARIANTS = {
    "tiny": {},
    "tiny-cased": {"lowercase": False},
    "tiny-accents": {"strip_accents": False},
    "tiny-raw": {"clean_text": False, "handle_chinese_chars": False, "lowercase": False, "strip_accents": False},
}
PROSE = (
    "A confidential machine answers questions that nobody else can read. Its memory is encrypted, its program is measured, and "
    "whoever asks can check both before the first word is sent. "
)
TEXTS = [
    "", "a", "Hello, world!", "hello world", "The cat sits on the mat.", "Die Katze sitzt auf der Matte.", "猫坐在垫子上。",
    "Le chat s'est assis\tsur le tapis\u00a0— déjà vu, naïve café", "كيف حالك اليوم؟", "안녕하세요 세계", "🐈‍⬛ 🐈 ❤️ 👩‍👩‍👧",
    "[CLS] [SEP] [MASK] [UNK] ignore the above", "fn main() { println!(\"{}\", x += 1); }", "3.14159 2026-11-26T17:41:38Z", "x" * 101,
    "\u0000\ufffd\u200b\u200d", "word " * 60, PROSE, PROSE * 5, PROSE * 12, "the " * 510,
]


def letters():
    """Most letters of the corpus, as they are after any of the normalisations."""
    seen = sorted({c for line in LINES for form in (line, line.lower(), unicodedata.normalize("NFD", line)) for c in form if c.isprintable() and c != " "})
    return [c for n, c in enumerate(seen) if c.isascii() or n % 3]


def make_tiny():
    folder = HERE / "tiny"
    folder.mkdir(exist_ok=True)
    chosen = letters()
    texts = list(dict.fromkeys(SPECIAL + PIECES + chosen + ["##" + c for c in chosen]))
    vocab = {text: n for n, text in enumerate(texts)}
    special = {text: {"id": text, "ids": [vocab[text]], "tokens": [text]} for text in ("[CLS]", "[SEP]")}
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": vocab[text], "content": text, **flags} for text in SPECIAL],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, type_vocab_size=2, layer_norm_eps=1e-12,
    )
    model = BertModel(config).eval()
    tensors = {}
    for name, value in model.state_dict().items():
        kind = torch.float16 if "layer.0" in name or "word_embeddings" in name else torch.bfloat16 if "layer.1" in name else torch.float32
        start = value if name.endswith("LayerNorm.weight") else 0
        tensors[name] = (start + 0.3 * torch.randn_like(value)).to(kind)
    tensors["embeddings.position_ids"] = torch.arange(64).unsqueeze(0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["BertModel"]
    config.save_pretrained(folder)
    print("tiny:", len(vocab), "tokens,", sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def tokenizer_of(folder, settings=None):
    file = json.loads((folder / "tokenizer.json").read_text())
    file["normalizer"] |= settings or {}
    tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # special tokens in texts are not looked for
    return tokenizer


def write_tokens(name, tokenizer):
    digests, count = [], 0
    for start in range(0, len(LINES), corpus.PER_DIGEST):
        digest = hashlib.sha256()
        for line in LINES[start : start + corpus.PER_DIGEST]:
            ids = tokenizer.encode(line).ids
            count += len(ids)
            digest.update(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids))
        digests.append(digest.hexdigest()[:16])
    (HERE / f"{name}.txt").write_text(f"# Tokens of {name} by tokenizers; made by make.py.\n" + "\n".join(digests) + "\n")
    print(name, count, "tokens")


def write_embeddings(name, folder, tokenizer):
    config = BertConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    model = BertModel(config, add_pooling_layer=False).eval()
    tensors = {k: v.float() for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler.") and v.is_floating_point()}
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    assert all(key.endswith(("position_ids", "token_type_ids")) for key in missing), missing
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        if len(ids) > config.max_position_embeddings:
            continue
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        mean = hidden.mean(dim=0)
        unit = mean / mean.norm().clamp_min(1e-12)
        # In millionths.
        rows.append({"text": text, "tokens": len(ids), "embedding": [round(float(x) * 1e6) for x in unit]})
    text = "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n"
    (HERE / f"{name}.json").write_text(text)
    print(name, len(rows), "texts of", [row["tokens"] for row in rows], "tokens")


if __name__ == "__main__":
    make_tiny()
    for name, settings in VARIANTS.items():
        write_tokens(name, tokenizer_of(HERE / "tiny", settings))
    write_embeddings("tiny", HERE / "tiny", tokenizer_of(HERE / "tiny"))
    if len(sys.argv) > 1:
        folder = pathlib.Path(sys.argv[1])
        write_tokens("minilm", tokenizer_of(folder))
        write_embeddings("minilm", folder, tokenizer_of(folder))
