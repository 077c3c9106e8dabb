/**
 * A small image as what it is: its pixels, from the lowest (black) to the highest value (white).
 */

import { element } from "./element.js";

/**
 * Pixels of a nested array [H, W] or [1, H, W], row by row.
 *
 * @param {any} image
 * @returns {number[][]}
 */
export function pixelRows(image) {
  return Array.isArray(image[0][0]) ? image[0] : image;
}

/**
 * @param {number[][]} rows [H, W].
 * @param {{low: number, high: number, title: string}} options
 * @returns {HTMLCanvasElement}
 */
export function picture(rows, { low, high, title }) {
  const canvas = element("canvas", { class: "picture", role: "img", "aria-label": title });
  paint(canvas, rows, low, high);
  return canvas;
}

/** @param {HTMLCanvasElement} canvas @param {number[][]} rows @param {number} low @param {number} high */
export function paint(canvas, rows, low, high) {
  const height = rows.length;
  const width = rows[0].length;
  canvas.width = width;
  canvas.height = height;
  const painter = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = painter.createImageData(width, height);
  rows.flat().forEach((value, place) => {
    const grey = Math.round((255 * (value - low)) / (high - low || 1));
    image.data.set([grey, grey, grey, 255], 4 * place);
  });
  painter.putImageData(image, 0, 0);
}

/**
 * An image of three colours likewise.
 *
 * @param {HTMLCanvasElement} canvas @param {number[][][]} planes red, green and blue, [3, H, W].
 * @param {number} low @param {number} high
 */
export function paintColours(canvas, planes, low, high) {
  const height = planes[0].length;
  const width = planes[0][0].length;
  canvas.width = width;
  canvas.height = height;
  const painter = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = painter.createImageData(width, height);
  planes.forEach((rows, colour) => {
    rows.flat().forEach((value, place) => {
      image.data[4 * place + colour] = Math.round((255 * (value - low)) / (high - low || 1));
    });
  });
  for (let place = 3; place < image.data.length; place += 4) image.data[place] = 255;
  painter.putImageData(image, 0, 0);
}
