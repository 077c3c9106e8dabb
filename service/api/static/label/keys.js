/**
 * Which key stands for which choice.
 */

const KEYS = [..."1234567890abcdefghijklmnopqrstuvwxyz"];

/** So many choices have a key. */
export const MOST_KEYS = KEYS.length;

/**
 * A key for each name: its own where it is a digit or letter, and else the first that is free of 1 to
 * 9, 0, then a to z.
 *
 * @param {string[]} names
 * @returns {(string | null)[]} as events name them; null where none is left.
 */
export function keysFor(names) {
  const small = names.map((name) => name.toLowerCase());
  const isOwn = (/** @type {number} */ k) => KEYS.includes(small[k]) && small.indexOf(small[k]) === k;
  const free = KEYS.filter((key) => !small.includes(key));
  return small.map((name, k) => (isOwn(k) ? name : (free.shift() ?? null)));
}

/** Whether a key that was pressed means something to what has the focus. @param {EventTarget | null} target */
export function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return target.type !== "checkbox";
  return target.matches("select, textarea") || target.isContentEditable;
}

/** Whether an arrow key scrolls what has the focus. @param {EventTarget | null} target */
export function isScrolling(target) {
  return target instanceof HTMLElement && target.matches('[tabindex="0"]') && target.scrollWidth > target.clientWidth;
}

/** A key as it stands on a button. @param {string} key */
export function cap(key) {
  return { ArrowRight: "→", ArrowLeft: "←", Enter: "↵" }[key] ?? key.toUpperCase();
}
