/** What the TypeScript clients of either version need to log in: somebody to keep what they are given, and a browser. */
import { existsSync, writeFileSync } from 'node:fs';
import { visit } from './browser.mjs';

const BACK = 'http://127.0.0.1:53682/callback';

export class Keeper {
  logins = 0;
  redirectUrl = BACK;
  clientMetadata = {
    client_name: 'typescript', redirect_uris: [BACK], grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'], token_endpoint_auth_method: 'none',
  };

  clientInformation() { return this.client; }
  saveClientInformation(client) { this.client = client; }
  tokens() { return this.kept; }
  saveTokens(tokens) { this.kept = tokens; }
  codeVerifier() { return this.verifier; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }

  async redirectToAuthorization(url) {
    this.logins += 1;
    this.ended = await visit(url, BACK);
  }
}

/** Does something over a transport, and once more after each time that the user had to log in for it. */
export async function loggedIn(keeper, open, work) {
  for (;;) {
    const transport = open(), before = keeper.logins;
    try {
      return await work(transport);
    } catch (why) {
      if (keeper.logins === before || keeper.logins > 4) throw why;
      const said = keeper.ended.searchParams;
      if (!said.has('code')) throw new Error(`no code but ${keeper.ended}`);
      await transport.finishAuth(said.get('code'), said.get('iss') ?? undefined);
      await transport.close();
    }
  }
}

async function sign(file) {
  writeFileSync(`${file}.ready`, '');
  while (!existsSync(`${file}.go`)) await new Promise(done => setTimeout(done, 100));
}

export async function callAll(plan, call) {
  const texts = [];
  for (const [index, wanted] of plan.calls.entries()) {
    if (index === plan.calls.length - 1 && plan.wait) await sign(plan.wait);
    const result = await call(wanted);
    texts.push(result.content.map(part => part.text ?? '').join('\n'));
  }
  return texts;
}
