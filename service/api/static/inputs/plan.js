/**
 * How often and from where is drawn: T and the seed.
 */

import { element } from "../element.js";

const MOST_PASSES = 200;
const MOST_SEED = 100;

/**
 * @param {any} model
 * @param {() => void} changed
 */
export function planPanel(model, changed) {
  const passes = slider("passes", "Passes (T)", 2, Math.max(MOST_PASSES, model.passes), model.passes, changed);
  const seed = slider("seed", "Seed", Math.min(0, model.seed), Math.max(MOST_SEED, model.seed), model.seed, changed);
  return {
    node: element(
      "div",
      { class: "fields plan" },
      passes.node,
      seed.node,
      element("button", { type: "button", onclick: () => { passes.set(model.passes); seed.set(model.seed); changed(); } }, "The model's own"),
    ),
    value: () => ({ passes: passes.get(), seed: seed.get() }),
  };
}

/** @param {string} id @param {string} title @param {number} low @param {number} high @param {number} start @param {() => void} changed */
function slider(id, title, low, high, start, changed) {
  const shown = element("output", { for: id });
  const input = element("input", { type: "range", id, min: low, max: high, oninput: () => { shown.textContent = input.value; changed(); } });
  /** @param {number} value */
  function set(value) {
    input.value = String(value);
    shown.textContent = input.value;
  }
  set(start);
  return {
    node: element("div", { class: "field" }, element("label", { for: id }, `${title}: `, shown), input),
    get: () => Number(input.value),
    set,
  };
}
