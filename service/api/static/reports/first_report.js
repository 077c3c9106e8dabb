/**
 * How a report is made, ready to copy.
 */

import { copyable } from "../copyable.js";
import { element } from "../element.js";

/**
 * @param {string | undefined} model that it is to be of.
 * @param {boolean} first whether there is none yet.
 * @param {(text: string) => void} announce
 * @returns {HTMLElement}
 */
export function firstReport(model, first, announce) {
  const lines = copyable("terminal", announce);
  lines.code.textContent = `candor report ${model ?? "MODEL"} --data test.npz`;
  return element(
    "section",
    { class: "card making", "aria-label": "Making a report" },
    element("h2", {}, first ? "There is no report yet. The first is made so:" : "A further report is made so:"),
    lines.node,
    element(
      "p",
      { class: "quiet small" },
      "test.npz holds inputs x [N, D...] and their truth y [N] that training never saw: ",
      element("code", {}, 'numpy.savez("test.npz", x=inputs, y=truth)'),
      ". With ",
      element("code", {}, "--ood other.npz"),
      ", rows x of another kind, it also says which score tells them; with ",
      element("code", {}, "--with 2"),
      " it sets version 2 beside the one it is of. It is written into the folder of the version, and stands here at once.",
    ),
  );
}
