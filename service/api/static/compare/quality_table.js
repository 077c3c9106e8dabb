/**
 * What both versions are worth on the samples that somebody has labelled.
 *
 * @typedef {import("./quality.js").Quality} Quality
 */

import { element } from "../element.js";
import { percent, rounded } from "../numbers.js";
import { LEVEL, difference, judge, qualityOf } from "./quality.js";
import { familyOf } from "./versions.js";

/** @type {Record<string, {title: string, of: (quality: Quality) => number | null, write: (value: number) => string}[]>} */
const LINES = {
  class: [
    { title: "Accuracy", of: ({ error }) => 1 - error, write: percent },
    { title: "Negative log likelihood, nats", of: ({ loss }) => loss, write: rounded },
    { title: "Mean confidence", of: ({ confidence }) => confidence, write: percent },
    { title: "Expected calibration error", of: ({ calibrationError }) => calibrationError, write: rounded },
  ],
  classes: [
    { title: "Accuracy, of labels", of: ({ error }) => 1 - error, write: percent },
    { title: "Negative log likelihood, nats", of: ({ loss }) => loss, write: rounded },
    { title: "Expected calibration error, of labels", of: ({ calibrationError }) => calibrationError, write: rounded },
  ],
  numbers: [
    { title: "Root mean squared error", of: ({ error }) => Math.sqrt(error), write: rounded },
    { title: "Negative log likelihood, nats", of: ({ loss }) => loss, write: rounded },
    { title: `Truths within the ${100 * LEVEL} % interval`, of: ({ held }) => held, write: percent },
  ],
};
const NOTES = {
  class: "Calibration: 15 bins of equal width; few samples make the error look larger than it is.",
  classes: "Calibration: 15 bins of equal width, over all labels; few samples make the error look larger than it is.",
  numbers: "Likelihood and interval: of a Gaussian with the aleatoric and the epistemic standard deviation; not known where a version tells no aleatoric one.",
};

/** @param {import("./results.js").Compared} compared */
export function qualitySection({ pair, samples, said }) {
  const family = familyOf(pair.first.model);
  const judged = samples
    .map((sample, place) => (sample.label === null ? [null, null] : said.map((each) => judge(family, each[place], sample.label))))
    .filter((both) => both.every((each) => each !== null));
  return element(
    "section",
    { class: "card", "aria-label": "Quality" },
    element("h2", {}, "Quality"),
    judged.length === 0
      ? element("p", { class: "quiet" }, "None of these samples has a label that both know. Where some have, their accuracy, likelihood and calibration stand here.")
      : table(family, judged),
  );
}

/** @param {string} family @param {any[][]} judged of both, for each sample. */
function table(family, judged) {
  const qualities = [0, 1].map((k) => qualityOf(family, judged.map((both) => both[k])));
  const rows = judged.length;
  return [
    element(
      "p",
      {},
      element("b", {}, rows === 1 ? "One labelled sample." : `${rows} labelled samples.`),
      " They were kept, and labelled, for a reason: this is no fair draw of what is asked.",
    ),
    element(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Quality of both" },
      element(
        "table",
        { class: "versus" },
        element("caption", { class: "unseen" }, `On ${rows} labelled samples`),
        element("thead", {}, element("tr", {}, element("td", {}), ["A", "B"].map((letter) => element("th", { scope: "col" }, letter)))),
        element(
          "tbody",
          {},
          LINES[family].map(({ title, of, write }) =>
            element("tr", {}, element("th", { scope: "row" }, title), qualities.map((quality) => element("td", {}, written(of(quality), write)))),
          ),
          family === "class" && element("tr", {}, element("th", { scope: "row" }, "Right where the other is wrong"), [0, 1].map((k) => element("td", {}, alone(judged, k)))),
        ),
      ),
    ),
    qualities.every(({ loss }) => loss !== null) && rows > 1 && element("p", { class: "small" }, lossInWords(judged)),
    element("p", { class: "quiet small" }, NOTES[family]),
  ];
}

/** @param {number | null} value @param {(value: number) => string} write */
function written(value, write) {
  return value === null ? "not known" : write(value);
}

/** Samples of which one alone is right. @param {any[][]} judged @param {number} k */
function alone(judged, k) {
  return judged.filter((both) => both[k].error === 0 && both[1 - k].error === 1).length;
}

/** @param {any[][]} judged */
function lossInWords(judged) {
  const { mean, low, high } = difference(judged.map(([one]) => one.loss), judged.map(([, other]) => other.loss));
  const range = `${rounded(mean)} nats a sample (95 %: ${rounded(low)} to ${rounded(high)})`;
  const told = low > 0 ? "A is better." : high < 0 ? "B is better." : "so many samples do not tell them apart.";
  return `B's negative log likelihood less A's: ${range}: ${told}`;
}
