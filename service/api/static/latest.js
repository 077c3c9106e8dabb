/**
 * Work that is asked for more often than it can be done: one at a time, and the newest wins.
 */

/**
 * @param {() => Promise<void>} run looks at what is asked for now, and handles its own errors.
 * @returns {() => void} asks for a run; while one is on its way, for one more after it.
 */
export function newestWins(run) {
  let running = false;
  let asked = false;
  return async () => {
    asked = true;
    if (running) return;
    running = true;
    try {
      while (asked) {
        asked = false;
        await run();
      }
    } finally {
      running = false;
    }
  };
}
