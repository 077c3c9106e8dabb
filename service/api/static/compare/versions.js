/**
 * Which versions can stand side by side: those that take the same inputs and answer in kind.
 *
 * @typedef {object} Side
 * @property {any} model as of GET /models.
 * @property {any} version of it.
 *
 * @typedef {object} Pair
 * @property {Side} first
 * @property {Side} second
 */

import { kindOf } from "../kinds.js";

/** Tasks whose answers can be held against each other. @type {Record<string, string>} */
const FAMILIES = {
  classification: "class",
  binary: "class",
  multilabel: "classes",
  regression: "numbers",
  heteroscedastic_regression: "numbers",
};

/** What a model answers: one class, the classes that hold, or numbers. @param {any} model */
export function familyOf(model) {
  return FAMILIES[model.task];
}

/** Every version that answers now. @param {any[]} models @returns {Side[]} */
export function sidesOf(models) {
  return models
    .filter((model) => model.input)
    .flatMap((model) =>
      model.versions
        .filter((/** @type {any} */ version) => version.state === "ready")
        .map((/** @type {any} */ version) => ({ model, version })),
    );
}

/** In the address. Neither sign can be in a model's name. @param {Side} side */
export function nameOf(side) {
  return `${side.model.name}@${side.version.version}`;
}

/** @param {Side} side */
export function titleOf(side) {
  return `${side.model.name}, version ${side.version.version}`;
}

/** With what else a version is called, for a list to choose from. @param {Side} side */
export function choiceOf({ model, version }) {
  const labels = Object.keys(model.version_labels ?? {}).filter((label) => model.version_labels[label] === version.version);
  const more = [...labels, ...(model.default_version === version.version ? ["default"] : [])];
  return titleOf({ model, version }) + (more.length ? ` (${more.join(", ")})` : "");
}

/** Those that a version can be compared with. @param {Side[]} sides @param {Side} side */
export function partnersOf(sides, side) {
  return sides.filter((other) => fit(side, other));
}

/**
 * The two to begin with: those of the address, else the oldest and the newest of one model, of
 * pictures where there are some.
 *
 * @param {Side[]} sides of which at least two fit.
 * @param {string} place in the address.
 * @returns {Pair}
 */
export function firstPair(sides, place) {
  const named = place.split(",").map((name) => sides.find((side) => nameOf(side) === name));
  if (named[0] && named[1] && fit(named[0], named[1])) return { first: named[0], second: named[1] };
  const own = (/** @type {Side} */ side) => partnersOf(sides, side).some((other) => other.model === side.model);
  const usable = sides.filter((side) => partnersOf(sides, side).length > 0);
  const first =
    usable.find((side) => own(side) && kindOf(side.model) === "picture") ?? usable.find(own) ?? usable[0];
  return { first, second: secondFor(sides, first, null) };
}

/**
 * Another version for a first one: the one that stands there where it fits, else the newest.
 *
 * @param {Side[]} sides @param {Side} first @param {Side | null} standing @returns {Side}
 */
export function secondFor(sides, first, standing) {
  const partners = partnersOf(sides, first);
  if (standing && partners.includes(standing)) return standing;
  const own = partners.filter((other) => other.model === first.model);
  const among = own.length ? own : partners;
  return among[among.length - 1];
}

/** @param {Side} one @param {Side} other */
function fit(one, other) {
  return nameOf(one) !== nameOf(other) && familyOf(one.model) === familyOf(other.model) && takesTheSame(one.model.input, other.model.input);
}

/** @param {any} one @param {any} other inputs as of GET /models; −1 is a side that may vary. */
function takesTheSame(one, other) {
  const whole = (/** @type {any} */ input) => input.dtype.includes("int");
  return (
    whole(one) === whole(other) &&
    one.shape.length === other.shape.length &&
    one.shape.every((/** @type {number} */ side, /** @type {number} */ k) => side === other.shape[k] || side === -1 || other.shape[k] === -1)
  );
}
