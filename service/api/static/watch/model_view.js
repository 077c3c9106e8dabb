/**
 * One model, its versions side by side: courses over the last minutes, and distributions.
 */

import { element, replace } from "../element.js";
import { mean, quantile } from "./distribution.js";
import { course, summed, sumOf } from "./history.js";
import { showEach } from "./keyed.js";
import { lineChart } from "./line_chart.js";
import { meanRows, ofKind, secondsOf, stepsOf, uncertaintyOf } from "./rows.js";
import { versionCard } from "./version_card.js";
import { duration, percent, plain, spoken, titled } from "./words.js";

/**
 * @typedef {import("./rows.js").Row} Row
 * @typedef {import("./history.js").Step} Step
 * @typedef {import("./history.js").VersionStep} VersionStep
 * @typedef {import("./line_chart.js").Span} Span
 */

/** As many lines as there are colours. */
const MOST_LINES = 5;
const FIRST_MEASURE = "predictive_entropy";
const NOTE = "Each point is of the ten seconds before it.";

/** What a course shows of a version: from what came in some seconds. @typedef {(own: VersionStep[], seconds: number) => number | null} Shown */

/** @type {{title: string, of: Shown, options: {write: (value: number) => string, least?: number, note?: string}}[]} */
const COURSES = [
  { title: "Requests a second", of: (own, seconds) => sumOf(summed(own.map((step) => step.codes))) / seconds, options: { write: plain, least: 0.5, note: NOTE } },
  { title: "Time of a request, median", of: (own) => time(own, 0.5), options: { write: duration, least: 0.001, note: `${NOTE} Estimated: spread evenly between the bounds that requests are counted between.` } },
  { title: "Time of a request, 99th percentile", of: (own) => time(own, 0.99), options: { write: duration, least: 0.001, note: `${NOTE} Estimated in the same way; what is longer than 30 s is shown as 30 s.` } },
  { title: "Share of requests that fail (5xx)", of: failing, options: { write: percent, least: 0.01, note: NOTE } },
  { title: "Rows a batch, mean", of: (own) => meanRows(summed(own.map((step) => step.batches))), options: { write: plain, least: 1, note: NOTE } },
];

/**
 * @param {{onempty: (model: string, exists: boolean) => Node}} parts what stands there for a model
 *   that nobody asked.
 */
export function modelView({ onempty }) {
  const title = element("h2", { id: "watch-model" });
  const about = element("p", { class: "quiet" });
  const few = element("p", { class: "quiet small" });
  const empty = element("div", { class: "nothing" });
  const measures = element("select", { id: "watch-measure", onchange: () => redraw() });
  const charts = COURSES.map(({ title: name, options }) => lineChart(name, options));
  const doubt = lineChart("Uncertainty, mean", { write: plain, least: 0 });
  const flags = lineChart("Share that is flagged", { write: percent, least: 0.1, note: "Of the last rows of a calibrated version (CANDOR_DRIFT_ROWS), not of the last seconds." });
  const drift = lineChart("Drift from the calibration", { write: plain, least: 0.25, note: "Population stability index of the last rows of a calibrated version; above 0.25 in many rows is a major shift, few rows alone make it large." });
  const courses = element("div", { class: "graphs" }, charts.map(({ node }) => node), doubt.node, flags.node, drift.node);
  const cards = element("div", { class: "cards" });
  /** @type {Map<string, ReturnType<typeof versionCard>>} */
  const shown = new Map();
  /** The look of each version's line, kept as long as it is drawn. @type {Map<string, number>} */
  const looks = new Map();
  let model = "";
  let emptyFor = "";
  let redraw = () => {};

  /** @param {Row[]} rows of the model. */
  function offer(rows) {
    const known = new Set(rows.flatMap((row) => [...(row.reading?.uncertainty.keys() ?? []), ...Object.keys(row.calibration?.references ?? {})]));
    const all = [...known].sort();
    const offered = [...measures.options].map((/** @type {HTMLOptionElement} */ option) => option.value);
    if (all.join() === offered.join()) return;
    const before = measures.value || FIRST_MEASURE;
    replace(measures, all.map((measure) => element("option", { value: measure, selected: measure === before }, spoken(measure))));
  }

  return {
    node: element(
      "section",
      { class: "model-view", "aria-labelledby": "watch-model" },
      title,
      about,
      empty,
      element("div", { class: "field measure" }, element("label", { for: "watch-measure" }, "Measure of the uncertainty"), measures),
      few,
      courses,
      cards,
    ),

    /**
     * @param {string} name
     * @param {string} description
     * @param {Row[]} rows of the model, all of its versions.
     * @param {Step[]} steps of the last minutes.
     * @param {Span} span
     */
    update(name, description, rows, steps, span) {
      redraw = () => this.update(name, description, rows, steps, span);
      if (name !== model) {
        model = name;
        looks.clear();
      }
      title.textContent = name;
      about.textContent = description;
      offer(rows);
      const measure = measures.value;
      const asked = rows.some((row) => row.requests > 0);
      const missing = asked ? "" : JSON.stringify([name, rows.length > 0]);
      if (missing !== emptyFor) replace(empty, !asked && onempty(name, rows.length > 0));
      emptyFor = missing;
      courses.hidden = !asked;
      measures.parentElement.hidden = measures.options.length === 0;

      const most = [...rows].sort((a, b) => b.requests - a.requests).slice(0, MOST_LINES);
      const drawn = rows.filter((row) => most.includes(row));
      few.textContent = rows.length > drawn.length ? `Drawn are the ${drawn.length} of ${rows.length} versions that were asked most.` : "";
      for (const key of [...looks.keys()]) if (!drawn.some((row) => row.key === key)) looks.delete(key);
      for (const row of drawn) {
        if (!looks.has(row.key)) looks.set(row.key, free(looks));
      }
      const lines = (/** @type {Shown} */ of) =>
        drawn.map((row) => ({
          name: titled(row),
          look: looks.get(row.key) ?? 1,
          points: course(steps, (recent, seconds) => {
            const own = stepsOf(recent, row.key);
            return own.length === 0 ? null : of(own, seconds);
          }),
        }));
      const last = (/** @type {(step: VersionStep) => number | null | undefined} */ of) => lines(([newest]) => of(newest) ?? null);
      if (asked) {
        COURSES.forEach(({ of }, k) => charts[k].update(lines(of), span));
        doubt.update(lines((own) => meanOf(own, measure)), span, { note: `Mean ${spoken(measure)} of a row. ${NOTE}` });
        flags.update(last((step) => step.flagged), span, { level: rateAtCalibration(drawn) });
        drift.update(last((step) => step.drift.get(measure)), span);
      }
      showCards(rows, steps, measure);
    },
  };

  /** @param {Row[]} rows @param {Step[]} steps @param {string} measure */
  function showCards(rows, steps, measure) {
    const told = rows.filter((row) => row.reason || row.requests > 0 || (row.reading?.driftRows ?? 0) > 0);
    showEach(cards, shown, told, versionCard, (card, row) => card.update(row, steps, measure));
  }
}

/** The first look that nobody has. @param {Map<string, number>} looks */
function free(looks) {
  const taken = new Set(looks.values());
  let look = 1;
  while (taken.has(look)) look += 1;
  return look;
}

/** @param {VersionStep[]} own @param {number} share */
function time(own, share) {
  const seconds = secondsOf(own);
  return (seconds && quantile(seconds, share)?.value) ?? null;
}

/** @param {VersionStep[]} own */
function failing(own) {
  const codes = summed(own.map((step) => step.codes));
  const all = sumOf(codes);
  return all > 0 ? ofKind(codes, "5") / all : null;
}

/** @param {VersionStep[]} own @param {string} measure */
function meanOf(own, measure) {
  const values = uncertaintyOf(own, measure);
  return values && mean(values);
}

/** The share that was to be flagged, where the versions agree in it. @param {Row[]} rows */
function rateAtCalibration(rows) {
  const rates = new Set(rows.filter((row) => row.calibration !== null).map((row) => row.calibration.false_positive_rate));
  return rates.size === 1 ? { value: [...rates][0], name: "at the calibration" } : null;
}
