/**
 * The TypeScript client of SDK version 1 with its experimental tasks of 2025-11-25, or with `tasks: false` without them,
 * driven by a plan: node tasking-v1.mjs PLAN.json prints a report as one line of JSON. Plan and report are described in
 * tasking.py.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema, CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema
} from '@modelcontextprotocol/sdk/types.js';
import { answers, capabilities, plan, tags } from './answers.mjs';
import { cancelAfter, jobs, plainly, refused, reported } from './jobs.mjs';

const schemas = {
  'elicitation/create': ElicitRequestSchema,
  'sampling/createMessage': CreateMessageRequestSchema,
  'roots/list': ListRootsRequestSchema
};

function open() {
  if (plan.url) return new StreamableHTTPClientTransport(new URL(plan.url));
  const [command, ...args] = plan.command;
  return new StdioClientTransport({ command, args, stderr: 'ignore' });
}

const connection = open();
const tell = connection.setProtocolVersion?.bind(connection);
connection.setProtocolVersion = version => { connection.revision = version; tell?.(version); };
const client = new Client({ name: 'tasking-v1', version: '1' }, { capabilities });
for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(schemas[method], request => answer(request.params));

async function isListed(id) {
  for (let cursor; ;) {
    const page = await client.experimental.tasks.listTasks(cursor);
    if (page.tasks.some(task => task.taskId === id)) return true;
    if (!(cursor = page.nextCursor)) return false;
  }
}

/** One call as a task, where the tool may be one: the stream the SDK makes of it, then each method of tasks by itself. */
async function work({ name, arguments: args, cancel }) {
  const { tasks } = client.experimental;
  const report = {};
  const options = supported.get(name) && { task: { ttl: 60_000 } };
  for await (const message of tasks.callToolStream({ name, arguments: args }, CallToolResultSchema, options)) {
    if (message.type === 'taskCreated') {
      report.task = message.task.taskId;
      if (cancel) sleep(cancelAfter).then(() => tasks.cancelTask(report.task)).catch(() => {});
    }
    if (message.type === 'result') Object.assign(report, reported(message.result));
    if (message.type === 'error') Object.assign(report, refused(message.error));
  }
  if (!report.task) return report;
  const { status } = await tasks.getTask(report.task);
  const after = await tasks.getTaskResult(report.task, CallToolResultSchema).catch(refused);
  return { ...report, status, cancelled: status === 'cancelled', listed: await isListed(report.task), after: JSON.stringify(after) };
}

await client.connect(connection);
const { tools } = await client.listTools();
const supported = new Map(tools.map(tool => [tool.name, ['optional', 'required'].includes(tool.execution?.taskSupport)]));
const plain = (request, options) => client.callTool(request, undefined, options);
const calls = await jobs(plan.tasks ? work : wanted => plainly(plain, wanted));
console.log(JSON.stringify({ revision: connection.revision, calls, tags }));
// What hung, if anything did, must not keep this alive.
process.exit();
