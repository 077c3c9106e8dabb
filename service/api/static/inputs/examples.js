/**
 * The rows that come with a model.
 */

import { Problem } from "../api.js";

/**
 * @param {import("../api.js").Api} api
 * @param {string} name of the model.
 * @param {import("../api.js").Options} options
 * @returns {Promise<any[]>} [B, D...]; none where the model has none.
 * @throws {Problem} @throws {import("../api.js").Unreachable}
 */
export async function examplesOf(api, name, options) {
  try {
    return (await api.get(`models/${encodeURIComponent(name)}/example`, options)).inputs;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return [];
    throw error;
  }
}
