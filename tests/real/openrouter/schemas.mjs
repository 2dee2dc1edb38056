// Whether what the simulator sends is what the schemas of @openrouter/sdk allow: they are OpenRouter's own description of itself.
import { readFileSync } from "node:fs";
import * as models from "@openrouter/sdk/models";
import * as operations from "@openrouter/sdk/models/operations";

const payloads = JSON.parse(readFileSync(0, "utf8"));
const wrong = payloads.map(({ schema, value }) => {
  const name = `${schema}$inboundSchema`;
  // Where both have a name, that of the operation is the whole answer.
  const found = operations[name] ?? models[name];
  if (!found) return `there is no ${name}`;
  const parsed = found.safeParse(value);
  return parsed.success ? null : parsed.error.message.slice(0, 600);
});
process.stdout.write(JSON.stringify(wrong));
