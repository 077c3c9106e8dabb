/**
 * The doubt of an answer: entropy in its two parts, and whether the input is one of a kind that the
 * version was calibrated on.
 */

import { drawn, element } from "../element.js";
import { rounded } from "../numbers.js";

/**
 * @param {{total: number, aleatoric: number, epistemic: number, most: number}} entropy in nats.
 * @returns {HTMLElement}
 */
export function entropyBar({ total, aleatoric, epistemic, most }) {
  const width = (/** @type {number} */ value) => `${((100 * value) / most).toFixed(2)}%`;
  return element(
    "section",
    { class: "doubt", "aria-label": "Doubt" },
    element("h2", {}, "Doubt: ", element("b", {}, rounded(total)), element("span", { class: "quiet" }, ` of at most ${rounded(most)} nats`)),
    element(
      "div",
      { class: "bar", role: "img", "aria-label": `Aleatoric ${rounded(aleatoric)}, epistemic ${rounded(epistemic)} of at most ${rounded(most)} nats` },
      element("div", { class: "aleatoric", style: { width: width(aleatoric) } }),
      element("div", { class: "epistemic", style: { width: width(epistemic) } }),
    ),
    element(
      "dl",
      { class: "parts small" },
      element("dt", {}, element("span", { class: "key aleatoric" }), `${rounded(aleatoric)} in the input (aleatoric)`),
      element("dd", {}, "each pass is undecided by itself"),
      element("dt", {}, element("span", { class: "key epistemic" }), `${rounded(epistemic)} in the model (epistemic)`),
      element("dd", {}, "the passes contradict each other"),
    ),
  );
}

/**
 * The flag, with its score on a scale where the threshold is in the middle.
 *
 * @param {any} answer of POST /predict.
 * @param {any} version as of GET /models.
 * @returns {HTMLElement}
 */
export function flag(answer, version) {
  if (!answer.ood) return element("p", { class: "quiet small" }, whyNoFlag(answer, version));
  const { score, threshold, false_positive_rate: rate } = answer.ood;
  const [value] = answer.ood.values;
  const [flagged] = answer.ood.flagged;
  const place = (/** @type {number} */ each) => `${((100 * each) / (each + threshold)).toFixed(2)}%`;
  return element(
    "section",
    { class: flagged ? "flag flagged" : "flag", "aria-label": "Out of distribution" },
    element(
      "h2",
      {},
      flagged ? "⚑ Flagged: unlike what it knows" : "Not flagged: like what it knows",
    ),
    drawn(
      "svg",
      { class: "scale", width: "100%", height: 34, role: "img", "aria-label": `${score} ${rounded(value)}, threshold ${rounded(threshold)}` },
      drawn("rect", { class: "below", x: 0, y: 8, width: "50%", height: 8 }),
      drawn("rect", { class: "above", x: "50%", y: 8, width: "50%", height: 8 }),
      drawn("line", { class: "threshold", x1: "50%", x2: "50%", y1: 2, y2: 22 }),
      drawn("circle", { class: "score", cx: place(value), cy: 12, r: 6 }),
      [[0.25, "¼ ×"], [1, "threshold"], [4, "4 ×"]].map(([times, text]) =>
        drawn("text", { x: place(Number(times) * threshold), y: 32, "text-anchor": "middle" }, text),
      ),
    ),
    element("p", { class: "small quiet" }, `${score.replaceAll("_", " ")} ${rounded(value)}, threshold ${rounded(threshold)}: ${rounded(100 * rate)} % of known inputs are above it.`),
  );
}

/** @param {any} answer @param {any} version */
function whyNoFlag(answer, version) {
  if (answer.calibration) return `No flag: its calibration is ${answer.calibration}.`;
  return `No flag: version ${version?.version ?? answer.version} is not calibrated; candor calibrate makes it so.`;
}

/** The labels or the interval that hold the truth. @param {any} answer @param {any} version */
export function promise(answer, version) {
  const coverage = version?.calibration?.coverage;
  if (!coverage) return null;
  const share = `${rounded(100 * coverage)} %`;
  if (answer.prediction_set) {
    const set = answer.prediction_set[0];
    return element("p", { class: "small" }, `Labels that hold the truth for ${share} of known inputs: `, element("b", {}, set.length ? set.join(", ") : "none"));
  }
  if (answer.interval) {
    const ends = answer.interval[0].map((/** @type {number[]} */ each) => each.map((value) => rounded(value, 4)).join(" to "));
    return element("p", { class: "small" }, `Holds the truth for ${share} of known inputs: `, element("b", {}, ends.join("; ")));
  }
  return null;
}
