/**
 * Kept samples, page by page, the most uncertain first.
 */

import { patiently } from "./patience.js";

const PAGE = 100;

/**
 * @typedef {object} Choice
 * @property {string} model whose samples.
 * @property {string} status "" of any.
 * @property {number} count at most.
 */

/**
 * @param {import("../api.js").Api} api
 * @param {Choice} choice
 * @param {AbortSignal} signal
 * @param {(error: unknown) => Promise<void>} wait
 * @param {(found: number) => void} progress
 * @returns {Promise<any[]>} as of GET /samples.
 */
export async function collect(api, { model, status, count }, signal, wait, progress) {
  /** @type {any[]} */
  const found = [];
  let after = "";
  do {
    const query = new URLSearchParams({ model, limit: String(Math.min(PAGE, count - found.length)) });
    if (status) query.set("status", status);
    if (after) query.set("after", after);
    const page = await patiently(() => api.get(`samples?${query}`, { signal }), wait);
    found.push(...page.samples);
    after = page.next;
    progress(found.length);
  } while (after && found.length < count);
  return found;
}
