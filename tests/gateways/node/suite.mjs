// The official Node SDK asks an upstream directly (first argument: its base URL) and through the door (second), in
// turns, and prints whether the answers are the same.

import { isDeepStrictEqual } from "node:util";

import OpenAI from "openai";

const [direct, door] = process.argv
  .slice(2)
  .map((baseURL) => new OpenAI({ apiKey: "sk-caller", baseURL, maxRetries: 0 }));

const hello = [{ role: "user", content: "Grüße, 你好 \u2028 \u{1f600}" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const schema = { name: "s", strict: true, schema: { type: "object", properties: { city: { type: "string" } } } };
const picture = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=", detail: "low" } };
const suite = {
  chat: {},
  sampling: { temperature: 0.5, top_p: 1.0, seed: 7, stop: ["x"], frequency_penalty: 1e-7 },
  tools: { tools, tool_choice: "auto", parallel_tool_calls: false },
  "json schema": { response_format: { type: "json_schema", json_schema: schema } },
  vision: { messages: [{ role: "user", content: [{ type: "text", text: "what is it?" }, picture] }] },
  n: { n: 3 },
  logprobs: { logprobs: true, top_logprobs: 2 },
  limits: { max_completion_tokens: 64 },
  metadata: { metadata: { team: "a" }, store: false },
  unknown: { z_new: { a: [1, null] }, b_new: "x" },
};

const plain = (value) => JSON.parse(JSON.stringify(value));

async function ask(client, fields) {
  const answer = await client.chat.completions.create(fields);
  if (!fields.stream) return [plain(answer)];
  const chunks = [];
  for await (const chunk of answer) chunks.push(plain(chunk));
  return chunks;
}

const answers = [];
for (const [what, more] of Object.entries(suite)) {
  for (const stream of [false, true]) {
    const fields = { messages: hello, ...more, ...(stream ? { stream, stream_options: { include_usage: true } } : {}) };
    const expected = await ask(direct, { model: "up-none", ...fields });
    const got = await ask(door, { model: "elle/test", ...fields });
    const records = got.map((one) => one.elle);
    for (const one of got) delete one.elle;
    const { candidate } = records[0];
    const renamed = JSON.parse(JSON.stringify(expected).replaceAll("up-none", `up-${candidate}`));
    const everywhere = records.every((record) => record.decision_id === records[0].decision_id);
    answers.push({ what: `${what}, stream: ${stream}`, candidate, same: everywhere && isDeepStrictEqual(got, renamed) });
  }
}

async function failure(fields, client = door) {
  try {
    await ask(client, { messages: hello, ...fields });
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return [error.status ?? null, error.code];
  }
  return null;
}

const errors = {
  "unknown model": await failure({ model: "gpt-4o" }),
  "rate limit": await failure({ model: "fault-429" }),
  "broken stream": await failure({ model: "elle/breaks", stream: true }),
};

// With its default retries the SDK repeats what it is told to wait for, and nothing else.
const patient = new OpenAI({ apiKey: "sk-caller", baseURL: process.argv[3] });
const answered = await patient.chat.completions.create({ model: "flaky", messages: hello });
errors.down = await failure({ model: "down" }, patient);

const models = [];
for await (const model of door.models.list()) models.push(model.id);

process.stdout.write(JSON.stringify({ answers, errors, models, retried: answered.choices[0].message.content }));
