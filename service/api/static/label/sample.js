/**
 * A kept sample as what it is: an image, a row of numbers, text, or else its JSON.
 *
 * @typedef {object} Aids what helps to show a model's samples.
 * @property {any[]} examples rows of the model's example, for the range of its pixels.
 * @property {string[] | null} tokens that its numbers stand for.
 */

import { element } from "../element.js";
import { paint, paintColours } from "../picture.js";
import { textOf } from "./tokens.js";

const SMALLEST_SIDE = 4;
const LARGEST_SIDE = 2048;
const MOST_ROWS = 512;
/** As many digits as a float32 tells apart. */
const DIGITS = 7;
const TOPS = [1, 16, 255];

/**
 * @param {any} model as of GET /models.
 * @param {Aids} aids
 * @param {any} input [D...]
 * @returns {HTMLElement}
 */
export function sampleView(model, aids, input) {
  const shape = shapeOf(input);
  const planes = planesOf(input, shape);
  if (planes) return image(planes, rangeOf(model.input.dtype, [...aids.examples, input]));
  if (shape.length === 1 && aids.tokens) {
    return element("p", { class: "read", tabindex: 0, role: "region", "aria-label": "Text of the sample" }, textOf(input, aids.tokens));
  }
  if (shape.length === 1 && shape[0] <= MOST_ROWS) return table(input, model.features ?? null);
  return element("pre", { tabindex: 0, role: "region", "aria-label": "The sample as JSON" }, JSON.stringify(input));
}

/** @param {any} input @returns {number[]} */
function shapeOf(input) {
  return Array.isArray(input) ? [input.length, ...(input.length ? shapeOf(input[0]) : [])] : [];
}

/**
 * The one plane of a grey image or the three of a coloured one; null of what is no image.
 *
 * @param {any} input [H, W], [1 or 3, H, W] or [H, W, 1 or 3].
 * @param {number[]} shape
 * @returns {number[][][] | null}
 */
function planesOf(input, shape) {
  const fits = (/** @type {number[]} */ sides) => sides.every((side) => side >= SMALLEST_SIDE && side <= LARGEST_SIDE);
  const colours = (/** @type {number} */ count) => count === 1 || count === 3;
  if (shape.length === 2 && fits(shape)) return [input];
  if (shape.length !== 3) return null;
  if (colours(shape[0]) && fits(shape.slice(1))) return input;
  if (colours(shape[2]) && fits(shape.slice(0, 2))) {
    return Array.from({ length: shape[2] }, (_, c) => input.map((/** @type {number[][]} */ row) => row.map((pixel) => pixel[c])));
  }
  return null;
}

/**
 * From black to white: what the type or the rows themselves say.
 *
 * @param {string} dtype
 * @param {any[]} rows
 * @returns {{low: number, high: number}}
 */
function rangeOf(dtype, rows) {
  if (dtype === "uint8") return { low: 0, high: 255 };
  let low = Infinity;
  let high = -Infinity;
  for (const value of rows.flat(Infinity)) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low < 0) return { low, high };
  return { low: 0, high: TOPS.find((top) => high <= top && high > top / 4) ?? high };
}

/** @param {number[][][]} planes @param {{low: number, high: number}} range */
function image(planes, { low, high }) {
  const height = planes[0].length;
  const width = planes[0][0].length;
  const title = `The sample, ${height} × ${width} pixels`;
  const canvas = element("canvas", { class: "picture look", role: "img", "aria-label": title });
  if (planes.length === 3) paintColours(canvas, planes, low, high);
  else paint(canvas, planes[0], low, high);
  return element(
    "figure",
    {},
    canvas,
    element("figcaption", { class: "quiet small" }, `${height} × ${width} pixels, from ${written(low)} to ${written(high)}`),
  );
}

/** @param {any[]} row @param {string[] | null} names */
function table(row, names) {
  return element(
    "div",
    { class: "row-of", tabindex: 0, role: "region", "aria-label": "Numbers of the sample" },
    element(
      "table",
      {},
      element("caption", { class: "unseen" }, "The sample"),
      element("thead", { class: "unseen" }, element("tr", {}, element("th", { scope: "col" }, "Name"), element("th", { scope: "col" }, "Value"))),
      element(
        "tbody",
        {},
        row.map((value, k) => element("tr", {}, element("th", { scope: "row" }, names?.[k] ?? `x${k + 1}`), element("td", {}, written(value)))),
      ),
    ),
  );
}

/** @param {number | boolean} value */
function written(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(DIGITS))) : String(value);
}
