// The AI SDK with OpenRouter's provider for it.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { embed, generateText, streamText } from "ai";
import { nameOf, outcome, run } from "./cases.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const provider = (baseURL, apiKey) => createOpenRouter({ baseURL, apiKey });

async function chat({ text, stream, model }, base, key) {
  const asked = { model: provider(base, key).chat(model), prompt: text };
  if (!stream) {
    const answer = await generateText(asked);
    return { text: answer.text, finish: answer.finishReason, usage: answer.usage.totalTokens > 0 };
  }
  const seen = { text: "", finish: null, usage: false };
  for await (const part of streamText({ ...asked, onError: () => {} }).fullStream) {
    if (part.type === "text-delta") seen.text += part.text;
    if (part.type === "error") seen.error = nameOf(part.error);
    if (part.type === "finish") {
      seen.finish = part.finishReason;
      seen.usage = part.totalUsage.totalTokens > 0;
    }
  }
  return seen;
}

async function endpoints(base, key) {
  const router = provider(base, key);
  return {
    embedding: await outcome(async () => (await embed({ model: router.textEmbeddingModel("acme/embed-small"), value: "a" })).embedding.length),
    reasoning: await outcome(async () => {
      const model = router.chat("acme/atlas-70b", { reasoning: { effort: "low" } });
      return (await generateText({ model, prompt: "hello" })).reasoningText.length > 5;
    }),
  };
}

await run(chat, endpoints);
