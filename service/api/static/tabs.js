/**
 * The tabs, in their order. To add one is to write its module and to name it here.
 *
 * A module exports `mount(container, context)`, which fills the container and returns `unmount`,
 * called before another tab takes the place.
 *
 * @typedef {object} Context what a tab works with.
 * @property {import("./api.js").Api} api
 * @property {import("./connection.js").Connection} connection
 * @property {(text: string) => void} announce says something to screen readers.
 * @property {string} place what stands behind the tab's name in the address: #try/PLACE.
 * @property {(place: string) => void} moveTo changes it, without a step in the history.
 *
 * @typedef {(container: HTMLElement, context: Context) => (() => void)} Mount
 *
 * @typedef {object} Tab
 * @property {string} name in the address.
 * @property {string} title
 * @property {() => Promise<{mount: Mount}>} load
 */

/** @type {Tab[]} */
export const TABS = [
  { name: "try", title: "Try", load: () => import("./try/try.js") },
  { name: "watch", title: "Watch", load: () => import("./watch/watch.js") },
  { name: "label", title: "Label", load: () => import("./label/label.js") },
  { name: "compare", title: "Compare", load: () => import("./compare/compare.js") },
  { name: "reports", title: "Reports", load: () => import("./reports/reports.js") },
];
