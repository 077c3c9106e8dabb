/**
 * How values are distributed, in bins, and how they were at the calibration.
 *
 * @typedef {object} Bins
 * @property {string[]} ends the upper end of each bin in words; that of the last one may be empty.
 * @property {number[]} counts
 * @property {number[] | null} expected counts at the calibration.
 */

import { drawn, element, replace } from "../element.js";
import { ticks } from "../numbers.js";
import { percent } from "./words.js";

const WIDTH = 360;
const HEIGHT = 150;
const PAD = { left: 42, right: 8, top: 8, bottom: 22 };
const TICKS = 3;
const GAP = 0.12;
/** Of a bin's end, in the picture's units. */
const LETTER = 7;

/**
 * @param {string} title
 * @param {{what: string, now: string, expected?: string}} words what is counted, what the bars are,
 *   and what is compared with.
 */
export function barChart(title, { what, now, expected = "" }) {
  const svg = drawn("svg", { class: "bars", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const legend = element("p", { class: "legend small" });
  const body = element("tbody", {});
  const comparing = expected !== "";
  const table = element(
    "table",
    { class: "small" },
    element("caption", { class: "unseen" }, title),
    element(
      "thead",
      {},
      element("tr", {}, element("th", { scope: "col" }, "up to"), element("th", { scope: "col" }, what), element("th", { scope: "col" }, "share"), comparing && element("th", { scope: "col" }, expected)),
    ),
    body,
  );
  const numbers = element("details", { class: "small" }, element("summary", {}, "As numbers"), element("div", { class: "scrolls", tabindex: 0, role: "group", "aria-label": `${title}, as numbers` }, table));
  return {
    node: element("figure", { class: "graph" }, element("figcaption", {}, element("h4", {}, title)), svg, legend, numbers),

    /** @param {Bins | null} bins null where there is nothing yet. @param {string} note */
    update(bins, note) {
      numbers.hidden = bins === null;
      if (bins === null) {
        replace(svg);
        svg.setAttribute("aria-label", `${title}: ${note}`);
        svg.classList.add("empty");
        replace(legend, note);
        return;
      }
      svg.classList.remove("empty");
      const shares = sharesOf(bins.counts);
      const references = bins.expected && sharesOf(bins.expected);
      draw(svg, bins.ends, shares, references);
      const most = shares.indexOf(Math.max(...shares));
      const ends = bins.ends.map((end) => end || "more");
      svg.setAttribute("aria-label", `${title}. Most, ${percent(shares[most])}, are ${within(ends, most)}.`);
      replace(
        legend,
        element("span", {}, mark(drawn("rect", { class: "bar-now", x: 5, y: 2, width: 12, height: 10 })), now),
        references && element("span", {}, mark(drawn("path", { class: "bar-expected", d: "M2 7h18" })), expected),
        element("span", {}, note),
      );
      replace(
        body,
        bins.counts.map((count, k) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, ends[k]),
            element("td", {}, count.toLocaleString("en")),
            element("td", {}, percent(shares[k])),
            comparing && element("td", {}, references ? percent(references[k]) : "–"),
          ),
        ),
      );
    },
  };
}

/** @param {SVGElement} svg @param {string[]} ends @param {number[]} shares @param {number[] | null} references */
function draw(svg, ends, shares, references) {
  const high = Math.max(...shares, ...(references ?? []));
  const each = (WIDTH - PAD.left - PAD.right) / shares.length;
  const left = (/** @type {number} */ k) => PAD.left + k * each;
  const up = (/** @type {number} */ share) => HEIGHT - PAD.bottom - (share / (high || 1)) * (HEIGHT - PAD.top - PAD.bottom);
  const longest = Math.max(...ends.map((end) => end.length));
  const every = Math.max(1, Math.ceil((LETTER * (longest + 1)) / each));
  replace(
    svg,
    ticks(0, high, TICKS).map((share) => [
      drawn("path", { class: "grid", d: `M${PAD.left} ${up(share).toFixed(1)}H${WIDTH - PAD.right}` }),
      drawn("text", { x: PAD.left - 6, y: up(share) + 4, "text-anchor": "end" }, percent(share)),
    ]),
    shares.map((share, k) => {
      const y = up(share);
      return drawn("rect", { class: "bar-now", x: (left(k) + (GAP * each) / 2).toFixed(1), y: y.toFixed(1), width: ((1 - GAP) * each).toFixed(1), height: (HEIGHT - PAD.bottom - y).toFixed(1) });
    }),
    references?.map((share, k) => drawn("path", { class: "bar-expected", d: `M${left(k).toFixed(1)} ${up(share).toFixed(1)}h${each.toFixed(1)}` })),
    ends.map((end, k) => {
      // Beside the right edge there is no room for half a word.
      const fits = end !== "" && (k + 1) % every === 0 && left(k + 1) + (LETTER * end.length) / 2 <= WIDTH;
      return fits && drawn("text", { x: left(k + 1).toFixed(1), y: HEIGHT - 5, "text-anchor": "middle" }, end);
    }),
  );
}

/** @param {any} child */
function mark(child) {
  return drawn("svg", { class: "mark", width: 22, height: 14, "aria-hidden": "true" }, child);
}

/** @param {string[]} ends @param {number} k */
function within(ends, k) {
  if (ends.length === 1) return "anywhere";
  return k === 0 ? `up to ${ends[0]}` : `above ${ends[k - 1]}${ends[k] === "more" ? "" : ` and up to ${ends[k]}`}`;
}

/** @param {number[]} counts */
function sharesOf(counts) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  return counts.map((count) => (all > 0 ? count / all : 0));
}
