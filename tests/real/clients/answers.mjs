/**
 * What the two TypeScript clients that answer questions have in common: the answers, and the calls of a plan.
 * Plan and report are described in answering.py.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
export const tags = [];
export const capabilities = !plan.declares ? {} : { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };
/** Longer than anything here takes; what takes as long would never have ended. */
const milliseconds = 20_000;

function numberFor(text) {
  const tag = Number(/#(\d+)/.exec(text)[1]);
  tags.push(tag);
  return plan.secret + tag;
}

/** Method to the answer to its `params`. */
export const answers = !plan.declares ? {} : {
  'elicitation/create': async ({ mode, message, url }) => {
    const number = numberFor(message);
    if (plan.declined.includes(number - plan.secret)) return { action: 'decline' };
    if (mode !== 'url') return { action: 'accept', content: { number } };
    await (await fetch(`${url}&number=${number}`)).text();
    return { action: 'accept' };
  },
  'sampling/createMessage': async ({ messages }) => {
    const [content] = [messages[0].content].flat();
    const number = numberFor(content.text);
    if (plan.declined.includes(number - plan.secret)) throw new Error('not today');
    return { role: 'assistant', model: 'none', content: { type: 'text', text: String(number) } };
  },
  'roots/list': async () => ({ roots: [{ uri: `file:///number/${plan.secret}` }] })
};

/** Makes the calls of the plan, so many at a time; `call` is given one and the options of its request. */
export async function calls(call) {
  for (const file of plan.meet.slice(0, 1)) writeFileSync(file, '');
  while (!plan.meet.every(file => existsSync(file))) await sleep(2);
  const results = [], waiting = [...plan.calls.entries()];
  const work = async () => {
    for (let next; (next = waiting.shift());) {
      const began = Date.now();
      const result = await outcome(call, next[1]);
      results[next[0]] = { ...result, time: [began / 1000, Date.now() / 1000] };
    }
  };
  await Promise.all(Array.from({ length: plan.together }, work));
  return results;
}

async function outcome(call, wanted) {
  let timer;
  const late = new Promise(resolve => { timer = setTimeout(resolve, milliseconds, { hung: true }); });
  const made = call(wanted, { timeout: 2 * milliseconds }).then(
    result => ({ text: result.content.map(part => part.text ?? '').join('\n'), isError: result.isError ?? false }),
    why => ({ error: String(why.message ?? why) })
  );
  try {
    return await Promise.race([made, late]);
  } finally {
    clearTimeout(timer);
  }
}
