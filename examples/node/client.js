// Asks ELLE Router from Node, with the protos of this repository: node client.js [ADDRESS] [PROMPT]
// Prints a line of JSON for a decision, one for an error on purpose, then the answer as it streams. Needs `npm ci` first.

import path from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const here = path.dirname(fileURLToPath(import.meta.url));

// Here lies google.rpc.Status, which the protos import.
const includeDirs = [path.join(here, "..", "..", "protos"), here];
const definition = protoLoader.loadSync("elle/router/v1/router_service.proto", {
  includeDirs,
  keepCase: true,
  longs: Number,
  enums: String,
  arrays: true,
});
const { RouterService } = grpc.loadPackageDefinition(definition).elle.router.v1;

const [address = "localhost:50051", prompt = "What is the capital of France?"] = process.argv.slice(2);
const client = new RouterService(address, grpc.credentials.createInsecure());
const soon = () => ({ deadline: Date.now() + 30_000 });

function route(request) {
  return new Promise((resolve, reject) => {
    client.Route(request, new grpc.Metadata(), soon(), (error, response) =>
      error ? reject(error) : resolve(response.decision),
    );
  });
}

async function main() {
  const chat = { messages: [{ role: "user", text: prompt }] };
  const decision = await route({ chat });
  const risks = Object.fromEntries(decision.candidates.map((one) => [one.candidate, one.risk]));
  console.log(JSON.stringify({ chosen: decision.chosen, reason: decision.reason, risks }));

  // A candidate that nobody knows: errors carry a status, a sentence and, in their metadata, google.rpc details.
  const error = await route({ chat, overrides: { pin: "nobody" } }).catch((caught) => caught);
  const hasDetails = error.metadata.get("grpc-status-details-bin").length > 0;
  console.log(JSON.stringify({ pinned: "nobody", code: grpc.status[error.code], message: error.details, hasDetails }));

  for await (const step of client.StreamComplete({ route: { chat } }, soon())) {
    process.stdout.write(step.text_delta ?? "");
  }
  process.stdout.write("\n");
  client.close();
}

main().catch((error) => {
  console.error(`${grpc.status[error.code] ?? "error"}: ${error.details ?? error.message}`);
  if (error.code === grpc.status.UNAVAILABLE) {
    console.error(`No service answers at ${address}. Start one by \`elle serve\`, or give the address of one that runs.`);
  }
  process.exitCode = 1;
});
