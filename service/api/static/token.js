/**
 * The visitor's token: asked for once, kept for this tab of the browser, sent as Bearer.
 */

import { element } from "./element.js";

const KEY = "candor.token";

export class TokenKeeper {
  constructor() {
    /** @type {string | null} */
    this.value = sessionStorage.getItem(KEY);
    /** @type {Promise<void> | null} */
    this._asked = null;
  }

  /**
   * Ask for a token other than the one that was refused; all who need one wait for the same answer.
   *
   * @param {string | null} refused
   * @returns {Promise<void>}
   */
  ask(refused) {
    if (this.value !== refused) return Promise.resolve();
    this._asked ??= this._show(refused !== null).finally(() => {
      this._asked = null;
    });
    return this._asked;
  }

  /** Forget it. */
  forget() {
    sessionStorage.removeItem(KEY);
    this.value = null;
  }

  /** @param {boolean} again @returns {Promise<void>} */
  _show(again) {
    return new Promise((resolve) => {
      const input = element("input", {
        id: "token",
        type: "password",
        required: true,
        autocomplete: "off",
        spellcheck: "false",
        "aria-describedby": "token-note",
      });
      const dialog = element(
        "dialog",
        { class: "asks", "aria-labelledby": "token-title", oncancel: (/** @type {Event} */ event) => event.preventDefault() },
        element(
          "form",
          {
            method: "dialog",
            onsubmit: (/** @type {Event} */ event) => {
              event.preventDefault();
              this.value = input.value.trim();
              sessionStorage.setItem(KEY, this.value);
              dialog.close();
              dialog.remove();
              resolve();
            },
          },
          element("h2", { id: "token-title" }, "This server asks for a token"),
          element(
            "p",
            { id: "token-note" },
            again ? "It does not take the one that was given. " : "",
            "Whoever runs it gives one out. It stays in this tab until you close it.",
          ),
          element("label", { for: "token" }, "Token"),
          input,
          element("button", { type: "submit", class: "main" }, "Use it"),
        ),
      );
      document.body.append(dialog);
      dialog.showModal();
    });
  }
}
