/**
 * The TypeScript client of SDK version 2, holding a conversation: node chatting.mjs PLAN.json prints a report as JSON.
 * Plan and report are described in chatting.py.
 */
import { readFileSync } from 'node:fs';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const META = 'io.waystation/chat';
const mode = plan.era === 'modern' ? { pin: '2026-07-28' } : plan.era;

/** What is heard of a call, as its client has it. */
function listener(aborted) {
  const heard = { deltas: '', pieces: 0, rising: true, conversation: null, turns: [] };
  let last = -Infinity;
  const onprogress = progress => {
    heard.rising &&= progress.progress > last;
    last = progress.progress;
    const about = progress._meta?.[META] ?? {};
    heard.conversation ??= about.conversation_id ?? null;
    if (about.turn_id && !heard.turns.includes(about.turn_id)) heard.turns.push(about.turn_id);
    if (about.kind !== 'delta') return;
    heard.deltas += progress.message;
    heard.pieces += 1;
    aborted?.abort('enough was heard');
  };
  return { heard, onprogress };
}

async function say(client, args) {
  const { heard, onprogress } = listener();
  const result = await client.callTool({ name: plan.tool, arguments: args }, { onprogress });
  return { ...heard, isError: result.isError ?? false, said: result.structuredContent ?? null, text: result.content[0]?.text ?? null };
}

async function cancel(client, args) {
  const aborted = new AbortController();
  const { heard, onprogress } = listener(aborted);
  const ended = await client.callTool({ name: plan.tool, arguments: args }, { onprogress, signal: aborted.signal }).then(() => 'answered', () => 'cancelled');
  return { ...heard, ended };
}

const client = new Client({ name: 'chatting', version: '1' }, { versionNegotiation: { mode } });
await client.connect(new StreamableHTTPClientTransport(new URL(plan.url)));
const report = { revision: client.getNegotiatedProtocolVersion(), tools: (await client.listTools()).tools.map(tool => tool.name), said: [] };
let conversation;
for (const args of plan.say) {
  const answer = await say(client, conversation ? { conversation_id: conversation, ...args } : args);
  conversation ??= answer.said?.conversation_id;
  report.said.push(answer);
}
report.cancelled = await cancel(client, plan.cancel);
// In the legacy era a message says so, which must have gone out before the connection ends.
await new Promise(resolve => setTimeout(resolve, 1000));
await client.close();
console.log(JSON.stringify(report));
