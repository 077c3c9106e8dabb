/**
 * Prometheus' text format, read.
 *
 * @typedef {object} Sample
 * @property {string} name
 * @property {Map<string, string>} labels
 * @property {number} value
 *
 * @typedef {import("./distribution.js").Distribution} Distribution
 */

/** What came is not in the format: of something between this page and the server, perhaps. */
export class NotMetrics extends Error {}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const OPEN = /[ \t]*\{/y;
const LABEL = /[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(?:,|(?=\}))/y;
const CLOSE = /[ \t]*\}/y;
const VALUE = /[ \t]*([^ \t]+)(?:[ \t]+-?[0-9]+)?$/y;
const ESCAPED = /\\(.)/g;
const SHOWN = 80;

/**
 * The samples of a text by their names; comments and times of samples are passed over.
 *
 * @param {string} text
 * @returns {Map<string, Sample[]>}
 * @throws {NotMetrics}
 */
export function parse(text) {
  /** @type {Map<string, Sample[]>} */
  const found = new Map();
  text.split("\n").forEach((raw, number) => {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) return;
    const sample = sampleOf(line);
    if (sample === null) {
      throw new NotMetrics(`Line ${number + 1} of what the server says of itself cannot be read: ${line.slice(0, SHOWN)}`);
    }
    const same = found.get(sample.name);
    if (same) same.push(sample);
    else found.set(sample.name, [sample]);
  });
  return found;
}

/**
 * The histograms of a name, each with the labels that all of its buckets have.
 *
 * @param {Map<string, Sample[]>} samples as of `parse`.
 * @param {string} name
 * @returns {{labels: Map<string, string>, distribution: Distribution}[]}
 */
export function histograms(samples, name) {
  /** @type {Map<string, {labels: Map<string, string>, sum: number, cumulative: [number, number][]}>} */
  const found = new Map();
  const of = (/** @type {Map<string, string>} */ given) => {
    const labels = new Map([...given].filter(([label]) => label !== "le"));
    const key = JSON.stringify([...labels].sort());
    let own = found.get(key);
    if (own === undefined) found.set(key, (own = { labels, sum: 0, cumulative: [] }));
    return own;
  };
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    of(labels).cumulative.push([numberOf(labels.get("le") ?? "") ?? NaN, value]);
  }
  for (const { labels, value } of samples.get(`${name}_sum`) ?? []) of(labels).sum = value;
  return [...found.values()].map(({ labels, sum, cumulative }) => {
    cumulative.sort(([a], [b]) => a - b);
    const counts = cumulative.map(([, count], k) => count - (k === 0 ? 0 : cumulative[k - 1][1]));
    return { labels, distribution: { bounds: cumulative.map(([bound]) => bound), counts, sum } };
  });
}

/** @param {string} line @returns {Sample | null} */
function sampleOf(line) {
  let place = 0;
  const take = (/** @type {RegExp} */ pattern) => {
    pattern.lastIndex = place;
    const found = pattern.exec(line);
    if (found) place = pattern.lastIndex;
    return found;
  };
  const name = take(NAME);
  if (!name) return null;
  const labels = new Map();
  if (take(OPEN)) {
    for (let found = take(LABEL); found; found = take(LABEL)) labels.set(found[1], plain(found[2]));
    if (!take(CLOSE)) return null;
  }
  const written = take(VALUE);
  const value = written && numberOf(written[1]);
  return value === null ? null : { name: name[0], labels, value };
}

/** @param {string} text as it stands between quotes. */
function plain(text) {
  return text.replace(ESCAPED, (_, character) => (character === "n" ? "\n" : character));
}

/** @param {string} text @returns {number | null} null of what is no number. */
function numberOf(text) {
  const infinite = /^([+-]?)inf(?:inity)?$/i.exec(text);
  if (infinite) return infinite[1] === "-" ? -Infinity : Infinity;
  if (/^nan$/i.test(text)) return NaN;
  const value = Number(text);
  return text === "" || Number.isNaN(value) ? null : value;
}
