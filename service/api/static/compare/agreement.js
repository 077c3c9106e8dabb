/**
 * How far two versions agree about rows.
 *
 * @typedef {import("./said.js").Said} Said
 */

import { average } from "./said.js";

const TINY = 1e-12;
/** Of an agreement about numbers: their means lie within so many standard deviations of both. */
const WITHIN = 2;

/** Whether they predict the same class or classes, or numbers that do not contradict each other. @param {string} family @param {Said} one @param {Said} other */
export function agree(family, one, other) {
  return family === "numbers" ? apart(family, one, other) <= WITHIN : one.label === other.label;
}

/**
 * How far apart two answers are. Of one class: the Jensen–Shannon divergence of their probabilities,
 * from 0 to ln 2 nats (Lin, "Divergence measures based on the Shannon entropy", 1991); of several:
 * the mean of it over the labels; of numbers: the largest difference of their means, in standard
 * deviations of both together.
 *
 * @param {string} family @param {Said} one @param {Said} other @returns {number}
 */
export function apart(family, one, other) {
  const means = (/** @type {string} */ name) => [one.outputs.get(name)?.mean ?? 0, other.outputs.get(name)?.mean ?? 0];
  const names = [...new Set([...one.outputs.keys(), ...other.outputs.keys()])];
  if (family === "class") return divergence(names.map(means));
  if (family === "classes") {
    return average(names.map(means).map(([p, q]) => divergence([[p, q], [1 - p, 1 - q]])));
  }
  const both = names.filter((name) => one.outputs.has(name) && other.outputs.has(name));
  return Math.max(...both.map((name) => {
    const [a, b] = means(name);
    return Math.abs(a - b) / Math.max(TINY, Math.hypot(spread(one, name), spread(other, name)));
  }));
}

/** Places of the rows about which they are the farthest apart, the farthest first. @param {string} family @param {Said[]} ones @param {Said[]} others @param {number} most */
export function farthest(family, ones, others, most) {
  return ones
    .map((one, place) => ({ place, apart: apart(family, one, others[place]) }))
    .sort((a, b) => b.apart - a.apart)
    .slice(0, most);
}

/** How often each pair of labels that differ stands there, the most frequent first. @param {Said[]} ones @param {Said[]} others */
export function confusions(ones, others) {
  /** @type {Map<string, {first: string, second: string, count: number}>} */
  const found = new Map();
  ones.forEach(({ label: first }, place) => {
    const second = others[place].label;
    if (first === second) return;
    const key = JSON.stringify([first, second]);
    const held = found.get(key) ?? { first, second, count: 0 };
    held.count += 1;
    found.set(key, held);
  });
  return [...found.values()].sort((a, b) => b.count - a.count);
}

/** @param {number[][]} pairs probabilities of each class by both. */
function divergence(pairs) {
  const term = (/** @type {number} */ p, /** @type {number} */ middle) => (p > 0 ? p * Math.log(p / middle) : 0);
  const sum = pairs.reduce((total, [p, q]) => total + (term(p, (p + q) / 2) + term(q, (p + q) / 2)) / 2, 0);
  return Math.max(0, sum);
}

/** All of an output's doubt that is known, as a standard deviation. @param {Said} said @param {string} name */
function spread(said, name) {
  return Math.hypot(said.outputs.get(name)?.std ?? 0, said.noise?.get(name) ?? 0);
}
