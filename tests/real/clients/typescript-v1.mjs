/**
 * The TypeScript client that most programs out there still have (@modelcontextprotocol/sdk, version 1), driven by a
 * plan: node typescript-v1.mjs PLAN.json prints a report as one line of JSON. It knows the legacy era only.
 * Plan and report are described in python.py.
 */
import { readFileSync } from 'node:fs';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));

/** A transport whose revision is remembered: the client tells its transport, and nobody else. */
function transport() {
  const made = open();
  const tell = made.setProtocolVersion?.bind(made);
  made.setProtocolVersion = version => { made.revision = version; tell?.(version); };
  return made;
}

function open() {
  if (plan.url) return new StreamableHTTPClientTransport(new URL(plan.url));
  if (plan.sse) return new SSEClientTransport(new URL(plan.sse));
  const [command, ...args] = plan.command;
  return new StdioClientTransport({ command, args, stderr: 'ignore' });
}

async function tools(client) {
  const names = [];
  for (let cursor; ;) {
    const page = await client.listTools({ cursor });
    names.push(...page.tools.map(tool => tool.name));
    cursor = page.nextCursor;
    if (!cursor) return names;
  }
}

async function call(client, { name, arguments: args }) {
  let progress = 0;
  const result = await client.callTool({ name, arguments: args }, undefined, { onprogress: () => { progress += 1; } });
  return { text: text(result.content), structured: result.structuredContent ?? null, isError: result.isError ?? false, progress };
}

const text = parts => parts.map(part => part.text ?? '').join('\n');

async function inTurn(list, work) {
  const results = [];
  for (const item of list) results.push(await work(item));
  return results;
}

const client = new Client({ name: 'typescript-v1', version: '1' });
const connection = transport();
await client.connect(connection);
const report = {
  revision: connection.revision,
  tools: await tools(client),
  calls: await inTurn(plan.calls, wanted => call(client, wanted)),
  prompts: await inTurn(plan.prompts, async wanted => text((await client.getPrompt(wanted)).messages.map(message => message.content))),
  resources: await inTurn(plan.resources, async uri => text((await client.readResource({ uri })).contents)),
};
await client.close();
console.log(JSON.stringify(report));
