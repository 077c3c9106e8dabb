/**
 * The same request for a terminal and for Python, ready to copy.
 */

import { copyable } from "./copyable.js";
import { element } from "./element.js";

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
  const [curl, python] = [copyable("curl", announce), copyable("Python", announce)];
  return {
    node: element("section", { class: "card snippets", "aria-label": "The same from elsewhere" }, element("h2", {}, "The same from elsewhere"), curl.node, python.node),
    /** @param {{curl: string, python: string}} texts */
    show(texts) {
      curl.code.textContent = texts.curl;
      python.code.textContent = texts.python;
    },
  };
}
