/**
 * The samples that two versions disagree about the most, each of which can be opened.
 */

import { element } from "../element.js";
import { kindOf } from "../kinds.js";
import { rounded } from "../numbers.js";
import { picture, pixelRows } from "../picture.js";
import { farthest } from "./agreement.js";
import { shownLabel } from "./said.js";
import { familyOf } from "./versions.js";

const MOST = 12;
const MOST_NUMBERS = 6;
const MOST_LETTERS = 90;
const UNITS = {
  class: "Ordered by the Jensen–Shannon divergence of their probabilities: 0 where they say the same, ln 2 = 0.693 nats where they exclude each other.",
  classes: "Ordered by the Jensen–Shannon divergence of their probabilities, mean over the labels: 0 where they say the same, ln 2 = 0.693 nats where they exclude each other.",
  numbers: "Ordered by the difference of their means, in standard deviations of both together.",
};

/** @param {import("./results.js").Compared} compared @param {(place: number) => void} open */
export function farthestList({ pair, samples, said: [ones, others] }, open) {
  const family = familyOf(pair.first.model);
  const found = farthest(family, ones, others, MOST);
  const isPicture = kindOf(pair.first.model) === "picture";
  const frame = isPicture ? rangeOf(found.map(({ place }) => samples[place].input)) : null;
  return element(
    "section",
    { class: "card wide-piece", "aria-label": "Farthest apart" },
    element("h2", {}, "Where they are the farthest apart"),
    element("p", { class: "quiet small" }, UNITS[family]),
    element(
      "ol",
      { class: "apart" },
      found.map(({ place, apart }, rank) => {
        const sample = samples[place];
        return element(
          "li",
          {},
          frame ? picture(pixelRows(sample.input), { ...frame, title: `Sample ${rank + 1}` }) : element("span", { class: "row small" }, inShort(sample.input)),
          element(
            "div",
            { class: "small" },
            element("p", {}, "A: ", element("b", {}, sayShort(ones[place]))),
            element("p", {}, "B: ", element("b", {}, sayShort(others[place]))),
            element("p", { class: "quiet" }, sample.label === null ? "not labelled" : ["labelled ", shownLabel(sample.label)]),
            element("p", { class: "quiet" }, `${rounded(apart)} apart`),
          ),
          element("button", { type: "button", "aria-label": `Sample ${rank + 1} side by side`, onclick: () => open(place) }, "Side by side"),
        );
      }),
    ),
  );
}

/** @param {import("./said.js").Said} said */
function sayShort(said) {
  if (said.label === "") return [...said.outputs.values()].slice(0, 3).map(({ mean, std }) => `${rounded(mean, 4)} ± ${rounded(std, 2)}`).join("; ");
  const sure = said.outputs.get(said.label);
  return sure ? `${said.label} (${sure.mean.toFixed(2)})` : said.label;
}

/** @param {any} input */
function inShort(input) {
  if (Array.isArray(input) && input.every((value) => typeof value === "number")) {
    const shown = input.slice(0, MOST_NUMBERS).map((value) => rounded(value, 4)).join(", ");
    return input.length > MOST_NUMBERS ? `${shown}, … (${input.length} numbers)` : shown;
  }
  const text = JSON.stringify(input);
  return text.length > MOST_LETTERS ? `${text.slice(0, MOST_LETTERS)}…` : text;
}

/** The lowest and the highest value of all. @param {any[]} images */
function rangeOf(images) {
  const rows = images.flatMap(pixelRows);
  return { low: Math.min(...rows.map((row) => Math.min(...row))), high: Math.max(...rows.map((row) => Math.max(...row))) };
}
