/**
 * Why a sample is in the queue, and what the model says of it: hidden until asked for, so that it
 * leads nobody who labels.
 */

import { Problem, Unreachable } from "../api.js";
import { FIELDS, answerAsText, answerOf } from "../answers/answers.js";
import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { defaultVersion, hasClasses } from "../kinds.js";
import { rounded } from "../numbers.js";

/** As GET /samples orders them where nobody says. */
const ORDER = { classes: "mutual_information", numbers: "variance" };
const NAMES = {
  mutual_information: "mutual information, nats (doubt in the model)",
  predictive_entropy: "predictive entropy, nats (all the doubt)",
  variation_ratio: "variation ratio (passes that disagree)",
  variance: "variance over the passes",
};

/**
 * @param {import("../api.js").Api} api
 * @param {any} model as of GET /models.
 */
export function whyPanel(api, model) {
  const body = element("div", { id: "why-body" });
  const button = element(
    "button",
    { type: "button", "aria-expanded": "false", "aria-controls": "why-body", "aria-keyshortcuts": "?", onclick: toggle },
    "Why this one? ",
    element("kbd", { "aria-hidden": "true" }, "?"),
  );
  /** @type {any} */
  let sample = null;
  let gone = new AbortController();

  function toggle() {
    if (button.getAttribute("aria-expanded") === "true") hide();
    else if (sample !== null) open();
  }

  function hide() {
    gone.abort();
    button.setAttribute("aria-expanded", "false");
    replace(body);
  }

  async function open() {
    gone = new AbortController();
    const options = { signal: gone.signal };
    button.setAttribute("aria-expanded", "true");
    const place = element("div", { class: "says", "aria-busy": "true" }, element("p", { class: "quiet" }, "Asking the model…"));
    replace(body, scores(sample.scores, model), place);
    const version = versionOf(model, sample.version);
    const one = { model: model.name, version: version.version, inputs: [sample.input] };
    try {
      const answer = await api.post("predict", { ...one, return: FIELDS }, options);
      const plain = await api.post("eval", one, options);
      if (options.signal.aborted) return;
      const shown = answerOf(model, answer, plain, version, place);
      replace(place, element("h2", {}, `What version ${version.version} says`), shown ? shown.node : answerAsText(answer));
    } catch (error) {
      if (options.signal.aborted) return;
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      failed(place, error);
    }
    place.setAttribute("aria-busy", "false");
  }

  return {
    node: element(
      "section",
      { class: "why", "aria-label": "Why this one" },
      button,
      element("p", { class: "quiet small" }, "Its scores and the model’s answer: hidden until you ask, so that they do not lead you."),
      body,
    ),
    toggle,
    /** Of another sample; hidden again. @param {any} next */
    show(next) {
      sample = next;
      hide();
    },
    close: () => gone.abort(),
  };
}

/** @param {Record<string, number>} scores by name. @param {any} model */
function scores(scores, model) {
  const order = hasClasses(model) ? ORDER.classes : ORDER.numbers;
  const names = Object.keys(scores).sort((a, b) => Number(b === order) - Number(a === order));
  return element(
    "table",
    { class: "scores small" },
    element("caption", {}, "When it was kept"),
    element("tbody", {}, names.map((name) => element(
      "tr",
      {},
      element("th", { scope: "row" }, /** @type {Record<string, string>} */ (NAMES)[name] ?? name),
      element("td", {}, rounded(scores[name])),
      element("td", { class: "quiet" }, name === order ? "the queue’s order" : ""),
    ))),
  );
}

/** The version that kept it, where it still serves, or else the one that does. @param {any} model @param {number} number */
function versionOf(model, number) {
  const found = model.versions.find((/** @type {any} */ each) => each.version === number && each.state === "ready");
  return found ?? defaultVersion(model);
}
