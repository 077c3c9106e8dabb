/**
 * How a model's input is best given by hand, and how what it answers is read.
 */

const SMALLEST_PICTURE = 4;
const LARGEST_PICTURE = 256;
const MOST_FIELDS = 256;
const CLASSES = ["classification", "binary", "multilabel"];

/** Whether a model predicts classes, not numbers. @param {any} model */
export function hasClasses(model) {
  return CLASSES.includes(model.task);
}

/** Whether one class alone holds. @param {any} model */
export function isExclusive(model) {
  return model.task === "classification" || model.task === "binary";
}

/**
 * @param {any} model as of GET /models.
 * @returns {"picture" | "number" | "row" | "other"}
 */
export function kindOf(model) {
  const shape = model.input.shape;
  const sides = pictureSides(shape);
  if (sides && hasClasses(model)) return "picture";
  if (shape.length === 1 && shape[0] === 1 && !hasClasses(model)) return "number";
  if (shape.length === 1 && shape[0] >= 1 && shape[0] <= MOST_FIELDS) return "row";
  return "other";
}

/** Height and width of one image [1, H, W] or [H, W]; null of any other shape. @param {number[]} shape */
export function pictureSides(shape) {
  if (shape.length < 2 || shape.length > 3 || (shape.length === 3 && shape[0] !== 1)) return null;
  const [height, width] = shape.slice(-2);
  const fits = (/** @type {number} */ side) => side >= SMALLEST_PICTURE && side <= LARGEST_PICTURE;
  return fits(height) && fits(width) ? { height, width } : null;
}

/** The names of a model's C outputs, as they are shown. @param {any} model @param {number} count */
export function outputNames(model, count) {
  if (model.labels) return model.labels.map(String);
  if (hasClasses(model)) return Array.from({ length: model.task === "binary" ? 2 : count }, (_, c) => String(c));
  return Array.from({ length: count }, (_, c) => (count === 1 ? "output" : `output ${c + 1}`));
}

/** The version that answers who names none. @param {any} model */
export function defaultVersion(model) {
  return model.versions.find((/** @type {any} */ each) => each.version === model.default_version);
}

/** The most entropy that an answer of C outputs can have, in nats. @param {any} model @param {number} count */
export function mostEntropy(model, count) {
  return model.task === "classification" ? Math.log(count) : count * Math.log(2);
}
