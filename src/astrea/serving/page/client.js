// Talks to the server: one streamed chat completion, and what the server says of itself.

export async function experts() {
  const answer = await fetch("v1/models");
  if (!answer.ok) throw new Error(await reason(answer));
  return (await answer.json()).data[0];
}

export async function ask({ question, picture, astrea, temperature, tokens, signal, on }) {
  const content = [{ type: "image_url", image_url: { url: picture } }, { type: "text", text: question }];
  const answer = await fetch("v1/chat/completions", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      messages: [{ role: "user", content }],
      stream: true,
      stream_options: { include_usage: true },
      temperature,
      max_tokens: tokens,
      astrea,
    }),
  });
  if (!answer.ok) throw new Error(await reason(answer));
  for await (const chunk of events(answer.body)) {
    if (chunk.error) throw new Error(chunk.error.message);
    on(chunk);
  }
}

export async function search(wanted) {
  const answer = await fetch("astrea/search", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(wanted),
  });
  if (!answer.ok) throw new Error(await reason(answer));
  return (await answer.json()).data;
}

async function reason(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered with status ${answer.status}`;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const lines = held.split("\n\n");
    held = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
    }
  }
}
