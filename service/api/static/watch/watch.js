/**
 * Watch: what the server is asked now, how it answers, and how sure it is, by model and version.
 *
 * It looks at what anybody's Prometheus may look at, gently and only while somebody sees it. What it
 * saw stays with the page for some minutes, whichever tab is shown.
 */

import { Problem, Unreachable } from "../api.js";
import { element, replace } from "../element.js";
import { snippetPanel, snippetsOf } from "../snippets.js";
import { NotMetrics } from "./exposition.js";
import { History, sumOf } from "./history.js";
import { modelView } from "./model_view.js";
import { overview } from "./overview.js";
import { readingOf } from "./reading.js";
import { rowsOf } from "./rows.js";
import { versionTable } from "./version_table.js";

const EVERY_MS = 2000;
/** Looks at the metrics to one at the list of models, which also follows when a version comes or goes. */
const LOOKS = 5;
const MINUTE_MS = 60_000;
const MINUTES = [1, 5, 15];
const FIRST_MINUTES = 5;

const history = new History(Math.max(...MINUTES) * MINUTE_MS);
/** By their names; null as long as they are not known. @type {Map<string, any> | null} */
let models = null;

/** @type {import("../tabs.js").Mount} */
export function mount(container, context) {
  const { api, connection, announce } = context;
  const gone = new AbortController();
  const options = { signal: gone.signal };
  let described = "";
  let said = "";
  let looks = 0;
  let chosen = context.place;
  let looking = false;
  let paused = false;
  let timer = 0;

  const minutes = element("select", { id: "watch-minutes", onchange: show }, MINUTES.map((each) => element("option", { value: each, selected: each === FIRST_MINUTES }, each === 1 ? "minute" : `${each} minutes`)));
  const pause = element("button", { type: "button", "aria-pressed": "false", onclick: turn }, "Pause");
  const status = element("span", { class: "quiet small" }, "Looking at the server…");
  const trouble = element("div", {});
  const unnamed = element("p", { class: "quiet small" });
  const tiles = overview();
  const table = versionTable(choose);
  const view = modelView({ onempty: nothing });
  const body = element("div", { hidden: true }, tiles.node, unnamed, table.node, view.node);

  replace(
    container,
    element(
      "div",
      { class: "watch" },
      element("h1", {}, "What is it asked, and how does it go?"),
      element(
        "p",
        { class: "lead" },
        "Every version of every model beside the others: requests, their time, failures, batches, and whether its doubt still is what it was when the version was calibrated.",
      ),
      element("div", { class: "fields chooser" }, element("label", { for: "watch-minutes" }, "The last"), minutes, pause, status),
      trouble,
      body,
    ),
  );

  async function look() {
    clearTimeout(timer);
    if (looking || paused || document.hidden || gone.signal.aborted) return;
    looking = true;
    let wait = EVERY_MS;
    try {
      const [metrics, stats] = await Promise.all([text("metrics"), text("v2/models/stats")]);
      const reading = readingOf(metrics, statistics(stats), Date.now());
      await describe(reading);
      if (gone.signal.aborted) return;
      take(reading);
      replace(trouble);
      said = "";
    } catch (error) {
      if (gone.signal.aborted) return;
      wait = failed(error);
    } finally {
      looking = false;
    }
    if (wait < Infinity) timer = setTimeout(look, wait);
  }

  /** @param {string} path */
  async function text(path) {
    const answer = await api.ask("GET", path, undefined, options);
    try {
      return await answer.text();
    } catch (error) {
      if (gone.signal.aborted) throw error;
      // It was lost while it answered.
      connection.fails();
      throw new Unreachable();
    }
  }

  /** Learn of the models again where that is due. @param {import("./reading.js").Reading} reading */
  async function describe(reading) {
    const now = JSON.stringify([reading.started, ...[...reading.versions].map(([key, { ready, stale }]) => [key, ready, stale])]);
    looks = (looks + 1) % LOOKS;
    if (now === described && looks !== 0) return;
    try {
      const found = (await api.get("models", options)).models;
      models = new Map(found.map((/** @type {any} */ model) => [model.name, model]));
      unnamed.textContent = "";
    } catch (error) {
      // Whoever may read the metrics may not read everything.
      if (!(error instanceof Problem && error.status === 403)) throw error;
      models = null;
      unnamed.textContent = `Labels, reasons and calibrations are not shown: ${error.message}`;
    }
    described = now;
  }

  /** @param {import("./reading.js").Reading} reading */
  function take(reading) {
    const before = history.last;
    const step = history.add(reading);
    if (step?.restarted) announce("The server was started again; it counts from nothing.");
    else if (step && before) {
      const come = [...reading.versions].filter(([key]) => !before.versions.has(key));
      const left = [...before.versions].filter(([key]) => !reading.versions.has(key));
      const each = (/** @type {typeof come} */ those, /** @type {string} */ verb) => those.map(([, { model, version }]) => `${model} version ${version} ${verb}.`);
      const all = [...each(come, "came"), ...each(left, "left")];
      if (all.length > 0) announce(all.join(" "));
    }
    show();
  }

  function show() {
    const reading = history.last;
    if (reading === null) return;
    const ms = Number(minutes.value) * MINUTE_MS;
    const steps = history.within(ms);
    const rows = rowsOf(reading.versions, models, steps);
    if (chosen === "") chosen = busiest(rows);
    body.hidden = false;
    tiles.update(reading, steps);
    table.update(rows, chosen);
    const marks = steps.filter((step) => step.restarted).map((step) => step.time);
    view.node.hidden = chosen === "";
    if (chosen !== "") {
      const own = rows.filter((row) => row.model === chosen);
      view.update(chosen, models?.get(chosen)?.description ?? "", own, steps, { from: reading.time - ms, to: reading.time, marks });
    }
    status.textContent = `${paused ? "Paused. " : ""}Looked at ${clock(reading.time)}, every ${EVERY_MS / 1000} seconds; began at ${clock(history.began)}.`;
  }

  /** @param {string} model */
  function choose(model) {
    chosen = model;
    context.moveTo(model);
    announce(`${model} is shown.`);
    show();
  }

  function turn() {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    show();
    look();
  }

  /** What there is to see of a model that nobody asked. @param {string} name @param {boolean} exists */
  function nothing(name, exists) {
    if (!exists) return element("p", {}, `There is no model ${name} now.`);
    const snippets = snippetPanel(announce);
    const place = element("div", {});
    fill();
    return element(
      "div",
      {},
      element("p", {}, `Nobody asked ${name} for anything in these minutes. `, element("a", { href: `#try/${encodeURIComponent(name)}` }, "Try it by hand"), ", or send it something:"),
      place,
    );

    async function fill() {
      const model = models?.get(name);
      if (!model?.input) return;
      let row = zeros(model.input.shape);
      try {
        row = (await api.get(`models/${encodeURIComponent(name)}/example`, options)).inputs[0];
      } catch (error) {
        // Without an example zeros have to do; what else is wrong is said elsewhere.
        if (!(error instanceof Problem || error instanceof Unreachable || gone.signal.aborted)) throw error;
      }
      if (gone.signal.aborted) return;
      snippets.show(snippetsOf({ address: api.address(""), model: name, version: null, row, passes: model.passes, seed: model.seed, token: api.hasToken }));
      replace(place, snippets.node);
    }
  }

  /** Says what went wrong. @param {unknown} error @returns {number} milliseconds until it is tried again. */
  function failed(error) {
    if (!(error instanceof Problem || error instanceof Unreachable || error instanceof NotMetrics)) throw error;
    const refused = error instanceof Problem && error.status === 403;
    // Said once, not at every look.
    if (error.message !== said) {
      replace(
        trouble,
        element("p", { class: "wrong", role: "alert" }, error.message),
        history.last !== null && element("p", { class: "quiet small" }, "What stands below was seen before."),
        refused && element("button", { type: "button", onclick: otherToken }, "Use another token"),
      );
    }
    said = error.message;
    status.textContent = "";
    if (refused) return Infinity;
    return Math.max(EVERY_MS, 1000 * ((error instanceof Problem && error.retryAfter) || 0));
  }

  async function otherToken() {
    await api.askForToken();
    look();
  }

  connection.addEventListener("back", look, options);
  document.addEventListener("visibilitychange", look, options);
  show();
  look();
  return () => {
    gone.abort();
    clearTimeout(timer);
  };
}

/** @param {string} text of GET /v2/models/stats. @returns {any} @throws {NotMetrics} */
function statistics(text) {
  try {
    const found = JSON.parse(text);
    if (Array.isArray(found?.model_stats)) return found;
  } catch {
    // Said below.
  }
  throw new NotMetrics("What the server says of its models' batches cannot be read.");
}

/** The model that was asked most since the server's start, or the first one. @param {import("./rows.js").Row[]} rows */
function busiest(rows) {
  let most = { model: rows[0]?.model ?? "", count: 0 };
  for (const { model, reading } of rows) {
    const count = reading === null ? 0 : sumOf(reading.codes);
    if (count > most.count) most = { model, count };
  }
  return most.model;
}

/** One row of zeros; a dimension that may vary is 1. @param {number[]} shape @returns {any} */
function zeros([size, ...rest]) {
  if (size === undefined) return 0;
  return Array.from({ length: size === -1 ? 1 : size }, () => zeros(rest));
}

/** @param {number} time */
function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB");
}
