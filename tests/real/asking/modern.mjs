/**
 * A server of revision 2026-07-28 and of no other (@modelcontextprotocol/server, version 2) with the tools of
 * legacy.mjs. It asks by ending a round of the call; the tag of the call goes through `requestState`.
 *
 *   node modern.mjs stdio | streamable PORT
 */
import { createServer } from 'node:http';
import {
  CLIENT_CAPABILITIES_META_KEY, McpServer, createMcpHandler, createRequestStateCodec, inputRequired
} from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { toNodeHandler } from '@modelcontextprotocol/node';
import * as z from 'zod/v4';
import { found, invitation } from './visits.mjs';

const [transport, port] = process.argv.slice(2);
const codec = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });
const inputSchema = z.object({ tag: z.number().int(), anyway: z.boolean().optional(), apart: z.boolean().optional() });
const number = { type: 'object', properties: { number: { type: 'integer' } }, required: ['number'] };
// What the SDK believes of the client when a tool asks anyway.
const everything = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

function makeServer() {
  const mcp = new McpServer({ name: `asking-modern-${transport}`, version: '1' }, { requestState: { verify: codec.verify } });

  /** A tool that asks with `question`, and makes of the answer what it returns. */
  function tool(name, question, outcome) {
    mcp.registerTool(name, { inputSchema }, async ({ tag, anyway }, context) => {
      if (anyway) context.mcpReq.envelope[CLIENT_CAPABILITIES_META_KEY] = everything;
      const answer = context.mcpReq.inputResponses?.answer;
      if (answer === undefined) {
        const invited = invitation();
        const requestState = await codec.mint({ tag, key: invited.key });
        return inputRequired({ inputRequests: { answer: question(tag, invited.url) }, requestState });
      }
      const state = context.mcpReq.requestState();
      if (state?.tag !== tag) throw new Error(`the answer to ${tag} came with the state of ${state?.tag}`);
      return { content: [{ type: 'text', text: JSON.stringify(outcome(answer, state.key)) }] };
    });
  }

  tool('ask_form', tag => inputRequired.elicit({ message: `A number for #${tag}, please`, requestedSchema: number }),
    answer => ({ action: answer.action, number: answer.content?.number ?? null }));
  tool('ask_url', (tag, url) => inputRequired.elicitUrl({ message: `Leave a number for #${tag} there, please`, url }),
    (answer, key) => ({ action: answer.action, number: found(key) }));
  const words = tag => [{ role: 'user', content: { type: 'text', text: `A number for #${tag}` } }];
  tool('ask_model', tag => inputRequired.createMessage({ messages: words(tag), maxTokens: 10 }),
    answer => ({ action: 'accept', number: Number(answer.content.text) }));
  tool('ask_roots', () => inputRequired.listRoots(),
    answer => ({ action: 'accept', number: Number(answer.roots[0].uri.split('/').pop()) }));
  return mcp;
}

if (transport === 'stdio') {
  serveStdio(makeServer, { legacy: 'reject' });
} else {
  createServer(toNodeHandler(createMcpHandler(makeServer, { legacy: 'reject' }))).listen(Number(port), '127.0.0.1');
}
