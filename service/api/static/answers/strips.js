/**
 * One line for each class or output: every pass a dot, their mean and standard deviation, and what
 * the network says with dropout off.
 *
 * @typedef {object} Line
 * @property {string} name
 * @property {number[]} passes
 * @property {number} mean
 * @property {number} std
 * @property {number | null} plain with dropout off.
 */

import { drawn, element } from "../element.js";

const HEIGHT = 26;
const EDGE = 7;
/** Of the columns beside the strips, in pixels. */
const NAME = { letter: 8, least: 24, most: 112, mostNarrow: 64 };
const NUMBERS = 124;
const OFF = 54;
const NARROW = 420;

/**
 * @param {Line[]} lines
 * @param {{low: number, high: number, width: number, write: (value: number) => string, caption: string, best: number | null}} options
 *   the scale, the width of the table in pixels, how numbers are written, and which line is the answer.
 * @returns {HTMLElement}
 */
export function strips(lines, { low, high, width, write, caption, best }) {
  const longest = NAME.letter * (1 + Math.max(...lines.map((line) => line.name.length)));
  const name = Math.max(NAME.least, Math.min(longest, width < NARROW ? NAME.mostNarrow : NAME.most));
  const rest = width - name - NUMBERS - OFF;
  return element(
    "table",
    { class: "strips" },
    element("caption", { class: "unseen" }, caption),
    element("colgroup", {}, [name, rest, NUMBERS, OFF].map((each) => element("col", { style: { width: `${each}px` } }))),
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        element("th", { scope: "col" }, element("span", { class: "unseen" }, "Name")),
        element("td", { class: "strip" }, element("span", { class: "ends" }, element("span", {}, write(low)), element("span", {}, write(high)))),
        element("th", { scope: "col" }, "mean ± std"),
        element("th", { scope: "col" }, "off"),
      ),
    ),
    element(
      "tbody",
      {},
      lines.map((line, k) =>
        element(
          "tr",
          { class: k === best ? "best" : null },
          element("th", { scope: "row" }, line.name),
          element("td", { class: "strip" }, strip(line, low, high, rest)),
          element("td", { class: "number" }, `${write(line.mean)} ± ${write(line.std)}`),
          element("td", { class: "number" }, line.plain === null ? "–" : write(line.plain)),
        ),
      ),
    ),
  );
}

/** What the marks mean. @param {number} passes */
export function legend(passes) {
  const mark = (/** @type {any} */ child) => drawn("svg", { class: "mark", width: 22, height: 14, "aria-hidden": "true" }, child);
  return element(
    "p",
    { class: "legend small" },
    element("span", {}, mark(drawn("path", { class: "passes", d: "M6 7h0M12 4h0M16 9h0" })), `each of ${passes} passes`),
    element("span", {}, mark([drawn("path", { class: "std", d: "M2 7h18" }), drawn("path", { class: "mean", d: "M11 1v12" })]), "their mean ± one standard deviation"),
    element("span", {}, mark(drawn("path", { class: "plain", d: diamond(11, 7) })), "dropout off: one answer, no doubt told"),
  );
}

/** @param {Line} line @param {number} low @param {number} high @param {number} width */
function strip(line, low, high, width) {
  const at = (/** @type {number} */ value) => {
    const share = (value - low) / (high - low || 1);
    return (EDGE + Math.min(1, Math.max(0, share)) * (width - 2 * EDGE)).toFixed(1);
  };
  const middle = HEIGHT / 2;
  const dots = line.passes.map((value, t) => `M${at(value)} ${(middle + scatter(t) * (HEIGHT - 8)).toFixed(1)}h0`);
  return drawn(
    "svg",
    { width, height: HEIGHT, "aria-hidden": "true" },
    drawn("path", { class: "axis", d: `M${EDGE} ${middle}H${width - EDGE}` }),
    drawn("path", { class: "passes", d: dots.join("") }),
    drawn("path", { class: "std", d: `M${at(line.mean - line.std)} ${middle}H${at(line.mean + line.std)}` }),
    drawn("path", { class: "mean", d: `M${at(line.mean)} 2V${HEIGHT - 2}` }),
    line.plain === null ? null : drawn("path", { class: "plain", d: diamond(Number(at(line.plain)), middle) }),
  );
}

/** @param {number} x @param {number} y */
function diamond(x, y) {
  return `M${x - 5} ${y}l5 -5l5 5l-5 5z`;
}

/** Where a pass stands across its strip, the same each time: −½ to ½. @param {number} pass */
function scatter(pass) {
  return ((pass * 0.618034) % 1) - 0.5;
}
