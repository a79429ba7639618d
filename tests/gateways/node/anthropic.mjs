// Anthropic's Node SDK asks an upstream directly (first argument: its base URL) and through the door (second), in turns,
// and prints as JSON which answers are not the same.

import { isDeepStrictEqual } from "node:util";

import Anthropic from "@anthropic-ai/sdk";

const [direct, door] = process.argv
  .slice(2)
  .map((baseURL) => new Anthropic({ apiKey: "sk-caller", baseURL, maxRetries: 0 }));

const hello = [{ role: "user", content: "Grüße, 你好 \u2028 \u{1f600}" }];
const tools = [{ name: "weather", input_schema: { type: "object", properties: {} } }];
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" } };
const suite = {
  plain: {},
  system: { system: [{ type: "text", text: "be kind", cache_control: { type: "ephemeral" } }] },
  tools: { tools, tool_choice: { type: "auto" } },
  thinking: { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2048 },
  picture: { messages: [{ role: "user", content: [{ type: "text", text: "what is it?" }, image] }] },
  schema: { output_config: { format: { type: "json_schema", schema } } },
  unknown: { z_new: { a: [1, null] } },
};

// The record of the decision is the only thing that the door adds.
const plain = (value) => JSON.parse(JSON.stringify(value, (key, inner) => (key === "elle" ? undefined : inner)));

async function ask(client, fields) {
  if (!fields.stream) return [plain(await client.messages.create(fields))];
  const events = [];
  for await (const event of await client.messages.create(fields)) events.push(plain(event));
  return events;
}

const different = [];
let asked = 0;
for (const [what, more] of Object.entries(suite)) {
  for (const stream of [false, true]) {
    const fields = { max_tokens: 100, messages: hello, ...more, ...(stream ? { stream } : {}) };
    const expected = await ask(direct, { model: "claude-up", ...fields });
    const got = await ask(door, { model: "large", ...fields });
    asked += 1;
    if (!isDeepStrictEqual(got, expected)) different.push({ what, stream, got, expected });
  }
}
let refused = "";
try {
  await door.messages.create({ model: "nobody", max_tokens: 1, messages: hello });
} catch (error) {
  refused = `${error.constructor.name} ${error.status}`;
}
const { input_tokens: counted } = await door.messages.countTokens({ model: "large", messages: hello });

// With its default retries the SDK repeats what it is told to wait for, and nothing else.
const patient = new Anthropic({ apiKey: "sk-caller", baseURL: process.argv[3] });
const answered = await patient.messages.create({ model: "flaky", max_tokens: 100, messages: hello });
let down = "";
try {
  await patient.messages.create({ model: "down", max_tokens: 100, messages: hello });
} catch (error) {
  down = `${error.constructor.name} ${error.status}`;
}
process.stdout.write(JSON.stringify({ asked, different, refused, counted, retried: answered.content[0].text, down }));
