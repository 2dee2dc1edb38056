/**
 * An identity provider (oidc-provider, a certified OpenID server) on 127.0.0.1 that signs in whoever comes, as `ada`, and asks
 * nobody for consent: node provider.mjs PLAN.json
 *
 * Plan: port, resource (the gateway's address: tokens for it and for what is below it are JWTs), ttl (of tokens, in seconds),
 *       machines {client: {groups, scope}} (clients that get tokens without a person; the secret is the name)
 *
 * POST /test changes it: {"keys": ["b", "a"]} signs with b and still publishes a; {"ttl": 5}. The answer counts the grants
 * there were, by type.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import { Provider, errors, interactionPolicy } from 'oidc-provider';

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `http://127.0.0.1:${plan.port}`;
const keys = new Map(), grants = {};
let ttl = plan.ttl ?? 3600, provider;

async function key(kid) {
  if (!keys.has(kid)) {
    const { privateKey } = await generateKeyPair('ES256', { extractable: true });
    keys.set(kid, { ...(await exportJWK(privateKey)), kid, alg: 'ES256', use: 'sig' });
  }
  return keys.get(kid);
}

function machine([client_id]) {
  return {
    client_id, client_secret: client_id, redirect_uris: [], response_types: [],
    grant_types: ['client_credentials'], token_endpoint_auth_method: 'client_secret_post',
  };
}

const isOurs = resource => resource === plan.resource || resource.startsWith(`${plan.resource}/`);

/** The same provider with these keys; the first one signs. Clients and grants stay, since the storage is one for all. */
async function withKeys(kids) {
  const made = new Provider(issuer, {
    jwks: { keys: await Promise.all(kids.map(key)) },
    clients: Object.entries(plan.machines ?? {}).map(machine),
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    scopes: ['openid', 'offline_access', 'read', 'write'],
    clientBasedCORS: () => true,
    cookies: { keys: ['a key of a test'] },
    ttl: { AccessToken: () => ttl, ClientCredentials: () => ttl, Session: 3600, Interaction: 3600, Grant: 3600, RefreshToken: 3600 },
    pkce: { required: () => true },
    findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
    // Clients register with the scopes of their first request, and are to be able to ask for more later.
    extraClientMetadata: { properties: ['any_scope'], validator: (_, __, ___, metadata) => { delete metadata.scope; } },
    extraTokenClaims: (_, token) => ({ groups: plan.machines[token.clientId]?.groups ?? ['engineering'] }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      registration: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // Clients of 2025-03-26 do not say what a token is for.
        defaultResource: () => plan.resource,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => {
          if (!isOurs(resource) && resource !== 'https://other.example.com/mcp') throw new errors.InvalidTarget();
          return { scope: 'read write', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
        },
      },
    },
  });
  made.on('grant.success', ctx => {
    const type = ctx.oidc.params.grant_type;
    grants[type] = (grants[type] ?? 0) + 1;
  });
  made.on('grant.error', (_, why) => console.error(`${why.error}: ${why.error_description} ${why.error_detail ?? ''}`));
  made.on('server_error', (_, why) => console.error(why));
  return made;
}

/** Signs in and agrees, as somebody would who was in a hurry. */
async function interact(request, response) {
  const { prompt, params, grantId, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') return provider.interactionFinished(request, response, { login: { accountId: 'ada' } });
  const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(' '));
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

async function change(request, response) {
  let text = '';
  for await (const part of request) text += part;
  const wanted = JSON.parse(text || '{}');
  if (wanted.keys) provider = await withKeys(wanted.keys);
  ttl = wanted.ttl ?? ttl;
  response.end(JSON.stringify(grants));
}

provider = await withKeys(['a']);
createServer((request, response) => {
  const { pathname: path, searchParams } = new URL(request.url, issuer);
  // Clients of 2025-03-26 ask for no scope. Other providers have one for them; this one has not, and would deny them everything.
  if (path === '/auth' && !searchParams.has('scope')) request.url += '&scope=read';
  const work = path === '/test' ? change : path.startsWith('/interaction/') ? interact : (...both) => provider.callback()(...both);
  Promise.resolve(work(request, response)).catch(why => {
    console.error(why);
    response.statusCode = 500;
    response.end(String(why));
  });
}).listen(plan.port, '127.0.0.1');
