// The Vercel AI SDK with its default `openai()` asks through the door; prints what came back as JSON. The first argument
// is the base URL of the door, which ends in /v1; the others are names of models.

import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const [baseURL, ...models] = process.argv.slice(2);
const openai = createOpenAI({ apiKey: "sk-caller", baseURL });
const schema = jsonSchema({
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
});
const weather = tool({ description: "d", inputSchema: schema, execute: async ({ city }) => `12 degrees in ${city}` });
const image = Buffer.from("iVBORw0KGgo=", "base64");

async function told(name) {
  const model = openai(name);
  const errors = [];
  const common = { model, maxRetries: 0, onError: ({ error }) => errors.push(String(error)) };
  const plain = await generateText({ ...common, system: "be kind", prompt: "hello" });
  const stream = streamText({ ...common, prompt: "hello" });
  const parts = [];
  for await (const part of stream.textStream) parts.push(part);
  const tooled = await generateText({ ...common, prompt: "how warm is it?", tools: { weather }, stopWhen: stepCountIs(2) });
  const placed = await generateObject({ ...common, prompt: "where?", schema });
  const content = [
    { type: "text", text: "what is it?" },
    { type: "image", image, mediaType: "image/png" },
  ];
  const seen = await generateText({ ...common, messages: [{ role: "user", content }] });
  return {
    provider: model.provider,
    plain: plain.text,
    streamed: parts.join("") === (await stream.text) && parts.length > 0,
    usage: plain.usage.inputTokens,
    calls: tooled.steps.flatMap((step) => step.toolResults.map((result) => result.output)),
    structured: placed.object.city,
    picture: seen.text,
    errors,
  };
}

const answers = {};
for (const name of models) answers[name] = await told(name);
// The SDK repeats by itself what it is told to wait for.
const retried = (await generateText({ model: openai("flaky"), prompt: "hello" })).text;
let refused = "";
try {
  await generateText({ model: openai("nobody"), maxRetries: 0, prompt: "hello" });
} catch (error) {
  refused = `${error.name} ${error.statusCode}`;
}
process.stdout.write(JSON.stringify({ ...answers, refused, retried }));
