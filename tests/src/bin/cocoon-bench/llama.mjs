// llama.cpp behind a pipe, for cocoon-bench: node llama.mjs PEERS_DIR MODEL.gguf THREADS
//
// Says {"release", "threads"} when it is ready. Then for each line {"prompt": [ids], "answer": N} one line
// {"prefill", "decode"}: seconds until the first token is chosen, and from then until N more are.
import {join} from "node:path";
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";

const [peers, modelPath, threads] = process.argv.slice(2);
const {getLlama} = await import(pathToFileURL(join(peers, "node_modules/node-llama-cpp/dist/index.js")));

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const llama = await getLlama({build: "never", gpu: false, logLevel: "error", maxThreads: 0});
const model = await llama.loadModel({modelPath, gpuLayers: 0});
// A batch that holds the whole prompt; everything else as llama.cpp has it.
const context = await model.createContext({
    contextSize: 512, batchSize: 512, threads: {ideal: Number(threads), min: Number(threads)}
});
say({release: `llama.cpp ${llama.llamaCppRelease.release}`, threads: context.idealThreads});

for await (const line of createInterface({input: process.stdin})) {
    const {prompt, answer} = JSON.parse(line);
    const sequence = context.getSequence();
    const start = performance.now();
    let first, chosen = 0;
    for await (const _ of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        first ??= performance.now();
        if (chosen++ === answer) break;
    }
    const end = performance.now();
    sequence.dispose();
    say({prefill: (first - start) / 1000, decode: (end - first) / 1000});
}
await llama.dispose();
