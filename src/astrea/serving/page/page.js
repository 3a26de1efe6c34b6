// The page: a picture, a question, the answer as it comes, and what each expert had to do with it.

import { ask, experts, search } from "./client.js";
import { draw, words } from "./readings.js";

const MOST_SIDE = 2048;
const SUGGESTIONS = ["describe the picture.", "how many things are there?", "what word is printed?"];
const at = (id) => document.getElementById(id);
const state = { picture: null, url: "", readings: {}, off: new Set(), shown: new Set(), running: null, coming: null, names: [], example: false };

function make(tag, more = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), more);
  made.append(...inside);
  return made;
}

function say(message) { at("error").textContent = message; }

// A question waits for the picture that is on its way, or it would be asked about the one before.
function coming(picture) {
  state.coming = picture.catch((error) => say(error.message));
  return state.coming;
}

async function take(blob, name) {
  say("");
  try {
    const bitmap = await createImageBitmap(blob);
    const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    state.picture = canvas;
    // Large photographs as JPEG, or they would take many times as long to send.
    state.url = canvas.width * canvas.height > 500_000 ? canvas.toDataURL("image/jpeg", 0.92) : canvas.toDataURL("image/png");
  } catch {
    say("This file is no picture that the browser can read.");
    return;
  }
  state.readings = {};
  at("drop").classList.remove("empty");
  at("canvas").setAttribute("aria-label", `Picture: ${name}`);
  redraw();
  list({});
}

function redraw() {
  if (!state.picture) return;
  draw(at("canvas"), state.picture, [...state.shown].map((name) => state.readings[name]).filter(Boolean));
}

function list(weights, masking = {}) {
  const rows = state.names.map((name) => {
    const use = make("input", { type: "checkbox", checked: !state.off.has(name) });
    use.setAttribute("aria-label", `Use ${name}`);
    use.addEventListener("change", () => { use.checked ? state.off.delete(name) : state.off.add(name); remember(); });
    const show = make("input", { type: "checkbox", checked: state.shown.has(name), disabled: !placed(state.readings[name]) });
    show.setAttribute("aria-label", `Show what ${name} saw`);
    show.addEventListener("change", () => { show.checked ? state.shown.add(name) : state.shown.delete(name); redraw(); });
    const nameCell = make("td", {}, name);
    if (state.readings[name]) nameCell.append(make("div", { className: "saw", textContent: `saw: ${words(state.readings[name])}` }));
    if (masking[name]) nameCell.append(make("div", { className: "saw", textContent: `without it: ${masking[name].answer || "(nothing)"}` }));
    const weight = weights[name];
    const bar = make("td");
    if (weight !== undefined) {
      const meter = make("meter", { min: 0, max: 1, value: weight });
      meter.setAttribute("aria-label", `Weight of ${name}`);
      bar.append(meter, ` ${Math.round(100 * weight)} %`);
    }
    return make("tr", {}, make("td", {}, use), nameCell, bar, make("td", {}, show));
  });
  at("experts").tBodies[0].replaceChildren(...rows);
}

function placed(reading) { return Boolean(reading && (reading.boxes.length || reading.mask)); }

async function run() {
  await state.coming;
  if (!state.picture) return say("Choose a picture first.");
  state.running?.abort();
  const running = state.running = new AbortController();
  const question = at("question").value.trim();
  const began = performance.now();
  let text = "", weights = {}, masking = {}, first = 0;
  say("");
  at("answer").textContent = "";
  at("counts").textContent = "";
  at("stop").hidden = false;
  at("answer").setAttribute("aria-busy", "true");
  try {
    await ask({
      question,
      picture: state.url,
      astrea: { readings: true, masking: at("masking").checked, without: [...state.off] },
      temperature: Number(at("temperature").value),
      tokens: Number(at("tokens").value),
      signal: running.signal,
      on(chunk) {
        first ||= performance.now() - began;
        text += chunk.choices[0]?.delta?.content ?? "";
        at("answer").textContent = text;
        if (chunk.usage) at("counts").textContent = `${chunk.usage.completion_tokens} tokens; the first after ${Math.round(first)} ms, all after ${Math.round(performance.now() - began)} ms`;
        if (!chunk.astrea?.pictures?.length) return;
        weights = chunk.astrea.pictures[0].gate_weights;
        state.readings = chunk.astrea.pictures[0].readings ?? state.readings;
        masking = chunk.astrea.masking ?? masking;
        list(weights, masking);
        redraw();
      },
    });
    keep(question, text, weights);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  } finally {
    if (state.running === running) {
      state.running = null;
      at("stop").hidden = true;
      at("answer").removeAttribute("aria-busy");
    }
  }
}

function keep(question, text, weights) {
  const off = [...state.off].length ? ` (without ${[...state.off].join(", ")})` : "";
  const again = make("button", { type: "button", textContent: `${question}${off} — ${text}` });
  const kept = { picture: state.picture, url: state.url, readings: state.readings };
  again.addEventListener("click", () => {
    Object.assign(state, kept);
    at("question").value = question;
    at("answer").textContent = text;
    list(weights);
    redraw();
  });
  at("history").prepend(make("li", {}, again));
  while (at("history").children.length > 20) at("history").lastChild.remove();
}

function remember() {
  const kept = new URLSearchParams({ q: at("question").value, t: at("temperature").value, n: at("tokens").value });
  if (state.off.size) kept.set("off", [...state.off].join(","));
  if (state.example) kept.set("example", "1");
  history.replaceState(null, "", `#${kept}`);
}

async function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  at("question").value = kept.get("q") || at("question").value;
  at("temperature").value = kept.get("t") || at("temperature").value;
  at("tokens").value = kept.get("n") || at("tokens").value;
  state.off = new Set((kept.get("off") ?? "").split(",").filter((name) => state.names.includes(name)));
  list({});
  if (kept.has("example") && !at("example").hidden) {
    await coming(showExample());
    await run();
  }
}

async function showExample() {
  const answer = await fetch("example.png");
  if (!answer.ok) return say("There is no example.");
  await take(await answer.blob(), "the example");
  state.example = true;
  remember();
}

async function showHit(src, name) {
  await take(await (await fetch(src)).blob(), name);
}

async function find(wanted) {
  say("");
  try {
    const hits = await search(wanted);
    at("hits").replaceChildren(...hits.map(({ picture, name, score }) => {
      const src = `astrea/pictures/${picture}`;
      const hit = make("button", { type: "button" }, make("img", { src, alt: name, loading: "lazy" }), score.toFixed(2));
      hit.addEventListener("click", () => { state.example = false; coming(showHit(src, name)); });
      return hit;
    }));
  } catch (error) {
    say(error.message);
  }
}

function picked(event) {
  state.example = false;
  const [file] = event.target.files;
  event.target.value = "";
  if (file) coming(take(file, file.name));
}

function listen() {
  at("file").addEventListener("change", picked);
  at("camera").addEventListener("change", picked);
  at("example").addEventListener("click", () => coming(showExample()));
  at("form").addEventListener("submit", (event) => { event.preventDefault(); remember(); run(); });
  at("stop").addEventListener("click", () => state.running?.abort());
  at("share").addEventListener("click", async () => { remember(); await navigator.clipboard?.writeText(location.href); });
  at("search").addEventListener("submit", (event) => { event.preventDefault(); find({ text: at("wanted").value }); });
  at("alike").addEventListener("click", async () => {
    await state.coming;
    return state.url ? find({ image: state.url }) : say("Choose a picture first.");
  });
  const drop = at("drop");
  drop.classList.add("empty");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.toggle("over", kind === "dragover"); });
  }
  const given = (items) => {
    const file = [...(items?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) { state.example = false; coming(take(file, file.name)); }
  };
  document.addEventListener("drop", (event) => given(event.dataTransfer));
  document.addEventListener("paste", (event) => given(event.clipboardData));
  at("suggestions").append(...SUGGESTIONS.map((text) => {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => { at("question").value = text; at("question").focus(); });
    return button;
  }));
}

async function start() {
  listen();
  try {
    const model = await experts();
    at("model").textContent = model.id;
    state.names = model.experts;
    at("example").hidden = !model.example;
    at("gallery").hidden = !model.pictures;
    await recall();
  } catch (error) {
    say(error.message);
  }
}

start();
