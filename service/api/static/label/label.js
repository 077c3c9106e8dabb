/**
 * Label: the kept samples that the model was least sure of, one after the other, to be given their
 * labels by keyboard, mouse or finger.
 */

import { Problem } from "../api.js";
import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { examplesOf } from "../inputs/examples.js";
import { desk } from "./desk.js";
import { refused } from "./states.js";

const KEYS = "candor.label.keys";
const LOADING_MS = 1000;

/** @type {import("../tabs.js").Mount} */
export function mount(container, context) {
  const { api, connection } = context;
  const gone = new AbortController();
  const options = { signal: gone.signal };
  let close = () => {};
  let timer = 0;
  /** @type {any[]} */
  let models = [];
  let chosen = "";
  let turn = 0;
  const body = element("div", { class: "labelling" });
  const select = element("select", { id: "model", onchange: () => choose(select.value) });
  const about = element("span", { class: "quiet" });
  const keys = element("input", {
    type: "checkbox", id: "keys", checked: localStorage.getItem(KEYS) !== "off",
    onchange: () => localStorage.setItem(KEYS, keys.checked ? "on" : "off"),
  });

  replace(
    container,
    element("h1", {}, "What is it?"),
    element(
      "p",
      { class: "lead" },
      "Of the requests that were kept, those come first of which the model was least sure: their labels tend to say most. While one is before you, nobody else is given it.",
    ),
    element(
      "div",
      { class: "fields chooser" },
      element("label", { for: "model" }, "Model"), select,
      element("label", { for: "keys" }, keys, " Label by single keys"),
      about,
    ),
    body,
  );

  async function load() {
    clearTimeout(timer);
    let counts;
    try {
      models = (await api.get("models", options)).models;
      counts = (await api.get("samples/counts", options)).counts;
    } catch (error) {
      // Whoever labels goes on with it, and is told there.
      if (!gone.signal.aborted && !chosen) refused(body, error, api, load);
      return;
    }
    const usable = models.filter((model) => model.default_version !== null && model.input);
    const loading = models.some((model) => model.versions.some((/** @type {any} */ each) => each.state === "loading"));
    if (loading) timer = setTimeout(load, LOADING_MS);
    replace(select, usable.map((model) => element("option", { value: model.name, selected: model.name === chosen }, model.name)));
    if (usable.some((model) => model.name === chosen) || (chosen && loading)) return;
    const waiting = (/** @type {any} */ model) => counts.find((/** @type {any} */ each) => each.model === model.name)?.unlabelled ?? 0;
    const most = [...usable].sort((a, b) => waiting(b) - waiting(a))[0];
    const first = usable.find((model) => model.name === context.place) ?? (loading ? undefined : most);
    if (first) choose(first.name);
    else replace(body, element("p", {}, loading ? "The models are still loading…" : models.length ? "No model serves." : "There is no model yet: put one into the folder of models and load it."));
  }

  /** @param {string} name */
  async function choose(name) {
    close();
    close = () => {};
    chosen = name;
    const mine = ++turn;
    const model = models.find((each) => each.name === name);
    select.value = name;
    about.textContent = model.description ?? "";
    replace(body, element("p", { class: "quiet" }, "Loading…"));
    let aids;
    try {
      aids = { examples: await examplesOf(api, name, options), tokens: await tokensOf(api, model, options) };
    } catch (error) {
      if (gone.signal.aborted || mine !== turn) return;
      chosen = "";
      failed(body, error);
      body.append(element("div", { class: "buttons" }, element("button", { type: "button", onclick: () => choose(name) }, "Try again")));
      return;
    }
    // Another one was chosen meanwhile, or this one once more: of two desks each would take the keys.
    if (gone.signal.aborted || mine !== turn) return;
    context.moveTo(name);
    close = desk(body, context, model, aids, () => keys.checked);
  }

  replace(body, element("p", { class: "quiet" }, "Loading the models…"));
  connection.addEventListener("back", load, options);
  load();
  return () => {
    gone.abort();
    clearTimeout(timer);
    close();
  };
}

/**
 * The words behind the numbers of a model that reads text.
 *
 * @param {import("../api.js").Api} api @param {any} model @param {import("../api.js").Options} options
 * @returns {Promise<string[] | null>}
 */
async function tokensOf(api, model, options) {
  if (model.input.shape.length !== 1 || !model.input.dtype.includes("int")) return null;
  try {
    return (await api.get(`models/${encodeURIComponent(model.name)}/vocabulary`, options)).tokens;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
}
