/**
 * Whether what a version answers still is distributed as at its calibration.
 *
 * @typedef {import("./rows.js").Row} Row
 */

/** As deploy/alerts.yml has them: what is more than this, seen in rows enough, is worth a look. */
const MUCH_DRIFT = 0.25;
const MANY_FLAGGED = 0.25;
const ROWS_ENOUGH = 500;

/** The measure that drifted most. @param {Row} row @returns {{measure: string, index: number} | null} */
export function mostDrifted(row) {
  if (row.reading === null || row.reading.driftRows === 0) return null;
  const all = [...row.reading.drift].map(([measure, index]) => ({ measure, index }));
  return all.reduce((most, each) => (most === null || each.index > most.index ? each : most), /** @type {{measure: string, index: number} | null} */ (null));
}

/** Whether rows enough were seen to speak of drift. @param {Row} row */
export function seenEnough(row) {
  return (row.reading?.driftRows ?? 0) >= ROWS_ENOUGH;
}

/** @param {Row} row */
export function drifts(row) {
  return seenEnough(row) && (mostDrifted(row)?.index ?? 0) > MUCH_DRIFT;
}

/** @param {Row} row */
export function flagsMany(row) {
  return seenEnough(row) && (row.reading?.flagged ?? 0) > MANY_FLAGGED;
}

/**
 * About the index that so many rows have where nothing drifts: (bins − 1)(1/n + 1/m).
 *
 * @param {number[]} expected counts at the calibration.
 * @param {number} rows
 */
export function indexByChance(expected, rows) {
  const m = expected.reduce((sum, count) => sum + count, 0);
  return rows > 0 && m > 0 ? (expected.length - 1) * (1 / rows + 1 / m) : null;
}
