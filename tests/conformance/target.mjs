#!/usr/bin/env node
/**
 * target: the server that stands behind the gateway in the conformance runs.
 *
 * It has every tool, prompt and resource that the server scenarios of @modelcontextprotocol/conformance call, for the
 * stateful revisions (2025-03-26, 2025-06-18, 2025-11-25) and for the stateless 2026-07-28, on one endpoint.
 * Names and texts are those that the suite asserts; the tools `era_*` are those of eras.py. What it asks of its client it asks in the era of the connection:
 * a request in the middle of the call, or an input_required round.
 *
 *   node target.mjs --port 18100     http://127.0.0.1:18100/mcp
 *   node target.mjs --stdio          the same over stdio
 *   --era both|legacy|modern         which eras to serve (default both; over stdio only 'modern' makes a difference)
 *   --log FILE                       a JSON line for every HTTP request received: method, url, headers, body
 *   --only PREFIX                    only the tools whose name starts with PREFIX
 *   --bearer TOKEN                   'Authorization: Bearer TOKEN' is required (401 otherwise)
 */
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import {
  McpServer, ResourceTemplate, ProtocolError, ProtocolErrorCode, acceptedContent, inputRequired,
  fromJsonSchema, createRequestStateCodec, createMcpHandler, classifyInboundRequest,
  isInitializeRequest, CLIENT_CAPABILITIES_META_KEY
} from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import {
  NodeStreamableHTTPServerTransport, toNodeHandler, localhostHostValidation, localhostOriginValidation
} from '@modelcontextprotocol/node';
import * as z from 'zod/v4';

const { values: opt } = parseArgs({ options: {
  port: { type: 'string', default: process.env.PORT ?? '18100' },
  host: { type: 'string', default: '127.0.0.1' },
  stdio: { type: 'boolean', default: false },
  era: { type: 'string', default: 'both' },
  log: { type: 'string' }, only: { type: 'string' }, bearer: { type: 'string' }
} });

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=';
const codec = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });
const WATCHED = 'test://watched-resource';
const watching = new Set();                // servers whose client watches it (stateful era)
let cancelled = 0;
const text = (t, extra = {}) => ({ content: [{ type: 'text', text: t }], ...extra });
const sleep = ms => new Promise(r => setTimeout(r, ms));
const none = z.object({});
const objectOf = (properties, required = Object.keys(properties)) => ({ type: 'object', properties, required });
const transports = new Map();              // session id -> transport (stateful era)
let modern;                                // 2026-07-28 handler (HTTP)
const askName = () => inputRequired.elicit({ message: 'What is your name?', requestedSchema: objectOf({ name: { type: 'string' } }) });
const askOk = () => inputRequired.elicit({ message: 'Please confirm', requestedSchema: objectOf({ ok: { type: 'boolean' } }) });
const askLlm = (q, maxTokens) => inputRequired.createMessage({ messages: [{ role: 'user', content: { type: 'text', text: q } }], maxTokens });

const ELICIT_DEFAULTS = objectOf({
  name: { type: 'string', description: 'User name', default: 'John Doe' },
  age: { type: 'integer', description: 'User age', default: 30 },
  score: { type: 'number', description: 'User score', default: 95.5 },
  status: { type: 'string', description: 'User status', enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', description: 'Verification status', default: true }
}, []);
const titled = (a, b, c) => [[a, '1'], [b, '2'], [c, '3']].map(([t, n]) => ({ const: `value${n}`, title: t }));
const ELICIT_ENUMS = objectOf({
  untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
  titledSingle: { type: 'string', oneOf: titled('First Option', 'Second Option', 'Third Option') },
  legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
  untitledMulti: { type: 'array', minItems: 1, maxItems: 3, items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
  titledMulti: { type: 'array', minItems: 1, maxItems: 3, items: { anyOf: titled('First Choice', 'Second Choice', 'Third Choice') } }
}, []);
const JSON_SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: { address: { $anchor: 'addressDef', type: 'object', properties: { street: { type: 'string' }, city: { type: 'string' } } } },
  properties: {
    name: { type: 'string' }, address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] }, phone: { type: 'string' }, email: { type: 'string' }
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false
};

const isModern = ctx => ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] !== undefined;
/** Asks the client in whatever way its era has: a request mid-call (2025), or an input_required round (2026). Returns the bare answer or the result to hand back. */
async function ask(ctx, method, params, round) {
  if (!isModern(ctx)) return { answer: await ctx.mcpReq.send({ method, params }) };
  const answer = ctx.mcpReq.inputResponses?.answer;
  return answer === undefined ? { result: inputRequired({ inputRequests: { answer: round(params) } }) } : { answer };
}
/** Elicitation: ask the client and report what it answered. */
async function elicitMidCall(ctx, message, requestedSchema, label) {
  try {
    const { answer, result } = await ask(ctx, 'elicitation/create', { message, requestedSchema }, p => inputRequired.elicit(p));
    return result ?? text(`${label}: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`);
  } catch (e) { return text(`Elicitation not supported or error: ${e.message}`); }
}

function makeServer() {
  const s = new McpServer({ name: 'conformance-target', version: '1.0.0' }, {
    capabilities: { tools: { listChanged: true }, resources: { subscribe: true, listChanged: true }, prompts: { listChanged: true }, logging: {}, completions: {} },
    requestState: { verify: codec.verify }
  });
  const tool = (name, description, fn, inputSchema) => {
    if (opt.only && !name.startsWith(opt.only)) return;
    s.registerTool(name, inputSchema ? { description, inputSchema } : { description }, inputSchema ? fn : ctx => fn({}, ctx));
  };

  // --- plain results
  tool('test_simple_text', 'simple text', async () => text('This is a simple text response for testing.'));
  tool('test_image_content', 'image', async () => ({ content: [{ type: 'image', data: PNG, mimeType: 'image/png' }] }));
  tool('test_audio_content', 'audio', async () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }));
  tool('test_embedded_resource', 'embedded resource', async () => ({ content: [{ type: 'resource', resource: { uri: 'test://embedded-resource', mimeType: 'text/plain', text: 'This is an embedded resource content.' } }] }));
  tool('test_multiple_content_types', 'mixed content', async () => ({ content: [
    { type: 'text', text: 'Multiple content types test:' },
    { type: 'image', data: PNG, mimeType: 'image/png' },
    { type: 'resource', resource: { uri: 'test://mixed-content-resource', mimeType: 'application/json', text: JSON.stringify({ test: 'data', value: 123 }) } }] }));
  tool('test_error_handling', 'always fails', async () => { throw new Error('This tool intentionally returns an error for testing'); });
  tool('json_schema_2020_12_tool', 'JSON Schema 2020-12 keywords survive tools/list (SEP-1613, SEP-2106)', async a => text(`called with: ${JSON.stringify(a)}`), fromJsonSchema(JSON_SCHEMA_2020_12));
  tool('test_x_mcp_header', 'SEP-2243: region mirrored into Mcp-Param-Region', async a => text(`region=${a.region ?? '<none>'}`), fromJsonSchema({ type: 'object', properties: {
    region: { type: 'string', 'x-mcp-header': 'Region' }, level: { type: 'integer' } } }));

  // --- what not every revision has, what is cancelled, and what changes (eras.py)
  s.registerTool('era_rich', {
    title: 'Rich', description: 'all that came after 2024-11-05', annotations: { readOnlyHint: true },
    icons: [{ src: 'https://example.com/icon.png' }], outputSchema: fromJsonSchema(objectOf({ n: { type: 'integer' } }))
  }, async () => ({
    content: [{ type: 'resource_link', uri: 'test://static-text', name: 'the text', title: 'Text' }, { type: 'audio', data: WAV, mimeType: 'audio/wav' }],
    structuredContent: { n: 7 }
  }));
  tool('era_slow', 'runs until it is cancelled', (_a, ctx) => new Promise(resolve => {
    const signal = ctx.mcpReq.signal, end = () => { cancelled++; resolve(text('cancelled')); };
    if (signal.aborted) end(); else signal.addEventListener('abort', end);
  }), none);
  tool('era_cancelled', 'how many calls of era_slow were cancelled', async () => text(String(cancelled)));
  tool('era_touch', 'has the watched resource change', async () => {
    modern?.notify.resourceUpdated(WATCHED);
    for (const server of watching) await server.sendResourceUpdated({ uri: WATCHED }).catch(() => watching.delete(server));
    return text('touched');
  });

  // --- notifications during a call
  const say = (ctx, data) => ctx.mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data } });
  tool('test_tool_with_logging', 'three log messages', async (_a, ctx) => {
    for (const m of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) { await say(ctx, m); await sleep(50); }
    return text('Tool with logging executed successfully');
  }, none);
  tool('test_tool_with_progress', 'progress 0, 50, 100', async (_a, ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    if (progressToken !== undefined) for (const progress of [0, 50, 100]) {
      await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100, message: `Completed step ${progress} of 100` } });
      await sleep(50);
    }
    return text(String(progressToken ?? 'no-progress-token'));
  }, none);
  tool('test_logging_tool', 'SEP-2575: logs only when the request set logLevel', async (_a, ctx) => { await ctx.mcpReq.log('info', 'test_logging_tool ran'); return text('logged'); }, none);

  // --- what a server asks of its client, in the client's era
  tool('test_sampling', 'sampling/createMessage mid-call', async (a, ctx) => {
    try {
      const { answer: r, result } = await ask(ctx, 'sampling/createMessage', { messages: [{ role: 'user', content: { type: 'text', text: a.prompt } }], maxTokens: 100 }, p => inputRequired.createMessage(p));
      if (result) return result;
      return text(`LLM response: ${r.content?.text ?? 'No response'}`);
    } catch (e) { return text(`Sampling not supported or error: ${e.message}`); }
  }, z.object({ prompt: z.string() }));
  tool('test_elicitation', 'elicitation/create mid-call', (a, ctx) => elicitMidCall(ctx, a.message, objectOf({ response: { type: 'string', description: "User's response" } }), 'User response'), z.object({ message: z.string() }));
  tool('test_elicitation_sep1034_defaults', 'elicitation with defaults', (_a, ctx) => elicitMidCall(ctx, 'Please review and update the form fields with defaults', ELICIT_DEFAULTS, 'Elicitation completed'), none);
  tool('test_elicitation_sep1330_enums', 'elicitation with enums', (_a, ctx) => elicitMidCall(ctx, 'Please select options from the enum fields', ELICIT_ENUMS, 'Elicitation completed'), none);
  tool('test_reconnection', 'SEP-1699: closes its SSE stream mid-call', async (_a, ctx) => {
    if (ctx.sessionId && ctx.mcpReq.id !== undefined) transports.get(ctx.sessionId)?.closeSSEStream(ctx.mcpReq.id);
    await sleep(100);
    return text('Reconnection test completed successfully. If you received this, the client properly reconnected after stream closure.');
  }, none);

  // --- 2026-07-28 diagnostics (SEP-2575)
  tool('test_missing_capability', 'requires the sampling client capability', async (_a, ctx) =>
    ctx.mcpReq.inputResponses?.llm_answer === undefined ? inputRequired({ inputRequests: { llm_answer: askLlm('Reply with the single word: pong', 16) } }) : text('sampling round-trip complete'), none);
  tool('test_streaming_elicitation', 'no independent top-level requests on the stream', async () => text('stream observed'), none);
  tool('test_trigger_tool_change', 'publishes tools/list_changed', async () => { modern?.notify.toolsChanged(); s.sendToolListChanged?.(); return text('tools_list_changed published'); }, none);
  tool('test_trigger_prompt_change', 'publishes prompts/list_changed', async () => { modern?.notify.promptsChanged(); s.sendPromptListChanged?.(); return text('prompts_list_changed published'); }, none);

  // --- 2026-07-28 multi-round-trip results (SEP-2322)
  tool('test_input_required_result_elicitation', 'MRTR: asks for a name', async (_a, ctx) => {
    const name = acceptedContent(ctx.mcpReq.inputResponses, 'user_name')?.name;
    return typeof name === 'string' ? text(`Hello, ${name}!`) : inputRequired({ inputRequests: { user_name: askName() } });
  }, none);
  tool('test_input_required_result_sampling', 'MRTR: asks for a completion', async (_a, ctx) => {
    const r = ctx.mcpReq.inputResponses?.capital_question;
    return r === undefined ? inputRequired({ inputRequests: { capital_question: askLlm('What is the capital of France?', 100) } }) : text(`Sampling response: ${r.content?.text ?? JSON.stringify(r)}`);
  }, none);
  tool('test_input_required_result_list_roots', 'MRTR: asks for roots', async (_a, ctx) => {
    const r = ctx.mcpReq.inputResponses?.client_roots;
    return Array.isArray(r?.roots) ? text(`Client exposed ${r.roots.length} root(s): ${r.roots.map(x => x.uri).join(', ')}`) : inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  }, none);
  tool('test_input_required_result_request_state', 'MRTR: round-trips sealed requestState', async (_a, ctx) => {
    if (acceptedContent(ctx.mcpReq.inputResponses, 'confirm') === undefined)
      return inputRequired({ inputRequests: { confirm: askOk() }, requestState: await codec.mint({ tool: 'request_state', nonce: randomUUID() }) });
    if (ctx.mcpReq.requestState() === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'Invalid requestState');
    return text('state-ok: requestState verified and confirmation received');
  }, none);
  tool('test_input_required_result_multiple_inputs', 'MRTR: three kinds in one round', async (_a, ctx) => {
    const r = ctx.mcpReq.inputResponses;
    const name = acceptedContent(r, 'user_name')?.name, greeting = r?.greeting?.content?.text, roots = r?.client_roots?.roots;
    if (typeof name !== 'string' || typeof greeting !== 'string' || !Array.isArray(roots))
      return inputRequired({ inputRequests: { user_name: askName(), greeting: askLlm('Generate a greeting', 50), client_roots: inputRequired.listRoots() }, requestState: await codec.mint({ tool: 'multiple_inputs', nonce: randomUUID() }) });
    return text(`${greeting} ${name}: ${roots.length} root(s) visible`);
  }, none);
  tool('test_input_required_result_multi_round', 'MRTR: two rounds', async (_a, ctx) => {
    const st = ctx.mcpReq.requestState(), round = st?.tool === 'multi_round' && typeof st.round === 'number' ? st.round : 0;
    const ask = (key, message, field) => ({ [key]: inputRequired.elicit({ message, requestedSchema: objectOf({ [field]: { type: 'string' } }) }) });
    const mint = extra => codec.mint({ tool: 'multi_round', nonce: randomUUID(), ...extra });
    if (round === 0) return inputRequired({ inputRequests: ask('step1', 'Step 1: What is your name?', 'name'), requestState: await mint({ round: 1 }) });
    if (round === 1) return inputRequired({ inputRequests: ask('step2', 'Step 2: What is your favorite color?', 'color'), requestState: await mint({ round: 2, name: acceptedContent(ctx.mcpReq.inputResponses, 'step1')?.name ?? 'unknown' }) });
    return text(`Multi-round complete: ${st.name} likes ${acceptedContent(ctx.mcpReq.inputResponses, 'step2')?.color ?? 'unknown'}`);
  }, none);
  tool('test_input_required_result_tampered_state', 'MRTR: rejects tampered requestState (-32602)', async (_a, ctx) =>
    ctx.mcpReq.requestState() !== undefined && acceptedContent(ctx.mcpReq.inputResponses, 'confirm') !== undefined ? text('integrity-ok: requestState verified')
      : inputRequired({ inputRequests: { confirm: askOk() }, requestState: await codec.mint({ tool: 'tampered_state', nonce: randomUUID() }) }), none);
  tool('test_input_required_result_capabilities', 'MRTR: asks only for declared kinds', async (_a, ctx) => {
    if (ctx.mcpReq.inputResponses !== undefined) return text('Capability-aware input requests fulfilled');
    const caps = ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY], inputRequests = {};
    if (caps?.elicitation !== undefined) inputRequests.user_name = askName();
    if (caps?.sampling !== undefined) inputRequests.greeting = askLlm('Generate a short greeting', 50);
    if (caps?.roots !== undefined) inputRequests.client_roots = inputRequired.listRoots();
    return Object.keys(inputRequests).length ? inputRequired({ inputRequests }) : text('No declared client capability supports an in-band input request');
  }, none);

  // --- resources
  const res = (name, uri, title, mimeType, body) => s.registerResource(name, uri, { title, description: title, mimeType }, async () => ({ contents: [{ uri, mimeType, ...body }] }));
  res('static-text', 'test://static-text', 'Static Text Resource', 'text/plain', { text: 'This is the content of the static text resource.' });
  res('static-binary', 'test://static-binary', 'Static Binary Resource', 'image/png', { blob: PNG });
  res('watched-resource', WATCHED, 'Watched Resource', 'text/plain', { text: 'Watched resource content' });
  s.registerResource('template', new ResourceTemplate('test://template/{id}/data', { list: undefined }), { title: 'Resource Template', description: 'template', mimeType: 'application/json' },
    async (uri, { id }) => ({ contents: [{ uri: uri.toString(), mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }] }));
  s.server.setRequestHandler('resources/subscribe', async request => { if (request.params.uri === WATCHED) watching.add(s.server); return {}; });
  s.server.setRequestHandler('resources/unsubscribe', async request => { if (request.params.uri === WATCHED) watching.delete(s.server); return {}; });

  // --- prompts
  const user = content => ({ role: 'user', content });
  const say1 = t => user({ type: 'text', text: t });
  s.registerPrompt('test_simple_prompt', { title: 'Simple', description: 'no arguments' }, async () => ({ messages: [say1('This is a simple prompt for testing.')] }));
  s.registerPrompt('test_prompt_with_arguments', { title: 'Args', description: 'two arguments', argsSchema: z.object({ arg1: z.string().describe('First test argument'), arg2: z.string().describe('Second test argument') }) },
    async a => ({ messages: [say1(`Prompt with arguments: arg1='${a.arg1}', arg2='${a.arg2}'`)] }));
  s.registerPrompt('test_prompt_with_embedded_resource', { title: 'Embedded', description: 'embedded resource', argsSchema: z.object({ resourceUri: z.string().describe('URI of the resource to embed') }) },
    async a => ({ messages: [user({ type: 'resource', resource: { uri: a.resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' } }), say1('Please process the embedded resource above.')] }));
  s.registerPrompt('test_prompt_with_image', { title: 'Image', description: 'image' }, async () => ({ messages: [user({ type: 'image', data: PNG, mimeType: 'image/png' }), say1('Please analyze the image above.')] }));
  s.registerPrompt('test_input_required_result_prompt', { title: 'MRTR Prompt', description: 'asks for input before rendering' }, async ctx => {
    const c = acceptedContent(ctx.mcpReq.inputResponses, 'user_context')?.context;
    return typeof c === 'string' ? { messages: [say1(`Use the following context: ${c}`)] }
      : inputRequired({ inputRequests: { user_context: inputRequired.elicit({ message: 'What context should the prompt use?', requestedSchema: objectOf({ context: { type: 'string' } }) }) } });
  });

  s.server.setRequestHandler('logging/setLevel', async () => ({}));
  s.server.setRequestHandler('completion/complete', async () => ({ completion: { values: ['paris', 'park', 'party'], total: 3, hasMore: false } }));
  return s;
}

// ---------------------------------------------------------------- transports
if (opt.stdio) {
  serveStdio(makeServer, { legacy: opt.era === 'modern' ? 'reject' : 'serve', onerror: e => console.error('stdio:', e.message) });
} else {
  const eventData = [];                     // SEP-1699 resumability store
  const eventStore = {
    async storeEvent(streamId, message) { const eventId = `${streamId}::${String(eventData.length).padStart(9, '0')}`; eventData.push({ eventId, streamId, message }); return eventId; },
    async replayEventsAfter(last, { send }) {
      const streamId = last.split('::')[0];
      for (const e of eventData) if (e.streamId === streamId && e.eventId > last && Object.keys(e.message ?? {}).length) await send(e.eventId, e.message);
      return streamId;
    }
  };
  modern = createMcpHandler(makeServer, { legacy: 'reject', onerror: e => console.error('modern:', e.message) });
  const modernNode = toNodeHandler(modern);
  const hostOk = localhostHostValidation(), originOk = localhostOriginValidation();
  const rpcError = (res, status, code, message) => { res.writeHead(status, { 'content-type': 'application/json' }); res.end(JSON.stringify({ jsonrpc: '2.0', error: { code, message }, id: null })); };
  const one = h => (Array.isArray(h) ? h[0] : h);
  createServer(async (req, res) => {
    try {
      let raw = '';
      for await (const chunk of req) raw += chunk;
      if (opt.log) appendFileSync(opt.log, JSON.stringify({ t: Date.now(), method: req.method, url: req.url, headers: req.headers, body: raw }) + '\n');
      if (!hostOk(req, res) || !originOk(req, res)) return;
      if (new URL(req.url, 'http://x').pathname !== '/mcp') return rpcError(res, 404, -32601, 'Not found');
      if (opt.bearer && req.headers.authorization !== `Bearer ${opt.bearer}`) { res.setHeader('www-authenticate', 'Bearer'); return rpcError(res, 401, -32001, 'Unauthorized'); }
      let body; try { body = raw ? JSON.parse(raw) : undefined; } catch { return rpcError(res, 400, -32700, 'Parse error'); }
      if (req.method === 'POST' && opt.era !== 'legacy') {
        const kind = classifyInboundRequest({ httpMethod: 'POST', protocolVersionHeader: one(req.headers['mcp-protocol-version']), mcpMethodHeader: one(req.headers['mcp-method']), body }).kind;
        if (kind !== 'legacy' || opt.era === 'modern') return await modernNode(req, res, body);
      } else if (opt.era === 'modern') { res.writeHead(405, { allow: 'POST' }); return res.end(); }
      const sid = one(req.headers['mcp-session-id']);
      if (sid) { const t = transports.get(sid); return t ? await t.handleRequest(req, res, body) : rpcError(res, 404, -32001, 'Session not found'); }
      if (req.method !== 'POST' || !isInitializeRequest(body)) return rpcError(res, 400, -32000, 'Bad Request: Session ID required');
      const server = makeServer();
      const transport = new NodeStreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, eventStore, retryInterval: 5000, onsessioninitialized: id => transports.set(id, transport) });
      transport.onclose = () => { if (transports.delete(transport.sessionId)) server.close(); };
      await server.connect(transport);
      await transport.handleRequest(req, res, body);
    } catch (e) { console.error('http:', e); if (!res.headersSent) rpcError(res, 500, -32603, 'Internal error'); }
  }).listen(Number(opt.port), opt.host, () => console.log(`conformance-target (${opt.era}) on http://${opt.host}:${opt.port}/mcp`));
}
