/**
 * A row for each version of each model: what it was asked in the last minutes, and how that went.
 */

import { element, replace } from "../element.js";
import { rounded } from "../numbers.js";
import { quantile } from "./distribution.js";
import { drifts, flagsMany, mostDrifted, seenEnough } from "./drift.js";
import { showEach } from "./keyed.js";
import { meanRows } from "./rows.js";
import { duration, percent, spoken } from "./words.js";

/** @typedef {import("./rows.js").Row} Row */

/** From so many rows on there is something to find them by. */
const MANY = 8;

/** What stands in a cell, and whether it is worth a look. @typedef {{text: string, wrong?: boolean, title?: string}} Cell */

/** @type {[string, (row: Row) => Cell][]} */
const COLUMNS = [
  ["Requests", (row) => ({ text: row.requests.toLocaleString("en") })],
  ["4xx", (row) => ({ text: row.refused.toLocaleString("en") })],
  ["5xx", (row) => ({ text: row.failed > 0 ? `${row.failed.toLocaleString("en")} (${percent(row.failed / row.requests)})` : "0", wrong: row.failed > 0 })],
  ["Median", (row) => ({ text: time(row, 0.5) })],
  ["99th", (row) => ({ text: time(row, 0.99) })],
  ["Rows a batch", (row) => ({ text: rounded(meanRows(row.batches) ?? NaN, 2) })],
  ["Flagged", flagged],
  ["Drift", drift],
];

/**
 * @param {(model: string) => void} choose
 */
export function versionTable(choose) {
  const filter = element("input", { type: "search", id: "watch-filter", oninput: () => show(), autocomplete: "off", spellcheck: "false" });
  const asked = element("input", { type: "checkbox", id: "watch-asked", onchange: () => show() });
  const tools = element(
    "div",
    { class: "fields tools", hidden: true },
    element("div", { class: "field" }, element("label", { for: "watch-filter" }, "Models whose name holds"), filter),
    element("div", {}, asked, " ", element("label", { for: "watch-asked" }, "only those that were asked")),
  );
  const body = element("tbody", {});
  const none = element("p", { class: "quiet small", hidden: true });
  /** @type {Map<string, {node: HTMLElement, button: HTMLElement, update: (row: Row, first: boolean) => void}>} */
  const lines = new Map();
  /** @type {Row[]} */
  let rows = [];
  let chosen = "";

  function show() {
    tools.hidden = rows.length <= MANY;
    const part = tools.hidden ? "" : filter.value.trim().toLowerCase();
    const seen = rows.filter((row) => row.model.toLowerCase().includes(part) && !(asked.checked && !tools.hidden && row.requests === 0));
    showEach(body, lines, seen, (row) => newLine(row, choose), (line, row, k) => {
      line.update(row, k === 0 || seen[k - 1].model !== row.model);
      line.button.setAttribute("aria-pressed", String(row.model === chosen));
      line.node.classList.toggle("chosen", row.model === chosen);
    });
    none.hidden = seen.length > 0;
    none.textContent = rows.length > 0 ? "No model is like that." : "There is no model yet: put one into the folder of models and load it.";
  }

  return {
    node: element(
      "section",
      { "aria-labelledby": "watch-versions" },
      element("h2", { id: "watch-versions" }, "Versions"),
      tools,
      element(
        "div",
        { class: "scrolls versions", tabindex: 0, role: "region", "aria-label": "Table of versions" },
        element(
          "table",
          {},
          element(
            "thead",
            {},
            element("tr", {}, ["Model", "Version", ...COLUMNS.map(([title]) => title)].map((title) => element("th", { scope: "col" }, title))),
          ),
          body,
        ),
      ),
      none,
      element(
        "p",
        { class: "quiet small" },
        "Requests of the last minutes as far as this page watched. Times are estimates: requests are counted between fixed bounds, and taken as spread evenly between two of them. Flagged and drift are of the last rows of a calibrated version; marked where they are above 25 % and 0.25 in 500 rows or more.",
      ),
    ),

    /** @param {Row[]} now @param {string} model that is looked at. */
    update(now, model) {
      rows = now;
      chosen = model;
      show();
    },
  };
}

/** @param {Row} row @param {(model: string) => void} choose */
function newLine(row, choose) {
  const button = element("button", { type: "button", onclick: () => choose(row.model) }, row.model);
  const version = element("td", { class: "version" });
  const cells = COLUMNS.map(() => element("td", { class: "number" }));
  const node = element("tr", {}, element("th", { scope: "row" }, button), version, cells);
  return {
    node,
    button,
    /** @param {Row} now @param {boolean} first of its model. */
    update(now, first) {
      node.classList.toggle("first", first);
      replace(version, now.version || "none", stateOf(now));
      COLUMNS.forEach(([, of], k) => {
        const { text, wrong = false, title = "" } = of(now);
        if (cells[k].textContent !== text) cells[k].textContent = text;
        cells[k].classList.toggle("wrong", wrong);
        if (title) cells[k].title = title;
        else cells[k].removeAttribute("title");
      });
    },
  };
}

/** @param {Row} row */
function stateOf(row) {
  const words = row.called.filter((each) => each !== "default");
  if (row.state !== "" && row.state !== "ready") words.push(row.state);
  if (words.length === 0) return null;
  return element("span", { class: row.state === "failed" ? "wrong small" : "quiet small" }, ` ${words.join(", ")}`);
}

/** @param {Row} row @param {number} share */
function time(row, share) {
  const found = row.seconds && quantile(row.seconds, share);
  if (!found) return "–";
  return `${found.beyond ? "over " : ""}${duration(found.value)}`;
}

/** @param {Row} row @returns {Cell} */
function flagged(row) {
  const share = row.reading?.flagged ?? null;
  return share === null || row.reading?.driftRows === 0 ? { text: "–" } : { text: percent(share), wrong: flagsMany(row) };
}

/** @param {Row} row @returns {Cell} */
function drift(row) {
  const most = mostDrifted(row);
  if (most === null) return { text: "–" };
  return { text: seenEnough(row) ? rounded(most.index, 2) : "few rows", wrong: drifts(row), title: `${spoken(most.measure)}: ${rounded(most.index)} over ${row.reading?.driftRows} rows` };
}
