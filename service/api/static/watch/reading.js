/**
 * What one look at the server says of each version: GET /metrics and GET /v2/models/stats together.
 *
 * @typedef {import("./distribution.js").Distribution} Distribution
 *
 * @typedef {object} VersionReading
 * @property {string} model
 * @property {string} version
 * @property {boolean | null} ready null where the server does not say.
 * @property {boolean} stale its calibration is not applied.
 * @property {Map<string, number>} codes requests by status, since the server's start as all counts.
 * @property {Distribution | null} seconds that requests took.
 * @property {Map<string, Distribution>} uncertainty by measure.
 * @property {Map<number, number>} batches by their rows.
 * @property {number | null} flagged share of the rows of the window that drift is seen in.
 * @property {number} driftRows in that window.
 * @property {Map<string, number>} drift the population stability index, by measure.
 * @property {Map<string, number[]>} bins rows of that window in each bin of the calibration, by measure.
 *
 * @typedef {object} Reading
 * @property {number} time of the look, in milliseconds.
 * @property {number | null} started when the server did, in its own seconds; null where it does not say.
 * @property {number} answered requests of any kind.
 * @property {Map<string, number>} asked requests for answers of a model by status, those included that
 *   no version was chosen for.
 * @property {Map<string, number>} refused by reason.
 * @property {number} busy seconds that the engine computed.
 * @property {number} inFlight
 * @property {number} waiting
 * @property {Map<string, VersionReading>} versions by `keyOf`.
 */

import { added } from "./distribution.js";
import { histograms, parse } from "./exposition.js";

/** Endpoints that answer with what a model says; what the page itself asks here is none of them. */
const ANSWERS = /^(?:\/predict|\/eval|\/query|\/v2\/.+\/infer|\/label-studio\/(?:.+\/)?predict)$/;

/** @param {string} model @param {string | number} version */
export function keyOf(model, version) {
  return `${version}/${model}`;
}

/**
 * @param {string} text of GET /metrics.
 * @param {any} stats of GET /v2/models/stats.
 * @param {number} time of the look, in milliseconds.
 * @returns {Reading}
 * @throws {import("./exposition.js").NotMetrics}
 */
export function readingOf(text, stats, time) {
  const samples = parse(text);
  const of = (/** @type {string} */ name) => samples.get(name) ?? [];
  const sum = (/** @type {string} */ name) => of(name).reduce((all, { value }) => all + value, 0);
  /** @type {Map<string, VersionReading>} */
  const versions = new Map();
  const at = (/** @type {string} */ model, /** @type {string} */ version) => {
    const key = keyOf(model, version);
    let found = versions.get(key);
    if (found === undefined) versions.set(key, (found = nothing(model, version)));
    return found;
  };
  const whose = (/** @type {Map<string, string>} */ labels) => at(labels.get("model") ?? "", labels.get("version") ?? "");

  for (const { labels, value } of of("candor_model_ready")) whose(labels).ready = value === 1;
  for (const { labels, value } of of("candor_calibration_stale")) whose(labels).stale = value === 1;
  for (const { labels, value } of of("candor_version_requests_total")) add(whose(labels).codes, labels.get("code") ?? "", value);
  for (const { labels, distribution } of histograms(samples, "candor_version_request_seconds")) {
    const own = whose(labels);
    own.seconds = added(own.seconds === null ? [distribution] : [own.seconds, distribution]);
  }
  for (const { labels, distribution } of histograms(samples, "candor_version_uncertainty")) {
    whose(labels).uncertainty.set(labels.get("measure") ?? "", distribution);
  }
  for (const { labels, value } of of("candor_ood_flagged_rate")) whose(labels).flagged = value;
  for (const { labels, value } of of("candor_drift_rows")) whose(labels).driftRows = value;
  for (const { labels, value } of of("candor_population_stability_index")) whose(labels).drift.set(labels.get("measure") ?? "", value);
  for (const { labels, value } of of("candor_drift_bin_rows")) {
    const { bins } = whose(labels);
    const measure = labels.get("measure") ?? "";
    if (!bins.has(measure)) bins.set(measure, []);
    /** @type {number[]} */ (bins.get(measure))[Number(labels.get("bin")) - 1] = value;
  }
  for (const { name, version, batch_stats: batches } of stats.model_stats) {
    for (const { batch_size: rows, compute_infer: run } of batches) at(name, version).batches.set(rows, run.count);
  }

  /** @type {Map<string, number>} */
  const asked = new Map();
  for (const { labels, value } of of("candor_requests_total")) {
    if (ANSWERS.test(labels.get("endpoint") ?? "")) add(asked, labels.get("code") ?? "", value);
  }
  return {
    time,
    started: of("process_start_time_seconds")[0]?.value ?? null,
    answered: sum("candor_requests_total"),
    asked,
    refused: new Map(of("candor_rejected_total").map(({ labels, value }) => [labels.get("reason") ?? "", value])),
    busy: sum("candor_engine_busy_seconds_total"),
    inFlight: sum("candor_requests_in_flight"),
    waiting: sum("candor_queue_depth"),
    versions,
  };
}

/** @param {string} model @param {string} version @returns {VersionReading} */
function nothing(model, version) {
  return {
    model,
    version,
    ready: null,
    stale: false,
    codes: new Map(),
    seconds: null,
    uncertainty: new Map(),
    batches: new Map(),
    flagged: null,
    driftRows: 0,
    drift: new Map(),
    bins: new Map(),
  };
}

/** @param {Map<string, number>} counts @param {string} key @param {number} more */
function add(counts, key, more) {
  counts.set(key, (counts.get(key) ?? 0) + more);
}
