/**
 * The TypeScript client of SDK version 2 answering questions, driven by a plan: node answering.mjs PLAN.json prints a
 * report as one line of JSON. Plan and report are described in answering.py.
 */
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { answers, calls, capabilities, plan, tags } from './answers.mjs';

const mode = plan.era === 'modern' ? { pin: '2026-07-28' } : plan.era;

function transport() {
  if (plan.url) return new StreamableHTTPClientTransport(new URL(plan.url));
  if (plan.sse) return new SSEClientTransport(new URL(plan.sse));
  const [command, ...args] = plan.command;
  return new StdioClientTransport({ command, args, stderr: 'ignore' });
}

const client = new Client({ name: 'answering', version: '1' }, { capabilities, versionNegotiation: { mode } });
for (const [method, answer] of Object.entries(answers)) {
  client.setRequestHandler(method, request => answer(request.params ?? {}));
}
await client.connect(transport());
const results = await calls((wanted, options) => client.callTool(wanted, options));
const revision = client.getNegotiatedProtocolVersion();
await client.close();
console.log(JSON.stringify({ revision, calls: results, tags }));
// What hung, if anything did, must not keep this alive.
process.exit();
