/**
 * A regression of one number: its mean over a range, the band of its doubt, the answer with dropout
 * off, and the point that is asked about.
 *
 * @typedef {object} Course
 * @property {number[]} xs
 * @property {number[]} mean
 * @property {number[]} epistemic standard deviation over passes.
 * @property {number[] | null} aleatoric
 * @property {number[]} plain
 */

import { drawn, element } from "../element.js";
import { rounded, ticks } from "../numbers.js";

export const POINTS = 400;
const HEIGHT = 320;
const PAD = { left: 58, right: 12, top: 12, bottom: 30 };
const DEVIATIONS = 2;

/** What is asked for along a range. @param {number[]} range */
export function grid([low, high]) {
  return Array.from({ length: POINTS }, (_, k) => low + ((high - low) * k) / (POINTS - 1));
}

/** @param {number[]} xs @param {any} answer of POST /predict. @param {any} plain of POST /eval. @returns {Course} */
export function courseOf(xs, answer, plain) {
  const first = (/** @type {number[][]} */ rows) => rows.map(([value]) => value);
  return {
    xs,
    mean: first(answer.mean),
    epistemic: first(answer.epistemic_std ?? answer.std),
    aleatoric: answer.aleatoric_std ? first(answer.aleatoric_std) : null,
    plain: first(plain.mean),
  };
}

/**
 * @param {Course} course
 * @param {{x: number, mean: number, passes: number[]}} point
 * @param {number} width in pixels.
 * @param {(x: number) => void} moved the point was moved by hand.
 * @returns {HTMLElement}
 */
export function curve(course, point, width, moved) {
  const { xs, mean, plain } = course;
  const inner = course.epistemic.map((std) => DEVIATIONS * std);
  const outer = course.aleatoric?.map((std, k) => DEVIATIONS * Math.hypot(std, course.epistemic[k]));
  const widest = outer ?? inner;
  const all = [...mean.map((value, k) => value - widest[k]), ...mean.map((value, k) => value + widest[k]), ...plain];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const [left, right] = [xs[0], xs[xs.length - 1]];
  const across = (/** @type {number} */ x) => PAD.left + ((x - left) / (right - left)) * (width - PAD.left - PAD.right);
  const up = (/** @type {number} */ y) => HEIGHT - PAD.bottom - ((y - low) / (high - low || 1)) * (HEIGHT - PAD.top - PAD.bottom);
  const path = (/** @type {number[]} */ ys) => ys.map((y, k) => `${k === 0 ? "M" : "L"}${across(xs[k]).toFixed(1)} ${up(y).toFixed(1)}`).join("");
  const band = (/** @type {number[]} */ half) => {
    const above = mean.map((value, k) => `${across(xs[k]).toFixed(1)} ${up(value + half[k]).toFixed(1)}`);
    const below = mean.map((value, k) => `${across(xs[k]).toFixed(1)} ${up(value - half[k]).toFixed(1)}`).reverse();
    return `M${[...above, ...below].join("L")}Z`;
  };
  const within = point.x >= left && point.x <= right;
  const svg = drawn(
    "svg",
    { class: "curve", width, height: HEIGHT, role: "img", "aria-label": `The mean from ${rounded(left, 5)} to ${rounded(right, 5)} with its band; at ${rounded(point.x, 5)} it is ${rounded(point.mean, 4)}` },
    ticks(low, high, 5).map((y) => [
      drawn("path", { class: "line", d: `M${PAD.left} ${up(y).toFixed(1)}H${width - PAD.right}` }),
      drawn("text", { x: PAD.left - 6, y: up(y) + 4, "text-anchor": "end" }, String(y)),
    ]),
    ticks(left, right, Math.max(2, width / 110)).map((x) => drawn("text", { x: across(x), y: HEIGHT - 8, "text-anchor": "middle" }, String(x))),
    outer && drawn("path", { class: "band outer", d: band(outer) }),
    drawn("path", { class: "band", d: band(inner) }),
    drawn("path", { class: "plain-line", d: path(plain) }),
    drawn("path", { class: "mean-line", d: path(mean) }),
    within && drawn("path", { class: "query", d: `M${across(point.x).toFixed(1)} ${PAD.top}V${HEIGHT - PAD.bottom}` }),
    within && drawn("path", { class: "passes", d: point.passes.map((y) => `M${across(point.x).toFixed(1)} ${up(y).toFixed(1)}h0`).join("") }),
  );
  const move = (/** @type {PointerEvent} */ event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const share = (x - PAD.left) / (width - PAD.left - PAD.right);
    moved(left + Math.min(1, Math.max(0, share)) * (right - left));
  };
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (event.buttons & 1) move(event);
  });
  return element(
    "figure",
    { class: "course" },
    svg,
    element(
      "figcaption",
      { class: "legend small" },
      element("span", {}, element("span", { class: "key mean-key" }), "mean of the passes"),
      element("span", {}, element("span", { class: "key band-key" }), `± ${DEVIATIONS} standard deviations, epistemic`),
      outer && element("span", {}, element("span", { class: "key outer-key" }), "with the aleatoric ones"),
      element("span", {}, element("span", { class: "key plain-key" }), "dropout off"),
    ),
  );
}
