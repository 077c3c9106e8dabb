/**
 * Text from the numbers that a model reads it as.
 */

const PADDING = /^(\[PAD\]|<pad>|<\|pad\|>)$/i;
/** How the best-known vocabularies write a space before a word, and the rest of one. */
const SPACE = /^[▁Ġ]/;
const REST = "##";

/**
 * @param {number[]} numbers
 * @param {string[]} tokens each at the place of its number.
 * @returns {string}
 */
export function textOf(numbers, tokens) {
  const words = numbers.map((number) => tokens[number] ?? `⟨${number}⟩`);
  while (words.length > 1 && PADDING.test(words[words.length - 1])) words.pop();
  if (tokens.some((token) => SPACE.test(token))) return words.join("").replace(/[▁Ġ]/g, " ").trim();
  if (tokens.some((token) => token.startsWith(REST))) {
    return words.map((word, k) => (word.startsWith(REST) ? word.slice(REST.length) : k === 0 ? word : ` ${word}`)).join("");
  }
  return words.join(isLetters(tokens) ? "" : " ");
}

/** Whether most tokens are single characters. @param {string[]} tokens */
function isLetters(tokens) {
  return 2 * tokens.filter((token) => [...token].length === 1).length > tokens.length;
}
