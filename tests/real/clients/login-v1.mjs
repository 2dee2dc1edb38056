/**
 * TypeScript clients of SDK version 1 at a gateway that wants to know who asks: node login-v1.mjs PLAN.json prints a report as
 * one line of JSON. Plan and report are described in login.py; `sdk` in the plan is the package, of which there are several,
 * since each speaks one revision.
 */
import { readFileSync } from 'node:fs';
import { Keeper, callAll, loggedIn } from './logins.mjs';

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { Client } = await import(`${plan.sdk}/client/index.js`);
const { StreamableHTTPClientTransport } = await import(`${plan.sdk}/client/streamableHttp.js`);
const keeper = new Keeper();
let revision = null;

const open = () => new StreamableHTTPClientTransport(new URL(plan.url), { authProvider: keeper });

// Which revision was agreed on, the oldest of these clients tell nobody, so it is read from the answer to `initialize`.
const ask = globalThis.fetch;
globalThis.fetch = async (...request) => {
  const answer = await ask(...request);
  if (answer.headers.get('content-type')?.startsWith('application/json')) {
    revision ??= (await answer.clone().text()).match(/"protocolVersion":"([^"]+)"/)?.[1] ?? null;
  }
  return answer;
};

const report = await loggedIn(keeper, open, async transport => {
  const client = new Client({ name: 'typescript-v1', version: '1' });
  await client.connect(transport);
  const tools = (await client.listTools()).tools.map(tool => tool.name);
  const calls = await callAll(plan, wanted => client.callTool(wanted));
  await client.close();
  return { revision, tools, calls };
});
console.log(JSON.stringify({ ...report, logins: keeper.logins, scopes: keeper.kept.scope ?? null }));
