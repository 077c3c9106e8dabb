/**
 * How things went over the last minutes: a line for each version.
 *
 * @typedef {object} Line
 * @property {string} name
 * @property {number} look 1 to 5, its colour and its dashes.
 * @property {{time: number, value: number | null}[]} points a null parts the line.
 *
 * @typedef {object} Span
 * @property {number} from in milliseconds.
 * @property {number} to
 * @property {number[]} marks when the server was started again.
 */

import { drawn, element, replace } from "../element.js";
import { ticks } from "../numbers.js";

const WIDTH = 360;
const HEIGHT = 150;
const PAD = { left: 58, right: 8, top: 8, bottom: 22 };
const TICKS = 3;
const MINUTE_MS = 60_000;
const NEAR_MS = 10_000;

/**
 * @param {string} title
 * @param {{write: (value: number) => string, least?: number, note?: string}} options how values are
 *   written, what the scale holds at least, and what there is to say of it.
 */
export function lineChart(title, { write, least = 0, note = "" }) {
  const svg = drawn("svg", { class: "lines", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const legend = element("ul", { class: "keys small" });
  const remark = element("p", { class: "quiet small" }, note);
  const cursor = drawn("path", { class: "cursor" });
  /** Where somebody points, as a share of the picture's width. @type {number | null} */
  let pointed = null;
  let read = () => {};
  svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    const box = svg.getBoundingClientRect();
    pointed = (event.clientX - box.left) / box.width;
    read();
  });
  svg.addEventListener("pointerleave", () => {
    pointed = null;
    read();
  });
  return {
    node: element("figure", { class: "card graph" }, element("figcaption", {}, element("h3", {}, title)), svg, legend, remark),

    /**
     * @param {Line[]} lines
     * @param {Span} span
     * @param {{level?: {value: number, name: string} | null, note?: string}} [more] a level to
     *   compare with, and another remark.
     */
    update(lines, span, more = {}) {
      const level = more.level ?? null;
      if (more.note !== undefined) remark.textContent = more.note;
      const values = lines.flatMap(({ points }) => points.map(({ value }) => value ?? 0));
      const { low, high, steps } = scaleOf([0, least, level?.value ?? 0, ...values]);
      const across = (/** @type {number} */ time) => PAD.left + ((time - span.from) / (span.to - span.from)) * (WIDTH - PAD.left - PAD.right);
      const up = (/** @type {number} */ value) => HEIGHT - PAD.bottom - ((value - low) / (high - low)) * (HEIGHT - PAD.top - PAD.bottom);
      const minutes = (span.to - span.from) / MINUTE_MS;
      replace(
        svg,
        steps.map((value) => [
          drawn("path", { class: "grid", d: `M${PAD.left} ${up(value).toFixed(1)}H${WIDTH - PAD.right}` }),
          drawn("text", { x: PAD.left - 6, y: up(value) + 4, "text-anchor": "end" }, write(value)),
        ]),
        [1, 0.5, 0].map((share) =>
          drawn("text", { x: across(span.to - share * (span.to - span.from)), y: HEIGHT - 5, "text-anchor": share === 1 ? "start" : share === 0 ? "end" : "middle" }, share === 0 ? "now" : `−${minutes * share} min`),
        ),
        span.marks.map((time) => drawn("path", { class: "restart", d: `M${across(time).toFixed(1)} ${PAD.top}V${HEIGHT - PAD.bottom}` })),
        level && drawn("path", { class: "limit", d: `M${PAD.left} ${up(level.value).toFixed(1)}H${WIDTH - PAD.right}` }),
        lines.map(({ look, points }) => drawn("path", { class: `line look-${look}`, d: path(points, across, up) })),
        cursor,
      );
      read = () => {
        const share = pointed === null ? 1 : (pointed * WIDTH - PAD.left) / (WIDTH - PAD.left - PAD.right);
        const time = span.from + Math.min(1, Math.max(0, share)) * (span.to - span.from);
        cursor.setAttribute("d", pointed === null ? "" : `M${across(time).toFixed(1)} ${PAD.top}V${HEIGHT - PAD.bottom}`);
        replace(
          legend,
          lines.map((line) => element("li", {}, key(`line look-${line.look}`), `${line.name}: `, element("b", {}, shown(valueAt(line, time), write)))),
          level && element("li", {}, key("limit"), `${level.name}: `, element("b", {}, write(level.value))),
          span.marks.length > 0 && element("li", {}, key("restart"), "the server was started again"),
          pointed !== null && element("li", {}, `${Math.round((span.to - time) / 1000)} s ago`),
        );
      };
      read();
      svg.setAttribute("aria-label", inWords(title, lines, minutes, write));
    },
  };
}

/** The mark of a line in a legend. @param {string} look */
function key(look) {
  return drawn("svg", { class: "key-line", width: 26, height: 10, "aria-hidden": "true" }, drawn("path", { class: look, d: "M1 5H25" }));
}

/** A line that is broken where there is nothing; what stands alone is a dot. @param {Line["points"]} points @param {(time: number) => number} across @param {(value: number) => number} up */
function path(points, across, up) {
  let drawing = "";
  points.forEach(({ time, value }, k) => {
    if (value === null) return;
    const place = `${across(time).toFixed(1)} ${up(value).toFixed(1)}`;
    const begins = k === 0 || points[k - 1].value === null;
    const alone = begins && (k === points.length - 1 || points[k + 1].value === null);
    drawing += `${begins ? "M" : "L"}${place}${alone ? "h0" : ""}`;
  });
  return drawing;
}

/**
 * A scale from one round number to another that holds all values, and the round numbers in it.
 *
 * @param {number[]} values of which one is 0.
 */
function scaleOf(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const [first, second = first + 1] = ticks(least, most > least ? most : least + 1, TICKS);
  const step = second - first;
  const round = (/** @type {number} */ count) => Number((step * count).toPrecision(12));
  const [from, to] = [Math.floor(least / step + 1e-9), Math.max(1, Math.ceil(most / step - 1e-9))];
  const steps = Array.from({ length: to - from + 1 }, (_, k) => round(from + k));
  return { low: steps[0], high: steps[steps.length - 1], steps };
}

/** What the point says that is nearest in time, if it is near. @param {Line} line @param {number} time */
function valueAt({ points }, time) {
  const away = points.map((point) => Math.abs(point.time - time));
  const least = Math.min(...away);
  return least <= NEAR_MS ? points[away.indexOf(least)].value : null;
}

/** @param {number | null} value @param {(value: number) => string} write */
function shown(value, write) {
  return value === null ? "–" : write(value);
}

/** @param {string} title @param {Line[]} lines @param {number} minutes @param {(value: number) => string} write */
function inWords(title, lines, minutes, write) {
  const said = lines.map((line) => {
    const values = line.points.map(({ value }) => value).filter((value) => value !== null);
    if (values.length === 0) return `${line.name}: nothing`;
    return `${line.name}: ${shown(line.points.at(-1)?.value ?? null, write)} now, ${write(Math.max(...values))} at most`;
  });
  return `${title} over the last ${minutes} min. ${said.join("; ")}.`;
}
