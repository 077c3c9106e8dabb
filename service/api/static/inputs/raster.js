/**
 * From strokes to the pixels that a model gets: moved, scaled and blurred as its examples are.
 *
 * @typedef {object} Frame what an image of the model looks like.
 * @property {number} height
 * @property {number} width
 * @property {number} low value of the ground.
 * @property {number} high value of full ink.
 * @property {number} boxHeight in which the ink of the examples lies, in pixels.
 * @property {number} boxWidth
 * @property {boolean} whole whether values are whole numbers.
 */

import { pixelRows } from "../picture.js";

const FINE = 96;
/** Of the image's height: how thick a pen has written what models learn from. */
const PEN = 0.14;
const INK = 0.15;
/** A dot is not blown up to a disc. */
const MOST_SCALE = 2.5;

/**
 * What the examples say of a model's images.
 *
 * @param {{height: number, width: number}} sides
 * @param {string} dtype
 * @param {any[]} examples images [1, H, W] or [H, W].
 * @returns {Frame}
 */
export function frameOf({ height, width }, dtype, examples) {
  const images = examples.map(pixelRows);
  const values = images.flat(2);
  const low = values.length ? Math.min(...values) : 0;
  const seen = values.length ? Math.max(...values) : dtype === "uint8" ? 255 : 1;
  const high = [1, 16, 255].find((each) => seen <= each && seen > each / 2) ?? seen;
  const boxes = images.map((rows) => inkBox(rows, low, high));
  return {
    height,
    width,
    low,
    high,
    boxHeight: boxes.length ? Math.max(...boxes.map((box) => box.height)) : height,
    boxWidth: boxes.length ? Math.max(...boxes.map((box) => box.width)) : width,
    whole: dtype.includes("int") || (values.length > 0 && values.every(Number.isInteger) && high > 1),
  };
}

/** @param {number[][]} rows @param {number} low @param {number} high */
function inkBox(rows, low, high) {
  const inked = (/** @type {number} */ value) => value - low > INK * (high - low);
  const extent = (/** @type {boolean[]} */ marks) => marks.lastIndexOf(true) - marks.indexOf(true) + 1;
  return {
    height: extent(rows.map((row) => row.some(inked))),
    width: extent(rows[0].map((_, column) => rows.some((row) => inked(row[column])))),
  };
}

/**
 * @param {import("./strokes.js").Stroke[]} strokes
 * @param {Frame} frame
 * @param {boolean} fitted moved to the middle and scaled to the size of the examples.
 * @returns {number[][]} [H, W]
 */
export function raster(strokes, frame, fitted) {
  const zoom = Math.max(1, Math.round(FINE / Math.max(frame.height, frame.width)));
  const canvas = document.createElement("canvas");
  canvas.width = frame.width * zoom;
  canvas.height = frame.height * zoom;
  const painter = /** @type {CanvasRenderingContext2D} */ (
    canvas.getContext("2d", { willReadFrequently: true })
  );
  const pen = PEN * Math.min(frame.height, frame.width);
  const place = fitted ? fittedPlace(strokes, frame, pen) : plainPlace(frame);
  painter.scale(zoom, zoom);
  painter.lineWidth = pen;
  painter.lineCap = painter.lineJoin = "round";
  painter.beginPath();
  for (const stroke of strokes) {
    stroke.forEach((point, k) => {
      const [x, y] = place(point);
      if (k === 0) painter.moveTo(x, y);
      painter.lineTo(x, y);
    });
  }
  painter.stroke();
  const ink = painter.getImageData(0, 0, canvas.width, canvas.height).data;
  return Array.from({ length: frame.height }, (_, row) =>
    Array.from({ length: frame.width }, (_, column) => {
      const value = frame.low + (frame.high - frame.low) * covered(ink, canvas.width, row, column, zoom);
      return frame.whole ? Math.round(value) : Number(value.toFixed(4));
    }),
  );
}

/** The share of a pixel that ink covers. @param {Uint8ClampedArray} ink @param {number} width @param {number} row @param {number} column @param {number} zoom */
function covered(ink, width, row, column, zoom) {
  let sum = 0;
  for (let y = row * zoom; y < (row + 1) * zoom; y += 1) {
    for (let x = column * zoom; x < (column + 1) * zoom; x += 1) sum += ink[4 * (y * width + x) + 3];
  }
  return sum / (255 * zoom * zoom);
}

/** @param {Frame} frame @returns {(point: [number, number]) => [number, number]} */
function plainPlace(frame) {
  return ([x, y]) => [x * frame.width, y * frame.height];
}

/**
 * @param {import("./strokes.js").Stroke[]} strokes @param {Frame} frame @param {number} pen
 * @returns {(point: [number, number]) => [number, number]}
 */
function fittedPlace(strokes, frame, pen) {
  const points = strokes.flat();
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = Math.min(
    (frame.boxHeight - pen) / (bottom - top),
    (frame.boxWidth - pen) / (right - left),
    MOST_SCALE * Math.min(frame.height, frame.width),
  );
  return ([x, y]) => [
    frame.width / 2 + (x - (left + right) / 2) * scale,
    frame.height / 2 + (y - (top + bottom) / 2) * scale,
  ];
}
