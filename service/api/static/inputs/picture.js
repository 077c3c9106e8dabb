/**
 * An input that is drawn: by mouse, pen or finger, or taken from what is there to be chosen.
 */

import { drawn, element } from "../element.js";
import { paint, picture, pixelRows } from "../picture.js";
import { pictureSides } from "../kinds.js";
import { frameOf, raster } from "./raster.js";
import { DRAWINGS } from "./strokes.js";

/**
 * @param {any} model
 * @param {any[]} examples rows of the model's example.
 * @param {() => void} changed
 * @returns {import("./inputs.js").Input}
 */
export function pictureInput(model, examples, changed) {
  const sides = /** @type {{height: number, width: number}} */ (pictureSides(model.input.shape));
  const frame = frameOf(sides, model.input.dtype, examples);
  /** @type {import("./strokes.js").Stroke[]} */
  let strokes = DRAWINGS[0].strokes;
  /** Pixels that were not drawn, instead of strokes. @type {number[][] | null} */
  let pixels = null;
  let own = false;

  const ink = drawn("path", { class: "ink" });
  const surface = drawn(
    "svg",
    { class: "surface", viewBox: "0 0 1 1", role: "img", "aria-label": "Drawing area", "aria-describedby": "drawing-how" },
    ink,
  );
  const seen = element("canvas", { class: "picture seen", role: "img", "aria-label": "What the model sees" });
  const fitted = element("input", { type: "checkbox", id: "fitted", checked: true, onchange: changed });

  /** @param {import("./strokes.js").Stroke[]} next */
  function show(next) {
    strokes = next;
    pixels = null;
    own = false;
    draw();
    changed();
  }

  /** @param {any} image [1, H, W] or [H, W], instead of strokes. */
  function take(image) {
    pixels = pixelRows(image);
    strokes = [];
    own = false;
    draw();
    changed();
  }

  function draw() {
    const path = strokes.map((stroke) => stroke.map(([x, y], k) => `${k === 0 ? "M" : "L"}${x} ${y}`).join("") + "h0");
    ink.setAttribute("d", pixels ? "" : path.join(""));
  }

  /** @param {any} event @returns {[number, number]} */
  function at(event) {
    const box = surface.getBoundingClientRect();
    const within = (/** @type {number} */ value) => Math.round(1000 * Math.min(1, Math.max(0, value))) / 1000;
    return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
  }

  let drawing = false;
  surface.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    surface.setPointerCapture(event.pointerId);
    // The first stroke of one's own takes the place of what was shown.
    strokes = own ? [...strokes, [at(event)]] : [[at(event)]];
    pixels = null;
    own = drawing = true;
    draw();
    changed();
  });
  surface.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!drawing) return;
    const all = event.getCoalescedEvents?.() ?? [];
    strokes[strokes.length - 1].push(...(all.length ? all : [event]).map(at));
    draw();
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    surface.addEventListener(end, () => {
      drawing = false;
    });
  }

  // Where the answer is below, out of sight. It is read out from there.
  const now = element("span", {});
  const level = element("div", { class: "level" });

  const node = element(
    "div",
    { class: "drawing" },
    element("p", { id: "drawing-how", class: "quiet small" }, "Draw with mouse, pen or finger, or choose below."),
    element("div", { class: "now small", "aria-hidden": "true" }, now, element("div", { class: "bar" }, level)),
    surface,
    element(
      "div",
      { class: "buttons" },
      element("button", { type: "button", onclick: () => { show([]); own = true; } }, "Clear"),
      DRAWINGS.map(({ name, strokes: given }) => element("button", { type: "button", onclick: () => show(given) }, name)),
    ),
    examples.length > 0 &&
      element(
        "div",
        { class: "buttons", role: "group", "aria-label": "Examples of the model" },
        examples.map((example, k) =>
          element(
            "button",
            { type: "button", class: "thumb", onclick: () => take(example) },
            picture(pixelRows(example), { ...frame, title: `Example ${k + 1}` }),
          ),
        ),
      ),
    element(
      "div",
      { class: "sees" },
      seen,
      element(
        "div",
        {},
        element("p", { class: "small" }, `What the model sees: ${frame.height} × ${frame.width} pixels, from ${frame.low} to ${frame.high}.`),
        element("label", { for: "fitted" }, fitted, " centred and scaled like its examples"),
      ),
    ),
  );
  draw();

  return {
    node,
    row() {
      if (pixels === null && strokes.length === 0) {
        paint(seen, blank(frame), frame.low, frame.high);
        return null;
      }
      const rows = pixels ?? raster(strokes, frame, fitted.checked);
      paint(seen, rows, frame.low, frame.high);
      return model.input.shape.length === 3 ? [rows] : rows;
    },
    take,
    empty: "Nothing is drawn yet.",
    hint: "Draw over the three, then scribble, and see the doubt grow.",
    tell(said, share) {
      now.textContent = said;
      level.style.width = `${(100 * share).toFixed(1)}%`;
    },
  };
}

/** @param {import("./raster.js").Frame} frame @returns {number[][]} */
function blank(frame) {
  return Array.from({ length: frame.height }, () => Array(frame.width).fill(frame.low));
}
