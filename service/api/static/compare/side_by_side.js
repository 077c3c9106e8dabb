/**
 * Two answers for one row, held against each other line by line.
 *
 * @typedef {import("./said.js").Said} Said
 * @typedef {{title: string, values: string[], difference: string}} Line
 */

import { element } from "../element.js";
import { probability, rounded } from "../numbers.js";
import { measuresOf, outputsOf, saidOf, shownLabel } from "./said.js";
import { familyOf, titleOf } from "./versions.js";

/** Numbers that are shown of each side. */
const MOST_OUTPUTS = 6;

/**
 * @param {import("./versions.js").Pair} pair
 * @param {any[]} answers of POST /predict by both, for one row.
 * @param {any[]} plains of POST /eval by both.
 * @returns {HTMLElement}
 */
export function sideBySide({ first, second }, answers, plains) {
  const sides = [first, second];
  const said = sides.map((side, k) => saidOf(side.model, answers[k])[0]);
  const numbers = familyOf(first.model) === "numbers";
  const off = sides.map((side, k) => outputsOf(side.model, plains[k].mean[0], plains[k].mean[0]));
  const lines = [
    ...(numbers ? linesOfNumbers(said, off) : linesOfClasses(said, off, plains, familyOf(first.model) === "class")),
    ...measuresOf(first.model).map(({ name, short }) => doubtLine(short, said, name)),
    flagLine(said),
  ];
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Both answers as a table" },
    element(
      "table",
      { class: "versus" },
      element("caption", { class: "unseen" }, "Both answers, and their difference"),
      element(
        "thead",
        {},
        element("tr", {}, element("th", { scope: "col" }, element("span", { class: "unseen" }, "What")), sides.map((side, k) => element("th", { scope: "col" }, `${"AB"[k]}: ${titleOf(side)}`)), element("th", { scope: "col" }, "B − A")),
      ),
      element(
        "tbody",
        {},
        lines.map((line) => element("tr", {}, element("th", { scope: "row" }, line.title), line.values.map((value) => element("td", {}, value)), element("td", {}, line.difference))),
      ),
    ),
  );
}

/** @param {Said[]} said @param {Map<string, {mean: number}>[]} off @param {any[]} plains @param {boolean} exclusive @returns {Line[]} */
function linesOfClasses(said, off, plains, exclusive) {
  const labels = said.map((each) => each.label);
  const plainLabels = plains.map((plain) => shownLabel(plain.label[0]));
  const named = exclusive ? [...new Set(labels)] : [...new Set([...said[0].outputs.keys(), ...said[1].outputs.keys()])].slice(0, MOST_OUTPUTS);
  return [
    { title: "Label", values: labels, difference: sameOrNot(labels) },
    ...named.map((name) => outputLine(`Probability of ${name}`, said, name, probability)),
    { title: "Label with dropout off", values: plainLabels, difference: sameOrNot(plainLabels) },
    ...(exclusive ? [...new Set(plainLabels)].map((name) => offLine(`Probability of ${name}, dropout off`, off, name, probability)) : []),
  ];
}

/** @param {Said[]} said @param {Map<string, {mean: number}>[]} off @returns {Line[]} */
function linesOfNumbers(said, off) {
  const write = (/** @type {number} */ value) => rounded(value, 4);
  const names = [...new Set([...said[0].outputs.keys(), ...said[1].outputs.keys()])].slice(0, MOST_OUTPUTS);
  return names.flatMap((name) => [outputLine(`${name}, mean ± std`, said, name, write), offLine(`${name}, dropout off`, off, name, write)]);
}

/** @param {string} title @param {Said[]} said @param {string} name @param {(value: number) => string} write @returns {Line} */
function outputLine(title, said, name, write) {
  const outputs = said.map((each) => each.outputs.get(name));
  return {
    title,
    values: outputs.map((output) => (output ? `${write(output.mean)} ± ${write(output.std)}` : "–")),
    difference: gap(outputs.map((output) => output?.mean ?? null), write),
  };
}

/** @param {string} title @param {Map<string, {mean: number}>[]} off @param {string} name @param {(value: number) => string} write @returns {Line} */
function offLine(title, off, name, write) {
  const means = off.map((outputs) => outputs.get(name)?.mean ?? null);
  return { title, values: means.map((mean) => (mean === null ? "–" : write(mean))), difference: gap(means, write) };
}

/** @param {string} title @param {Said[]} said @param {string} name @returns {Line} */
function doubtLine(title, said, name) {
  const values = said.map((each) => each.doubt[name]);
  return { title, values: values.map((value) => (value === null ? "not known" : rounded(value))), difference: gap(values, rounded) };
}

/** @param {Said[]} said @returns {Line} */
function flagLine(said) {
  const words = said.map(({ flagged }) => (flagged === null ? "no flag" : flagged ? "flagged" : "not flagged"));
  return { title: "Out of distribution", values: words, difference: said.some(({ flagged }) => flagged === null) ? "–" : sameOrNot(words) };
}

/** @param {string[]} words */
function sameOrNot(words) {
  return words[0] === words[1] ? "the same" : "differs";
}

/** @param {(number | null)[]} values @param {(value: number) => string} write */
function gap([first, second], write) {
  if (first === null || second === null) return "–";
  const size = write(Math.abs(second - first));
  return Number(size) === 0 ? "0" : `${second < first ? "−" : "+"}${size}`;
}
