// Writes the expected greedy tokens of SmolLM2-135M-Instruct (Q4_1) as llama.cpp computes them.
//
//   npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
//   node make_greedy_vectors.mjs MODEL.gguf > smollm2-135m-instruct-q4_1.txt
//
// Run it in a copy outside the repository, beside its node_modules. The chat template is rendered by @huggingface/jinja
// (a dependency of node-llama-cpp), so neither the template nor the tokenizer nor the numbers are Cocoon's own.
import {createHash} from "node:crypto";
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {Template} from "@huggingface/jinja";
import {getLlama, readGgufFileInfo} from "node-llama-cpp";

const NEW_TOKENS = 48;
const PREFILL_CHUNK = 64; // as Cocoon's engine; another one gives other near ties
const LONG = "The lighthouse keeper wrote one line in the log every evening: wind, sea, lamp. On the ninth of March 1873 he wrote "
    + "'wind north-west, 7; sea high; lamp lit at 18:04', and under it, for the first time, a second line. A boat had been seen "
    + "beyond the reef, showing no light and answering no signal. He had watched it until dusk. In the morning there was no boat, "
    + "but on the landing stood a wooden box, dry, locked, and addressed to him by name. He did not open it for eleven days. ";

const user = (content) => [{role: "user", content}];
const cases = {
    "capital": user("What is the capital of France?"),
    "haiku": user("Write a haiku about the sea."),
    "one letter": user("A"),
    "digits": user("What is 12345 + 67890? Also 3.14159, 1,000,000 and 2024-11-23."),
    "code rust": user("Explain this:\n```rust\nfn main() {\n    let xs: Vec<u32> = (0..10).map(|x| x * x).collect();\n\tprintln!(\"{:?}\", xs);\n}\n```"),
    "code python": user("def fib(n):\n    if n < 2:\n        return n\n    return fib(n-1) + fib(n-2)\n\n# Add a docstring to this function."),
    "german": user("Erkläre mir in zwei Sätzen, warum der Himmel blau ist. Größe, Straße, Übung."),
    "french": user("Qu'est-ce que l'apprentissage automatique ? Réponds brièvement, s'il te plaît."),
    "spanish": user("¿Cuántos días tiene un año bisiesto? ¡Explícalo!"),
    "russian": user("Как тебя зовут и что ты умеешь?"),
    "chinese": user("请用一句话介绍北京。"),
    "japanese": user("富士山の高さは何メートルですか？"),
    "arabic": user("ما هي عاصمة مصر؟"),
    "emoji": user("Translate to words: 🐈‍⬛ + 🍕 = ❤️ 👩🏽‍🚀🇫🇷"),
    "whitespace": user("  leading spaces,\ttabs\t\tand   runs   of spaces  \n\n\nand newlines \n \n end   "),
    "contractions": user("I'll say it's what they've DONE, and we're sure you'd agree that he's WE'LL-read."),
    "system": [{role: "system", content: "You are a pirate. Answer in one short sentence."}, ...user("How do I boil an egg?")],
    "empty system": [{role: "system", content: ""}, ...user("Name three colours.")],
    "multi turn": [...user("My name is Ada."), {role: "assistant", content: "Nice to meet you, Ada!"}, ...user("What is my name?")],
    "multi turn with system": [{role: "system", content: "Be terse."}, ...user("2+2?"), {role: "assistant", content: "4"},
        ...user("times 10?"), {role: "assistant", content: "40"}, ...user("minus 1?")],
    "long": user(LONG.repeat(3) + "\n\nWhat stood on the landing in the morning?"),
    "json": user("Return JSON with keys \"name\" and \"age\": {\"name\": \"Zoë\", \"age\": 41, \"tags\": [\"a\\\"b\", null, true]}")
};

const path = process.argv[2];
const sha256 = createHash("sha256").update(readFileSync(path)).digest("hex");
const {metadata} = await readGgufFileInfo(path);
const template = new Template(metadata.tokenizer.chat_template);
const llama = await getLlama({build: "never", gpu: false, logLevel: "error"});
const model = await llama.loadModel({modelPath: path, gpuLayers: 0});
const context = await model.createContext({
    contextSize: 2048, batchSize: PREFILL_CHUNK, threads: 1, flashAttention: false,
    experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
});

const out = [];
out.push(`# Greedy tokens of SmolLM2-135M-Instruct.Q4_1.gguf as llama.cpp computes them.
# model sha256: ${sha256}
# peer: llama.cpp ${llama.llamaCppRelease.release} (${llama.llamaCppRelease.repo}), prebuilt CPU binary of npm @node-llama-cpp/linux-x64 3.22.1
# settings: 1 thread, batch ${PREFILL_CHUNK}, KV cache F32, flash attention off, temperature 0, no penalties, at most ${NEW_TOKENS} tokens
# chat template: the file's own, rendered by @huggingface/jinja with add_generation_prompt
# made by: enclave/inference/tests/make_greedy_vectors.mjs
#
# [case]
# messages = JSON
# prompt   = token ids of the rendered prompt
# greedy   = token ids that follow; the last is an end token where the model ended its turn
# gap      = for each of them, ln(p1 / p2): how far the peer's choice is ahead of its runner-up
#
# How far two correct engines are apart on this file (RMS over the 50 likeliest tokens after each prompt, in logits): Q4_1
# products with 8-bit activations differ from exact ones (weights dequantised to F32) by 0.10, in llama.cpp and in Cocoon;
# llama.cpp from itself with an F16 KV cache by 0.11, with batch 1 by 0.07; Cocoon from llama.cpp by 0.11. Forced along these
# tokens, llama.cpp chooses otherwise at 25 of 849 positions with an F16 KV cache and at 17 with batch 1; Cocoon at 23.
# Those are marked by hand: "near tie at" has position(our choice, by how many logits the peer's is behind it). The test checks
# every position: unmarked ones must agree, marked ones must differ, with the two candidates close in both engines.`);

for (const [name, messages] of Object.entries(cases)) {
    const text = template.render({messages, add_generation_prompt: true, bos_token: "<|im_start|>", eos_token: "<|im_end|>"});
    const prompt = model.tokenize(text, true, "trimLeadingSpace");
    const sequence = context.getSequence();
    const greedy = [];
    const gaps = [];
    const steps = sequence.evaluateWithMetadata(prompt, {probabilities: true}, {temperature: 0, yieldEogToken: true});
    for await (const {token, probabilities} of steps) {
        const [p1, p2] = [...probabilities.values()].sort((a, b) => b - a);
        greedy.push(token);
        gaps.push(Math.log(p1 / p2).toFixed(4));
        if (model.isEogToken(token) || greedy.length === NEW_TOKENS) break;
    }
    sequence.dispose();
    process.stderr.write(`${name}: ${JSON.stringify(model.detokenize(greedy))}\n`);
    out.push(`\n[${name}]\nmessages = ${JSON.stringify(messages)}\nprompt = ${prompt.join(" ")}\n`
        + `greedy = ${greedy.join(" ")}\ngap = ${gaps.join(" ")}`);
}
process.stdout.write(out.join("\n") + "\n");
await llama.dispose();
