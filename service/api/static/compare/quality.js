/**
 * What two versions are worth on rows whose truth is known: of classes as `candor report` counts it,
 * of numbers as Gaussians.
 *
 * Both are judged on the same rows, so that their difference has less noise than either.
 *
 * @typedef {import("./said.js").Said} Said
 *
 * @typedef {object} Judged
 * @property {number} error 1 where the class is wrong; of several classes the share that is; of
 *   numbers the mean squared error over the outputs.
 * @property {number | null} loss negative log likelihood in nats; null where the noise of numbers is
 *   not known.
 * @property {[number, number][]} claims each the confidence in it, and 1 where it was so, 0 where not.
 *
 * @typedef {object} Quality
 * @property {number} rows
 * @property {number} error mean over rows.
 * @property {number | null} loss mean over rows.
 * @property {number | null} confidence mean of it.
 * @property {number | null} calibrationError of classes.
 * @property {number | null} held of numbers: the share within the central interval of `LEVEL`.
 */

import { average } from "./said.js";

/** The smallest number of full precision: a truth of probability zero counts as that. */
const TINY = 2.2250738585072014e-308;
const LEAST = 1e-12;
const NEARLY_ONE = 1 - Number.EPSILON;
/** Of equal width, as in Guo et al., "On calibration of modern neural networks", 2017. */
const BINS = 15;
/** Of the interval in which numbers should lie, and its half width in standard deviations. */
export const LEVEL = 0.9;
const HALF_WIDTH = 1.6448536269514722;
const CONFIDENCE_95 = 1.959963984540054;

/**
 * One row, judged by its label; null where the label is none that the version knows.
 *
 * @param {string} family @param {Said} said @param {any} label of the sample.
 * @returns {Judged | null}
 */
export function judge(family, said, label) {
  if (family === "numbers") return judgeNumbers(said, Array.isArray(label) ? label : [label]);
  if (family === "classes") return Array.isArray(label) ? judgeClasses(said, label.map(String)) : null;
  return judgeClass(said, String(label));
}

/** @param {string} family @param {Judged[]} judged of at least one row. @returns {Quality} */
export function qualityOf(family, judged) {
  const losses = judged.map((each) => each.loss);
  const claims = judged.flatMap((each) => each.claims);
  const classes = family !== "numbers";
  return {
    rows: judged.length,
    error: average(judged.map((each) => each.error)),
    loss: losses.includes(null) ? null : average(/** @type {number[]} */ (losses)),
    confidence: classes ? average(claims.map(([confidence]) => confidence)) : null,
    calibrationError: classes ? expectedCalibrationError(claims) : null,
    held: classes || claims.length === 0 ? null : average(claims.map(([, right]) => right)),
  };
}

/**
 * The mean over rows of what the second has more than the first, with its interval of 95 % by the
 * central limit theorem.
 *
 * @param {number[]} firsts @param {number[]} seconds the same rows. @returns {{mean: number, low: number, high: number}}
 */
export function difference(firsts, seconds) {
  const gaps = seconds.map((value, k) => value - firsts[k]);
  const mean = average(gaps);
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / Math.max(1, gaps.length - 1);
  const half = CONFIDENCE_95 * Math.sqrt(variance / gaps.length);
  return { mean, low: mean - half, high: mean + half };
}

/**
 * Σ_k n_k / n |accuracy_k − confidence_k| over bins of equal width, open below (Naeini et al. 2015).
 *
 * @param {[number, number][]} claims
 */
export function expectedCalibrationError(claims) {
  const gaps = Array(BINS).fill(0);
  for (const [confidence, right] of claims) {
    const bin = Math.min(BINS - 1, Math.max(0, Math.ceil(confidence * BINS) - 1));
    gaps[bin] += right - confidence;
  }
  return gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / claims.length;
}

/** @param {Said} said @param {string} truth @returns {Judged | null} */
function judgeClass(said, truth) {
  const own = said.outputs.get(truth);
  if (!own) return null;
  const right = said.label === truth;
  const confidence = Math.max(...[...said.outputs.values()].map((output) => output.mean));
  return { error: right ? 0 : 1, loss: -Math.log(Math.max(own.mean, TINY)), claims: [[confidence, right ? 1 : 0]] };
}

/** @param {Said} said @param {string[]} truth those that hold. @returns {Judged | null} */
function judgeClasses(said, truth) {
  if (truth.some((name) => !said.outputs.has(name))) return null;
  /** @type {[number, number][]} */
  const each = [...said.outputs].map(([name, output]) => [output.mean, truth.includes(name) ? 1 : 0]);
  const clipped = (/** @type {number} */ p) => Math.min(NEARLY_ONE, Math.max(TINY, p));
  return {
    error: average(each.map(([p, holds]) => (p >= 0.5) === (holds === 1) ? 0 : 1)),
    loss: -each.reduce((sum, [p, holds]) => sum + (holds ? Math.log(clipped(p)) : Math.log1p(-clipped(p))), 0),
    claims: each,
  };
}

/**
 * As a Gaussian of the mean, and of both standard deviations: without the noise of the data its
 * interval would be the model's own doubt alone.
 *
 * @param {Said} said @param {number[]} truth [C] @returns {Judged | null}
 */
function judgeNumbers(said, truth) {
  const outputs = [...said.outputs];
  if (truth.length !== outputs.length || !truth.every((value) => typeof value === "number")) return null;
  const gaps = outputs.map(([, output], c) => truth[c] - output.mean);
  const error = average(gaps.map((gap) => gap ** 2));
  const noise = said.noise;
  if (!noise) return { error, loss: null, claims: [] };
  const spreads = outputs.map(([name, output]) => Math.max(LEAST, Math.hypot(output.std, noise.get(name) ?? 0)));
  return {
    error,
    loss: gaps.reduce((sum, gap, c) => sum + Math.log(2 * Math.PI) / 2 + Math.log(spreads[c]) + (gap / spreads[c]) ** 2 / 2, 0),
    claims: gaps.map((gap, c) => [LEVEL, Math.abs(gap) <= HALF_WIDTH * spreads[c] ? 1 : 0]),
  };
}
