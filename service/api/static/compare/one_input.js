/**
 * Two versions on one input: drawn, edited, an example, or a stored sample.
 */

import { Problem } from "../api.js";
import { FIELDS, answerAsText, answerOf } from "../answers/answers.js";
import { element, replace } from "../element.js";
import { failed } from "../failure.js";
import { examplesOf } from "../inputs/examples.js";
import { inputOf } from "../inputs/inputs.js";
import { newestWins } from "../latest.js";
import { shownLabel } from "./said.js";
import { sideBySide } from "./side_by_side.js";
import { titleOf } from "./versions.js";

const QUIET_MS = 700;

/**
 * @param {import("../tabs.js").Context} context
 * @param {() => {passes: number, seed: number}} plan of both.
 * @param {() => void} back to the samples.
 */
export function oneInput(context, plan, back) {
  const { api, announce, connection } = context;
  const gone = new AbortController();
  const options = { signal: gone.signal };
  const origin = element("div", { class: "origin", tabindex: -1, hidden: true });
  const place = element("div", {});
  const trouble = element("div", {});
  const table = element("section", { class: "card", "aria-label": "Difference", "aria-busy": "true" }, element("p", { class: "quiet" }, "Asking…"));
  const cards = ["A", "B"].map((letter) => element("section", { class: "card answer", "aria-label": `Answer of ${letter}` }));
  const both = element("div", { class: "sides", hidden: true }, cards);
  const node = element(
    "div",
    { class: "columns" },
    element("section", { class: "card give", "aria-label": "Input" }, origin, place),
    element("div", { class: "both" }, trouble, table, both),
  );
  const update = newestWins(ask);
  /** @type {import("./versions.js").Pair | null} */
  let pair = null;
  /** @type {import("../inputs/inputs.js").Input | null} */
  let input = null;
  let inputFor = "";
  /** What is to be shown as soon as there is an input. @type {any} */
  let opened = null;
  let shown = false;
  let timer = 0;
  let again = 0;
  let redraw = () => {};

  /** @param {import("./versions.js").Pair} next */
  async function use(next) {
    pair = next;
    const { model } = next.first;
    if (inputFor !== model.name) {
      inputFor = model.name;
      input = null;
      origin.hidden = true;
      replace(place, element("p", { class: "quiet" }, "Loading…"));
      let examples;
      try {
        examples = await examplesOf(api, model.name, options);
      } catch (error) {
        if (gone.signal.aborted || inputFor !== model.name) return;
        inputFor = "";
        failed(place, error);
        return;
      }
      if (gone.signal.aborted || inputFor !== model.name) return;
      input = inputOf(model, examples, changed);
      replace(place, input.node);
      if (opened) take();
    }
    update();
  }

  function changed() {
    origin.hidden = true;
    update();
  }

  function take() {
    const sample = opened;
    opened = null;
    input?.take(sample.input);
    replace(
      origin,
      element("h2", {}, "A stored sample"),
      element("p", { class: "small" }, sample.label === null ? "Nobody has labelled it." : ["Labelled ", element("b", {}, shownLabel(sample.label)), "."]),
      element("p", { class: "quiet small" }, sample.id),
      element("div", { class: "buttons" }, element("button", { type: "button", onclick: back }, "Back to the samples")),
    );
    origin.hidden = false;
    origin.focus();
  }

  async function ask() {
    clearTimeout(again);
    if (gone.signal.aborted || !shown || !pair || !input) return;
    const asked = [pair.first, pair.second];
    // Once for both: they may be changed meanwhile.
    const { passes, seed } = plan();
    const row = input.row();
    if (row === null) {
      clear(input.empty);
      input.tell?.(input.empty, 0);
      return;
    }
    table.setAttribute("aria-busy", "true");
    try {
      const answers = [];
      const plains = [];
      for (const { model, version } of asked) {
        const one = { model: model.name, version: version.version, inputs: [row] };
        answers.push(await api.post("predict", { ...one, passes, seed, return: FIELDS }, options));
        plains.push(await api.post("eval", one, options));
      }
      if (gone.signal.aborted) return;
      show({ first: asked[0], second: asked[1] }, answers, plains);
    } catch (error) {
      if (gone.signal.aborted) return;
      clear("");
      failed(trouble, error);
      if (error instanceof Problem && error.retryAfter) again = setTimeout(update, 1000 * error.retryAfter);
    }
    table.setAttribute("aria-busy", "false");
  }

  /** @param {string} why */
  function clear(why) {
    redraw = () => {};
    replace(trouble);
    replace(table, why ? element("p", { class: "quiet" }, why) : null);
    table.setAttribute("aria-busy", "false");
    both.hidden = true;
  }

  /** @param {import("./versions.js").Pair} of @param {any[]} answers @param {any[]} plains */
  function show(of, answers, plains) {
    redraw = () => show(of, answers, plains);
    const sides = [of.first, of.second];
    // What is hidden has no width.
    both.hidden = false;
    const found = sides.map(({ model, version }, k) => answerOf(model, answers[k], plains[k], version, cards[k]));
    replace(trouble);
    cards.forEach((card, k) => {
      replace(card, element("h2", {}, element("span", { class: "letter" }, "AB"[k]), titleOf(sides[k])), found[k]?.node ?? answerAsText(answers[k]));
      // Their regions would else have the same names.
      for (const part of card.querySelectorAll("[aria-label]:is(section, pre)")) {
        part.setAttribute("aria-label", `${part.getAttribute("aria-label")} of ${"AB"[k]}`);
      }
    });
    const [first, second] = found;
    if (!first || !second) {
      replace(table, element("p", { class: "quiet" }, "They answer for every place of their input, which no table holds."));
      return;
    }
    replace(table, element("h2", {}, "Difference"), sideBySide(of, answers, plains));
    const said = `A: ${first.said} B: ${second.said}`;
    input?.tell?.(said, Math.max(first.share, second.share));
    clearTimeout(timer);
    timer = setTimeout(() => announce(said), QUIET_MS);
  }

  let width = 0;
  const resized = new ResizeObserver(() => {
    if (node.clientWidth === width) return;
    width = node.clientWidth;
    if (width) redraw();
  });
  resized.observe(node);
  connection.addEventListener("back", () => pair && use(pair), options);

  return {
    node,
    use,
    update,
    /** @param {boolean} now whether it is the one that is looked at: else nothing is asked. */
    show(now) {
      shown = now;
      if (now) update();
    },
    /** @param {any} sample */
    open(sample) {
      opened = sample;
      if (input) take();
    },
    close() {
      gone.abort();
      clearTimeout(timer);
      clearTimeout(again);
      resized.disconnect();
    },
  };
}
