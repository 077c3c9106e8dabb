/**
 * What went wrong, in the server's own words.
 */

import { Problem, Unreachable } from "./api.js";
import { element, replace } from "./element.js";

/**
 * Say it in a place; what is no answer of the server is a fault of the page, and thrown on.
 *
 * @param {Element} place @param {unknown} error
 */
export function failed(place, error) {
  if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
  const field = error instanceof Problem && error.field ? `${error.field}: ` : "";
  replace(place, element("p", { class: "wrong", role: "alert" }, field, error.message));
}
