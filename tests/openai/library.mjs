// The official `openai` package against `cocoon proxy`, at OPENAI_BASE_URL.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "What is a rainbow?" }];
const chat = (more = {}) =>
  client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 12, ...more });

test("whole and streamed are the same", async () => {
  const whole = await chat();
  assert.equal(whole.choices[0].finish_reason, "length");
  let text = "";
  let usage = null;
  for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, 12);
});

test("logprobs, stop, seed", async () => {
  const scored = await chat({ logprobs: true, top_logprobs: 2 });
  const tokens = scored.choices[0].logprobs.content;
  assert.equal(tokens.map((token) => token.token).join(""), scored.choices[0].message.content);
  const stopped = await chat({ stop: "rainbow" });
  assert.equal(stopped.choices[0].finish_reason, "stop");
  const seeded = () => chat({ temperature: 1.2, seed: 7 });
  assert.equal((await seeded()).choices[0].message.content, (await seeded()).choices[0].message.content);
});

test("a stream can be left", async () => {
  const stream = await chat({ stream: true, max_tokens: 1500 });
  for await (const _chunk of stream) break;
  assert.ok((await chat({ max_tokens: 1 })).choices.length);
});

test("json_schema, tools, n, responses", async () => {
  const schema = { type: "object", properties: { age: { type: "integer" } }, required: ["age"], additionalProperties: false };
  const format = { type: "json_schema", json_schema: { name: "age", schema, strict: true } };
  const person = JSON.parse((await chat({ response_format: format, max_tokens: 40 })).choices[0].message.content);
  assert.ok(Number.isInteger(person.age));
  const tool = { type: "function", function: { name: "set_age", parameters: schema } };
  const called = await chat({ tools: [tool], tool_choice: "required", max_tokens: 60 });
  assert.equal(called.choices[0].message.tool_calls[0].function.name, "set_age");
  assert.equal((await chat({ n: 2, temperature: 1.2 })).choices.length, 2);
  const response = await client.responses.create({ model, input: "What is a rainbow?", max_output_tokens: 8 });
  assert.ok(response.output_text.length);
});

test("texts become vectors", async () => {
  const { data, usage } = await client.embeddings.create({ model: "tiny", input: ["a rainbow", "a contract"] });
  assert.deepEqual(data.map((item) => item.embedding.length), [32, 32]);
  assert.ok(Math.abs(data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5);
  assert.equal(usage.prompt_tokens, usage.total_tokens);
  const input = Array.from({ length: 300 }, (_, number) => `text ${number % 150}`);
  const many = (await client.embeddings.create({ model: "tiny", input })).data;
  assert.equal(many.length, 300);
  assert.deepEqual(many[299].embedding, many[149].embedding);
});

test("errors are those of the library", async () => {
  const refused = async (kind, param, code, more) => {
    const error = await chat(more).then(() => null, (error) => error);
    assert.ok(error instanceof kind, String(error));
    assert.deepEqual([error.param, error.code], [param, code]);
  };
  await refused(OpenAI.BadRequestError, "temperature", "invalid_value", { temperature: 3 });
  await refused(OpenAI.BadRequestError, "unheard_of", "unsupported_parameter", { unheard_of: 1 });
  await refused(OpenAI.NotFoundError, null, "model_not_found", { model: "no-such" });
});
