// Looks at pages as people do, in one browser, and prints what it saw as JSON.
// Stdin: {chromium, axe, views: [{name, page, width, dark, script, axe, inPictures, shots, keys, paper}]}.
const fs = require("fs");
const { chromium } = require("playwright-core");

const openAll = () => document.querySelectorAll("details").forEach((d) => { d.open = true; });

const seen = {
  // Nothing but the file itself is asked for, nothing is complained of.
  async quiet(page, view) {
    return page.evaluate(() => ({
      height: document.documentElement.scrollHeight,
      sideways: document.documentElement.scrollWidth > window.innerWidth,
      dark: matchMedia("(prefers-color-scheme: dark)").matches,
      hiddenForms: [...document.querySelectorAll("form")].filter((f) => f.hidden).length,
      charts: [...document.querySelectorAll(".chart")].filter((c) => c.checkVisibility()).map((c) => {
        const svg = [...c.querySelectorAll("svg")].find((s) => s.checkVisibility());
        return { cropped: c.scrollWidth > c.clientWidth, scale: svg.getBoundingClientRect().width / svg.viewBox.baseVal.width };
      }),
    }));
  },
  async axe(page, view, job) {
    await page.evaluate(openAll);
    await page.addScriptTag({ content: fs.readFileSync(job.axe, "utf8") });
    return page.evaluate(async () => {
      const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
      const found = await axe.run(document, { resultTypes: ["violations", "incomplete"], runOnly: tags });
      const plain = (v) => v.nodes.map((n) => `${v.id}: ${n.html.slice(0, 160)} ${n.any.map((a) => a.message).join()}`);
      return {
        passes: found.passes.length,
        violations: found.violations.flatMap(plain),
        // It does not judge the words of pictures; `inPictures` does.
        contrast: found.incomplete.filter((v) => v.id === "color-contrast")
          .map((v) => ({ ...v, nodes: v.nodes.filter((n) => !n.html.startsWith("<text")) })).flatMap(plain),
      };
    });
  },
  // Contrast of each word in a picture with what lies beneath it, where that is below 4.5.
  async inPictures(page) {
    await page.evaluate(openAll);
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ width: page.viewportSize().width, height });
    return page.evaluate(() => {
      const numbers = (color) => color.match(/[\d.]+/g).map(Number);
      const light = (color) => {
        const [r, g, b] = numbers(color).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const panel = getComputedStyle(document.querySelector(".chart")).backgroundColor;
      const words = [...document.querySelectorAll(".chart text")].filter((t) => t.textContent.trim() && t.checkVisibility());
      const weak = words.map((t) => {
        const box = t.getBoundingClientRect();
        const under = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2).filter((e) => e.matches("rect, path"))
          .map((e) => getComputedStyle(e)).find((s) => s.fill.startsWith("rgb(") && Number(s.fillOpacity) * Number(s.opacity) > 0.9);
        const [a, b] = [light(getComputedStyle(t).fill), light(under ? under.fill : panel)].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), t.textContent];
      });
      return { words: words.length, weak: weak.filter(([contrast]) => contrast < 4.5) };
    });
  },
  // Every stop of the Tab key, and what Enter and Escape do at three of them.
  async keys(page) {
    const focus = () => page.evaluate(() => {
      const e = document.activeElement, style = getComputedStyle(e);
      return { tag: e.tagName, text: (e.textContent || e.getAttribute("aria-label") || "").trim().slice(0, 60), cls: e.className,
        ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0, inside: e.checkVisibility() };
    });
    const stops = [];
    await page.keyboard.press("Tab");
    stops.push(await focus());
    await page.keyboard.press("Enter");
    const skipped = await page.evaluate(() => location.hash);
    let sorted = "", filtered = "", opened = false, closed = true, unfolded = false;
    for (let k = 0; k < 400; k++) {
      await page.keyboard.press("Tab");
      const stop = await focus();
      if (stop.tag === "BODY") break;
      stops.push(stop);
      if (!sorted && stop.tag === "BUTTON" && stop.text.startsWith("Accuracy lost")) {
        await page.keyboard.press("Enter");
        sorted = await page.evaluate(() => location.hash);
      }
      if (!filtered && stop.tag === "SELECT") {  // the second choice, and back to all
        await page.keyboard.press("ArrowDown");
        filtered = await page.evaluate(() => document.querySelector("[role=status]").textContent);
        await page.keyboard.press("Home");
      }
      if (!opened && stop.cls.startsWith("cell")) {
        await page.keyboard.press("Enter");
        opened = await page.evaluate(() => !!document.querySelector(":popover-open"));
        await page.keyboard.press("Escape");
        closed = await page.evaluate(() => !document.querySelector(":popover-open"));
      }
      if (!unfolded && stop.tag === "SUMMARY") {
        await page.keyboard.press("Enter");
        unfolded = await page.evaluate(() => document.activeElement.parentElement.open);
        await page.keyboard.press("Enter");
      }
      if (sorted && opened && unfolded && k > 120) break;
    }
    return { skipped, sorted, filtered, opened, closed, unfolded, ringless: stops.filter((s) => !s.ring || !s.inside), count: stops.length };
  },
  // As printed: pages, and whatever is wider than its sheet.
  async paper(page) {
    const printed = await page.pdf({ preferCSSPageSize: true });
    const pages = (printed.toString("latin1").match(/\/Type\s*\/Page\b/g) || []).length;
    await page.emulateMedia({ media: "print" });
    await page.setViewportSize({ width: 690, height: 1000 });  // A4 less the margins
    const cut = await page.evaluate(() => {
      const wide = (e) => e.closest("#defenses, #comparison") ? 1020 : 690;
      return [...document.querySelectorAll("table, svg, img, p, dl")]
        .filter((e) => e.checkVisibility({ contentVisibilityAuto: true }) && e.getBoundingClientRect().right > wide(e) + 1)
        .map((e) => `${e.tagName} ${e.className} in ${e.closest("section")?.id}: ${Math.round(e.getBoundingClientRect().right)}`);
    });
    return { pages, cut };
  },
  // Without scripts: everything that stands there, and a trial opened by a click.
  async reading(page) {
    const sections = page.locator("main > section");
    const shown = await sections.evaluateAll((all) => all.filter((s) => s.checkVisibility() && s.innerText.length > 10).length);
    const forms = await page.locator("form:visible").count();
    const cells = page.locator("button.cell");
    if (await cells.count()) await cells.first().click();
    return { sections: await sections.count(), shown, forms, opened: await page.locator(".trial:visible").count() === 1 };
  },
  async shots(page, view) {
    for (const [id, file] of Object.entries(view.shots)) {
      if (id === "all") await page.screenshot({ path: file, fullPage: true });
      else await page.locator(`#${id}`).screenshot({ path: file });
    }
    return Object.keys(view.shots);
  },
};

(async () => {
  const job = JSON.parse(fs.readFileSync(0, "utf8"));
  const browser = await chromium.launch({ executablePath: job.chromium, args: ["--no-sandbox", "--disable-gpu"] });
  const out = {};
  for (const view of job.views) {
    const context = await browser.newContext({
      viewport: { width: view.width, height: 900 },
      colorScheme: view.dark ? "dark" : "light",
      javaScriptEnabled: view.script !== false,
      bypassCSP: Boolean(view.axe),  // axe is no part of the page; all else runs under its policy
      deviceScaleFactor: view.scale || 1,
    });
    const page = await context.newPage();
    const requests = [], complaints = [];
    page.on("request", (r) => { if (!r.url().startsWith("data:") && r.url() !== view.page) requests.push(r.url()); });
    page.on("console", (m) => complaints.push(m.text()));
    page.on("pageerror", (e) => complaints.push(String(e)));
    page.on("dialog", (d) => { complaints.push(`dialog: ${d.message()}`); d.dismiss(); });
    const session = await context.newCDPSession(page);
    await session.send("Performance.setTimeDomain", { timeDomain: "threadTicks" });  // others' work does not count
    await session.send("Performance.enable");
    const start = performance.now();
    await page.goto(view.page, { waitUntil: "load" });
    const opened = performance.now() - start;
    const { metrics } = await session.send("Performance.getMetrics");
    const cpu = 1000 * metrics.find((m) => m.name === "TaskDuration").value;
    const result = { opened, cpu, title: await page.title(), requests, complaints };
    if (view.script !== false) result.quiet = await seen.quiet(page, view);
    for (const what of ["keys", "shots", "axe", "inPictures", "paper", "reading"]) {
      if (view[what]) result[what] = await seen[what](page, view, job);
    }
    out[view.name] = result;
    await context.close();
  }
  await browser.close();
  console.log(JSON.stringify(out));
})().catch((error) => { console.error(error); process.exit(1); });
