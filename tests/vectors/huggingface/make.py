"""Writes tiny models as Hugging Face publishes them, and what the reference implementation computes with them.

    python3 make.py        needs torch==2.15.0 transformers==5.24.0 tokenizers (tests/vectors/tokenizer/make.py)

Each folder is a model with random weights in BF16 whose shape exercises what its family does: grouped heads, a head
dimension of its own, biases, norms of queries and keys, sliding windows, softcaps, scaled rotary frequencies, tied
embeddings, several files. `logits.json` has ids and the scores after the last of them, computed by transformers in F32.
The test `folders_compute_as_in_transformers` of cocoon-inference compares.
"""

import json
import os
import pathlib
import shutil

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
COMMON = dict(
    vocab_size=272, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=256, eos_token_id=258, pad_token_id=None,
)
OWN = dict(head_dim=16, num_attention_heads=4, num_key_value_heads=2)  # queries are wider than the stream
GEMMA = dict(OWN, query_pre_attn_scalar=16, sliding_window=5, hidden_activation="gelu_pytorch_tanh")
MODELS = {
    "llama": ("llama", dict(rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))),
    "mistral": ("mistral", dict(sliding_window=5)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("qwen3", OWN),
    "gemma2": ("gemma2", dict(GEMMA, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)),
    "gemma3": ("gemma3_text", dict(GEMMA, num_hidden_layers=7)),
}
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def tokenizer(folder):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|begin|>", "<|user|>", "<|end|>", "<|assistant|>", "<|system|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def make(name, model_type, settings):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **(COMMON | settings))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms too: those of a new model are all the same. Rounded to BF16, as they are stored.
            scale = 0.3 if parameter.dim() > 1 else 0.2
            start = parameter if parameter.dim() == 1 else 0
            parameter.copy_((start + scale * torch.randn_like(parameter)).bfloat16().float())
        ids = [256] + [int(n) for n in torch.randint(0, 256, (15,))]
        logits = model(torch.tensor([ids])).logits[0, -1]
    model = model.bfloat16()
    shards = {"max_shard_size": "60KB"} if name == "qwen3" else {}
    model.save_pretrained(folder, **shards)
    tokenizer(folder)
    rounded = [round(float(x), 5) for x in logits]
    (folder / "logits.json").write_text(json.dumps({"ids": ids, "logits": rounded}) + "\n")
    print(name, sum(os.path.getsize(f) for f in folder.iterdir()), "bytes", sorted(f.name for f in folder.iterdir()))


if __name__ == "__main__":
    for name, (model_type, settings) in MODELS.items():
        make(name, model_type, settings)
