/**
 * Nodes that stand for something each, kept by its key while what they show changes.
 */

/**
 * Have one node for each item, in their order; those of items that are gone leave.
 *
 * @template {{key: string}} Item
 * @template {{node: HTMLElement}} Part
 * @param {HTMLElement} parent of nothing but these nodes.
 * @param {Map<string, Part>} shown by key; what is there, and is kept here.
 * @param {Item[]} items
 * @param {(item: Item) => Part} make for an item that has none.
 * @param {(part: Part, item: Item, place: number) => void} update
 */
export function showEach(parent, shown, items, make, update) {
  for (const [key, part] of shown) {
    if (items.some((item) => item.key === key)) continue;
    part.node.remove();
    shown.delete(key);
  }
  items.forEach((item, place) => {
    let part = shown.get(item.key);
    if (part === undefined) shown.set(item.key, (part = make(item)));
    update(part, item, place);
    // Moved only where it has to be: what is moved loses the focus.
    if (parent.children[place] !== part.node) parent.insertBefore(part.node, parent.children[place] ?? null);
  });
}
