/**
 * Drawings that are there to be chosen, for who wants to see what happens without drawing. Strokes
 * are lists of points in the unit square, x to the right and y down.
 *
 * @typedef {[number, number]} Point
 * @typedef {Point[]} Stroke
 */

/** @type {{name: string, strokes: Stroke[]}[]} */
export const DRAWINGS = [
  {
    name: "A three",
    strokes: [
      [[0.3, 0.2], [0.42, 0.12], [0.58, 0.12], [0.68, 0.22], [0.68, 0.33], [0.6, 0.43], [0.46, 0.48],
        [0.6, 0.52], [0.7, 0.63], [0.69, 0.77], [0.58, 0.87], [0.42, 0.88], [0.29, 0.8]],
    ],
  },
  {
    name: "A letter",
    strokes: [[[0.2, 0.88], [0.5, 0.12], [0.8, 0.88]], [[0.32, 0.6], [0.68, 0.6]]],
  },
  {
    name: "A scribble",
    strokes: [
      [[0.15, 0.54], [0.61, 0.9], [0.12, 0.46], [0.66, 0.57], [0.24, 0.2], [0.77, 0.84], [0.18, 0.46],
        [0.66, 0.63], [0.2, 0.74], [0.64, 0.11], [0.17, 0.22], [0.74, 0.26]],
    ],
  },
];
