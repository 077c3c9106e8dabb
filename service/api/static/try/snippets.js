/**
 * The same request for a terminal and for Python, ready to copy.
 */

import { element } from "../element.js";

const COPIED_MS = 1500;

/**
 * @param {{address: string, model: string, version: number | null, row: any, passes: number, seed: number, token: boolean}} asked
 * @returns {{curl: string, python: string}}
 */
export function snippetsOf({ address, model, row, passes, seed, token }) {
  const body = JSON.stringify({ model, inputs: [row], passes, seed });
  const bearer = token ? " -H \"Authorization: Bearer $CANDOR_TOKEN\"" : "";
  const server = address.replace(/\/$/, "");
  return {
    curl: `curl -s ${quoted(`${server}/predict`)}${bearer} -H 'Content-Type: application/json' -d ${quoted(body)}`,
    python: [
      ...(token ? ["import os", ""] : []),
      "from service.client import Client",
      "",
      `with Client(${JSON.stringify(server)}${token ? ', token=os.environ["CANDOR_TOKEN"]' : ""}) as candor:`,
      `    answer = candor.predict(${JSON.stringify([row])}, model=${JSON.stringify(model)}, passes=${passes}, seed=${seed})`,
      "    print(answer.mean, answer.std)",
    ].join("\n"),
  };
}

/** A word of the shell that means nothing but itself. @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Both of them; `show` puts others in. @param {(text: string) => void} announce */
export function snippetPanel(announce) {
  const [curl, python] = [block("curl", announce), block("Python", announce)];
  return {
    node: element("section", { class: "card snippets", "aria-label": "The same from elsewhere" }, element("h2", {}, "The same from elsewhere"), curl.node, python.node),
    /** @param {{curl: string, python: string}} texts */
    show(texts) {
      curl.code.textContent = texts.curl;
      python.code.textContent = texts.python;
    },
  };
}

/** @param {string} name @param {(text: string) => void} announce */
function block(name, announce) {
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
