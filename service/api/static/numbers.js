/**
 * Numbers as they are shown.
 */

/** With so many significant digits, without an exponent where that is short. @param {number} value @param {number} [digits] */
export function rounded(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(digits - 1);
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(places, 6));
}

/** @param {number} share */
export function percent(share) {
  return `${rounded(100 * share)} %`;
}

/** A probability. @param {number} value */
export function probability(value) {
  return value.toFixed(2);
}

/** Steps between round numbers: about `count` of them over [low, high]. @param {number} low @param {number} high @param {number} count */
export function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0)) return [low];
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * size).find((each) => each >= raw) ?? raw;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}
