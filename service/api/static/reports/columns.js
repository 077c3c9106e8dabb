/**
 * The main numbers of reports: which there are, how each is written, and how it sorts.
 *
 * @typedef {object} Report as of GET /reports.
 * @property {string} model
 * @property {number} version
 * @property {string} name
 * @property {string} created
 * @property {"readable" | "broken"} state
 * @property {string | null} reason
 * @property {boolean} page
 * @property {"same" | "other" | "unknown"} weights
 * @property {number | null} passes
 * @property {number | null} seed
 * @property {string | null} masks
 * @property {string | null} precision
 * @property {Rows | null} data
 * @property {Rows | null} out_of_distribution_data
 * @property {any[]} methods
 * @property {string | null} headline
 * @property {{name: string, title: string, auroc: number, interval: number[]}[]} detection
 * @property {{score: string, title: string, share: number, avoided: number} | null} deferral
 * @property {string[]} verdict
 * @property {string | null} candor
 *
 * @typedef {object} Rows
 * @property {string} name
 * @property {string} sha256
 * @property {number} rows
 *
 * @typedef {object} Column
 * @property {string} title
 * @property {string} [about] which way is better.
 * @property {(report: Report) => number | null} value that it sorts by; null: there is none.
 * @property {(report: Report) => import("../element.js").Child} write
 */

import { rounded } from "../numbers.js";

const LEVEL = 0.9;

/**
 * What can be chosen among: by name the titles of methods and of scores, and the score to begin with.
 *
 * @param {Report[]} reports
 * @returns {{methods: Map<string, string>, scores: Map<string, string>, score: string}}
 */
export function choicesOf(reports) {
  const methods = new Map();
  const scores = new Map();
  let score = "";
  for (const report of reports) {
    for (const { name, title } of report.methods) if (!methods.has(name)) methods.set(name, title);
    for (const { name, title } of report.detection) if (!scores.has(name)) scores.set(name, title);
    if (!score && report.detection.some((each) => each.name === report.headline)) score = report.headline ?? "";
  }
  return { methods, scores, score };
}

/**
 * The columns that any of one model's reports has a number for.
 *
 * @param {Report[]} reports
 * @param {string} method whose numbers they are.
 * @param {string} score that tells strange rows.
 * @returns {Column[]}
 */
export function columnsOf(reports, method, score) {
  const of = (/** @type {Report} */ report) => report.methods.find((each) => each.name === method);
  const told = (/** @type {Report} */ report) => report.detection.find((each) => each.name === score);
  const covered = (/** @type {Report} */ report) => of(report)?.coverage?.find((/** @type {any} */ each) => each.level === LEVEL);
  const deferred = percent(reports.find((report) => report.deferral)?.deferral?.share ?? 0.1);
  const number = (/** @type {string} */ key) => (/** @type {Report} */ report) => of(report)?.[key] ?? null;
  /** @type {Column[]} */
  const all = [
    { title: "Accuracy", about: "higher is better", value: number("accuracy"), write: (report) => percent(number("accuracy")(report)) },
    {
      title: "RMSE",
      about: "lower is better",
      value: (report) => of(report)?.root_mean_squared_error?.[0] ?? null,
      write: (report) => (of(report)?.root_mean_squared_error ?? [null]).map((/** @type {number} */ value) => rounded(value, 4)).join(", "),
    },
    { title: "NLL", about: "negative log-likelihood, nats a row: lower is better", value: number("negative_log_likelihood"), write: (report) => rounded(number("negative_log_likelihood")(report)) },
    { title: "ECE", about: "expected calibration error: lower is better", value: number("calibration_error"), write: (report) => rounded(number("calibration_error")(report), 2) },
    { title: `In ${100 * LEVEL} % interval`, about: `the closer to ${100 * LEVEL} % the better`, value: (report) => covered(report)?.observed ?? null, write: (report) => percent(covered(report)?.observed ?? null) },
    {
      title: "AUROC",
      about: "of strange rows against the others: higher is better",
      value: (report) => told(report)?.auroc ?? null,
      write: (report) => {
        const found = told(report);
        return found ? `${found.auroc.toFixed(3)} (${found.interval.map((end) => end.toFixed(3)).join("–")})` : "–";
      },
    },
    {
      title: `Avoided at ${deferred}`,
      about: `share of the errors, or of the squared error, in the ${deferred} of the rows that it doubts most: higher is better`,
      value: (report) => report.deferral?.avoided ?? null,
      write: (report) => percent(report.deferral?.avoided ?? null),
    },
  ];
  return [
    { title: "Made", value: (report) => Date.parse(report.created), write: (report) => moment(report.created) },
    { title: "Rows", value: (report) => report.data?.rows ?? null, write: (report) => (report.data ? `${report.data.rows.toLocaleString()} of ${report.data.name}` : "–") },
    ...all.filter((column) => reports.some((report) => column.value(report) !== null)),
  ];
}

/** @param {number | null} share */
export function percent(share) {
  if (share === null) return "–";
  const value = 100 * share;
  return `${Number.isInteger(Math.round(value * 1e6) / 1e6) ? Math.round(value) : value.toFixed(1)} %`;
}

/** A moment in the visitor's own time. @param {string} text */
function moment(text) {
  const time = new Date(text);
  return Number.isNaN(time.valueOf()) ? text : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
