/**
 * Try: choose a model, give it something, see its answer and its doubt.
 *
 * @typedef {object} Input a way of giving a model one row by hand.
 * @property {HTMLElement} node
 * @property {() => any} row [D...] as it stands now; null where there is none.
 * @property {string} empty what to say then.
 * @property {string} hint what there is to see.
 * @property {(said: string, share: number) => void} [tell] the answer in short, beside the input,
 *   with its doubt as a share of the most that there can be.
 * @property {() => (number[] | null)} [range] over which a curve is drawn.
 * @property {(value: number) => void} [moveTo] the point of the curve was moved.
 */

import { Problem, Unreachable } from "../api.js";
import { element, replace } from "../element.js";
import { classAnswer } from "./classes.js";
import { courseOf, curve, grid } from "./curve.js";
import { defaultVersion, hasClasses, kindOf } from "./kinds.js";
import { newestWins } from "./latest.js";
import { numberInput } from "./number_input.js";
import { pictureInput } from "./picture_input.js";
import { planPanel } from "./plan.js";
import { rawInput } from "./raw_input.js";
import { rowInput } from "./row_input.js";
import { snippetPanel, snippetsOf } from "./snippets.js";
import { valueAnswer } from "./values.js";

const INPUTS = { picture: pictureInput, number: numberInput, row: rowInput, other: rawInput };
const FIELDS = [
  "mean", "std", "predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio",
  "aleatoric_std", "epistemic_std", "label", "variance", "ood", "prediction_set", "interval", "samples",
];
const CURVE_FIELDS = ["mean", "std", "aleatoric_std", "epistemic_std"];
const QUIET_MS = 700;
const LOADING_MS = 1000;
/** Around the answer, in pixels. */
const PADDING = 32;
const NARROWEST = 240;

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
    let examples = [];
    try {
      examples = (await api.get(`models/${encodeURIComponent(name)}/example`, { signal: gone.signal })).inputs;
    } catch (error) {
      if (gone.signal.aborted) return;
      // A model may have none.
      if (!(error instanceof Problem && error.status === 404)) {
        failed(body, error);
        chosen = "";
        return;
      }
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
  const input = INPUTS[kindOf(model)](model, examples, update);
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
    if (!isPlain(answer)) {
      replace(answers, element("p", {}, "This model answers for every place of its input:"), element("pre", { tabindex: 0, role: "region", "aria-label": "Answer as JSON" }, JSON.stringify({ ...answer, samples: undefined })));
      return;
    }
    const width = Math.max(NARROWEST, answers.clientWidth - PADDING);
    const found = (hasClasses(model) ? classAnswer : valueAnswer)(model, answer, plain, version, width);
    const point = { x: row[0], mean: answer.mean[0][0], passes: answer.samples.map((/** @type {number[][]} */ pass) => pass[0][0]) };
    replace(answers, course && curve(course, point, width, (x) => input.moveTo?.(x)), found.node);
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

/** Whether an answer is [B, C], not for every place of its input. @param {any} answer */
function isPlain(answer) {
  return typeof answer.mean[0][0] === "number";
}

/** @param {HTMLElement} place @param {unknown} error */
function failed(place, error) {
  if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
  const field = error instanceof Problem && error.field ? `${error.field}: ` : "";
  replace(place, element("p", { class: "wrong", role: "alert" }, field, error.message));
}
