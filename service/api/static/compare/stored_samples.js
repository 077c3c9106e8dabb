/**
 * Two versions on the samples that the server kept: as many as chosen, the most uncertain first.
 */

import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { inBatches } from "./batches.js";
import { collect } from "./collect.js";
import { patience } from "./patience.js";
import { resultsOf } from "./results.js";
import { FIELDS, isPlain, saidOf } from "./said.js";

const FEW = 200;
const MOST = 5000;
const STATUSES = { "": "all", labelled: "labelled", unlabelled: "not labelled yet", skipped: "skipped" };

/**
 * @param {import("../tabs.js").Context} context
 * @param {() => {passes: number, seed: number}} plan of both.
 * @param {(sample: any) => void} open one of them side by side.
 */
export function storedSamples({ api, connection, announce }, plan, open) {
  const models = element("select", { id: "compare-model" });
  const statuses = element("select", { id: "compare-status" }, Object.entries(STATUSES).map(([status, title]) => element("option", { value: status }, title)));
  const count = element("input", { id: "compare-count", type: "number", min: 1, max: MOST, step: 1, value: FEW, required: true });
  const start = element("button", { type: "submit", class: "main" }, "Compare");
  const stop = element("button", { type: "button", hidden: true, onclick: () => running?.abort() }, "Stop");
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
  const said = element("div", { class: "quiet small said" });
  const results = element("div", { class: "results" });
  const form = element(
    "form",
    { class: "card", "aria-label": "Which samples", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); run(); } },
    element(
      "div",
      { class: "fields" },
      element("div", { class: "field" }, element("label", { for: "compare-model" }, "Samples of"), models),
      element("div", { class: "field" }, element("label", { for: "compare-status" }, "Which"), statuses),
      element("div", { class: "field" }, element("label", { for: "compare-count" }, "How many, the most uncertain first"), count),
      start,
      stop,
    ),
    bar,
    said,
  );
  /** @type {import("./versions.js").Pair | null} */
  let pair = null;
  /** @type {AbortController | null} */
  let running = null;
  /** Whether what was stopped is to be shown. */
  let wanted = true;

  /** @param {import("./versions.js").Pair} next */
  function use(next) {
    wanted = false;
    running?.abort();
    pair = next;
    const names = [...new Set([next.first.model.name, next.second.model.name])];
    replace(models, names.map((name) => element("option", { value: name }, name)));
    models.disabled = names.length === 1;
    replace(results);
    said.textContent = "";
  }

  async function run() {
    if (!pair || running) return;
    const of = pair;
    const { passes, seed } = plan();
    const choice = { model: models.value, status: statuses.value, count: Number(count.value) };
    const mine = (running = new AbortController());
    wanted = true;
    begin();
    /** @type {import("./results.js").Compared} */
    const compared = { pair: of, samples: [], said: [[], []], passes, seed, asked: null, places: false };
    try {
      await compare(compared, choice, mine.signal);
      finish(compared, inWords(compared));
    } catch (error) {
      if (!mine.signal.aborted) {
        finish(compared, "");
        failed(said, error);
      } else if (wanted) {
        finish(compared, `Stopped: ${inWords(compared)}`);
      }
    } finally {
      running = null;
      end();
    }
  }

  /** @param {import("./results.js").Compared} compared @param {import("./collect.js").Choice} choice @param {AbortSignal} signal */
  async function compare(compared, choice, signal) {
    const { pair: of, passes, seed } = compared;
    let told = "";
    const wait = patience(connection, signal, (text) => { said.textContent = text || told; });
    const tell = (/** @type {string} */ text) => { said.textContent = told = text; };
    tell("Looking for samples…");
    const samples = await collect(api, choice, signal, wait, (found) => tell(`${found} samples found…`));
    compared.asked = samples.length;
    bar.max = Math.max(1, samples.length);
    const send = async (/** @type {any[]} */ rows) => {
      const answers = [];
      for (const { model, version } of [of.first, of.second]) {
        answers.push(await api.post("predict", { model: model.name, version: version.version, inputs: rows, passes, seed, return: FIELDS }, { signal }));
      }
      return answers;
    };
    for await (const { count: rows, answer } of inBatches(samples.map((sample) => sample.input), passes, send, wait)) {
      if (!answer.every(isPlain)) {
        compared.places = true;
        return;
      }
      const done = compared.samples.length;
      compared.samples.push(...samples.slice(done, done + rows));
      [of.first, of.second].forEach((side, k) => compared.said[k].push(...saidOf(side.model, answer[k])));
      bar.value = compared.samples.length;
      tell(`${compared.samples.length} of ${samples.length} samples compared…`);
    }
  }

  function begin() {
    start.disabled = true;
    stop.hidden = bar.hidden = false;
    bar.removeAttribute("value");
    replace(results);
    form.setAttribute("aria-busy", "true");
  }

  function end() {
    const focused = document.activeElement === stop;
    start.disabled = false;
    stop.hidden = bar.hidden = true;
    form.removeAttribute("aria-busy");
    if (focused) start.focus();
  }

  /** @param {import("./results.js").Compared} compared @param {string} text */
  function finish(compared, text) {
    said.textContent = text;
    announce(text);
    replace(results, compared.samples.length > 0 && resultsOf(compared, open));
  }

  return {
    node: element("div", {}, form, results),
    use,
    close() {
      wanted = false;
      running?.abort();
    },
  };
}

/** @param {import("./results.js").Compared} compared */
function inWords({ samples, asked, places }) {
  if (places) return "They answer for every place of their input; samples are compared where there is one answer for each.";
  if (asked === 0) return "There are no such samples. A server keeps those of the models that CANDOR_KEEP_SAMPLES names.";
  if (asked === null) return "no sample compared.";
  return samples.length < asked ? `${samples.length} of ${asked} samples compared.` : `${asked} samples compared.`;
}
