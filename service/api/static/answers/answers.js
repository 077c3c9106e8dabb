/**
 * The answer for one row, as it is asked for and shown.
 */

import { element } from "../element.js";
import { hasClasses } from "../kinds.js";
import { classAnswer } from "./classes.js";
import { valueAnswer } from "./values.js";

/** Of POST /predict, for one row. */
export const FIELDS = [
  "mean", "std", "predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio",
  "aleatoric_std", "epistemic_std", "label", "variance", "ood", "prediction_set", "interval", "samples",
];
/** Around the answer, in pixels. */
const PADDING = 32;
const NARROWEST = 240;

/**
 * @typedef {object} Shown
 * @property {any[]} node
 * @property {string} said the answer in short.
 * @property {number} share the doubt, of the most that there can be.
 */

/**
 * @param {any} model
 * @param {any} answer of POST /predict with `FIELDS`.
 * @param {any} plain of POST /eval.
 * @param {any} version as of GET /models.
 * @param {HTMLElement} place where it is to be shown.
 * @returns {Shown | null} null of an answer for every place of its input, which has no such view.
 */
export function answerOf(model, answer, plain, version, place) {
  if (!isPlain(answer)) return null;
  return (hasClasses(model) ? classAnswer : valueAnswer)(model, answer, plain, version, widthOf(place));
}

/** Pixels of a card within its padding. @param {HTMLElement} place */
export function widthOf(place) {
  return Math.max(NARROWEST, place.clientWidth - PADDING);
}

/** An answer that has no view of its own. @param {any} answer */
export function answerAsText(answer) {
  return [
    element("p", {}, "This model answers for every place of its input:"),
    element("pre", { tabindex: 0, role: "region", "aria-label": "Answer as JSON" }, JSON.stringify({ ...answer, samples: undefined })),
  ];
}

/** Whether an answer is [B, C], not for every place of its input. @param {any} answer */
function isPlain(answer) {
  return typeof answer.mean[0][0] === "number";
}
