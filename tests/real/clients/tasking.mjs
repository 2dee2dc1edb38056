/**
 * The official client of tasks of both revisions (@modelcontextprotocol/ext-tasks, on the TypeScript client of SDK version
 * 2), or with `tasks: false` that SDK alone, driven by a plan: node tasking.mjs PLAN.json prints a report as one line of
 * JSON. Plan and report are described in tasking.py.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { createTaskSessionFromClient } from '@modelcontextprotocol/ext-tasks/client';
import { answers, capabilities, plan, tags } from './answers.mjs';
import { cancelAfter, jobs, plainly, refused, reported } from './jobs.mjs';

const REVISION = '2026-07-28';
const modern = plan.era === 'modern';
const clientInfo = { name: 'tasking', version: '1' };
const client = new Client(clientInfo, { capabilities, versionNegotiation: { mode: modern ? { pin: REVISION } : plan.era } });

function transport() {
  if (plan.url) return new StreamableHTTPClientTransport(new URL(plan.url));
  const [command, ...args] = plan.command;
  return new StdioClientTransport({ command, args, stderr: 'ignore' });
}

/** The SDK has no way to see a result it does not know, so in the new revision ext-tasks wants requests sent by hand. */
let last = 0;
async function rawDispatch({ method, params }, { signal } = {}) {
  const name = params.taskId ?? params.name;
  const headers = {
    'content-type': 'application/json', accept: 'application/json, text/event-stream',
    'mcp-protocol-version': REVISION, 'mcp-method': method, ...(name && { 'mcp-name': name })
  };
  const body = JSON.stringify({ jsonrpc: '2.0', id: `raw-${++last}`, method, params });
  const response = await fetch(plan.url, { method: 'POST', headers, body, signal });
  const text = await response.text();
  const stream = response.headers.get('content-type').includes('event-stream');
  const messages = stream ? [...text.matchAll(/^data: (.+)$/gm)].map(([, data]) => JSON.parse(data)) : [JSON.parse(text)];
  const { result, error } = messages.find(message => message.id !== undefined && message.method === undefined);
  return error ? { kind: 'error', error } : { kind: 'result', result };
}

/** One call as ext-tasks makes it: a task where the server makes one of it, or may. */
async function work(session, { name, arguments: args, cancel }) {
  const execution = await session.callTool(name, args, { task: { preference: 'prefer' } });
  const task = execution.kind === 'task' ? { task: execution.handle.taskId } : {};
  if (cancel) {
    await sleep(cancelAfter);
    await execution.cancel();
  }
  const { outcome } = await execution.settle();
  if (outcome.status === 'completed') return { ...task, status: 'completed', ...reported(outcome.result) };
  if (outcome.status === 'cancelled') return { ...task, status: 'cancelled', cancelled: true };
  if (!modern && task.task) {
    // It stops at the status; what the tool said is in the result all the same.
    const result = await session.task(task.task).result().catch(refused);
    return { ...task, status: 'failed', ...refused(outcome.error), after: JSON.stringify(result) };
  }
  return { ...task, status: 'failed', ...refused(outcome.error) };
}

if (!plan.tasks) {
  for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, request => answer(request.params ?? {}));
}
await client.connect(transport());
let calls;
if (plan.tasks) {
  const session = createTaskSessionFromClient(client, {
    endpointId: 'gateway', onInputRequest: async ({ params }) => answers['elicitation/create'](params),
    ...(modern && { rawDispatch, v2RequestFraming: { protocolVersion: REVISION, clientInfo, clientCapabilities: capabilities } })
  });
  calls = await jobs(wanted => work(session, wanted));
} else {
  calls = await jobs(wanted => plainly((request, options) => client.callTool(request, options), wanted));
}
const revision = client.getNegotiatedProtocolVersion();
console.log(JSON.stringify({ revision, calls, tags }));
// What hung, if anything did, must not keep this alive.
process.exit();
