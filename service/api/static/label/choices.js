/**
 * How a label is given: by a button or a key for each class, by those that hold, or as a number.
 *
 * @typedef {object} Choices
 * @property {HTMLElement} node
 * @property {(event: KeyboardEvent) => boolean} pressed a key, while nobody types; whether it was one
 *   of these.
 * @property {() => void} clear for another sample.
 *
 * @typedef {(label: unknown, words: string) => void} Give
 */

import { element, replace } from "../element.js";
import { hasClasses, outputNames } from "../kinds.js";
import { MOST_KEYS, cap, keysFor } from "./keys.js";

/** Of those that a search shows. */
const MOST_SHOWN = 60;

/**
 * Why a model's labels are not given on this page; null where they are.
 *
 * @param {any} model as of GET /models.
 * @param {any} version that answers.
 * @returns {string | null}
 */
export function whyElsewhere(model, version) {
  const shape = version.output_shape ?? [];
  if (shape.length > 1) return "This model answers for every place of its input: a label of it is a mask or a sequence, drawn or marked place by place.";
  if (!hasClasses(model) && shape[0] > 1) return `A label of this model is ${shape[0]} numbers together.`;
  return null;
}

/**
 * @param {any} model
 * @param {any} version
 * @param {Give} give
 * @returns {Choices}
 */
export function choicesOf(model, version, give) {
  if (!hasClasses(model)) return numberChoice(give);
  const names = outputNames(model, version.output_shape?.[0] ?? 2);
  // By its name: should the labels change meanwhile, it means the same or nothing.
  const labels = model.labels ? names : names.map((/** @type {string} */ _, /** @type {number} */ index) => index);
  if (model.task === "multilabel") return severalChoices(names, labels, give);
  return names.length > MOST_KEYS ? searchedChoice(names, labels, give) : oneChoice(names, labels, give);
}

/** @param {string[]} names @param {unknown[]} labels @param {Give} give @returns {Choices} */
function oneChoice(names, labels, give) {
  const keys = keysFor(names);
  return {
    node: element(
      "div",
      { class: "choices", role: "group", "aria-label": "Labels" },
      names.map((name, k) => choice(name, keys[k], () => give(labels[k], name))),
    ),
    pressed(event) {
      const place = keys.indexOf(event.key.toLowerCase());
      if (place < 0) return false;
      give(labels[place], names[place]);
      return true;
    },
    clear() {},
  };
}

/** @param {string[]} names @param {unknown[]} labels @param {Give} give @returns {Choices} */
function severalChoices(names, labels, give) {
  const keys = keysFor(names);
  const buttons = names.map((name, k) => choice(name, keys[k], () => turn(k)));

  /** @param {number} place */
  function turn(place) {
    buttons[place].setAttribute("aria-pressed", String(!holds(buttons[place])));
  }

  function save() {
    const held = names.map((_, k) => k).filter((k) => holds(buttons[k]));
    give(held.map((k) => labels[k]), held.map((k) => names[k]).join(", ") || "none");
  }

  function clear() {
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
  }
  clear();

  return {
    node: element(
      "div",
      {},
      element("p", { class: "quiet small" }, "All that hold, also none; then save."),
      element("div", { class: "choices", role: "group", "aria-label": "Labels" }, buttons),
      element("div", { class: "buttons" }, element("button", { type: "button", class: "main", "aria-keyshortcuts": "Enter", onclick: save }, "Save ", element("kbd", { "aria-hidden": "true" }, cap("Enter")))),
    ),
    pressed(event) {
      const place = keys.indexOf(event.key.toLowerCase());
      if (place >= 0) turn(place);
      // A button that has the focus is pressed by it, and a link followed.
      else if (event.key === "Enter" && !(event.target instanceof Element && event.target.closest("a, button, summary"))) save();
      else return false;
      return true;
    },
    clear,
  };
}

/** @param {HTMLElement} button */
function holds(button) {
  return button.getAttribute("aria-pressed") === "true";
}

/** More classes than there are keys. @param {string[]} names @param {unknown[]} labels @param {Give} give @returns {Choices} */
function searchedChoice(names, labels, give) {
  const found = element("div", { class: "choices", role: "group", "aria-label": "Labels" });
  const more = element("p", { class: "quiet small", role: "status" });
  const input = element("input", {
    id: "search", type: "search", autocomplete: "off", spellcheck: "false", oninput: show,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") input.blur();
    },
  });

  /** @returns {number[]} */
  function places() {
    const words = input.value.trim().toLowerCase();
    const all = names.map((_, k) => k).filter((k) => names[k].toLowerCase().includes(words));
    const rank = (/** @type {number} */ k) => (names[k].toLowerCase() === words ? 0 : names[k].toLowerCase().startsWith(words) ? 1 : 2);
    return all.sort((a, b) => rank(a) - rank(b));
  }

  function show() {
    const all = places();
    replace(found, all.slice(0, MOST_SHOWN).map((k) => choice(names[k], null, () => give(labels[k], names[k]))));
    more.textContent = all.length > MOST_SHOWN ? `The first ${MOST_SHOWN} of ${all.length}; type more of the name.` : all.length ? "" : "No label has this in its name.";
  }
  show();

  return {
    node: element(
      "form",
      {
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          const [first] = places();
          if (input.value.trim() && first !== undefined) give(labels[first], names[first]);
        },
      },
      element("label", { class: "field", for: "search" }, element("span", {}, `One of ${names.length} labels: type a part of its name; Enter takes the first`), input),
      found,
      more,
    ),
    pressed: (event) => typed(event, input, /^[\p{L}\p{N}]$/u),
    clear() {
      input.value = "";
      show();
    },
  };
}

/** @param {Give} give @returns {Choices} */
function numberChoice(give) {
  const input = element("input", {
    id: "number", type: "number", step: "any", required: true, autocomplete: "off",
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") input.blur();
    },
  });
  return {
    node: element(
      "form",
      {
        class: "fields",
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          if (input.value !== "" && Number.isFinite(Number(input.value))) give(Number(input.value), input.value);
        },
      },
      element("label", { class: "field", for: "number" }, element("span", {}, "The true value"), input),
      element("button", { type: "submit", class: "main", "aria-keyshortcuts": "Enter" }, "Save ", element("kbd", { "aria-hidden": "true" }, cap("Enter"))),
      element("p", { class: "quiet small" }, "Esc leaves the field, for the other keys."),
    ),
    pressed: (event) => typed(event, input, /^[\d.+-]$/),
    clear() {
      input.value = "";
    },
  };
}

/**
 * Whoever begins to type means the field.
 *
 * @param {KeyboardEvent} event @param {HTMLInputElement} input @param {RegExp} fits
 */
function typed(event, input, fits) {
  // The key itself still arrives, in what has the focus by then.
  if (fits.test(event.key)) input.focus();
  return false;
}

/** @param {string} name @param {string | null} key @param {() => void} chosen */
function choice(name, key, chosen) {
  const shown = key !== null && key !== name.toLowerCase();
  return element(
    "button",
    { type: "button", class: "choice", "aria-keyshortcuts": key, onclick: chosen },
    shown && element("kbd", { "aria-hidden": "true" }, cap(key)),
    element("span", {}, name),
  );
}
