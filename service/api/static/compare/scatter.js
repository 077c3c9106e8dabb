/**
 * One version's doubt about each sample against the other's.
 *
 * @typedef {object} Point
 * @property {number} x doubt of the first.
 * @property {number} y doubt of the second.
 * @property {boolean} agree
 * @property {string} title
 * @property {number} place of the sample.
 */

import { drawn, element } from "../element.js";
import { rounded, ticks } from "../numbers.js";

const SIDE = 380;
const PAD = { left: 50, right: 14, top: 12, bottom: 42 };
const TICKS = 4;
const MARGIN = 1.04;

/**
 * @param {Point[]} points
 * @param {{first: string, second: string, measure: string, words: {agree: string, differ: string}}} names
 * @param {(place: number) => void} open a point was clicked.
 * @returns {HTMLElement}
 */
export function scatter(points, { first, second, measure, words }, open) {
  const high = MARGIN * Math.max(...points.flatMap(({ x, y }) => [x, y])) || 1;
  const across = (/** @type {number} */ x) => PAD.left + (x / high) * (SIDE - PAD.left - PAD.right);
  const up = (/** @type {number} */ y) => SIDE - PAD.bottom - (y / high) * (SIDE - PAD.top - PAD.bottom);
  const mark = (/** @type {Point} */ point) =>
    point.agree
      ? drawn("circle", { class: "agree", cx: across(point.x).toFixed(1), cy: up(point.y).toFixed(1), r: 4, "data-place": point.place }, drawn("title", {}, point.title))
      : drawn("path", { class: "differ", d: diamond(across(point.x), up(point.y)), "data-place": point.place }, drawn("title", {}, point.title));
  const more = points.filter(({ x, y }) => y > x).length;
  const less = points.filter(({ x, y }) => y < x).length;
  const svg = drawn(
    "svg",
    {
      class: "scatter", viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img",
      "aria-label": `${measure}: A is more in doubt about ${less} samples, B about ${more}, of ${points.length}`,
      onclick: (/** @type {any} */ event) => {
        const place = event.target.closest("[data-place]")?.getAttribute("data-place");
        if (place) open(Number(place));
      },
    },
    ticks(0, high, TICKS).filter((tick) => tick <= high).map((tick) => [
      drawn("path", { class: "line", d: `M${PAD.left} ${up(tick).toFixed(1)}H${SIDE - PAD.right}` }),
      drawn("path", { class: "line", d: `M${across(tick).toFixed(1)} ${PAD.top}V${SIDE - PAD.bottom}` }),
      drawn("text", { x: PAD.left - 6, y: up(tick) + 4, "text-anchor": "end" }, rounded(tick, 2)),
      drawn("text", { x: across(tick), y: SIDE - PAD.bottom + 16, "text-anchor": "middle" }, rounded(tick, 2)),
    ]),
    drawn("path", { class: "equal", d: `M${across(0)} ${up(0)}L${across(high)} ${up(high)}` }),
    drawn("text", { class: "axis-name", x: (PAD.left + SIDE - PAD.right) / 2, y: SIDE - 6, "text-anchor": "middle" }, `A: ${shortened(first)}`),
    drawn("text", { class: "axis-name", x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${(PAD.top + SIDE - PAD.bottom) / 2}) rotate(-90)` }, `B: ${shortened(second)}`),
    // Those that differ lie above the others, where they can be seen.
    points.filter((point) => point.agree).map(mark),
    points.filter((point) => !point.agree).map(mark),
  );
  const key = (/** @type {any} */ child) => drawn("svg", { class: "scatter mark", width: 16, height: 14, "aria-hidden": "true" }, child);
  return element(
    "figure",
    { class: "doubts" },
    svg,
    element(
      "figcaption",
      { class: "legend small" },
      element("span", {}, key(drawn("circle", { class: "agree", cx: 8, cy: 7, r: 4 })), words.agree),
      element("span", {}, key(drawn("path", { class: "differ", d: diamond(8, 7) })), words.differ),
      element("span", {}, key(drawn("path", { class: "equal", d: "M1 13L15 1" })), "equal doubt: above it B is more in doubt"),
    ),
  );
}

/** @param {number} x @param {number} y */
function diamond(x, y) {
  return `M${x.toFixed(1)} ${(y - 5.5).toFixed(1)}l5.5 5.5l-5.5 5.5l-5.5 -5.5z`;
}

/** @param {string} name */
function shortened(name) {
  return name.length > 40 ? `${name.slice(0, 39)}…` : name;
}
