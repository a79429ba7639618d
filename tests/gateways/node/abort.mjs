// The official Node SDK begins to read a stream of the door (arguments: its base URL, the model), and leaves.

import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "sk-caller", baseURL, maxRetries: 0 });
const stream = await client.chat.completions.create({ model, messages: [{ role: "user", content: "go on" }], stream: true });
for await (const chunk of stream) {
  if (chunk.choices[0]?.delta.content) break;
}
process.stdout.write("aborted\n");
// Alive, so that it is not the end of the process that closes the connection.
setTimeout(() => {}, 10_000);
