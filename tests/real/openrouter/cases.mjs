// What the scripts of this folder have in common: the cases come on standard input, and what was seen of each goes to standard output.
import { readFileSync } from "node:fs";

/** Runs every case with `chat`, and prints what came of it as one JSON object. */
export async function run(chat, more = async () => ({})) {
  const { base, key, cases } = JSON.parse(readFileSync(0, "utf8"));
  const seen = {};
  for (const one of cases) seen[one.name] = await outcome(() => chat(one, base, key));
  process.stdout.write(JSON.stringify({ seen, more: await more(base, key) }));
}

/** What a call gave, or which error it threw. */
export async function outcome(call) {
  try {
    return await call();
  } catch (error) {
    return { threw: nameOf(error), status: error?.statusCode ?? error?.status ?? null };
  }
}

/** The name of the innermost class of an error that is not only `Error`. */
export function nameOf(error) {
  return error?.constructor?.name ?? String(error);
}
