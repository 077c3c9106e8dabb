/**
 * Reports: what `candor report` measured of the versions, side by side and to be opened.
 *
 * @typedef {import("./columns.js").Report} Report
 */

import { Problem, Unreachable } from "../api.js";
import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { newestWins } from "../latest.js";
import { choicesOf, columnsOf } from "./columns.js";
import { firstReport } from "./first_report.js";
import { openPanel } from "./opening.js";
import { reportTable } from "./table.js";

const LOOK_MS = 10_000;
const PAGE = 500;
/** Of them all; whoever has more asks the API. */
const MOST = 2000;
const FORBIDDEN = 403;

/** @type {import("../tabs.js").Mount} */
export function mount(container, context) {
  const { api, connection, announce } = context;
  const gone = new AbortController();
  const options = { signal: gone.signal };
  const note = element("div", { role: "status" });
  const body = element("div", { class: "reports" }, element("p", { class: "quiet" }, "Loading the reports…"));
  const open = openPanel(api, options, note);
  let timer = 0;
  /** What is shown, as it came. */
  let shown = "";
  /** What went wrong, as it was said. */
  let said = "";
  /** @type {string[]} */
  let names = [];
  /** What is chosen stays while reports come and go. */
  const choice = { model: context.place, method: "mc_dropout", score: "", serving: false };

  replace(
    container,
    element("h1", {}, "Does its doubt hold?"),
    element("p", { class: "lead" }, "A report measures a version on rows that training never saw: how often it is right, whether its doubt tells where it errs, and what that is worth beside the same network without dropout."),
    note,
    body,
  );

  const load = newestWins(look);

  async function look() {
    clearTimeout(timer);
    if (gone.signal.aborted) return;
    try {
      if (shown === "") names = (await api.get("models", options)).models.map((/** @type {any} */ model) => model.name);
      const found = await all();
      if (gone.signal.aborted) return;
      const now = JSON.stringify(found);
      if (now !== shown) show(found);
      shown = now;
      said = "";
    } catch (error) {
      if (gone.signal.aborted) return;
      // While the server is away, what it said last stays; the banner says that it is.
      if (!(error instanceof Unreachable && shown)) fail(error);
      // Another look does not widen what a token may.
      if (error instanceof Problem && error.status === FORBIDDEN) return;
    }
    wait();
  }

  /** Say it once, not at every look. @param {any} error */
  function fail(error) {
    shown = "";
    if (error.message === said) return;
    failed(body, error);
    said = error.message;
    if (!(error instanceof Problem && error.status === FORBIDDEN)) return;
    body.append(element("div", { class: "buttons" }, element("button", { type: "button", onclick: () => api.askForToken().then(load) }, "Use another token")));
  }

  function wait() {
    timer = setTimeout(() => (document.hidden ? wait() : load()), LOOK_MS);
  }

  /** @returns {Promise<{reports: Report[], next: string | null, warnings: string[]}>} */
  async function all() {
    /** @type {Report[]} */
    const reports = [];
    let next = null;
    for (;;) {
      const after = next === null ? "" : `&after=${encodeURIComponent(next)}`;
      const page = await api.get(`reports?limit=${PAGE}${after}`, options);
      reports.push(...page.reports);
      next = page.next;
      if (next === null || reports.length >= MOST) return { reports, next, warnings: page.warnings };
    }
  }

  /** @param {{reports: Report[], next: string | null, warnings: string[]}} found */
  function show({ reports, next, warnings }) {
    const lists = element("div", {});
    const choices = choicesOf(reports);
    const several = new Set(reports.map((report) => report.model));
    if (!several.has(choice.model)) choice.model = "";
    if (!choices.methods.has(choice.method)) choice.method = [...choices.methods.keys()][0] ?? "";
    if (!choices.scores.has(choice.score)) choice.score = choices.score;

    function list() {
      const wanted = reports.filter(
        (report) => (!choice.model || report.model === choice.model) && (!choice.serving || report.weights === "same"),
      );
      const models = [...new Set(wanted.map((report) => report.model))];
      replace(
        lists,
        models.map((model) => section(model, wanted.filter((report) => report.model === model), models.length)),
        wanted.length === 0 && reports.length > 0 && element("p", {}, "No report is of the weights that serve now."),
      );
    }

    /** @param {string} model @param {Report[]} own @param {number} count of models. */
    function section(model, own, count) {
      const files = new Set(own.map((report) => report.data?.sha256).filter(Boolean));
      return element(
        "section",
        { class: "card", "aria-label": `Reports of ${model}` },
        element("h2", {}, model),
        files.size > 1 && element("p", { class: "quiet small" }, "Not all were made with the same rows: compare those that were."),
        reportTable(own, columnsOf(own, choice.method, choice.score), { caption: `Reports of ${model}`, open, announce, unfolded: count === 1 && own.length === 1 }),
      );
    }

    /** @param {string} key @param {any} value */
    function choose(key, value) {
      Object.assign(choice, { [key]: value });
      if (key === "model") context.moveTo(value);
      list();
    }

    const focused = document.activeElement?.id;
    replace(
      body,
      warnings.length > 0 && element("ul", { class: "wrong" }, warnings.map((warning) => element("li", {}, warning))),
      next !== null && element("p", { class: "wrong" }, `There are more than these ${reports.length}: GET /reports lists all.`),
      reports.length > 0 &&
        element(
          "div",
          { class: "fields" },
          several.size > 1 && chooser("Model", "model", new Map([["", "all"], ...[...several].map((name) => [name, name])]), choice.model, choose),
          choices.methods.size > 1 && chooser("Predicting by", "method", choices.methods, choice.method, choose),
          choices.scores.size > 1 && chooser("Telling strange rows by", "score", choices.scores, choice.score, choose),
          reports.some((report) => report.weights !== "same") &&
            element(
              "label",
              {},
              element("input", { type: "checkbox", checked: choice.serving, onchange: (/** @type {any} */ event) => choose("serving", event.target.checked) }),
              " only of the weights that serve now",
            ),
        ),
      reports.length > 0 && open.note(),
      lists,
      firstReport(names.find((name) => !several.has(name)) ?? names[0], reports.length === 0, announce),
    );
    list();
    // Whoever chooses goes on choosing while reports come and go.
    if (focused) document.getElementById(focused)?.focus();
    announce(reports.length === 1 ? "One report." : `${reports.length} reports.`);
  }

  connection.addEventListener("back", load, options);
  load();
  return () => {
    gone.abort();
    clearTimeout(timer);
  };
}

/**
 * @param {string} title @param {string} key @param {Map<string, string>} values their titles by value.
 * @param {string} chosen @param {(key: string, value: string) => void} choose
 */
function chooser(title, key, values, chosen, choose) {
  const id = `reports-${key}`;
  return element(
    "div",
    { class: "field" },
    element("label", { for: id }, title),
    element(
      "select",
      { id, onchange: (/** @type {any} */ event) => choose(key, event.target.value) },
      [...values].map(([value, shown]) => element("option", { value, selected: value === chosen }, shown)),
    ),
  );
}
