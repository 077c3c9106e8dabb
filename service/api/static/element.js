/**
 * Elements, made from data without ever reading it as markup: children are nodes or become text.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 */

/**
 * An HTML element.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] `onclick` and its kind are listeners, `style` is an
 *   object of properties; null, undefined and false leave an attribute out, true leaves it empty.
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * An SVG element; see `element`.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Put other children into a node.
 *
 * @param {Element} node
 * @param {...(Child | Child[])} children
 */
export function replace(node, ...children) {
  node.replaceChildren(...nodes(children));
}

/** @param {any} node @param {Record<string, unknown>} attributes @param {unknown[]} children */
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) {
      if (typeof value !== "function") throw new TypeError(`${name} has to be a function`);
      node.addEventListener(name.slice(2), value);
    } else if (name === "style") {
      for (const [property, given] of Object.entries(value)) node.style.setProperty(property, given);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...nodes(children));
  return node;
}

/** @param {unknown[]} children @returns {Node[]} */
function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}
