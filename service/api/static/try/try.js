/**
 * Try: choose a model, give it something, see its answer and its doubt.
 */

import { Problem } from "../api.js";
import { FIELDS, answerAsText, answerOf, widthOf } from "../answers/answers.js";
import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { examplesOf } from "../inputs/examples.js";
import { inputOf } from "../inputs/inputs.js";
import { planPanel } from "../inputs/plan.js";
import { defaultVersion, kindOf } from "../kinds.js";
import { newestWins } from "../latest.js";
import { snippetPanel, snippetsOf } from "../snippets.js";
import { courseOf, curve, grid } from "./curve.js";

const CURVE_FIELDS = ["mean", "std", "aleatoric_std", "epistemic_std"];
const QUIET_MS = 700;
const LOADING_MS = 1000;

/** @type {import("../tabs.js").Mount} */
export function mount(container, context) {
  const { api, connection } = context;
  const gone = new AbortController();
  let close = () => {};
  let timer = 0;
  const body = element("div", {});
  const select = element("select", { id: "model", onchange: () => choose(select.value) });
  const about = element("span", { class: "quiet" });
  const hint = element("span", { class: "quiet" });
  /** @type {any[]} */
  let models = [];
  let chosen = "";

  replace(
    container,
    element("h1", {}, "How sure is it?"),
    element(
      "p",
      { class: "lead" },
      "Candor asks a network the same thing many times, each time with other parts of it switched off. Where the answers agree, it is sure; where they scatter, it is in doubt. ",
      hint,
    ),
    element("div", { class: "fields chooser" }, element("label", { for: "model" }, "Model"), select, about),
    body,
  );

  async function load() {
    clearTimeout(timer);
    try {
      models = (await api.get("models", { signal: gone.signal })).models;
    } catch (error) {
      if (!gone.signal.aborted) failed(body, error);
      return;
    }
    const loading = models.some((model) => model.versions.some((/** @type {any} */ each) => each.state === "loading"));
    if (loading) timer = setTimeout(load, LOADING_MS);
    const usable = models.filter((model) => model.default_version !== null && model.input);
    replace(select, usable.map((model) => element("option", { value: model.name, selected: model.name === chosen }, model.name)));
    // One that loads again is asked again when it is there; see `ask`.
    if (models.some((model) => model.name === chosen && (loading || usable.includes(model)))) return;
    const first = usable.find((model) => model.name === context.place) ?? usable.find((model) => kindOf(model) === "picture");
    if (first || (usable.length > 0 && !loading)) choose((first ?? usable[0]).name);
    else nothing(loading);
  }

  /** @param {boolean} loading */
  function nothing(loading) {
    const reasons = models.filter((model) => model.reason).map((model) => element("li", {}, `${model.name}: ${model.reason}`));
    replace(
      body,
      element("p", {}, loading ? "The models are still loading…" : models.length ? "No model serves." : "There is no model yet: put one into the folder of models and load it."),
      reasons.length > 0 && element("ul", {}, reasons),
    );
  }

  /** @param {string} name */
  async function choose(name) {
    close();
    close = () => {};
    chosen = name;
    const model = models.find((each) => each.name === name);
    select.value = name;
    about.textContent = model.description ?? "";
    replace(body, element("p", { class: "quiet" }, "Loading…"));
    let examples;
    try {
      examples = await examplesOf(api, name, { signal: gone.signal });
    } catch (error) {
      if (gone.signal.aborted) return;
      failed(body, error);
      chosen = "";
      return;
    }
    if (chosen !== name) return;
    context.moveTo(name);
    close = view(body, hint, context, model, examples);
  }

  replace(body, element("p", { class: "quiet" }, "Loading the models…"));
  connection.addEventListener("back", load, { signal: gone.signal });
  load();
  return () => {
    gone.abort();
    clearTimeout(timer);
    close();
  };
}

/**
 * One model: what it is given, and what it answers.
 *
 * @param {HTMLElement} body @param {HTMLElement} hint @param {import("../tabs.js").Context} context
 * @param {any} model
 * @param {any[]} examples
 * @returns {() => void} closes it.
 */
function view(body, hint, context, model, examples) {
  const { api, announce } = context;
  const gone = new AbortController();
  const options = { signal: gone.signal };
  const version = defaultVersion(model);
  let timer = 0;
  let again = 0;
  /** The curve that is shown, and what it was asked for. */
  let drawnFor = "";
  /** @type {import("./curve.js").Course | null} */
  let course = null;

  const update = newestWins(ask);
  const input = inputOf(model, examples, update);
  const plan = planPanel(model, update);
  hint.textContent = input.hint;
  const answers = element("section", { class: "card answer", "aria-label": "Answer", "aria-busy": "true" }, element("p", { class: "quiet" }, "Asking…"));
  const snippets = snippetPanel(announce);
  replace(
    body,
    element(
      "div",
      { class: "columns" },
      element("section", { class: "card give", "aria-label": "Input" }, input.node, plan.node),
      answers,
    ),
    snippets.node,
  );

  async function ask() {
    clearTimeout(again);
    if (gone.signal.aborted) return;
    const row = input.row();
    if (row === null) {
      replace(answers, element("p", { class: "quiet" }, input.empty));
      input.tell?.(input.empty, 0);
      return;
    }
    const { passes, seed } = plan.value();
    const one = { model: model.name, inputs: [row] };
    answers.setAttribute("aria-busy", "true");
    try {
      await follow(passes, seed);
      const answer = await api.post("predict", { ...one, passes, seed, return: FIELDS }, options);
      const plain = await api.post("eval", one, options);
      if (gone.signal.aborted) return;
      show(row, answer, plain);
      snippets.show(snippetsOf({ address: api.address(""), ...one, row, version: null, passes, seed, token: api.hasToken }));
    } catch (error) {
      if (gone.signal.aborted) return;
      failed(answers, error);
      if (error instanceof Problem && error.retryAfter) again = setTimeout(update, 1000 * error.retryAfter);
    }
    answers.setAttribute("aria-busy", "false");
  }

  /** Have the curve go with its range and plan. @param {number} passes @param {number} seed */
  async function follow(passes, seed) {
    const range = input.range?.();
    const wanted = JSON.stringify([range, passes, seed]);
    if (!range || wanted === drawnFor) return;
    const xs = grid(range);
    const many = { model: model.name, inputs: xs.map((x) => [x]) };
    const answer = await api.post("predict", { ...many, passes, seed, return: CURVE_FIELDS }, options);
    course = courseOf(xs, answer, await api.post("eval", many, options));
    drawnFor = wanted;
  }

  let redraw = () => {};

  /** @param {any} row @param {any} answer @param {any} plain */
  function show(row, answer, plain) {
    redraw = () => show(row, answer, plain);
    const found = answerOf(model, answer, plain, version, answers);
    if (!found) {
      replace(answers, answerAsText(answer));
      return;
    }
    const point = { x: row[0], mean: answer.mean[0][0], passes: answer.samples.map((/** @type {number[][]} */ pass) => pass[0][0]) };
    replace(answers, course && curve(course, point, widthOf(answers), (x) => input.moveTo?.(x)), found.node);
    input.tell?.(found.said, found.share);
    clearTimeout(timer);
    timer = setTimeout(() => announce(found.said), QUIET_MS);
  }

  let width = body.clientWidth;
  const resized = new ResizeObserver(() => {
    if (body.clientWidth === width) return;
    width = body.clientWidth;
    redraw();
  });
  resized.observe(body);
  context.connection.addEventListener("back", update, options);
  update();
  return () => {
    gone.abort();
    clearTimeout(timer);
    clearTimeout(again);
    resized.disconnect();
  };
}
