/**
 * How many values fell between bounds, and what can be said of them from that.
 *
 * @typedef {object} Distribution
 * @property {number[]} bounds upper ends of the buckets, ascending, the last one infinite; a value
 *   at a bound belongs to the bucket below.
 * @property {number[]} counts of each bucket by itself.
 * @property {number} sum of the values.
 */

/** How many values. @param {Distribution} distribution */
export function total({ counts }) {
  return counts.reduce((sum, count) => sum + count, 0);
}

/** @param {Distribution} distribution @returns {number | null} null without values. */
export function mean(distribution) {
  const count = total(distribution);
  return count > 0 ? distribution.sum / count : null;
}

/**
 * Several as one; those before a change of the bounds are left out.
 *
 * @param {Distribution[]} several the newest last.
 * @returns {Distribution | null} null of none.
 */
export function added(several) {
  const last = several.at(-1);
  if (last === undefined) return null;
  const found = { bounds: last.bounds, counts: last.counts.map(() => 0), sum: 0 };
  for (const one of several) {
    if (!sameBounds(one, last)) continue;
    one.counts.forEach((count, k) => (found.counts[k] += count));
    found.sum += one.sum;
  }
  return found;
}

/**
 * What came to a distribution that is only ever added to. Where one of its counts fell it began
 * anew, and all that it holds has come.
 *
 * @param {Distribution | undefined} before
 * @param {Distribution} after
 * @returns {Distribution}
 */
export function growth(before, after) {
  if (before === undefined || !sameBounds(before, after)) return after;
  const counts = after.counts.map((count, k) => count - before.counts[k]);
  if (counts.some((count) => count < 0)) return after;
  return { bounds: after.bounds, counts, sum: after.sum - before.sum };
}

/**
 * The value that a share of all is below, as if the values of a bucket were spread evenly over it,
 * and those of the first one from 0: as Prometheus' histogram_quantile estimates it.
 *
 * @param {Distribution} distribution
 * @param {number} share from 0 to 1.
 * @returns {{value: number, beyond: boolean} | null} `beyond` the last bound nothing more is
 *   known; null without values.
 */
export function quantile(distribution, share) {
  const { bounds, counts } = distribution;
  const rank = share * total(distribution);
  if (!(total(distribution) > 0)) return null;
  let below = 0;
  for (let k = 0; k < counts.length; k += 1) {
    if (counts[k] > 0 && below + counts[k] >= rank) {
      if (bounds[k] === Infinity) return { value: bounds[k - 1] ?? NaN, beyond: true };
      const low = k === 0 ? Math.min(0, bounds[0]) : bounds[k - 1];
      return { value: low + ((rank - below) / counts[k]) * (bounds[k] - low), beyond: false };
    }
    below += counts[k];
  }
  return null;
}

/** @param {Distribution} one @param {Distribution} other */
function sameBounds(one, other) {
  return one.bounds.length === other.bounds.length && one.bounds.every((bound, k) => bound === other.bounds[k]);
}
