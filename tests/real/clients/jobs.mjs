/**
 * What the TypeScript clients of tasks have in common: the jobs of a plan, so many at a time, and their reports.
 * Plan and report are described in tasking.py.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { plan } from './answers.mjs';

/** Longer than anything here takes; what takes as long would never have ended. */
const milliseconds = 20_000;
/** How long a job is let alone that is to be cancelled. */
export const cancelAfter = 2000;

export const reported = result => ({
  text: result.content.map(part => part.text ?? '').join('\n'), isError: result.isError ?? false
});
export const refused = why => ({ error: String(why.message ?? why), ...(why.code === undefined ? {} : { code: why.code }) });

/** A plain call, which a client that wants to cancel it just gives up. */
export async function plainly(call, wanted) {
  const { cancel, ...request } = wanted;
  const signal = cancel ? AbortSignal.timeout(cancelAfter) : undefined;
  try {
    return reported(await call(request, { timeout: 2 * milliseconds, signal }));
  } catch (why) {
    if (!signal?.aborted) return refused(why);
    // The word that it is cancelled is still on its way.
    await sleep(500);
    return { cancelled: true };
  }
}

/** Does the jobs of the plan with `work`, which is given one and gives its report. */
export async function jobs(work) {
  const results = [], waiting = [...plan.calls.entries()];
  const worker = async () => {
    for (let next; (next = waiting.shift());) {
      const [index, wanted] = next;
      const done = work(wanted).catch(refused);
      results[index] = await Promise.race([done, sleep(milliseconds, { hung: true }, { ref: false })]);
    }
  };
  await Promise.all(Array.from({ length: plan.together }, worker));
  return results;
}
