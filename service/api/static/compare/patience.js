/**
 * What passes by waiting: a busy server, and one that cannot be reached.
 */

import { Problem, Unreachable } from "../api.js";

/**
 * @param {import("../connection.js").Connection} connection
 * @param {AbortSignal} signal ends the wait.
 * @param {(text: string) => void} say what is waited for; "" afterwards.
 * @returns {(error: unknown) => Promise<void>} throws what does not pass.
 */
export function patience(connection, signal, say) {
  return async (error) => {
    signal.throwIfAborted();
    if (error instanceof Unreachable) {
      say("The server cannot be reached. This goes on when it is back.");
      if (connection.lost) await first(connection, "back", signal);
    } else if (error instanceof Problem && error.retryAfter) {
      say(`The server is busy. This goes on in ${error.retryAfter} s.`);
      await pause(1000 * error.retryAfter, signal);
    } else {
      throw error;
    }
    say("");
  };
}

/**
 * The answer of a request that is made again as long as it is worth it.
 *
 * @template Answer
 * @param {() => Promise<Answer>} request @param {(error: unknown) => Promise<void>} wait @returns {Promise<Answer>}
 */
export async function patiently(request, wait) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      await wait(error);
    }
  }
}

/** @param {EventTarget} target @param {string} event @param {AbortSignal} signal @returns {Promise<void>} */
function first(target, event, signal) {
  return new Promise((resolve, reject) => {
    target.addEventListener(event, () => resolve(), { once: true, signal });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** @param {number} duration_ms @param {AbortSignal} signal @returns {Promise<void>} */
function pause(duration_ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, duration_ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
