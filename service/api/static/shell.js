/**
 * What is around the tabs: navigation by the address, theme, token, connection.
 */

import { Api } from "./api.js";
import { Connection } from "./connection.js";
import { element, replace } from "./element.js";
import { TABS } from "./tabs.js";
import { themeSwitch } from "./theme.js";
import { TokenKeeper } from "./token.js";

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const status = /** @type {HTMLElement} */ (document.getElementById("connection"));
const announcements = /** @type {HTMLElement} */ (document.getElementById("announcements"));

const connection = new Connection("livez");
const api = new Api(new TokenKeeper(), connection);

const links = new Map(
  TABS.map((tab) => [tab.name, element("a", { href: `#${tab.name}` }, tab.title)]),
);

let unmount = () => {};
let shown = "";
let turn = 0;

replace(
  /** @type {HTMLElement} */ (document.getElementById("banner")),
  element("a", { class: "name", href: "#try" }, "Candor"),
  element(
    "nav",
    { "aria-label": "Tabs" },
    element("ul", {}, [...links.values()].map((link) => element("li", {}, link))),
  ),
  element("a", { class: "docs", href: "docs" }, "API"),
  themeSwitch(),
);

connection.addEventListener("lost", () => {
  status.textContent = "The server cannot be reached. This page tries again every second.";
});
connection.addEventListener("back", () => {
  status.textContent = "";
  announce("The server is back.");
});

/** @param {string} text */
function announce(text) {
  announcements.textContent = text;
}

/** @returns {[string, string]} the tab's name, and what stands behind it. */
function address() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  let place = rest.join("/");
  try {
    place = decodeURIComponent(place);
  } catch {
    // Not what this page wrote: taken as it is.
  }
  return [name, place];
}

async function show() {
  const [name, place] = address();
  const tab = TABS.find((each) => each.name === name) ?? TABS[0];
  if (shown === location.hash && shown !== "") return;
  const mine = ++turn;
  shown = location.hash;
  unmount();
  unmount = () => {};
  for (const [each, link] of links) {
    if (each === tab.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${tab.title} · Candor`;
  replace(main, element("p", { class: "quiet" }, "Loading…"));
  let mount;
  try {
    ({ mount } = await tab.load());
  } catch {
    if (mine !== turn) return;
    // What could not be loaded is not asked for again by the browser: only a new page helps.
    replace(
      main,
      element("p", { class: "wrong" }, "This tab could not be loaded."),
      element("button", { type: "button", onclick: () => location.reload() }, "Load the page again"),
    );
    return;
  }
  if (mine !== turn) return;
  replace(main);
  unmount = mount(main, {
    api,
    connection,
    announce,
    place,
    moveTo: (to) => {
      shown = `#${tab.name}/${encodeURIComponent(to)}`;
      history.replaceState(null, "", shown);
    },
  });
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", show);
show();
