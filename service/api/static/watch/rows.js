/**
 * What is known of each version: what the server lists, what it measured, and what came in the last
 * minutes.
 *
 * @typedef {import("./history.js").Step} Step
 * @typedef {import("./history.js").VersionStep} VersionStep
 * @typedef {import("./reading.js").VersionReading} VersionReading
 * @typedef {import("./distribution.js").Distribution} Distribution
 *
 * @typedef {object} Row
 * @property {string} key
 * @property {string} model
 * @property {string} version empty of a model without any.
 * @property {string[]} called its labels (stable, canary), and whether it answers who names none.
 * @property {string} state ready, loading, failed, unloaded; "not ready" of those three that the
 *   metrics alone do not tell apart; empty where it is not known.
 * @property {string} reason of its state, or of a calibration that is not applied.
 * @property {any} calibration as GET /models has it.
 * @property {VersionReading | null} reading null of one that the server measures nothing of.
 * @property {Map<string, number>} codes of the last minutes, as all that follows.
 * @property {number} requests
 * @property {number} failed answered 5xx.
 * @property {number} refused answered 4xx.
 * @property {Distribution | null} seconds
 * @property {Map<number, number>} batches
 */

import { added } from "./distribution.js";
import { summed, sumOf } from "./history.js";
import { keyOf } from "./reading.js";

/**
 * @param {Map<string, VersionReading>} readings
 * @param {Map<string, any> | null} models as of GET /models by their names; null where it is not known.
 * @param {Step[]} steps of the last minutes.
 * @returns {Row[]} by model, the newest version first.
 */
export function rowsOf(readings, models, steps) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  for (const [key, reading] of readings) rows.set(key, row(reading.model, reading.version, reading, steps));
  for (const [name, model] of models ?? []) {
    for (const version of model.versions) {
      const number = String(version.version);
      const key = keyOf(name, number);
      const found = rows.get(key) ?? row(name, number, null, steps);
      rows.set(key, described(found, model, version));
    }
    if (model.versions.length === 0) rows.set(keyOf(name, ""), { ...row(name, "", null, steps), state: model.reason ? "failed" : "", reason: model.reason ?? "" });
  }
  return [...rows.values()].sort((a, b) => (a.model === b.model ? Number(b.version) - Number(a.version) : a.model < b.model ? -1 : 1));
}

/** What came of a version in some steps. @param {Step[]} steps @param {string} key @returns {VersionStep[]} */
export function stepsOf(steps, key) {
  return steps.map((step) => step.versions.get(key)).filter((step) => step !== undefined);
}

/** Distributions of a measure in some steps, as one. @param {VersionStep[]} steps @param {string} measure */
export function uncertaintyOf(steps, measure) {
  return added(steps.map((step) => step.uncertainty.get(measure)).filter((each) => each !== undefined));
}

/** Times of requests in some steps, as one. @param {VersionStep[]} steps */
export function secondsOf(steps) {
  return added(steps.map((step) => step.seconds).filter((each) => each !== null));
}

/** Counts of the codes that begin with a digit. @param {Map<string, number>} codes @param {string} digit */
export function ofKind(codes, digit) {
  return [...codes].reduce((sum, [code, count]) => sum + (code.startsWith(digit) ? count : 0), 0);
}

/** The mean number of rows of batches. @param {Map<number, number>} batches */
export function meanRows(batches) {
  const all = sumOf(batches);
  return all > 0 ? [...batches].reduce((sum, [rows, count]) => sum + rows * count, 0) / all : null;
}

/** @param {string} model @param {string} version @param {VersionReading | null} reading @param {Step[]} steps @returns {Row} */
function row(model, version, reading, steps) {
  const key = keyOf(model, version);
  const own = stepsOf(steps, key);
  const codes = summed(own.map((step) => step.codes));
  return {
    key,
    model,
    version,
    called: [],
    state: reading === null || reading.ready === null ? "" : reading.ready ? "ready" : "not ready",
    reason: "",
    calibration: null,
    reading,
    codes,
    requests: sumOf(codes),
    failed: ofKind(codes, "5"),
    refused: ofKind(codes, "4"),
    seconds: secondsOf(own),
    batches: summed(own.map((step) => step.batches)),
  };
}

/** @param {Row} row @param {any} model @param {any} version @returns {Row} */
function described(row, model, version) {
  const labels = Object.entries(model.version_labels ?? {}).filter(([, number]) => number === version.version);
  const calibration = version.calibration;
  return {
    ...row,
    called: [...labels.map(([label]) => label), ...(model.default_version === version.version ? ["default"] : [])],
    state: version.state,
    reason: version.reason ?? (calibration?.state === "stale" ? `not calibrated: ${calibration.reason}` : ""),
    calibration: calibration?.state === "applied" ? calibration : null,
  };
}
