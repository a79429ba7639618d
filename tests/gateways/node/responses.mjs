// OpenAI's Node SDK asks an upstream of the Responses API directly (first argument: its base URL) and through the door
// (second), in turns, and prints as JSON which answers are not the same.

import { isDeepStrictEqual } from "node:util";

import OpenAI from "openai";

const [direct, door] = process.argv
  .slice(2)
  .map((baseURL) => new OpenAI({ apiKey: "sk-caller", baseURL, maxRetries: 0 }));

const tools = [{ type: "function", name: "weather", parameters: { type: "object", properties: {} }, strict: false }];
const image = { type: "input_image", image_url: "data:image/png;base64,iVBORw0KGgo=", detail: "auto" };
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const suite = {
  plain: {},
  instructions: { instructions: "be kind", max_output_tokens: 50, store: false },
  tools: { tools, tool_choice: "auto" },
  reasoning: { reasoning: { effort: "low", summary: "auto" } },
  picture: { input: [{ role: "user", content: [{ type: "input_text", text: "what is it?" }, image] }] },
  schema: { text: { format: { type: "json_schema", name: "place", schema } } },
  unknown: { z_new: { a: [1, null] } },
};

// The record of the decision is the only thing that the door adds; every response has an id of its own.
const added = new Set(["elle", "id"]);
const plain = (value) => JSON.parse(JSON.stringify(value, (key, inner) => (added.has(key) ? undefined : inner)));

async function ask(client, fields) {
  if (!fields.stream) return [plain(await client.responses.create(fields))];
  const events = [];
  for await (const event of await client.responses.create(fields)) events.push(plain(event));
  return events;
}

const different = [];
let asked = 0;
for (const [what, more] of Object.entries(suite)) {
  for (const stream of [false, true]) {
    const fields = { input: "Grüße, 你好 \u2028 \u{1f600}", ...more, ...(stream ? { stream } : {}) };
    const expected = await ask(direct, { model: "up-large", ...fields });
    const got = await ask(door, { model: "large", ...fields });
    asked += 1;
    if (!isDeepStrictEqual(got, expected)) different.push({ what, stream, got, expected });
  }
}
const first = await door.responses.create({ model: "large", input: "hello" });
const second = await door.responses.create({ model: "elle-test", input: "more", previous_response_id: first.id });
const errors = [];
for (const stream of [false, true]) {
  try {
    for await (const _ of await door.responses.create({ model: stream ? "break" : "nobody", input: "hello", stream }));
  } catch (error) {
    errors.push(`${error.constructor.name} ${error.status}`);
  }
}

// What the upstream keeps is asked of the candidate that gave it, and only for the caller that asked for it.
const { id } = await door.responses.create({ model: "large", input: "hello", background: true });
const kept = [(await door.responses.retrieve(id)).status, (await door.responses.cancel(id)).status];
for await (const item of door.responses.inputItems.list(id)) kept.push(item.type);
for await (const event of await door.responses.retrieve(first.id, { stream: true })) kept.push(event.type.split(".")[1]);
const stranger = new OpenAI({ apiKey: "sk-another", baseURL: process.argv[3], maxRetries: 0 });
for (const client of [stranger, door]) {
  await client.responses.delete(id).catch((error) => kept.push(error.status));
}
await door.responses.retrieve(id).catch((error) => kept.push(error.message.includes("does not keep it")));

// With its default retries the SDK repeats what it is told to wait for, and nothing else.
const patient = new OpenAI({ apiKey: "sk-caller", baseURL: process.argv[3] });
const { output_text: retried } = await patient.responses.create({ model: "flaky", input: "hello" });
try {
  await patient.responses.create({ model: "down", input: "hello" });
} catch (error) {
  errors.push(`${error.constructor.name} ${error.status}`);
}
process.stdout.write(JSON.stringify({ asked, different, held: second.elle.reason, errors, retried, kept }));
