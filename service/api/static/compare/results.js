/**
 * What came out of a comparison on stored samples.
 *
 * @typedef {import("./said.js").Said} Said
 *
 * @typedef {object} Compared
 * @property {import("./versions.js").Pair} pair
 * @property {any[]} samples that both have answered for.
 * @property {Said[][]} said of each version, of each sample.
 * @property {number} passes
 * @property {number} seed
 * @property {number | null} asked samples that were to be compared; null where it is not known yet.
 * @property {boolean} places whether they answer for every place of their input.
 */

import { element, replace } from "../element.js";
import { percent, rounded } from "../numbers.js";
import { agree, confusions } from "./agreement.js";
import { farthestList } from "./farthest.js";
import { qualitySection } from "./quality_table.js";
import { average, measuresOf } from "./said.js";
import { scatter } from "./scatter.js";
import { familyOf, titleOf } from "./versions.js";

const MOST_PAIRS = 5;
const WORDS = {
  class: { agree: "the same class", differ: "another class" },
  classes: { agree: "the same classes", differ: "other classes" },
  numbers: { agree: "means within two standard deviations of both", differ: "farther apart" },
};

/**
 * @param {Compared} compared of at least one sample.
 * @param {(sample: any) => void} open one of them side by side.
 * @returns {HTMLElement}
 */
export function resultsOf(compared, open) {
  const { pair, samples, passes, seed } = compared;
  const openPlace = (/** @type {number} */ place) => open(samples[place]);
  return element(
    "div",
    {},
    element("h2", { class: "found" }, samples.length === 1 ? "One sample" : `${samples.length} samples`),
    element(
      "p",
      { class: "quiet small" },
      `A: ${titleOf(pair.first)}. B: ${titleOf(pair.second)}. Both with T = ${passes} and seed ${seed}.`,
    ),
    element("div", { class: "pieces" }, agreementSection(compared), doubtSection(compared, openPlace), qualitySection(compared), farthestList(compared, openPlace)),
  );
}

/** @param {Compared} compared */
function agreementSection({ pair, said: [ones, others] }) {
  const family = familyOf(pair.first.model);
  const same = ones.filter((one, k) => agree(family, one, others[k])).length;
  const differing = family === "numbers" ? [] : confusions(ones, others);
  return element(
    "section",
    { class: "card", "aria-label": "Agreement" },
    element("h2", {}, "Agreement"),
    element("p", { class: "share" }, element("b", {}, percent(same / ones.length)), ` ${WORDS[family].agree}: ${same} of ${ones.length}`),
    differing.length > 0 &&
      element(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Labels that differ" },
        element(
          "table",
          { class: "versus" },
          element("caption", {}, differing.length > MOST_PAIRS ? `The ${MOST_PAIRS} most frequent of ${differing.length} pairs that differ` : "Pairs that differ"),
          element("thead", {}, element("tr", {}, ["A", "B", "samples"].map((title) => element("th", { scope: "col" }, title)))),
          element("tbody", {}, differing.slice(0, MOST_PAIRS).map(({ first, second, count }) => element("tr", {}, [first, second, count].map((value) => element("td", {}, value))))),
        ),
      ),
  );
}

/** @param {Compared} compared @param {(place: number) => void} open */
function doubtSection({ pair, samples, said }, open) {
  const family = familyOf(pair.first.model);
  const told = measuresOf(pair.first.model).filter(({ name }) => said.every((each) => each.every(({ doubt }) => Number.isFinite(doubt[name]))));
  const plot = element("div", {});
  const select = element("select", { id: "compare-measure", onchange: () => show() }, told.map(({ name, title }) => element("option", { value: name }, title)));

  function show() {
    const measure = told.find(({ name }) => name === select.value);
    if (!measure) return;
    const points = samples.map((_, place) => ({
      x: Number(said[0][place].doubt[measure.name]),
      y: Number(said[1][place].doubt[measure.name]),
      agree: agree(family, said[0][place], said[1][place]),
      title: pointTitle(family, said[0][place], said[1][place]),
      place,
    }));
    replace(plot, scatter(points, { first: titleOf(pair.first), second: titleOf(pair.second), measure: measure.short, words: WORDS[family] }, open));
  }

  show();
  return element(
    "section",
    { class: "card", "aria-label": "Doubt" },
    element("h2", {}, "Doubt"),
    element("div", { class: "field" }, element("label", { for: "compare-measure" }, "Kind of doubt"), select),
    plot,
    element(
      "table",
      { class: "versus" },
      element("caption", {}, "Mean over the samples"),
      element("thead", {}, element("tr", {}, element("td", {}), ["A", "B"].map((letter) => element("th", { scope: "col" }, letter)))),
      element(
        "tbody",
        {},
        measuresOf(pair.first.model).map(({ name, short }) => row(short, said.map((each) => meanOf(each.map(({ doubt }) => doubt[name]))))),
        row("Flagged as out of distribution", said.map(flaggedOf)),
      ),
    ),
  );
}

/** @param {string} title @param {string[]} values */
function row(title, values) {
  return element("tr", {}, element("th", { scope: "row" }, title), values.map((value) => element("td", {}, value)));
}

/** @param {(number | null)[]} values */
function meanOf(values) {
  return values.includes(null) ? "not known" : rounded(average(/** @type {number[]} */ (values)));
}

/** @param {Said[]} said */
function flaggedOf(said) {
  const flags = said.map(({ flagged }) => flagged);
  return flags.includes(null) ? "no calibration for this T" : `${flags.filter(Boolean).length} of ${flags.length}`;
}

/** @param {string} family @param {Said} one @param {Said} other */
function pointTitle(family, one, other) {
  if (family !== "numbers") return `A: ${one.label}. B: ${other.label}.`;
  const mean = (/** @type {Said} */ said) => rounded([...said.outputs.values()][0].mean, 4);
  return `A: ${mean(one)}. B: ${mean(other)}.`;
}
