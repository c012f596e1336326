"""Writes the expected greedy tokens of SmolLM2-135M-Instruct as transformers computes them, in F32.

    python3 make.py requantised-F16.gguf smollm2-135m-instruct-f16.txt > smollm2-135m-instruct-f16-transformers.txt

Needs torch==2.15.0 transformers==5.24.0 gguf. Prompts are those of the other file. `make.mjs` says where the model comes from.
"""

import hashlib
import pathlib
import sys

import numpy
import torch
from gguf import GGUFReader
from transformers import LlamaConfig, LlamaForCausalLM

NEW_TOKENS = 16


def load(path):
    reader = GGUFReader(path)
    number = lambda key: reader.fields[key].contents()
    heads, kv_heads = number("llama.attention.head_count"), number("llama.attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data), hidden_size=number("llama.embedding_length"),
        intermediate_size=number("llama.feed_forward_length"), num_hidden_layers=number("llama.block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=number("llama.context_length"),
        rms_norm_eps=number("llama.attention.layer_norm_rms_epsilon"), rope_theta=number("llama.rope.freq_base"),
        rope_parameters={"rope_type": "default", "rope_theta": number("llama.rope.freq_base")}, tie_word_embeddings=True,
    )
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    state = {}
    for tensor in reader.tensors:
        numbers = torch.from_numpy(numpy.array(tensor.data, dtype=numpy.float32).reshape(tuple(reversed(tensor.shape.tolist()))))
        part = tensor.name.split(".")
        if part[0] == "blk":
            # GGUF lays the halves of a head out as neighbours.
            if part[2] in ("attn_q", "attn_k"):
                n = heads if part[2] == "attn_q" else kv_heads
                numbers = numbers.reshape(n, -1, 2, numbers.shape[1]).transpose(1, 2).reshape(numbers.shape)
            state[f"model.layers.{part[1]}.{names[part[2]]}.weight"] = numbers
        else:
            state[{"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[part[0]] + ".weight"] = numbers
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model


def main(path, prompts):
    torch.set_grad_enabled(False)
    model = load(path)
    import transformers
    print(f"""# Greedy tokens of {pathlib.Path(path).name} as transformers computes them, in F32.
# model sha256: {hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}
# peer: transformers {transformers.__version__}, torch {torch.__version__}
# made by: tests/vectors/greedy/make.py
# Fields as in the file of llama.cpp.""")
    ends = {0, 2}
    for line in pathlib.Path(prompts).read_text().splitlines():
        if line.startswith(("[", "messages", "prompt")):
            print(("\n" if line.startswith("[") else "") + line)
        if line.startswith("prompt = "):
            ids = [int(n) for n in line.removeprefix("prompt = ").split()]
            greedy, gaps, cache, step = [], [], None, torch.tensor([ids])
            while len(greedy) < NEW_TOKENS and not (greedy and greedy[-1] in ends):
                out = model(step, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                best = torch.topk(out.logits[0, -1], 2)
                greedy.append(int(best.indices[0]))
                gaps.append(f"{float(best.values[0] - best.values[1]):.4f}")
                step = torch.tensor([greedy[-1:]])
            print("greedy = " + " ".join(map(str, greedy)) + "\ngap = " + " ".join(gaps))


if __name__ == "__main__":
    main(*sys.argv[1:])
