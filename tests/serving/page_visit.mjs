// Visits the page as a person would; prints what it found as JSON.
// node page_visit.mjs FOLDER_WITH_NODE_MODULES BROWSER URL SCREENSHOT_FOLDER
import { createRequire } from "node:module";

const [modules, executablePath, url, shots] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const found = { requests: [], errors: [], visits: {} };

async function visit(name, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const asked = (count) => page.waitForFunction((n) => document.querySelectorAll("#history li").length === n, count);
  page.on("pageerror", (error) => found.errors.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") found.errors.push(message.text()); });
  page.on("request", (request) => found.requests.push(request.url()));
  // A picture that is slow to come: the question behind it has to wait.
  await page.route("**/example.png", async (route) => { await new Promise((done) => setTimeout(done, 300)); await route.continue(); });
  await page.goto(url);
  await page.getByRole("button", { name: "Example" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("textbox", { name: "Ask about the picture" }).fill("what colour is the cat?");
  await page.keyboard.press("Enter");
  await asked(1);
  const first = await page.textContent("#answer");
  const plain = await page.evaluate(() => document.getElementById("canvas").toDataURL());
  await page.getByLabel("Show what detection saw").focus();
  await page.keyboard.press("Space");
  const drawn = await page.evaluate(() => document.getElementById("canvas").toDataURL());
  await page.getByLabel("Use classification").focus();
  await page.keyboard.press("Space");
  await page.getByRole("textbox", { name: "Ask about the picture" }).fill("describe the picture.");
  await page.keyboard.press("Enter");
  await asked(2);
  const weights = await page.locator("#experts tbody tr").allTextContents();
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  const stop = await page.locator("#stop").isVisible();
  await page.getByRole("textbox", { name: "What they should show" }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#hits button").first().waitFor();
  const hits = await page.locator("#hits button").count();
  await page.evaluate(() => scrollTo(0, 0));
  const clip = { x: 0, y: 0, width: options.viewport.width, height: 700 };
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, clip });
  await page.addScriptTag({ path: axe });
  const problems = await page.evaluate(async () => (await window.axe.run()).violations.map((one) => [one.impact, one.id]));
  found.visits[name] = { first, second: await page.textContent("#answer"), drawn: drawn !== plain, weights, wide, stop, hits, problems, link: page.url() };
  // The last picture that was found is shown in place of the other one, and the ones like it begin with itself.
  const shown = await page.evaluate(() => document.getElementById("canvas").toDataURL());
  const alt = await page.locator("#hits img").last().getAttribute("alt");
  await page.locator("#hits button").last().focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction((before) => document.getElementById("canvas").toDataURL() !== before, shown);
  await page.getByRole("button", { name: "Find ones like the picture" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction((one) => document.querySelector("#hits img")?.alt === one, alt);
  await context.close();
}

// The policy of the page would keep out the tool that judges it.
await visit("page", { viewport: { width: 1200, height: 900 }, bypassCSP: true });
await visit("phone-dark", { viewport: { width: 390, height: 800 }, colorScheme: "dark", bypassCSP: true });
await browser.close();
console.log(JSON.stringify(found));
