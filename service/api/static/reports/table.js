/**
 * One model's reports as a table: a line of numbers each, what it found below, sorted by any column.
 *
 * @typedef {import("./columns.js").Report} Report
 * @typedef {import("./columns.js").Column} Column
 */

import { element } from "../element.js";

const WEIGHTS = {
  same: null,
  other: "of other weights",
  unknown: "of weights not known",
};

/**
 * @param {Report[]} reports in the order in which they stand at first.
 * @param {Column[]} columns
 * @param {{caption: string, open: import("./opening.js").Opening, announce: (text: string) => void, unfolded: boolean}} options
 * @returns {HTMLElement}
 */
export function reportTable(reports, columns, { caption, open, announce, unfolded }) {
  const width = columns.length + 2;
  const groups = reports.map((report) => ({ report, node: group(report, columns, width, open, unfolded) }));
  /** @type {Column[]} */
  const sortable = [{ title: "Version", value: (report) => report.version, write: (report) => report.version }, ...columns];
  const heads = sortable.map((column) =>
    element("th", { scope: "col" }, element("button", { type: "button", class: "sorts", onclick: () => sort(column) }, column.title)),
  );
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, heads, element("th", { scope: "col" }, element("span", { class: "unseen" }, "Open")))),
    groups.map(({ node }) => node),
  );

  /** @param {Column} column */
  function sort(column) {
    const head = heads[sortable.indexOf(column)];
    const falling = head.getAttribute("aria-sort") !== "descending";
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const sorted = [...groups].sort((a, b) => compare(column.value(a.report), column.value(b.report), falling));
    table.append(...sorted.map(({ node }) => node));
    announce(`${caption}, by ${column.title}, ${falling ? "falling" : "rising"}.`);
  }

  const told = columns.filter((column) => column.about).map((column) => `${column.title}: ${column.about}`);
  return element(
    "div",
    {},
    element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": `${caption}, as a table` }, table),
    told.length > 0 && element("p", { class: "quiet small" }, `${told.join(". ")}.`),
  );
}

/**
 * What there is not stands last, whichever way.
 *
 * @param {number | null} a @param {number | null} b @param {boolean} falling
 */
function compare(a, b, falling) {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  if (a === b) return 0;
  return (a < b ? -1 : 1) * (falling ? -1 : 1);
}

/**
 * @param {Report} report @param {Column[]} columns @param {number} width of the table, in cells.
 * @param {import("./opening.js").Opening} open @param {boolean} unfolded
 */
function group(report, columns, width, open, unfolded) {
  const broken = report.state === "broken";
  const told = broken ? null : WEIGHTS[report.weights];
  const head = element(
    "th",
    { scope: "row" },
    `Version ${report.version}`,
    element("span", { class: "quiet name" }, report.name),
    told && element("span", { class: `weights ${report.weights}` }, told),
  );
  if (broken) {
    const [made] = columns;
    return element(
      "tbody",
      { class: "broken" },
      element("tr", {}, head, element("td", {}, made.write(report)), element("td", { class: "wrong", colspan: width - 3 }, `Broken: ${report.reason}`), element("td", {}, open.links(report))),
    );
  }
  return element(
    "tbody",
    {},
    element(
      "tr",
      {},
      head,
      columns.map((column) => element("td", {}, column.write(report))),
      element("td", {}, open.links(report)),
    ),
    element("tr", { class: "found" }, element("td", { colspan: width }, details(report, unfolded))),
  );
}

/** @param {Report} report @param {boolean} unfolded */
function details(report, unfolded) {
  return element(
    "details",
    { open: unfolded },
    element("summary", {}, "What it found"),
    report.weights === "other" && element("p", { class: "wrong" }, "The weights or the network of this version changed since it was made: what serves now may be better or worse."),
    element("ul", {}, report.verdict.map((sentence) => element("li", {}, sentence))),
    element(
      "p",
      { class: "quiet small" },
      `${report.passes} passes, seed ${report.seed}, ${report.masks} masks, ${report.precision}. `,
      rows("Rows", report.data),
      rows("Rows of another kind", report.out_of_distribution_data),
      `Candor ${report.candor}.`,
    ),
  );
}

/** @param {string} title @param {import("./columns.js").Rows | null} data */
function rows(title, data) {
  return data && `${title}: ${data.rows.toLocaleString()} of ${data.name}, SHA-256 ${data.sha256.slice(0, 12)}…. `;
}
