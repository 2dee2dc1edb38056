// @openrouter/sdk: every endpoint that it has a method for, and how it takes what goes wrong.
import { OpenRouter } from "@openrouter/sdk";
import { outcome, run } from "./cases.mjs";

const client = (base, apiKey) => new OpenRouter({ apiKey, serverURL: base, httpReferer: "https://lane.invalid/", appTitle: "lane" });

async function chat({ text, stream, model, patient, extra }, base, key) {
  const chatRequest = { model, stream, messages: [{ role: "user", content: text }], ...extra };
  // By itself it would go on for an hour.
  const options = patient ? {} : { retries: { strategy: "none" } };
  const answer = await client(base, key).chat.send({ chatRequest }, options);
  if (!stream) {
    const [choice] = answer.choices;
    return { text: choice.message.content ?? "", finish: choice.finishReason, usage: answer.usage?.totalTokens > 0 };
  }
  const seen = { text: "", finish: null, usage: false };
  for await (const chunk of answer) {
    if (chunk.error) seen.error = chunk.error.code;
    seen.text += chunk.choices[0]?.delta.content ?? "";
    seen.finish = chunk.choices[0]?.finishReason ?? seen.finish;
    seen.usage ||= chunk.usage?.totalTokens > 0;
  }
  return seen;
}

async function endpoints(base, key) {
  const router = client(base, key);
  const send = (chatRequest) => router.chat.send({ chatRequest: { model: "acme/atlas-70b", ...chatRequest } });
  const pages = async (pager) => {
    let count = 0;
    for await (const page of pager) count += page.result.data.length;
    return count;
  };
  const user = (content) => [{ role: "user", content }];
  const tools = [{ type: "function", function: { name: "look", parameters: { type: "object", properties: { at: { type: "integer" } }, required: ["at"] } } }];
  const checks = {
    models: async () => pages(await router.models.list({ limit: 200, outputModalities: "all" })),
    user: async () => pages(await router.models.listForUser({ bearer: key })),
    count: async () => (await router.models.count({ outputModalities: "all" })).data.count,
    model: async () => (await router.models.get({ author: "~acme", slug: "atlas-latest" })).data.id,
    endpoints: async () => (await router.endpoints.list({ author: "acme", slug: "atlas-70b" })).data.endpoints.length,
    zdr: async () => (await router.endpoints.listZdrEndpoints()).data.length > 100,
    providers: async () => (await router.providers.list()).data.length,
    key: async () => (await router.apiKeys.getCurrentKeyMetadata()).data.limit,
    credits: async () => (await client(base, "sk-or-v1-sim-mgmt").credits.getCredits()).data.totalCredits,
    noCredits: async () => await router.credits.getCredits(),
    activity: async () => (await client(base, "sk-or-v1-sim-mgmt").analytics.getUserActivity()).data.length > 0,
    generation: async () => {
      const { id } = await send({ messages: user("hello"), user: "u-1" });
      return (await router.generations.getGeneration({ id })).data.externalUser;
    },
    tools: async () => {
      const [choice] = (await send({ messages: user("call:look"), tools })).choices;
      return [choice.finishReason, choice.message.toolCalls[0].function.arguments];
    },
    toolStream: async () => {
      let text = "";
      for await (const chunk of await send({ messages: user("call:look"), tools, stream: true })) {
        text += chunk.choices[0]?.delta.toolCalls?.[0]?.function?.arguments ?? "";
      }
      return text;
    },
    reasoning: async () => {
      const answer = await send({ messages: user("hello"), reasoning: { effort: "low" } });
      const { message } = answer.choices[0];
      return [message.reasoning.length > 5, message.reasoningDetails[0].type, answer.usage.completionTokensDetails.reasoningTokens > 2];
    },
    encrypted: async () => (await send({ model: "sim/reasoning-encrypted", messages: user("hello") })).choices[0].message.reasoningDetails[0].type,
    schema: async () => {
      const schema = { type: "object", properties: { n: { type: "integer", minimum: 3, maximum: 3 } }, required: ["n"] };
      const responseFormat = { type: "json_schema", jsonSchema: { name: "n", schema } };
      return (await send({ messages: user("hello"), responseFormat })).choices[0].message.content;
    },
    search: async () => (await send({ messages: user("news"), plugins: [{ id: "web" }] })).usage.serverToolUseDetails.webSearchRequests,
    embeddings: async () => {
      const answer = await router.embeddings.generate({ requestBody: { model: "acme/embed-small", input: ["a", "b"] } });
      return answer.data.map((one) => one.embedding.length);
    },
    embeddingModels: async () => pages(await router.embeddings.listModels()),
    images: async () => (await router.images.generate({ imageGenerationRequest: { model: "acme/atlas-image", prompt: "sea" } })).data[0].b64Json.slice(0, 11),
    imageModels: async () => (await router.images.listModels()).data.length,
    rerank: async () => {
      const requestBody = { model: "acme/rerank-1", query: "b", documents: ["a", "b"] };
      return (await router.rerank.rerank({ requestBody })).results.map((one) => one.index);
    },
    benchmarks: async () => (await router.benchmarks.getBenchmarks()).data.length,
    rankings: async () => (await router.datasets.getRankingsDaily()).data.length,
    apps: async () => pages(await router.datasets.getAppRankings()),
    tasks: async () => (await router.classifications.getTaskClassifications()).data.classifications.length,
    noKey: async () => await client(base, "").chat.send({ chatRequest: { model: "acme/atlas-70b", messages: user("x") } }, { retries: { strategy: "none" } }),
  };
  const seen = {};
  for (const [name, check] of Object.entries(checks)) seen[name] = await outcome(check);
  return seen;
}

await run(chat, endpoints);
