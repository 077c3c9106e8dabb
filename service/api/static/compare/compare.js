/**
 * Compare: two versions on the same input or the same stored samples.
 */

import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { pairView } from "./pair.js";
import { nameOf, partnersOf, sidesOf, titleOf } from "./versions.js";

const LOADING_MS = 1000;

/** @type {import("../tabs.js").Mount} */
export function mount(container, context) {
  const { api, connection } = context;
  const gone = new AbortController();
  const body = element("div", {}, element("p", { class: "quiet" }, "Loading the models…"));
  let close = () => {};
  let timer = 0;
  /** The versions that can be chosen now. */
  let known = "";
  let { place } = context;

  replace(
    container,
    element(
      "div",
      { class: "compare" },
      element("h1", {}, "What has changed?"),
      element("p", { class: "lead" }, "Two versions get the same input, the same number of passes and the same seed: what differs comes from the versions."),
      body,
    ),
  );

  async function load() {
    clearTimeout(timer);
    let models;
    try {
      ({ models } = await api.get("models", { signal: gone.signal }));
    } catch (error) {
      if (!gone.signal.aborted && !known) failed(body, error);
      return;
    }
    const loading = models.some((/** @type {any} */ model) => model.versions.some((/** @type {any} */ each) => each.state === "loading"));
    if (loading) timer = setTimeout(load, LOADING_MS);
    const sides = sidesOf(models);
    const now = JSON.stringify(sides.map(nameOf));
    // What is looked at stays where nothing has changed, or where all is still to come.
    if (known && (known === now || loading)) return;
    close();
    close = () => {};
    known = "";
    if (sides.some((side) => partnersOf(sides, side).length > 0)) {
      known = now;
      close = pairView(body, { ...context, moveTo }, sides, place);
    } else {
      nothing(sides, loading);
    }
  }

  /** @param {string} to */
  function moveTo(to) {
    place = to;
    context.moveTo(to);
  }

  /** @param {import("./versions.js").Side[]} sides that serve. @param {boolean} loading */
  function nothing(sides, loading) {
    if (loading || sides.length === 0) {
      replace(body, element("p", {}, loading ? "The models are still loading…" : "No model serves."));
      return;
    }
    replace(
      body,
      element("p", {}, "There is nothing to compare yet: each model serves one version, and no two models take the same inputs and answer in kind."),
      element("p", {}, "A further version is a folder beside the first, ", element("code", {}, `${sides[0].model.name}/${sides[0].version.version + 1}`), ", and serves when its model is loaded again: ", element("code", {}, `POST /models/${sides[0].model.name}/reload`), "."),
      element("p", {}, sides.length === 1 ? "This one serves:" : "These serve:"),
      element("ul", {}, sides.map((side) => element("li", {}, titleOf(side)))),
      element("button", { type: "button", onclick: load }, "Look again"),
    );
  }

  connection.addEventListener("back", load, { signal: gone.signal });
  load();
  return () => {
    gone.abort();
    clearTimeout(timer);
    close();
  };
}
