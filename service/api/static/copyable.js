/**
 * Lines for a terminal or a program, ready to copy.
 */

import { element } from "./element.js";

const COPIED_MS = 1500;

/**
 * Lines with a button that copies them; their text is that of `code`.
 *
 * @param {string} name of what they are for.
 * @param {(text: string) => void} announce
 * @returns {{code: HTMLElement, node: HTMLElement}}
 */
export function copyable(name, announce) {
  const code = element("code", {});
  const button = element("button", { type: "button", "aria-label": `Copy the ${name} lines`, onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      button.textContent = "Copied";
      announce("Copied.");
    } catch {
      // No clipboard for pages without TLS: what is selected can be copied by hand.
      getSelection()?.selectAllChildren(code);
      button.textContent = "Selected";
      announce("Selected, to be copied by hand.");
    }
    setTimeout(() => {
      button.textContent = "Copy";
    }, COPIED_MS);
  }
  return {
    code,
    node: element("div", { class: "snippet" }, element("div", { class: "head" }, element("h3", {}, name), button), element("pre", { tabindex: 0, role: "region", "aria-label": `${name} lines` }, code)),
  };
}
