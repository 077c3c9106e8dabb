/**
 * Light, dark, or as the system has it; chosen once, kept in the browser.
 */

import { element } from "./element.js";

const KEY = "candor.theme";
const THEMES = ["system", "light", "dark"];

/** The switch; what was chosen before holds from now on. @returns {HTMLElement} */
export function themeSwitch() {
  const kept = localStorage.getItem(KEY) ?? "system";
  use(kept);
  return element(
    "label",
    { class: "theme" },
    element("span", {}, "Theme"),
    element(
      "select",
      {
        onchange: (/** @type {any} */ event) => {
          localStorage.setItem(KEY, event.target.value);
          use(event.target.value);
        },
      },
      THEMES.map((theme) => element("option", { value: theme, selected: theme === kept }, theme)),
    ),
  );
}

/** @param {string} theme */
function use(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}
