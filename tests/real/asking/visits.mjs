/**
 * The page behind a URL elicitation: its address goes to the client, which leaves a number there, where no message of
 * the protocol passes. The tool that asked then finds the number here.
 */
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';

const left = new Map();
const page = createServer((request, response) => {
  const query = new URL(request.url, 'http://page').searchParams;
  left.set(query.get('key'), Number(query.get('number')));
  response.end('thank you');
});
await new Promise(ready => page.listen(0, '127.0.0.1', ready));
// A server over stdio ends with its input, not with its page.
page.unref();

export function invitation() {
  const key = randomUUID();
  return { key, url: `http://127.0.0.1:${page.address().port}/?key=${key}` };
}

/** What was left under a key; it is there once. */
export function found(key) {
  const number = left.get(key);
  left.delete(key);
  return number ?? null;
}
