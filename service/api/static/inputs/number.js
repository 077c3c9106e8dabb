/**
 * An input of one number: a point on an axis, whose range can be chosen.
 */

import { element } from "../element.js";
import { rounded } from "../numbers.js";

const STEPS = 400;
/** Beyond the examples on both sides, of their span. */
const MARGIN = 0.4;

/**
 * @param {any} _model
 * @param {number[][]} examples
 * @param {() => void} changed
 * @returns {import("./inputs.js").Input}
 */
export function numberInput(_model, examples, changed) {
  const known = examples.map(([value]) => value);
  const low = known.length ? Math.min(...known) : -1;
  const high = known.length ? Math.max(...known) : 1;
  const margin = MARGIN * (high - low || Math.abs(high) || 1);
  const field = (/** @type {number} */ value, /** @type {string} */ id) =>
    element("input", { type: "number", step: "any", id, value: rounded(value, 6) });
  const from = field(Math.floor(low - margin), "from");
  const to = field(Math.ceil(high + margin), "to");
  const exact = field(known.length ? known[0] : 0, "at");
  const slider = element("input", { type: "range", min: 0, max: STEPS, "aria-label": "The input, along the range" });

  function range() {
    const ends = [Number(from.value), Number(to.value)];
    return from.value !== "" && to.value !== "" && ends[0] < ends[1] ? ends : null;
  }

  function slide() {
    const ends = range();
    if (ends) slider.value = String(Math.round((STEPS * (Number(exact.value) - ends[0])) / (ends[1] - ends[0])));
    slider.setAttribute("aria-valuetext", exact.value);
  }

  /** @param {number} value */
  function moveTo(value) {
    exact.value = rounded(value, 6);
    slide();
    changed();
  }

  /** @param {number[]} row */
  function take([value]) {
    exact.value = String(value);
    slide();
    changed();
  }

  slider.addEventListener("input", () => {
    const ends = range();
    if (ends) moveTo(ends[0] + (Number(slider.value) / STEPS) * (ends[1] - ends[0]));
  });
  exact.addEventListener("input", () => {
    slide();
    changed();
  });
  for (const end of [from, to]) {
    end.addEventListener("input", () => {
      slide();
      changed();
    });
  }
  slide();

  return {
    node: element(
      "div",
      {},
      element("label", { class: "field", for: "at" }, element("span", {}, "The input"), exact),
      slider,
      element(
        "div",
        { class: "fields" },
        element("label", { class: "field", for: "from" }, element("span", {}, "The curve from"), from),
        element("label", { class: "field", for: "to" }, element("span", {}, "to"), to),
      ),
      element("p", { class: "quiet small" }, "Move the point in the picture, by the slider, or with its arrow keys."),
    ),
    row: () => (exact.value !== "" && Number.isFinite(Number(exact.value)) ? [Number(exact.value)] : null),
    take,
    range,
    moveTo,
    empty: "The input needs a number.",
    hint: "Move the point away from what the model learned from, and see the doubt grow.",
  };
}
