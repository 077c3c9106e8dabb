/**
 * What was labelled, as a file.
 */

import { element } from "../element.js";
import { failed } from "../failure.js";
import { save } from "../saving.js";

const FORMATS = [
  ["npz", ".npz: arrays x and y, for training"],
  ["jsonl", ".jsonl: a line each, with everything"],
  ["parquet", ".parquet: a table"],
];
/** Until a browser surely has begun to save what it was given. */

/**
 * @param {import("../api.js").Api} api
 * @param {string} model
 * @param {(text: string) => void} announce
 */
export function exportPanel(api, model, announce) {
  const format = element("select", { id: "format" }, FORMATS.map(([name, words]) => element("option", { value: name }, words)));
  const said = element("div", {});
  const button = (/** @type {string} */ status, /** @type {string} */ words) =>
    element("button", { type: "button", onclick: () => take(status) }, words);

  /** @param {string} status */
  async function take(status) {
    said.replaceChildren();
    const query = new URLSearchParams({ model, status, format: format.value });
    try {
      const answer = await api.ask("GET", `samples/export?${query}`);
      const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "");
      save(await answer.blob(), named ? named[1] : `samples.${format.value}`);
      announce("Exported.");
    } catch (error) {
      failed(said, error);
    }
  }

  return element(
    "section",
    { class: "card export", "aria-label": "Export" },
    element("h2", {}, "Take it along"),
    element(
      "div",
      { class: "fields" },
      element("label", { class: "field", for: "format" }, element("span", {}, "As"), format),
      button("labelled", "Export what is labelled"),
      button("unlabelled", "Export what waits"),
    ),
    said,
  );
}
