// The client of OpenAI, which many use for OpenRouter.
import OpenAI from "openai";
import { outcome, run } from "./cases.mjs";

const client = (baseURL, apiKey, more = {}) => new OpenAI({ baseURL, apiKey, ...more });

async function chat({ text, stream, model, extra }, base, key) {
  const answer = await client(base, key).chat.completions.create({ model, stream, messages: [{ role: "user", content: text }], ...extra });
  if (!stream) {
    const choice = answer.choices?.[0];
    return { text: choice?.message.content ?? "", finish: choice?.finish_reason ?? null, usage: answer.usage?.total_tokens > 0 };
  }
  const seen = { text: "", finish: null, usage: false };
  for await (const chunk of answer) {
    seen.text += chunk.choices[0]?.delta.content ?? "";
    seen.finish = chunk.choices[0]?.finish_reason ?? seen.finish;
    seen.usage ||= chunk.usage?.total_tokens > 0;
  }
  return seen;
}

async function endpoints(base, key) {
  const openai = client(base, key);
  const checks = {
    models: async () => (await openai.models.list()).data.length > 400,
    // By default this asks for base64, and decodes it.
    embeddings: async () => (await openai.embeddings.create({ model: "acme/embed-small", input: "a" })).data[0].embedding.length,
    floats: async () => (await openai.embeddings.create({ model: "acme/embed-small", input: "a", encoding_format: "float" })).data[0].embedding.length,
    noKey: async () => await client(base, "sk-or-v1-nobody").models.retrieve("none"),
    unknownKey: async () => await client(base, "sk-or-v1-nobody").chat.completions.create({ model: "acme/atlas-70b", messages: [{ role: "user", content: "x" }] }),
  };
  const seen = {};
  for (const [name, check] of Object.entries(checks)) seen[name] = await outcome(check);
  return seen;
}

await run(chat, endpoints);
