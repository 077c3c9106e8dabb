/**
 * The answer of a model that predicts classes.
 */

import { element } from "../element.js";
import { probability } from "../numbers.js";
import { entropyBar, flag, promise } from "./doubt.js";
import { isExclusive, mostEntropy, outputNames } from "../kinds.js";
import { legend, strips } from "./strips.js";

const MOST_LINES = 12;
/** Of the most entropy: below the first it is sure, above the second it is not. */
const SURE = 0.1;
const UNSURE = 0.35;

/**
 * @param {any} model
 * @param {any} answer of POST /predict, for one row, with samples.
 * @param {any} plain of POST /eval.
 * @param {any} version
 * @param {number} width of the answer, in pixels.
 * @returns {{node: Node[], said: string, share: number}} `share`: of the most doubt.
 */
export function classAnswer(model, answer, plain, version, width) {
  const lines = linesOf(model, answer, plain);
  const most = mostEntropy(model, answer.mean[0].length);
  const total = answer.predictive_entropy[0];
  const label = shownLabel(answer.label[0]);
  const best = isExclusive(model) ? largest(lines.map((line) => line.mean)) : null;
  const kept = [...lines.keys()].sort((a, b) => lines[b].mean - lines[a].mean).slice(0, MOST_LINES).sort((a, b) => a - b);
  const flagged = answer.ood?.flagged[0] ?? null;
  const words = inWords(total / most);
  const passes = answer.samples.length;
  const against = Math.round(answer.variation_ratio[0] * passes);
  return {
    share: total / most,
    said: `${label || "no label"}: ${words}.${flagged === null ? "" : flagged ? " Flagged." : " Not flagged."}`,
    node: [
      element(
        "div",
        { class: "headline" },
        element("output", { class: "label", "aria-label": "Label", "aria-live": "off" }, label || "none"),
        element(
          "div",
          {},
          element("p", { class: "verdict" }, words),
          element("p", { class: "quiet small" }, against === 0 ? `All ${passes} passes agree.` : `${against} of ${passes} passes say otherwise.`),
          element("p", { class: "quiet small" }, "With dropout off: ", element("b", {}, shownLabel(plain.label[0]) || "none"), isExclusive(model) ? `, ${probability(Math.max(...lines.map((line) => line.plain ?? 0)))}` : ""),
        ),
      ),
      strips(kept.map((k) => lines[k]), { low: 0, high: 1, width, write: probability, caption: "Probability of each class", best: best === null ? null : kept.indexOf(best) }),
      lines.length > kept.length && element("p", { class: "quiet small" }, `The ${kept.length} likeliest of ${lines.length}.`),
      legend(passes),
      entropyBar({ total, aleatoric: answer.expected_entropy[0], epistemic: answer.mutual_information[0], most }),
      flag(answer, version),
      promise(answer, version),
    ].filter(Boolean),
  };
}

/** @param {any} model @param {any} answer @param {any} plain @returns {import("./strips.js").Line[]} */
function linesOf(model, answer, plain) {
  const names = outputNames(model, answer.mean[0].length);
  const line = (/** @type {number} */ c, /** @type {(value: number) => number} */ of) => ({
    passes: answer.samples.map((/** @type {number[][]} */ pass) => of(pass[0][c])),
    mean: of(answer.mean[0][c]),
    std: answer.std[0][c],
    plain: of(plain.mean[0][c]),
  });
  // Of a binary task the one output is the second label's probability.
  if (model.task === "binary") {
    return [{ name: names[0], ...line(0, (p) => 1 - p) }, { name: names[1], ...line(0, (p) => p) }];
  }
  return names.map((/** @type {string} */ name, /** @type {number} */ c) => ({ name, ...line(c, (p) => p) }));
}

/** @param {number[]} values */
function largest(values) {
  return values.indexOf(Math.max(...values));
}

/** @param {any} label a name, an index, or those that hold. */
function shownLabel(label) {
  return Array.isArray(label) ? label.join(", ") : String(label);
}

/** @param {number} share */
function inWords(share) {
  if (share < SURE) return "Sure: little doubt";
  return share < UNSURE ? "Some doubt" : "Unsure: much doubt";
}
