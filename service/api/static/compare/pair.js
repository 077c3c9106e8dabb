/**
 * Two versions that were chosen, what both are asked with, and the two ways of comparing them.
 */

import { element, replace } from "../element.js";
import { planPanel } from "../inputs/plan.js";
import { oneInput } from "./one_input.js";
import { storedSamples } from "./stored_samples.js";
import { choiceOf, firstPair, nameOf, partnersOf, secondFor } from "./versions.js";

/**
 * @param {HTMLElement} body
 * @param {import("../tabs.js").Context} context
 * @param {import("./versions.js").Side[]} sides of which at least two fit.
 * @param {string} place in the address.
 * @returns {() => void} closes it.
 */
export function pairView(body, context, sides, place) {
  const usable = sides.filter((side) => partnersOf(sides, side).length > 0);
  let pair = firstPair(sides, place);
  /** The model whose passes and seed the sliders begin with. */
  let planFor = "";
  /** @type {ReturnType<typeof planPanel>} */
  let plan;
  const planPlace = element("div", {});
  const planValue = () => plan.value();

  const first = element("select", { id: "compare-first", onchange: () => chooseFirst(sideNamed(first.value)) });
  const second = element("select", { id: "compare-second", onchange: () => use({ ...pair, second: sideNamed(second.value) }) });
  const swap = element("button", { type: "button", onclick: () => use({ first: pair.second, second: pair.first }) }, "Swap");

  /** From where a sample was opened, to go back to. @type {any} */
  let from = null;
  const one = oneInput(context, planValue, () => {
    show("samples");
    from?.focus();
  });
  const stored = storedSamples(context, planValue, (sample) => {
    from = document.activeElement;
    show("input");
    one.open(sample);
  });
  const panels = { input: one.node, samples: stored.node };
  /** @type {Record<string, any>} */
  const buttons = Object.fromEntries(
    [["input", "One input"], ["samples", "Stored samples"]].map(([name, title]) => [name, element("button", { type: "button", onclick: () => show(name) }, title)]),
  );

  replace(
    body,
    element(
      "div",
      { class: "fields chooser" },
      element("div", { class: "field" }, element("label", { for: "compare-first" }, "A"), first),
      swap,
      element("div", { class: "field" }, element("label", { for: "compare-second" }, "B"), second),
    ),
    planPlace,
    element("div", { class: "buttons modes", role: "group", "aria-label": "Compare on" }, Object.values(buttons)),
    Object.values(panels),
  );

  /** @param {string} name */
  function sideNamed(name) {
    return /** @type {import("./versions.js").Side} */ (sides.find((side) => nameOf(side) === name));
  }

  /** @param {import("./versions.js").Side} side */
  function chooseFirst(side) {
    use({ first: side, second: secondFor(sides, side, pair.second) });
  }

  /** @param {import("./versions.js").Pair} next */
  function use(next) {
    pair = next;
    replace(first, usable.map((side) => option(side, pair.first)));
    replace(second, partnersOf(sides, pair.first).map((side) => option(side, pair.second)));
    const { model } = pair.first;
    if (planFor !== model.name) {
      planFor = model.name;
      plan = planPanel(model, () => one.update());
      replace(planPlace, plan.node);
    }
    context.moveTo(`${nameOf(pair.first)},${nameOf(pair.second)}`);
    one.use(pair);
    stored.use(pair);
  }

  /** @param {string} name */
  function show(name) {
    for (const [each, panel] of Object.entries(panels)) {
      panel.hidden = each !== name;
      buttons[each].setAttribute("aria-pressed", String(each === name));
    }
    one.show(name === "input");
  }

  show("input");
  use(pair);
  return () => {
    one.close();
    stored.close();
  };
}

/** @param {import("./versions.js").Side} side @param {import("./versions.js").Side} chosen */
function option(side, chosen) {
  return element("option", { value: nameOf(side), selected: side === chosen }, choiceOf(side));
}
