/**
 * Whether the server can be reached: noted by every request, looked at now and then without one.
 */

const LOOK_MS = 5000;
const LOOK_WHILE_LOST_MS = 1000;

/** Fires `lost` and `back`. */
export class Connection extends EventTarget {
  /** @param {string} address of what answers whoever asks, such as /livez. */
  constructor(address) {
    super();
    this._address = address;
    this.lost = false;
    this._timer = 0;
    this._wait();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this._look();
    });
  }

  /** A request was answered. */
  works() {
    if (!this.lost) return;
    this.lost = false;
    this.dispatchEvent(new Event("back"));
  }

  /** A request was not answered. */
  fails() {
    if (this.lost) return;
    this.lost = true;
    this.dispatchEvent(new Event("lost"));
    this._wait();
  }

  _wait() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._look(), this.lost ? LOOK_WHILE_LOST_MS : LOOK_MS);
  }

  async _look() {
    if (!document.hidden) {
      try {
        await fetch(this._address, { cache: "no-store" });
        this.works();
      } catch {
        this.fails();
      }
    }
    this._wait();
  }
}
