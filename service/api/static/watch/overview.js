/**
 * All models together, in a few numbers.
 */

import { element, replace } from "../element.js";
import { rounded } from "../numbers.js";
import { course, summed, sumOf } from "./history.js";
import { ofKind } from "./rows.js";
import { counted, percent } from "./words.js";

/** @typedef {import("./history.js").Step} Step @typedef {import("./reading.js").Reading} Reading */

export function overview() {
  const list = element("dl", { class: "tiles" });
  return {
    node: element("section", { "aria-label": "All models" }, list),

    /** @param {Reading} reading @param {Step[]} steps of the last minutes. */
    update(reading, steps) {
      const asked = summed(steps.map((step) => step.asked));
      const all = sumOf(asked);
      const failed = ofKind(asked, "5");
      const refused = summed(steps.map((step) => step.refused));
      const now = (/** @type {(step: Step) => number} */ of) =>
        course(steps, (recent, seconds) => recent.reduce((sum, step) => sum + of(step), 0) / seconds).at(-1)?.value ?? null;
      const rate = now((step) => sumOf(step.asked));
      const busy = now((step) => step.busy);
      replace(
        list,
        tile("Requests a second", rate === null ? "–" : rounded(rate, 3), "in the last ten seconds"),
        tile("Requests", all.toLocaleString("en"), failed > 0 ? `${counted(failed, "failed", "failed")} (${percent(failed / all)})` : "none failed", failed > 0),
        tile("Refused", sumOf(refused).toLocaleString("en"), reasons(refused)),
        tile("Being answered", reading.inFlight.toLocaleString("en"), `${reading.waiting.toLocaleString("en")} of them waiting`),
        tile("Engine in use", busy === null ? "–" : percent(Math.min(1, busy)), "in the last ten seconds"),
      );
    },
  };
}

/** @param {string} name @param {string} value @param {string} note @param {boolean} [wrong] */
function tile(name, value, note, wrong = false) {
  return element("div", { class: "card" }, element("dt", {}, name), element("dd", { class: "value" }, value), element("dd", { class: wrong ? "small wrong" : "small quiet" }, note));
}

/** @param {Map<string, number>} refused */
function reasons(refused) {
  if (refused.size === 0) return "nothing";
  const most = [...refused].sort(([, a], [, b]) => b - a).slice(0, 3);
  return most.map(([reason, count]) => `${count.toLocaleString("en")} ${reason.replaceAll("_", " ")}`).join(", ");
}
