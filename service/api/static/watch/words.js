/**
 * What is shown, in words and with its units.
 */

import { rounded } from "../numbers.js";

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 0.9995) return `${rounded(1000 * seconds, seconds < 0.00995 ? 2 : 3)} ms`;
  return `${rounded(seconds, 3)} s`;
}

/** @param {number} share */
export function percent(share) {
  return `${rounded(100 * share, share >= 0.9995 ? 3 : 2)} %`;
}

/** @param {number} value */
export function plain(value) {
  return rounded(value, 3);
}

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** A measure as people say it. @param {string} measure */
export function spoken(measure) {
  return measure.replaceAll("_", " ");
}

/** A version with what it is called. @param {{version: string, called: string[]}} version */
export function titled({ version, called }) {
  return [version === "" ? "no version" : `version ${version}`, called.length > 0 && `(${called.join(", ")})`].filter(Boolean).join(" ");
}
