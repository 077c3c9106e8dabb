/**
 * The last minutes, step by step from one look at the server to the next.
 *
 * @typedef {import("./reading.js").Reading} Reading
 * @typedef {import("./reading.js").VersionReading} VersionReading
 * @typedef {import("./distribution.js").Distribution} Distribution
 *
 * @typedef {object} VersionStep what came in a step, and how it stood at its end.
 * @property {Map<string, number>} codes
 * @property {Distribution | null} seconds null where no request came.
 * @property {Map<string, Distribution>} uncertainty of the measures of which some came.
 * @property {Map<number, number>} batches
 * @property {number | null} flagged
 * @property {Map<string, number>} drift
 *
 * @typedef {object} Step
 * @property {number} since in milliseconds, the look before.
 * @property {number} time
 * @property {boolean} restarted the server was started again in between: all that it counted has come.
 * @property {Map<string, number>} asked
 * @property {Map<string, number>} refused
 * @property {number} busy
 * @property {Map<string, VersionStep>} versions
 */

import { growth, total } from "./distribution.js";

/** A step that is longer shows nothing of how things went in it. */
const LONGEST_MS = 10_000;
/** What a point of a course covers, up to its time. */
const COVERS_MS = 10_000;

export class History {
  /** @param {number} keptMs */
  constructor(keptMs) {
    this._keptMs = keptMs;
    /** @type {Step[]} */
    this._steps = [];
    /** Each version as it was seen last, be it long ago. @type {Map<string, VersionReading>} */
    this._seen = new Map();
    /** @type {Reading | null} */
    this.last = null;
    /** When the first look was, in milliseconds. */
    this.began = NaN;
  }

  /** @param {Reading} reading @returns {Step | null} null of the first one, that nothing is before. */
  add(reading) {
    const before = this.last;
    this.last = reading;
    if (before === null) this.began = reading.time;
    const restarted = before !== null && isRestart(before, reading);
    if (restarted) this._seen.clear();
    /** @type {Step | null} */
    let step = null;
    if (before !== null && reading.time > before.time) {
      step = {
        since: before.time,
        time: reading.time,
        restarted,
        asked: grown(restarted ? undefined : before.asked, reading.asked),
        refused: grown(restarted ? undefined : before.refused, reading.refused),
        busy: restarted ? reading.busy : Math.max(0, reading.busy - before.busy),
        versions: new Map([...reading.versions].map(([key, now]) => [key, stepOf(this._seen.get(key), now, restarted)])),
      };
      this._steps.push(step);
    }
    for (const [key, now] of reading.versions) this._seen.set(key, now);
    const from = reading.time - this._keptMs;
    this._steps = this._steps.filter((each) => each.since >= from);
    return step;
  }

  /** The steps of the last so many milliseconds, whole ones. @param {number} ms */
  within(ms) {
    const from = (this.last?.time ?? 0) - ms;
    return this._steps.filter((step) => step.since >= from);
  }
}

/**
 * How something went: at each step's end a value of the steps that make up the seconds before it,
 * or null where the page did not look, or the server was started again.
 *
 * @param {Step[]} steps
 * @param {(recent: Step[], seconds: number) => number | null} value gets the newest step first.
 * @returns {{time: number, value: number | null}[]}
 */
export function course(steps, value) {
  const tells = (/** @type {Step} */ step) => !step.restarted && step.time - step.since <= LONGEST_MS;
  return steps.map((step, number) => {
    /** @type {Step[]} */
    const recent = [];
    for (let k = number; k >= 0 && tells(steps[k]) && steps[k].since >= step.time - COVERS_MS; k -= 1) recent.push(steps[k]);
    const oldest = recent.at(-1);
    return { time: step.time, value: oldest ? value(recent, (step.time - oldest.since) / 1000) : null };
  });
}

/** Counts of several steps as one. @template K @param {Map<K, number>[]} several @returns {Map<K, number>} */
export function summed(several) {
  const found = new Map();
  for (const counts of several) {
    for (const [key, count] of counts) found.set(key, (found.get(key) ?? 0) + count);
  }
  return found;
}

/** All counts together. @param {Map<any, number>} counts */
export function sumOf(counts) {
  return [...counts.values()].reduce((sum, count) => sum + count, 0);
}

/** @param {Reading} before @param {Reading} after */
function isRestart(before, after) {
  if (before.started !== null && after.started !== null) return before.started !== after.started;
  return after.answered < before.answered;
}

/** @param {VersionReading | undefined} before @param {VersionReading} now @param {boolean} restarted @returns {VersionStep} */
function stepOf(before, now, restarted) {
  const uncertainty = new Map();
  for (const [measure, after] of now.uncertainty) {
    const more = growth(before?.uncertainty.get(measure), after);
    if (total(more) > 0) uncertainty.set(measure, more);
  }
  const seconds = now.seconds && growth(before?.seconds ?? undefined, now.seconds);
  return {
    codes: grown(before?.codes, now.codes),
    seconds: seconds && total(seconds) > 0 ? seconds : null,
    uncertainty,
    // The statistics of a version that serves again hold what it did before it was seen here.
    batches: before || restarted ? grown(before?.batches, now.batches) : new Map(),
    flagged: now.flagged,
    drift: now.drift,
  };
}

/**
 * What came to counts that only ever grow; one that fell began anew.
 *
 * @template K
 * @param {Map<K, number> | undefined} before
 * @param {Map<K, number>} after
 * @returns {Map<K, number>} without what did not change.
 */
function grown(before, after) {
  const found = new Map();
  for (const [key, count] of after) {
    const known = before?.get(key) ?? 0;
    const more = count < known ? count : count - known;
    if (more > 0) found.set(key, more);
  }
  return found;
}
