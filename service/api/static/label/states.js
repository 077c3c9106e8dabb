/**
 * What is said where there is no sample to be shown.
 */

import { Problem } from "../api.js";
import { element } from "../element.js";
import { failed } from "../failure.js";

/**
 * @param {import("./sitting.js").Sitting} sitting
 * @param {string} model
 * @param {any} counted as of GET /samples/counts; null as long as that is not known.
 * @param {import("../api.js").Api} api
 * @returns {any[]}
 */
export function nothing(sitting, model, counted, api) {
  const { state } = sitting;
  if (state === "loading") return [element("p", { class: "quiet" }, sitting.saving ? "There are more as soon as what you decided is saved." : "Looking for samples…")];
  if (state === "taken") {
    return [
      element("p", {}, "The sample that was here is somebody else’s by now."),
      element("div", { class: "buttons" }, element("button", { type: "button", class: "main", onclick: () => sitting.goOn() }, "Go on")),
    ];
  }
  if (state === "failed") {
    const place = element("div", {});
    refused(place, sitting.error, api, () => sitting.more());
    return [place];
  }
  if (counted === null) return [element("p", { class: "quiet" }, "Nothing is free.")];
  const { unlabelled, labelled, skipped } = counted;
  if (unlabelled > 0) return [element("p", {}, `Nothing is free: the ${unlabelled} that wait are in others’ hands. This page looks again every few seconds.`)];
  if (labelled + skipped > 0) return [element("p", {}, "Done: every kept sample has its label or was skipped. What is kept from now on appears here.")];
  return [
    element("p", {}, `No request of ${model} is kept yet.`),
    element("p", { class: "quiet" }, "A server that is started with ", element("code", {}, `CANDOR_KEEP_SAMPLES=${model}=uncertain`), " keeps those that the model is unsure of; they appear here by themselves."),
  ];
}

/**
 * What went wrong; of a token that may not label, what to do about it.
 *
 * @param {HTMLElement} place @param {unknown} error @param {import("../api.js").Api} api
 * @param {() => void} again
 */
export function refused(place, error, api, again) {
  failed(place, error);
  if (!(error instanceof Problem && error.status === 403)) return;
  place.append(
    element("p", {}, "Labelling needs a token with the scope label. Whoever runs the server gives one out."),
    element("div", { class: "buttons" }, element("button", { type: "button", onclick: () => api.askForToken().then(again) }, "Use another token")),
  );
}

/** @param {string} why */
export function elsewherePanel(why) {
  return element(
    "section",
    { class: "card", "aria-label": "Labelled elsewhere" },
    element("p", {}, why, " This page does not do that."),
    element(
      "p",
      {},
      "Take along what waits, below, and label it with a tool that does, such as Label Studio, to which this server can be a machine-learning backend; then send each label to ",
      element("code", {}, "POST /samples/{id}/label"),
      ". ",
      element("a", { href: "docs" }, "The API’s documentation"),
      " says how.",
    ),
  );
}
