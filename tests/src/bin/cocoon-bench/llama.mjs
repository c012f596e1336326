// llama.cpp behind a pipe, for cocoon-bench: node llama.mjs PEERS_DIR MODEL.gguf THREADS SEQUENCES CONTEXT
//
// Says {"release", "threads"} when it is ready. Then for each line {"prompt": [ids], "answer": N, "sequences": S} one line
// {"prefill", "decode"}: seconds until the last of S sequences has its first token, and from then until all have N more.
import {join} from "node:path";
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";

const [peers, modelPath, threads, sequences, contextSize] = process.argv.slice(2);
const {getLlama} = await import(pathToFileURL(join(peers, "node_modules/node-llama-cpp/dist/index.js")));

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const llama = await getLlama({build: "never", gpu: false, logLevel: "error", maxThreads: 0});
const model = await llama.loadModel({modelPath, gpuLayers: 0});
// A batch that holds a whole prompt of 512 tokens, or a token of each sequence; everything else as llama.cpp has it.
const context = await model.createContext({
    contextSize: Number(contextSize), batchSize: 512, sequences: Number(sequences),
    threads: {ideal: Number(threads), min: Number(threads)}
});
say({release: `llama.cpp ${llama.llamaCppRelease.release}`, threads: context.idealThreads});

for await (const line of createInterface({input: process.stdin})) {
    const {prompt, answer, sequences} = JSON.parse(line);
    const all = Array.from({length: sequences}, () => context.getSequence());
    const start = performance.now();
    const times = await Promise.all(all.map(async (sequence, index) => {
        let first, chosen = 0;
        const ids = prompt.map((id) => id + index);
        for await (const _ of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
            first ??= performance.now();
            if (chosen++ === answer) break;
        }
        return {first, end: performance.now()};
    }));
    for (const sequence of all) await sequence.dispose();
    const first = Math.max(...times.map((time) => time.first)), end = Math.max(...times.map((time) => time.end));
    say({prefill: (first - start) / 1000, decode: (end - first) / 1000});
}
await llama.dispose();
