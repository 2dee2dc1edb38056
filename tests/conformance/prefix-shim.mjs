#!/usr/bin/env node
/**
 * prefix-shim: a transparent HTTP proxy between the conformance suite, which insists on its own names, and the
 * gateway's /mcp, where every tool and prompt has its backend's prefix.
 *
 *   node prefix-shim.mjs --port 18150 --upstream http://127.0.0.1:18120 --prefix conf__
 *
 * Requests:  the prefix is put before the name in tools/call, prompts/get and completion's ref, and in Mcp-Name.
 * Responses: it is taken off the names in the results of tools/list and prompts/list (JSON bodies, and the data lines
 *            of event streams, which are passed on line by line).
 * Everything else (status, headers, sessions, streams, DELETE) passes as it is; the Host header as well, so that
 * dns-rebinding-protection still tests the gateway.
 * A pass through it says nothing about names: those are compared apart, in tests/conformance/run. No dependencies.
 */
import http from 'node:http';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({ options: { port: { type: 'string' }, upstream: { type: 'string' }, prefix: { type: 'string' } } });
const upstream = new URL(options.upstream);
const NAMED = ['tools/call', 'prompts/get'];

/** One message or a batch of them, each changed by `change`; text that is no JSON is left alone. */
function rewritten(text, change) {
  let message;
  try { message = JSON.parse(text); } catch { return text; }
  (Array.isArray(message) ? message : [message]).forEach(change);
  return JSON.stringify(message);
}

function addPrefix(message) {
  const params = message?.params;
  if (!params) return;
  if (NAMED.includes(message.method)) params.name = options.prefix + params.name;
  if (params.ref?.name) params.ref.name = options.prefix + params.ref.name;
}

function takePrefix(message) {
  for (const list of [message?.result?.tools, message?.result?.prompts]) {
    if (!Array.isArray(list)) continue;
    for (const item of list) if (item.name?.startsWith(options.prefix)) item.name = item.name.slice(options.prefix.length);
  }
}

function forwarded(headers, body) {
  // Connection is for one hop only: passed on, it made the next request on the same socket an error.
  const { connection, 'transfer-encoding': _chunked, 'accept-encoding': _packed, ...rest } = headers;
  if (body.length) rest['content-length'] = String(body.length);
  if (rest['mcp-name'] && NAMED.includes(rest['mcp-method'])) rest['mcp-name'] = options.prefix + rest['mcp-name'];
  return rest;
}

function passStream(from, to) {
  let rest = '';
  from.setEncoding('utf8');
  from.on('data', text => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const data = line.match(/^data: ?(.+?)\r?$/)?.[1];
      to.write(data ? `data: ${rewritten(data, takePrefix)}\n` : `${line}\n`);
    }
  });
  from.on('end', () => to.end(rest));
}

async function passBody(from, to, isJson) {
  const body = Buffer.concat(await from.toArray());
  to.end(isJson ? rewritten(body.toString(), takePrefix) : body);
}

function answer(from, to) {
  const { 'content-length': _length, connection, ...headers } = from.headers;
  const type = headers['content-type'] ?? '';
  to.writeHead(from.statusCode, headers);
  to.flushHeaders();
  from.on('error', () => to.destroy());
  if (type.includes('event-stream')) passStream(from, to);
  else passBody(from, to, type.includes('json')).catch(() => to.destroy());
}

http.createServer(async (asked, reply) => {
  const text = Buffer.concat(await asked.toArray().catch(() => [])).toString();
  const body = Buffer.from(text && rewritten(text, addPrefix));
  const where = { host: upstream.hostname, port: upstream.port, method: asked.method, path: asked.url, headers: forwarded(asked.headers, body) };
  const onward = http.request(where, from => answer(from, reply));
  onward.on('error', why => { if (!reply.headersSent) reply.writeHead(502); reply.end(String(why.message)); });
  // Whoever hangs up on one side hangs up on the other.
  reply.on('close', () => onward.destroy());
  onward.end(body);
}).listen(Number(options.port), '127.0.0.1', () => console.log(`prefix-shim on ${options.port} before ${options.upstream}`));
