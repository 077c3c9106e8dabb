/**
 * One version: how its uncertainty is distributed, against its calibration and over the last
 * minutes, and how many rows ran together.
 */

import { element } from "../element.js";
import { rounded } from "../numbers.js";
import { barChart } from "./bar_chart.js";
import { total } from "./distribution.js";
import { indexByChance } from "./drift.js";
import { stepsOf, uncertaintyOf } from "./rows.js";
import { counted, percent, spoken, titled } from "./words.js";

/** @typedef {import("./rows.js").Row} Row @typedef {import("./history.js").Step} Step @typedef {import("./bar_chart.js").Bins} Bins */

export function versionCard() {
  const title = element("h3", {});
  const state = element("p", { class: "small" });
  const against = barChart("Against the calibration", { what: "rows", now: "now", expected: "at the calibration" });
  const lately = barChart("Of the last minutes", { what: "rows", now: "rows" });
  const batches = barChart("Rows that ran together", { what: "batches", now: "batches" });
  return {
    node: element("section", { class: "card version-card" }, title, state, element("div", { class: "graphs" }, against.node, lately.node, batches.node)),

    /** @param {Row} row @param {Step[]} steps of the last minutes. @param {string} measure */
    update(row, steps, measure) {
      title.textContent = titled(row);
      state.textContent = stateOf(row);
      const compared = againstCalibration(row, measure);
      against.update(compared, compared === null ? whyNot(row, measure) : driftOf(row, measure, compared));
      const values = uncertaintyOf(stepsOf(steps, row.key), measure);
      const rows = values === null ? 0 : total(values);
      lately.update(
        values === null || rows === 0 ? null : { ends: values.bounds.map((bound) => (bound === Infinity ? "" : String(bound))), counts: values.counts, expected: null },
        rows === 0 ? `No ${spoken(measure)} was computed.` : `${spoken(measure)} of ${counted(rows, "row")}, mean ${rounded((values?.sum ?? NaN) / rows)}`,
      );
      const sizes = [...row.batches].sort(([a], [b]) => a - b);
      const ran = sizes.reduce((sum, [, count]) => sum + count, 0);
      batches.update(ran === 0 ? null : inPowers(sizes), ran === 0 ? "Nothing ran." : counted(ran, "batch", "batches"));
    },
  };
}

/** @param {Row} row */
function stateOf(row) {
  const state = row.state === "" || row.state === "ready" ? "" : `${row.state}. `;
  return `${state}${row.reason}`;
}

/**
 * The rows of the window in the calibration's bins, and the rows of the calibration in them.
 *
 * @param {Row} row @param {string} measure @returns {Bins | null}
 */
function againstCalibration(row, measure) {
  const reference = row.calibration?.references?.[measure];
  const counts = row.reading?.bins.get(measure);
  // After a reload the list of models may be of another calibration than the metrics.
  if (!reference || !counts || counts.length !== reference.counts.length || row.reading?.driftRows === 0) return null;
  return { ends: [...reference.edges.map((/** @type {number} */ edge) => rounded(edge, 2)), ""], counts, expected: reference.counts };
}

/** @param {Row} row @param {string} measure */
function whyNot(row, measure) {
  if (row.calibration === null) return row.state === "ready" ? "This version is not calibrated; candor calibrate makes it so." : "Not known.";
  if (!row.calibration.references?.[measure]) return `Its calibration says nothing of ${spoken(measure)}.`;
  return "No row came yet that the calibration holds for.";
}

/** @param {Row} row @param {string} measure @param {Bins} bins */
function driftOf(row, measure, bins) {
  const rows = row.reading?.driftRows ?? 0;
  const index = row.reading?.drift.get(measure);
  const chance = bins.expected && indexByChance(bins.expected, rows);
  const flagged = row.reading?.flagged ?? null;
  return [
    `the last ${counted(rows, "row")}`,
    index !== undefined && `drift ${rounded(index)}${chance === null ? "" : `, some ${rounded(chance, 2)} by chance alone`}`,
    flagged !== null && `flagged ${percent(flagged)}, ${percent(row.calibration.false_positive_rate)} at the calibration`,
  ]
    .filter(Boolean)
    .join("; ");
}

/** Batches by powers of two of their rows. @param {[number, number][]} sizes @returns {Bins} */
function inPowers(sizes) {
  const largest = sizes[sizes.length - 1][0];
  const ends = [1];
  while (ends[ends.length - 1] < largest) ends.push(2 * ends[ends.length - 1]);
  const counts = ends.map(() => 0);
  for (const [rows, count] of sizes) counts[ends.findIndex((end) => rows <= end)] += count;
  return { ends: ends.map(String), counts, expected: null };
}
