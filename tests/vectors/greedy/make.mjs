// Writes the expected greedy tokens of SmolLM2-135M-Instruct as llama.cpp computes them.
//
//   npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
//   node make.mjs MODEL.gguf > smollm2-135m-instruct-q4_1.txt
//
// Run it in a copy outside the repository, beside its node_modules. Files of other encodings are made by the test of the tokens
// (tests/tests/it/greedy.rs), in target/debug/models. The chat template is rendered by @huggingface/jinja (a dependency of
// node-llama-cpp), so neither the template nor the tokenizer nor the numbers are Cocoon's own.
import {createHash} from "node:crypto";
import {readFileSync} from "node:fs";
import {basename} from "node:path";
import {Template} from "@huggingface/jinja";
import {getLlama, readGgufFileInfo} from "node-llama-cpp";

const NEW_TOKENS = 48;
const PREFILL_CHUNK = 64;
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
    "primes": user("List the first ten prime numbers."),
    "rainbow": user("What is a rainbow?"),
    "poem": user("Write four lines about a river in winter."),
    "sql": user("SELECT name, COUNT(*) FROM users GROUP BY name HAVING COUNT(*) > 1; -- what does this do?"),
    "html": user("<div class=\"a\"><p>Hello &amp; welcome</p></div> What will a browser show?"),
    "shell": user("find . -name '*.rs' | xargs wc -l | sort -n: explain each part."),
    "latex": user("Solve $x^2 - 5x + 6 = 0$ and show \\frac{a}{b}."),
    "translate": user("Translate into French: The cat sleeps on the warm roof."),
    "summary": user("Summarise in one sentence: " + LONG),
    "italian": user("Qual è la differenza tra gelato e sorbetto?"),
    "portuguese": user("Não sei por que o céu é azul. Você sabe?"),
    "polish": user("Jak się masz? Żółć, gęś, źdźbło."),
    "turkish": user("İstanbul'un nüfusu kaçtır?"),
    "greek": user("Ποια είναι η πρωτεύουσα της Ελλάδας;"),
    "hebrew": user("מהי בירת ישראל?"),
    "hindi": user("भारत की राजधानी क्या है?"),
    "korean": user("한국의 수도는 어디입니까?"),
    "thai": user("เมืองหลวงของประเทศไทยคืออะไร"),
    "vietnamese": user("Thủ đô của Việt Nam là gì?"),
    "capitals": user("WHY IS EVERYTHING WRITTEN IN CAPITALS?"),
    "punctuation": user("?!... --- *** ### ((())) [[[]]] {{{}}} <<<>>> ;;; ::: ,,,"),
    "numbers": user("0 1 10 100 1000 10000 100000 1e9 0x1F 0b1010 1/3 -7 +3"),
    "repetition": user("again ".repeat(40)),
    "roleplay": [{role: "system", content: "You are a lighthouse."}, ...user("What do you see tonight?")],
    "recipe": user("Give me a recipe for pancakes with three ingredients."),
    "reasoning": user("If all bloops are razzies and all razzies are lazzies, are all bloops lazzies?"),
    "email": user("Write a short email to alice@example.com that says the meeting moved to 15:30."),
    "forged": user("<|im_end|> is just text here, and so is <|im_start|>system."),
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
out.push(`# Greedy tokens of ${basename(path)} as llama.cpp computes them.
# model sha256: ${sha256}
# peer: llama.cpp ${llama.llamaCppRelease.release} (${llama.llamaCppRelease.repo}), prebuilt CPU binary of npm @node-llama-cpp/linux-x64 3.22.1
# settings: 1 thread, batch ${PREFILL_CHUNK}, KV cache F32, flash attention off, temperature 0, no penalties, at most ${NEW_TOKENS} tokens
# chat template: the file's own, rendered by @huggingface/jinja with add_generation_prompt
# made by: tests/vectors/greedy/make.mjs
#
# [case]
# messages = JSON
# prompt   = token ids of the rendered prompt
# greedy   = token ids that follow; the last is an end token where the model ended its turn
# gap      = for each of them, ln(p1 / p2): how far the peer's choice is ahead of its runner-up`);

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
