#!/usr/bin/env node
/**
 * tasks-target: a server of revision 2026-07-28 with the extension io.modelcontextprotocol/tasks. No SDK has a server of
 * it, so this one is written by hand, after the specification. Its tools are those that the tasks-* scenarios of
 * @modelcontextprotocol/conformance ask for.
 *
 *   node tasks-target.mjs --port 18200     http://127.0.0.1:18200/mcp
 *   --plain        without the extension: every tool works while its call waits
 *   --log FILE     a JSON line for each job that began, was cancelled or ended: {event, label}
 *
 * `failing_job`, `protocol_error_job` and `test_tool_with_task` need a task; the others are tasks for a client that declares
 * the extension, and plain calls for all others, which are asked by ending a round of the call. No dependencies.
 */
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: { port: { type: 'string' }, plain: { type: 'boolean', default: false }, log: { type: 'string' } }
});
const REVISION = '2026-07-28', TASKS = 'io.modelcontextprotocol/tasks', META = 'io.modelcontextprotocol/';
const STATUS = { [-32601]: 404, [-32020]: 400, [-32021]: 400, [-32022]: 400 };
const TTL = 300_000, POLL = 100;

class RpcError extends Error {
  constructor(code, message, data) {
    super(message);
    Object.assign(this, { code, data });
  }
}
/** Thrown by a job that is to be cancelled, and by one in a plain call that has to ask. */
class Cancelled extends Error {}
class Asks extends Error {
  constructor(requests) {
    super('asks');
    this.requests = requests;
  }
}

const say = value => ({ content: [{ type: 'text', text: typeof value === 'string' ? value : JSON.stringify(value) }] });
const note = (event, label) => options.log && appendFileSync(options.log, `${JSON.stringify({ event, label })}\n`);
const form = (message, properties) => ({
  method: 'elicitation/create', params: { mode: 'form', message, requestedSchema: { type: 'object', properties } }
});

// ---- Tools: what each does, given a way to sleep and a way to ask ----------------------------------------------

const text = { type: 'string' }, number = { type: 'integer' }, yes = { type: 'boolean' };
const tools = {
  greet: { properties: { name: text }, task: 'never', run: async ({ name }) => say(`Hello, ${name}!`) },
  slow_compute: {
    properties: { seconds: { type: 'number' }, label: text },
    run: async ({ seconds, label }, job) => {
      job.tell(`computing ${label}`);
      await job.sleep(seconds * 1000);
      return say(`computed ${label}`);
    }
  },
  failing_job: {
    properties: { label: text }, task: 'always',
    run: async ({ label }, job) => {
      await job.sleep(300);
      return { ...say(`failed ${label}`), isError: true };
    }
  },
  protocol_error_job: {
    properties: { label: text }, task: 'always',
    run: async ({ label }, job) => {
      await job.sleep(300);
      throw new RpcError(-32603, `crashed ${label}`);
    }
  },
  confirm_delete: {
    properties: { filename: text },
    run: async ({ filename }, job) => {
      await job.sleep(100);
      const { confirm } = await job.ask({ confirm: form(`Delete ${filename}?`, { confirm: yes, number }) });
      return say(confirm.action === 'accept' ? { deleted: filename, number: confirm.content?.number ?? null } : { kept: filename });
    }
  },
  multi_input: {
    properties: { tag: number },
    run: async ({ tag = 0 }, job) => {
      const { one, two } = await job.ask({
        one: form(`The first of #${tag}`, { name: text, number }), two: form(`The second of #${tag}0`, { name: text, number })
      });
      return say([one, two].map(answer => answer.content?.number ?? answer.content?.name ?? answer.action));
    }
  },
  test_tool_with_task: {
    properties: { tag: number }, task: 'always',
    first: ({ tag = 0 }) => ({ user_name: form(`Who asks #${tag}?`, { name: text, number }) }),
    run: async (_arguments, job, { user_name: answer }) => {
      await job.sleep(200);
      return say(`${answer.action}: ${answer.content?.name ?? answer.content?.number ?? 'nobody'}`);
    }
  }
};
const described = Object.entries(tools).map(([name, { properties }]) => ({
  name, description: `The job ${name}`, inputSchema: { type: 'object', properties }
}));
const labelOf = ({ label, filename, tag, name }) => String(label ?? filename ?? tag ?? name ?? '');

// ---- Tasks -----------------------------------------------------------------------------------------------------

const tasks = new Map();

class Task {
  id = randomUUID();
  status = 'working';
  created = this.updated = new Date().toISOString();
  answers = {};
  asked = 0;
  wake = () => {};

  constructor(tool, args, answers) {
    tasks.set(this.id, this);
    this.label = labelOf(args);
    setTimeout(() => tasks.delete(this.id), TTL).unref();
    tool.run(args, this, answers).then(
      result => this.end('completed', { result }),
      why => {
        if (!(why instanceof Cancelled)) this.end('failed', { error: { code: why.code ?? -32603, message: why.message } });
      }
    );
  }

  change(state) {
    Object.assign(this, state, { updated: new Date().toISOString() });
  }

  end(status, outcome) {
    if (!this.isDone()) this.change({ status, requests: undefined, ...outcome });
    note(status === 'cancelled' ? 'cancelled' : 'ended', this.label);
  }

  isDone() {
    return ['completed', 'failed', 'cancelled'].includes(this.status);
  }

  tell(message) {
    this.change({ message });
  }

  async sleep(milliseconds) {
    for (const end = Date.now() + milliseconds; Date.now() < end;) {
      await new Promise(resolve => setTimeout(resolve, Math.min(20, end - Date.now())));
      if (this.isDone()) throw new Cancelled();
    }
  }

  /** Keys are unique for the whole life of the task, so the names of the questions are numbered. */
  async ask(requests) {
    const names = Object.fromEntries(Object.keys(requests).map(name => [`${name}-${++this.asked}`, name]));
    const open = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, requests[name]]));
    this.change({ status: 'input_required', requests: open });
    while (Object.keys(this.requests ?? {}).length) await new Promise(resolve => { this.wake = resolve; });
    if (this.isDone()) throw new Cancelled();
    this.change({ status: 'working', requests: undefined });
    return Object.fromEntries(Object.entries(names).map(([key, name]) => [name, this.answers[key]]));
  }

  take(answers) {
    for (const [key, answer] of Object.entries(answers)) {
      if (!this.requests?.[key]) continue;
      this.answers[key] = answer;
      const { [key]: _answered, ...rest } = this.requests;
      this.change({ requests: rest });
    }
    this.wake();
  }

  cancel() {
    if (this.isDone()) return;
    this.end('cancelled', {});
    this.wake();
  }

  brief() {
    const statusMessage = this.message === undefined ? {} : { statusMessage: this.message };
    return {
      taskId: this.id, status: this.status, ...statusMessage, createdAt: this.created, lastUpdatedAt: this.updated,
      ttlMs: TTL, pollIntervalMs: POLL
    };
  }

  full() {
    const detail = { inputRequests: this.requests, result: this.result, error: this.error };
    return { ...this.brief(), ...JSON.parse(JSON.stringify(detail)) };
  }
}

/** The same for a call that somebody waits for; it is cancelled when its client hangs up. */
class Plain {
  constructor(args, answers, reply) {
    Object.assign(this, { label: labelOf(args), answers, reply });
  }

  tell() {}

  async sleep(milliseconds) {
    for (const end = Date.now() + milliseconds; Date.now() < end;) {
      await new Promise(resolve => setTimeout(resolve, Math.min(20, end - Date.now())));
      if (this.reply.destroyed) throw new Cancelled();
    }
  }

  async ask(requests) {
    if (!Object.keys(requests).every(key => this.answers[key])) throw new Asks(requests);
    return this.answers;
  }
}

// ---- Methods ---------------------------------------------------------------------------------------------------

const complete = members => ({ resultType: 'complete', _meta: { [`${META}serverInfo`]: { name: 'tasks-target', version: '1' } }, ...members });
const states = new Map();

function asking(requests, args) {
  const requestState = randomUUID();
  states.set(requestState, JSON.stringify(args));
  return { ...complete({}), resultType: 'input_required', inputRequests: requests, requestState };
}

async function call({ name, arguments: args = {}, inputResponses, requestState }, declared, reply) {
  const tool = Object.hasOwn(tools, name) && tools[name];
  if (!tool) throw new RpcError(-32602, `there is no tool ${name}`);
  if (tool.task === 'always' && !declared && !options.plain) throw missing();
  // The state serves once, and only the call it was made for.
  const fits = !inputResponses || states.get(requestState) === JSON.stringify(args);
  if (!fits) throw new RpcError(-32602, 'requestState is not of this call');
  states.delete(requestState);
  const answers = inputResponses ?? {};
  const first = tool.first?.(args) ?? {};
  if (!Object.keys(first).every(key => answers[key])) return asking(first, args);
  note('began', labelOf(args));
  if (declared && !options.plain && tool.task !== 'never') {
    const task = new Task(tool, args, answers);
    return { ...complete({}), resultType: 'task', ...task.brief() };
  }
  const job = new Plain(args, answers, reply);
  try {
    const result = await tool.run(args, job, answers);
    note('ended', job.label);
    return complete(result);
  } catch (why) {
    if (why instanceof Asks) return asking(why.requests, args);
    note(why instanceof Cancelled ? 'cancelled' : 'ended', job.label);
    throw why;
  }
}

const missing = () => new RpcError(-32021, 'this needs tasks', { requiredCapabilities: { extensions: { [TASKS]: {} } } });

function taskOf({ taskId }, declared) {
  if (!declared) throw missing();
  if (!tasks.has(taskId)) throw new RpcError(-32602, 'there is no such task');
  return tasks.get(taskId);
}

const methods = {
  'server/discover': () => complete({
    supportedVersions: [REVISION], serverInfo: { name: 'tasks-target', version: '1' }, ttlMs: 0, cacheScope: 'public',
    capabilities: { tools: {}, ...(options.plain ? {} : { extensions: { [TASKS]: {} } }) }
  }),
  'tools/list': () => complete({ tools: described, ttlMs: 0, cacheScope: 'public' }),
  'tools/call': call,
  ...(!options.plain && {
    'tasks/get': (params, declared) => complete(taskOf(params, declared).full()),
    'tasks/update': (params, declared) => (taskOf(params, declared).take(params.inputResponses ?? {}), complete({})),
    'tasks/cancel': (params, declared) => (taskOf(params, declared).cancel(), complete({}))
  })
};

/** What the headers say must be what the body says. */
function checkHeaders({ method, params = {} }, headers) {
  const name = Object.hasOwn(methods, method) && (method === 'tools/call' ? params.name : params.taskId);
  const given = headers['mcp-name']?.replace(/^=\?base64\?(.*)\?=$/, (_, packed) => Buffer.from(packed, 'base64').toString());
  if (headers['mcp-method'] !== method) throw new RpcError(-32020, 'Mcp-Method is not the method');
  if (name && given !== name) throw new RpcError(-32020, 'Mcp-Name is not the name');
  if (params._meta?.[`${META}protocolVersion`] !== REVISION) {
    throw new RpcError(-32022, 'this revision is not spoken here', { supported: [REVISION] });
  }
}

async function answer(message, headers, reply) {
  checkHeaders(message, headers);
  const method = Object.hasOwn(methods, message.method) && methods[message.method];
  if (!method) throw new RpcError(-32601, `there is no method ${message.method}`);
  const declared = message.params?._meta?.[`${META}clientCapabilities`]?.extensions?.[TASKS] !== undefined;
  return method(message.params ?? {}, declared, reply);
}

createServer(async (asked, reply) => {
  if (asked.method !== 'POST') return reply.writeHead(405, { allow: 'POST' }).end();
  const message = JSON.parse(Buffer.concat(await asked.toArray()).toString());
  if (message.id === undefined) return reply.writeHead(202).end();
  const [status, outcome] = await answer(message, asked.headers, reply).then(
    result => [200, { result }],
    ({ code = -32603, message: words, data }) => [STATUS[code] ?? 200, { error: { code, message: words, data } }]
  );
  reply.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id: message.id, ...outcome }));
}).listen(Number(options.port), '127.0.0.1', () => console.log(`tasks-target on ${options.port}`));
