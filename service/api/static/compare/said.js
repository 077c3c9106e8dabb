/**
 * What a version says of a row, in a form in which two versions can be compared.
 *
 * @typedef {object} Said
 * @property {string} label "" where numbers are predicted.
 * @property {Map<string, {mean: number, std: number}>} outputs by class or output; `std` is epistemic.
 * @property {Map<string, number> | null} noise aleatoric standard deviation of each output.
 * @property {Record<string, number | null>} doubt by the names of `measuresOf`.
 * @property {boolean | null} flagged null where the version is not calibrated for these passes.
 */

import { outputNames } from "../kinds.js";
import { familyOf } from "./versions.js";

/** Of POST /predict, for many rows. */
export const FIELDS = [
  "mean", "std", "predictive_entropy", "expected_entropy", "mutual_information", "aleatoric_std", "epistemic_std",
  "label", "ood",
];

/** Kinds of doubt of a class, of classes. */
const CLASSES = [
  { name: "total", title: "Predictive entropy, nats", short: "Predictive entropy" },
  { name: "epistemic", title: "Epistemic part (mutual information), nats", short: "Epistemic part" },
  { name: "aleatoric", title: "Aleatoric part (expected entropy), nats", short: "Aleatoric part" },
];
/** Of numbers; means over the outputs. */
const NUMBERS = [
  { name: "epistemic", title: "Epistemic standard deviation", short: "Epistemic std" },
  { name: "aleatoric", title: "Aleatoric standard deviation", short: "Aleatoric std" },
];

/** Kinds of doubt that a model tells. @param {any} model */
export function measuresOf(model) {
  return familyOf(model) === "numbers" ? NUMBERS : CLASSES;
}

/** Whether an answer is [B, C], not for every place of its inputs. @param {any} answer */
export function isPlain(answer) {
  return typeof answer.mean[0][0] === "number";
}

/**
 * @param {any} model
 * @param {any} answer of POST /predict with `FIELDS` or more.
 * @returns {Said[]} [B]
 */
export function saidOf(model, answer) {
  const numbers = familyOf(model) === "numbers";
  return answer.mean.map((/** @type {number[]} */ mean, /** @type {number} */ k) => {
    const epistemic = (answer.epistemic_std ?? answer.std)[k];
    const aleatoric = answer.aleatoric_std?.[k] ?? null;
    return {
      label: numbers ? "" : shownLabel(answer.label[k]),
      outputs: outputsOf(model, mean, epistemic),
      noise: aleatoric && new Map(outputNames(model, mean.length).map((/** @type {string} */ name, /** @type {number} */ c) => [name, aleatoric[c]])),
      doubt: numbers
        ? { epistemic: average(epistemic), aleatoric: aleatoric && average(aleatoric) }
        : { total: answer.predictive_entropy[k], epistemic: answer.mutual_information[k], aleatoric: answer.expected_entropy[k] },
      flagged: answer.ood ? answer.ood.flagged[k] : null,
    };
  });
}

/** By name; of a binary task the one output is the second label's probability. @param {any} model @param {number[]} mean @param {number[]} std */
export function outputsOf(model, mean, std) {
  const names = outputNames(model, mean.length);
  if (model.task === "binary") {
    return new Map([[names[0], { mean: 1 - mean[0], std: std[0] }], [names[1], { mean: mean[0], std: std[0] }]]);
  }
  return new Map(names.map((/** @type {string} */ name, /** @type {number} */ c) => [name, { mean: mean[c], std: std[c] }]));
}

/** @param {any} label a name, an index, or those that hold. */
export function shownLabel(label) {
  return Array.isArray(label) ? label.join(", ") || "none" : String(label);
}

/** @param {number[]} values */
export function average(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
