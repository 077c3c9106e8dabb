/**
 * A report as a whole: its page in a tab of its own, its numbers as a file.
 *
 * A page is whatever lies in the repository. The server gives it a policy under which it runs
 * nothing and is of no origin, so it is opened from there and never shown within this page.
 *
 * @typedef {import("./columns.js").Report} Report
 *
 * @typedef {object} Opening
 * @property {(report: Report) => Node} links
 * @property {() => Node | null} note what to know before one is opened.
 */

import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { save } from "../saving.js";

/** After so long a browser has begun to write the file. */

/**
 * @param {import("../api.js").Api} api
 * @param {{signal: AbortSignal}} options
 * @param {HTMLElement} place for what goes wrong.
 * @returns {Opening}
 */
export function openPanel(api, options, place) {
  /** @param {Report} report */
  async function saveNumbers(report) {
    replace(place);
    try {
      const answer = await api.ask("GET", pathOf(report), undefined, options);
      save(await answer.blob(), `${report.model}-${report.version}-${report.name}.json`);
    } catch (error) {
      if (!options.signal.aborted) failed(place, error);
    }
  }

  return {
    links(report) {
      const said = `${report.name} of ${report.model}, version ${report.version}`;
      return element(
        "div",
        { class: "links" },
        report.page && element("a", { href: api.address(`${pathOf(report)}/page`), target: "_blank", rel: "noopener", "aria-label": `Open the report ${said}` }, "Open"),
        report.state === "readable" && element("button", { type: "button", "aria-label": `Save the numbers of ${said}`, onclick: () => saveNumbers(report) }, "JSON"),
      );
    },
    note() {
      return api.hasToken
        ? element("p", { class: "quiet small" }, "A report opens in a tab of its own, for which your browser asks for the token again: it is the password, with any name.")
        : null;
    },
  };
}

/** @param {Report} report */
function pathOf(report) {
  return `models/${encodeURIComponent(report.model)}/versions/${report.version}/reports/${encodeURIComponent(report.name)}`;
}
