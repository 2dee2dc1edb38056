/**
 * A server of the legacy era (@modelcontextprotocol/sdk, version 1) with four tools that each ask the client something
 * in the middle of the call, and return what came back.
 *
 *   node legacy.mjs stdio | streamable PORT | sse PORT
 *
 * Each tool takes a `tag`, which is in the question too wherever a question has words, and returns
 * {"action": …, "number": …} as text. With `anyway` it asks without looking at what the client said it can be asked; with
 * `apart` it does not say to which call the question belongs, which over Streamable HTTP then comes on another stream.
 */
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { CreateMessageResultSchema, ElicitResultSchema, ListRootsResultSchema } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';
import { found, invitation } from './visits.mjs';

const [transport, port] = process.argv.slice(2);
const arguments_ = { tag: z.number().int(), anyway: z.boolean().optional(), apart: z.boolean().optional() };
const number = { type: 'object', properties: { number: { type: 'integer' } }, required: ['number'] };

function makeServer() {
  const mcp = new McpServer({ name: `asking-${transport}`, version: '1' });
  const { server } = mcp;

  /** A tool that asks with `kindly`, or with the bare request of `method`, and makes of the answer what it returns. */
  function tool(name, method, schema, params, kindly, outcome) {
    mcp.registerTool(name, { inputSchema: arguments_ }, async ({ tag, anyway, apart }, extra) => {
      const question = params(tag);
      const answer = anyway
        ? await extra.sendRequest({ method, params: question }, schema)
        : await kindly(question, apart ? {} : { relatedRequestId: extra.requestId });
      return { content: [{ type: 'text', text: JSON.stringify(outcome(answer, question)) }] };
    });
  }

  const elicit = (question, options) => server.elicitInput(question, options);
  tool('ask_form', 'elicitation/create', ElicitResultSchema,
    tag => ({ mode: 'form', message: `A number for #${tag}, please`, requestedSchema: number }), elicit,
    answer => ({ action: answer.action, number: answer.content?.number ?? null }));
  tool('ask_url', 'elicitation/create', ElicitResultSchema, tag => {
    const { key, url } = invitation();
    return { mode: 'url', message: `Leave a number for #${tag} there, please`, url, elicitationId: key };
  }, elicit, (answer, question) => ({ action: answer.action, number: found(question.elicitationId) }));
  tool('ask_model', 'sampling/createMessage', CreateMessageResultSchema,
    tag => ({ messages: [{ role: 'user', content: { type: 'text', text: `A number for #${tag}` } }], maxTokens: 10 }),
    (question, options) => server.createMessage(question, options),
    answer => ({ action: 'accept', number: Number(answer.content.text) }));
  tool('ask_roots', 'roots/list', ListRootsResultSchema, () => ({}), (question, options) => server.listRoots(question, options),
    answer => ({ action: 'accept', number: Number(answer.roots[0].uri.split('/').pop()) }));
  return mcp;
}

const sessions = new Map();

/** Connects a server of its own to a transport, which is known by its session until it closes. */
async function serve(made) {
  made.onclose = () => sessions.delete(made.sessionId);
  await makeServer().connect(made);
}

async function streamable(request, response) {
  const known = sessions.get(request.headers['mcp-session-id']);
  if (known) return known.handleRequest(request, response);
  if (request.headers['mcp-session-id']) return response.writeHead(404).end();
  const onsessioninitialized = id => { sessions.set(id, made); };
  const made = new StreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized });
  await serve(made);
  return made.handleRequest(request, response);
}

async function sse(request, response) {
  const url = new URL(request.url, 'http://server');
  if (request.method === 'GET' && url.pathname === '/sse') {
    const made = new SSEServerTransport('/messages', response);
    sessions.set(made.sessionId, made);
    return serve(made);
  }
  const known = request.method === 'POST' && sessions.get(url.searchParams.get('sessionId'));
  return known ? known.handlePostMessage(request, response) : response.writeHead(404).end();
}

if (transport === 'stdio') {
  await makeServer().connect(new StdioServerTransport());
} else {
  createServer(transport === 'sse' ? sse : streamable).listen(Number(port), '127.0.0.1');
}
