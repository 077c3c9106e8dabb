/**
 * The answer of a model that predicts numbers.
 */

import { element } from "../element.js";
import { rounded } from "../numbers.js";
import { flag, promise } from "./doubt.js";
import { outputNames } from "../kinds.js";
import { legend, strips } from "./strips.js";

/** On both sides of the passes, of what they span. */
const MARGIN = 0.25;

/**
 * @param {any} model
 * @param {any} answer of POST /predict, for one row, with samples.
 * @param {any} plain of POST /eval.
 * @param {any} version
 * @param {number} width of the answer, in pixels.
 * @returns {{node: Node[], said: string, share: number}} there is no most of a number's doubt.
 */
export function valueAnswer(model, answer, plain, version, width) {
  const mean = answer.mean[0];
  const names = outputNames(model, mean.length);
  const epistemic = (answer.epistemic_std ?? answer.std)[0];
  const aleatoric = answer.aleatoric_std?.[0] ?? null;
  const write = (/** @type {number} */ value) => rounded(value, 4);
  const said = `${write(mean[0])} ± ${rounded(epistemic[0], 2)}`;
  return {
    said,
    share: NaN,
    node: [
      element(
        "div",
        { class: "headline" },
        element("output", { class: "label", "aria-label": "Mean and standard deviation", "aria-live": "off" }, said),
        element(
          "div",
          {},
          element("p", { class: "small" }, `In the model (epistemic): ± ${rounded(epistemic[0])}`),
          element("p", { class: "small" }, aleatoric ? `In the data (aleatoric): ± ${rounded(aleatoric[0])}` : "In the data (aleatoric): not known to this version"),
          element("p", { class: "quiet small" }, "With dropout off: ", element("b", {}, write(plain.mean[0][0]))),
        ),
      ),
      mean.map((/** @type {number} */ value, /** @type {number} */ c) => {
        const passes = answer.samples.map((/** @type {number[][]} */ pass) => pass[0][c]);
        const [low, high] = [Math.min(...passes, plain.mean[0][c]), Math.max(...passes, plain.mean[0][c])];
        const margin = MARGIN * (high - low || 1);
        const line = { name: names[c], passes, mean: value, std: answer.std[0][c], plain: plain.mean[0][c] };
        return strips([line], { low: low - margin, high: high + margin, width, write, caption: names[c], best: null });
      }),
      legend(answer.samples.length),
      flag(answer, version),
      promise(answer, version),
    ].flat().filter(Boolean),
  };
}
