/**
 * The TypeScript client of SDK version 2 (@modelcontextprotocol/client), driven by a plan:
 * node typescript.mjs PLAN.json prints a report as one line of JSON. Plan and report are described in python.py.
 */
import { readFileSync } from 'node:fs';
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const mode = plan.era === 'modern' ? { pin: '2026-07-28' } : plan.era;

function transport() {
  if (plan.url) return new StreamableHTTPClientTransport(new URL(plan.url));
  if (plan.sse) return new SSEClientTransport(new URL(plan.sse));
  const [command, ...args] = plan.command;
  return new StdioClientTransport({ command, args, stderr: 'ignore' });
}

/** This client follows the pages of a list by itself when it is given no cursor. */
async function tools(client) {
  return (await client.listTools()).tools.map(tool => tool.name);
}

async function call(client, { name, arguments: args }) {
  let progress = 0;
  const result = await client.callTool({ name, arguments: args }, { onprogress: () => { progress += 1; } });
  return { text: text(result.content), structured: result.structuredContent ?? null, isError: result.isError ?? false, progress };
}

const text = parts => parts.map(part => part.text ?? '').join('\n');

async function inTurn(list, work) {
  const results = [];
  for (const item of list) results.push(await work(item));
  return results;
}

const client = new Client({ name: 'typescript', version: '1' }, { versionNegotiation: { mode } });
await client.connect(transport());
const report = {
  revision: client.getNegotiatedProtocolVersion(),
  tools: await tools(client),
  calls: await inTurn(plan.calls, wanted => call(client, wanted)),
  prompts: await inTurn(plan.prompts, async wanted => text((await client.getPrompt(wanted)).messages.map(message => message.content))),
  resources: await inTurn(plan.resources, async uri => text((await client.readResource({ uri })).contents)),
};
await client.close();
console.log(JSON.stringify(report));
