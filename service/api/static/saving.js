/**
 * Files for the visitor's disk.
 */

import { element } from "./element.js";

const KEPT_MS = 60_000;

/** Have the browser save a file. @param {Blob} content @param {string} name */
export function save(content, name) {
  const address = URL.createObjectURL(content);
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}
