/**
 * One row of a model's input, given by hand: drawn, moved along an axis, edited, or written as JSON.
 *
 * @typedef {object} Input a way of giving a model one row by hand.
 * @property {HTMLElement} node
 * @property {() => any} row [D...] as it stands now; null where there is none.
 * @property {(row: any) => void} take puts another one in, as it is.
 * @property {string} empty what to say then.
 * @property {string} hint what there is to see.
 * @property {(said: string, share: number) => void} [tell] the answer in short, beside the input,
 *   with its doubt as a share of the most that there can be.
 * @property {() => (number[] | null)} [range] over which a curve is drawn.
 * @property {(value: number) => void} [moveTo] the point of the curve was moved.
 */

import { kindOf } from "../kinds.js";
import { numberInput } from "./number.js";
import { pictureInput } from "./picture.js";
import { rawInput } from "./raw.js";
import { rowInput } from "./row.js";

const INPUTS = { picture: pictureInput, number: numberInput, row: rowInput, other: rawInput };

/**
 * The way that fits a model best.
 *
 * @param {any} model as of GET /models.
 * @param {any[]} examples rows of the model's example.
 * @param {() => void} changed the row is another one now.
 * @returns {Input}
 */
export function inputOf(model, examples, changed) {
  return INPUTS[kindOf(model)](model, examples, changed);
}
