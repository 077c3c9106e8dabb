/**
 * Many rows in requests that the server takes: one at a time, each small enough.
 */

import { Problem } from "../api.js";

/** Rows × passes of a request to begin with: far below what servers take, so that answers come soon. */
const WORK = 5000;
/** Characters of its rows as JSON, which are bytes. */
const BYTES = 500_000;
const TOO_LARGE = 413;
const TOO_LONG = 504;

/**
 * Send all rows, in their order. What is refused for its size, or is not answered in time, is halved
 * and sent again.
 *
 * @template Answer
 * @param {any[]} rows
 * @param {number} passes
 * @param {(part: any[]) => Promise<Answer>} send
 * @param {(error: unknown) => Promise<void>} wait until what went wrong may have passed; throws what
 *   does not pass.
 * @returns {AsyncGenerator<{count: number, answer: Answer}>}
 */
export async function* inBatches(rows, passes, send, wait) {
  let most = Math.max(1, Math.floor(WORK / passes));
  let from = 0;
  while (from < rows.length) {
    const part = startOf(rows, from, most);
    let answer;
    try {
      answer = await send(part);
    } catch (error) {
      if (part.length > 1 && isTooMuch(error)) most = Math.floor(part.length / 2);
      else await wait(error);
      continue;
    }
    from += part.length;
    yield { count: part.length, answer };
  }
}

/** At least one row. @param {any[]} rows @param {number} from @param {number} most */
function startOf(rows, from, most) {
  let to = from;
  let size = 0;
  while (to < rows.length && to - from < most) {
    size += JSON.stringify(rows[to]).length;
    if (to > from && size > BYTES) break;
    to += 1;
  }
  return rows.slice(from, to);
}

/** @param {unknown} error */
function isTooMuch(error) {
  return error instanceof Problem && (error.status === TOO_LARGE || error.status === TOO_LONG);
}
