/**
 * The TypeScript client of SDK version 1 answering questions, driven by a plan: node answering-v1.mjs PLAN.json prints
 * a report as one line of JSON. Plan and report are described in answering.py.
 */
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { answers, calls, capabilities, plan, tags } from './answers.mjs';

const schemas = {
  'elicitation/create': ElicitRequestSchema,
  'sampling/createMessage': CreateMessageRequestSchema,
  'roots/list': ListRootsRequestSchema
};

function open() {
  if (plan.url) return new StreamableHTTPClientTransport(new URL(plan.url));
  if (plan.sse) return new SSEClientTransport(new URL(plan.sse));
  const [command, ...args] = plan.command;
  return new StdioClientTransport({ command, args, stderr: 'ignore' });
}

const connection = open();
const tell = connection.setProtocolVersion?.bind(connection);
connection.setProtocolVersion = version => { connection.revision = version; tell?.(version); };
const client = new Client({ name: 'answering-v1', version: '1' }, { capabilities });
for (const [method, answer] of Object.entries(answers)) {
  client.setRequestHandler(schemas[method], request => answer(request.params));
}
await client.connect(connection);
const results = await calls((wanted, options) => client.callTool(wanted, undefined, options));
await client.close();
console.log(JSON.stringify({ revision: connection.revision, calls: results, tags }));
// What hung, if anything did, must not keep this alive.
process.exit();
