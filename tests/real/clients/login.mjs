/**
 * The TypeScript client of SDK version 2 at a gateway that wants to know who asks: node login.mjs PLAN.json prints a report as
 * one line of JSON. Plan and report are described in login.py.
 */
import { readFileSync } from 'node:fs';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Keeper, callAll, loggedIn } from './logins.mjs';

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const mode = plan.era === 'modern' ? { pin: '2026-07-28' } : plan.era;
const keeper = new Keeper();
const open = () => new StreamableHTTPClientTransport(new URL(plan.url), { authProvider: keeper });

const report = await loggedIn(keeper, open, async transport => {
  const client = new Client({ name: 'typescript', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(transport);
  const tools = (await client.listTools()).tools.map(tool => tool.name);
  const calls = await callAll(plan, wanted => client.callTool(wanted));
  const revision = client.getNegotiatedProtocolVersion();
  await client.close();
  return { revision, tools, calls };
});
console.log(JSON.stringify({ ...report, logins: keeper.logins, scopes: keeper.kept.scope ?? null }));
