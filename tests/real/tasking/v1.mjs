/**
 * A server of 2025-11-25 (@modelcontextprotocol/sdk, version 1) with the tools of tests/conformance/tasks-target.mjs as
 * tasks of that revision.
 *
 *   node v1.mjs stdio | streamable [--port PORT] [--log FILE] [--plain] [--shared]
 *
 *   --plain     without tasks: every tool works while its call waits
 *   --shared    a task is not its session's: whoever knows its id may ask for it
 *   --log FILE  a JSON line for each job that began, was cancelled or ended: {event, label}
 *
 * `slow_compute` may be a task, `greet` may not, and all others must be.
 */
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { InMemoryTaskMessageQueue, InMemoryTaskStore } from '@modelcontextprotocol/sdk/experimental/tasks';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { ElicitResultSchema, McpError } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';

const { values: options, positionals: [transport] } = parseArgs({
  allowPositionals: true,
  options: {
    port: { type: 'string' }, log: { type: 'string' },
    plain: { type: 'boolean', default: false }, shared: { type: 'boolean', default: false }
  }
});
const TTL = 300_000, POLL = 100;
const say = value => ({ content: [{ type: 'text', text: typeof value === 'string' ? value : JSON.stringify(value) }] });
const note = (event, label) => options.log && appendFileSync(options.log, `${JSON.stringify({ event, label })}\n`);
const labelOf = ({ label, filename, tag, name }) => String(label ?? filename ?? tag ?? name ?? '');

class Cancelled extends Error {}

/** Keeps why a task failed, which the SDK's own has no place for, and to whom a task belongs as it is told. */
class Store extends InMemoryTaskStore {
  errors = new Map();

  createTask(params, id, request, session) {
    return super.createTask(params, id, request, options.shared ? undefined : session);
  }

  async getTaskResult(id, session) {
    if (this.errors.has(id)) throw this.errors.get(id);
    return super.getTaskResult(id, session);
  }
}

const store = new Store(), queue = new InMemoryTaskMessageQueue();

/** A job on its way: `task` is its id, if it is a task. */
class Job {
  constructor(mcp, extra, args, task) {
    Object.assign(this, { mcp, extra, task, label: labelOf(args) });
  }

  async isOver() {
    return this.task ? (await store.getTask(this.task))?.status === 'cancelled' : this.extra.signal.aborted;
  }

  async tell(message) {
    if (this.task) await store.updateTaskStatus(this.task, 'working', message);
  }

  async sleep(milliseconds) {
    for (const end = Date.now() + milliseconds; Date.now() < end;) {
      await new Promise(resolve => setTimeout(resolve, Math.min(20, end - Date.now())));
      if (this.extra.signal.aborted || await this.isOver()) throw new Cancelled();
    }
  }

  /** Throws when the job is cancelled, as long as there is a question. */
  async over(asked) {
    while (asked.open && !await this.isOver()) await new Promise(resolve => setTimeout(resolve, 20));
    throw new Cancelled();
  }

  /** All at once. The SDK asks by the stream of tasks/result, if this is a task; a cancelled one is never answered. */
  async ask(questions) {
    if (!this.mcp.server.getClientCapabilities()?.elicitation) throw new Error('there is nobody to ask');
    const related = this.task ? { relatedTask: { taskId: this.task } } : {};
    const asked = { open: true };
    const answers = await Promise.race([this.over(asked), Promise.all(questions.map(([message, properties]) => this.extra.sendRequest(
      { method: 'elicitation/create', params: { mode: 'form', message, requestedSchema: { type: 'object', properties } } },
      ElicitResultSchema, related
    )))]).finally(() => { asked.open = false; });
    if (this.task) await store.updateTaskStatus(this.task, 'working');
    return answers;
  }
}

const number = { type: 'integer' }, words = { type: 'string' };
const tools = {
  slow_compute: {
    schema: { seconds: z.number(), label: z.string().optional() }, support: 'optional',
    run: async ({ seconds, label }, job) => {
      await job.tell(`computing ${label}`);
      await job.sleep(seconds * 1000);
      return say(`computed ${label}`);
    }
  },
  failing_job: {
    schema: { label: z.string().optional() },
    run: async ({ label }, job) => {
      await job.sleep(300);
      return { ...say(`failed ${label}`), isError: true };
    }
  },
  protocol_error_job: {
    schema: { label: z.string().optional() },
    run: async ({ label }, job) => {
      await job.sleep(300);
      throw new McpError(-32603, `crashed ${label}`);
    }
  },
  confirm_delete: {
    schema: { filename: z.string() },
    run: async ({ filename }, job) => {
      await job.sleep(100);
      const [answer] = await job.ask([[`Delete ${filename}?`, { confirm: { type: 'boolean' }, number }]]);
      return say(answer.action === 'accept' ? { deleted: filename, number: answer.content?.number ?? null } : { kept: filename });
    }
  },
  multi_input: {
    schema: { tag: z.number().int().optional() },
    run: async ({ tag = 0 }, job) => {
      const answers = await job.ask([[`The first of #${tag}`, { name: words, number }], [`The second of #${tag}0`, { name: words, number }]]);
      return say(answers.map(answer => answer.content?.number ?? answer.content?.name ?? answer.action));
    }
  },
  test_tool_with_task: {
    schema: { tag: z.number().int().optional() },
    first: ({ tag = 0 }, job) => job.ask([[`Who asks #${tag}?`, { name: words, number }]]),
    run: async (_arguments, job, [answer]) => {
      await job.sleep(200);
      return say(`${answer.action}: ${answer.content?.name ?? answer.content?.number ?? 'nobody'}`);
    }
  }
};

/** Runs a job to its end and says how it ended, which is the outcome of its task, if it is one. */
async function work(tool, args, job, answers) {
  try {
    const result = await tool.run(args, job, answers);
    if (job.task) await store.storeTaskResult(job.task, result.isError ? 'failed' : 'completed', result);
    note('ended', job.label);
    return result;
  } catch (why) {
    if (await job.isOver() || job.extra.signal.aborted) {
      note('cancelled', job.label);
      if (job.task && !await job.isOver()) await store.updateTaskStatus(job.task, 'cancelled');
    } else {
      note('ended', job.label);
      if (job.task) store.errors.set(job.task, why);
      if (job.task) await store.updateTaskStatus(job.task, 'failed', why.message);
    }
    throw why;
  }
}

function makeServer() {
  const tasks = { list: {}, cancel: {}, requests: { tools: { call: {} } } };
  const mcp = new McpServer({ name: `tasking-${transport}`, version: '1' },
    options.plain ? {} : { capabilities: { tasks }, taskStore: store, taskMessageQueue: queue });
  mcp.registerTool('greet', { inputSchema: { name: z.string() } }, async ({ name }) => say(`Hello, ${name}!`));
  for (const [name, tool] of Object.entries(tools)) {
    if (options.plain) {
      mcp.registerTool(name, { inputSchema: tool.schema }, async (args, extra) => {
        const job = new Job(mcp, extra, args);
        note('began', job.label);
        return work(tool, args, job, await tool.first?.(args, job));
      });
      continue;
    }
    mcp.experimental.tasks.registerToolTask(name, { inputSchema: tool.schema, execution: { taskSupport: tool.support ?? 'required' } }, {
      createTask: async (args, extra) => {
        const answers = await tool.first?.(args, new Job(mcp, extra, args));
        const task = await extra.taskStore.createTask({ ttl: TTL, pollInterval: POLL });
        const job = new Job(mcp, extra, args, task.taskId);
        note('began', job.label);
        work(tool, args, job, answers).catch(() => {});
        return { task };
      },
      getTask: (_arguments, extra) => extra.taskStore.getTask(extra.taskId),
      getTaskResult: (_arguments, extra) => extra.taskStore.getTaskResult(extra.taskId)
    });
  }
  return mcp;
}

const sessions = new Map();

async function streamable(request, response) {
  const known = sessions.get(request.headers['mcp-session-id']);
  if (known) return known.handleRequest(request, response);
  if (request.headers['mcp-session-id']) return response.writeHead(404).end();
  const onsessioninitialized = id => { sessions.set(id, made); };
  const made = new StreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized });
  made.onclose = () => sessions.delete(made.sessionId);
  await makeServer().connect(made);
  return made.handleRequest(request, response);
}

if (transport === 'stdio') {
  await makeServer().connect(new StdioServerTransport());
} else {
  createServer(streamable).listen(Number(options.port), '127.0.0.1');
}
