/**
 * An input of several numbers: a field for each, filled from the model's example.
 */

import { element } from "../element.js";
import { rounded } from "../numbers.js";

const STEPS = 100;

/**
 * @param {any} model
 * @param {number[][]} examples
 * @param {() => void} changed
 * @returns {import("./inputs.js").Input}
 */
export function rowInput(model, examples, changed) {
  const count = model.input.shape[0];
  const whole = model.input.dtype.includes("int");
  const fields = Array.from({ length: count }, (_, k) =>
    element("input", { type: "number", step: whole ? 1 : "any", required: true, "aria-label": `x${k + 1}`, value: examples[0]?.[k] ?? 0, oninput: () => changed() }),
  );
  const between = examples.length > 1 && !whole && mixer(examples, take);

  /** @param {number[]} row */
  function take(row) {
    row.forEach((value, k) => {
      fields[k].value = String(value);
    });
    changed();
  }

  return {
    node: element(
      "div",
      {},
      examples.length > 0 &&
        element(
          "div",
          { class: "buttons", role: "group", "aria-label": "Examples of the model" },
          examples.map((row, k) => element("button", { type: "button", onclick: () => take(row) }, `Example ${k + 1}`)),
        ),
      between,
      element("div", { class: "numbers" }, fields.map((field, k) => element("span", { class: "field" }, element("span", { "aria-hidden": "true" }, `x${k + 1}`), field))),
    ),
    row: () => {
      const values = fields.map((field) => (field.value.trim() === "" ? NaN : Number(field.value)));
      return values.every(Number.isFinite) ? values : null;
    },
    take,
    empty: "Every field needs a number.",
    hint: "Change a number, or go from one example to the other, and see where the doubt is.",
  };
}

/**
 * A slider from the first example to the second, through what neither is.
 *
 * @param {number[][]} examples @param {(row: number[]) => void} take
 */
function mixer([first, second], take) {
  return element(
    "label",
    { class: "field wide" },
    element("span", {}, "From example 1 to example 2"),
    element("input", {
      type: "range", min: 0, max: STEPS, value: 0,
      oninput: (/** @type {any} */ event) => {
        const share = Number(event.target.value) / STEPS;
        take(first.map((value, k) => Number(rounded(value + share * (second[k] - value), 6))));
      },
    }),
  );
}
