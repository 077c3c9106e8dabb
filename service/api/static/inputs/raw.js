/**
 * An input of any other shape: as JSON, filled from the model's example.
 */

import { element } from "../element.js";

/**
 * @param {any} model
 * @param {any[]} examples
 * @param {() => void} changed
 * @returns {import("./inputs.js").Input}
 */
export function rawInput(model, examples, changed) {
  const text = element("textarea", { id: "raw", rows: 10, spellcheck: "false", oninput: () => changed() });
  const start = examples[0] ?? zeros(model.input.shape);
  text.value = JSON.stringify(start);
  const shape = model.input.shape.map((/** @type {number} */ side) => (side === -1 ? "any" : side)).join(" × ");

  /** @param {any} row */
  function take(row) {
    text.value = JSON.stringify(row);
    changed();
  }

  return {
    take,
    empty: "This is not JSON.",
    hint: "Change the input, and see where the doubt is.",
    node: element(
      "div",
      {},
      element("label", { class: "field", for: "raw" }, element("span", {}, `One input, ${shape || "a number"}, as JSON`), text),
      examples.length > 1 &&
        element(
          "div",
          { class: "buttons" },
          examples.map((row, k) => element("button", { type: "button", onclick: () => take(row) }, `Example ${k + 1}`)),
        ),
    ),
    row: () => {
      try {
        return JSON.parse(text.value);
      } catch {
        return null;
      }
    },
  };
}

/** @param {number[]} shape @returns {any} */
function zeros([side, ...rest]) {
  if (side === undefined) return 0;
  return Array.from({ length: side === -1 ? 4 : side }, () => zeros(rest));
}
