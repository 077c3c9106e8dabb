/**
 * One person's labelling of one model: samples that are leased, shown one by one, decided, undone.
 *
 * Of what is in hand the lease is renewed while somebody is there; what is left goes back at the
 * end. So nobody is given the same sample, and nobody waits for one that lies in a closed page.
 *
 * @typedef {any} Sample as of POST /samples/lease, with its `lease`.
 *
 * @typedef {object} Done
 * @property {Sample} sample
 * @property {"label" | "skip"} kind
 * @property {string} words for the label.
 */

import { Problem, Unreachable } from "../api.js";

const BATCH = 5;
/** With fewer that wait behind the one that is shown, more are asked for. */
const LOW = 2;
const LEASE_S = 120;
const RENEW_MS = 40_000;
/** After which nobody is there. */
const IDLE_MS = 600_000;
const LOOK_MS = 5_000;
/** That can be undone; each keeps its input. */
const MOST_UNDONE = 50;

/** Fires `changed`. */
export class Sitting extends EventTarget {
  /**
   * @param {import("../api.js").Api} api
   * @param {import("./outbox.js").Outbox} outbox
   * @param {string} model
   */
  constructor(api, outbox, model) {
    super();
    this._api = api;
    this._outbox = outbox;
    this._model = model;
    /** The sample that is shown. @type {Sample | null} */
    this.current = null;
    /** Whether that one is somebody else's by now. */
    this.taken = false;
    /** Why there are no more. @type {Error | null} */
    this.error = null;
    this.labelled = 0;
    this.skipped = 0;
    /** @type {Sample[]} */
    this._waiting = [];
    /** @type {Done[]} */
    this._done = [];
    this._none = false;
    this._asking = false;
    this._closed = false;
    /** Changes with every decision, and with every answer to one. */
    this._turn = 0;
    this._active = Date.now();
    this._gone = new AbortController();
    const { signal } = this._gone;
    outbox.addEventListener("settled", () => (this._turn += 1), { signal });
    outbox.addEventListener("refused", (event) => this._refused(/** @type {CustomEvent} */ (event).detail.decision), { signal });
    document.addEventListener("visibilitychange", () => this._seen(), { signal });
    this._timers = [setInterval(() => this._renew(), RENEW_MS), setInterval(() => this._look(), LOOK_MS)];
    this.more();
  }

  /** @returns {"taken" | "shown" | "failed" | "none" | "loading"} */
  get state() {
    if (this.taken) return "taken";
    if (this.current) return "shown";
    if (this.error) return "failed";
    return this._none ? "none" : "loading";
  }

  /** Whether there are more only once what was decided is saved. */
  get saving() {
    return this._asking && this._outbox.trouble !== null;
  }

  /** What would be undone. @returns {Done | null} */
  get last() {
    return this._done[this._done.length - 1] ?? null;
  }

  /** Ask for samples that are nobody's. */
  async more() {
    if (this._asking || this._closed) return;
    this._asking = true;
    try {
      // Where its lease ended, what was decided and is not saved yet would be given to us again, and
      // its label refused for that.
      await this._outbox.empty();
      if (this._closed) return;
      // Not given up with the tab: an answer that nobody hears would hold its samples.
      const { lease, samples } = await this._api.post("samples/lease", { model: this._model, limit: BATCH, seconds: LEASE_S });
      this.error = null;
      this._none = samples.length === 0;
      if (this._closed) {
        this._release([lease]);
        return;
      }
      this._take(samples.map((/** @type {any} */ sample) => ({ ...sample, lease })));
    } catch (error) {
      this.error = known(error);
    } finally {
      this._asking = false;
    }
    if (this.current === null) this.current = this._waiting.shift() ?? null;
    this._changed();
  }

  /** Those that were in hand already are so by another lease: theirs had ended. @param {Sample[]} samples */
  _take(samples) {
    const again = new Map(samples.map((sample) => [sample.id, sample]));
    this._waiting = this._waiting.filter((sample) => !again.has(sample.id));
    const current = this.current && again.get(this.current.id);
    if (current) {
      this.current = current;
      this.taken = false;
    }
    this._waiting.push(...samples.filter((sample) => sample !== current));
  }

  /** Give the sample that is shown its label. @param {unknown} label @param {string} words */
  label(label, words) {
    return this._decide("label", { label }, words);
  }

  /** Leave it without one. */
  skip() {
    return this._decide("skip", {}, "skipped");
  }

  /** Take the last decision back, and show its sample again. @returns {Done | null} */
  undo() {
    const undone = this._done.pop() ?? null;
    if (undone === null) return null;
    this._turn += 1;
    this._active = Date.now();
    this._count(undone, -1);
    if (this.current && !this.taken) this._waiting.unshift(this.current);
    this.taken = false;
    this.current = undone.sample;
    const { id, lease } = undone.sample;
    this._outbox.put({ kind: "undo", id, lease, seconds: LEASE_S });
    this._changed();
    return undone;
  }

  /** Show the next one, after one that was taken. */
  goOn() {
    this.taken = false;
    this._next();
  }

  /** Somebody is there. */
  touch() {
    const away = Date.now() - this._active > IDLE_MS;
    this._active = Date.now();
    // What is in hand may be somebody else's by now.
    if (away) this._renew();
  }

  /** The page goes: what is left is for others, unless decisions are still on their way. */
  leave() {
    if (this._outbox.size === 0) this._release(this._leases(), { keepalive: true });
  }

  /** The page is back, without what it gave back. */
  back() {
    this.current = null;
    this.taken = false;
    this._waiting = [];
    this.more();
  }

  close() {
    this._closed = true;
    this._gone.abort();
    for (const timer of this._timers) clearInterval(timer);
    const leases = this._leases();
    this._outbox.empty().then(() => this._release(leases));
  }

  /** @param {"label" | "skip"} kind @param {object} more @param {string} words */
  _decide(kind, more, words) {
    const sample = this.current;
    if (sample === null || this.taken) return false;
    this._turn += 1;
    this._active = Date.now();
    /** @type {Done} */
    const done = { sample, kind, words };
    this._done = [...this._done, done].slice(-MOST_UNDONE);
    this._count(done, 1);
    this._outbox.put({ kind, id: sample.id, lease: sample.lease, ...more });
    this._next();
    return true;
  }

  _next() {
    this.current = this._waiting.shift() ?? null;
    this._changed();
    if (this._waiting.length < LOW) this.more();
  }

  /** @param {Done} done @param {number} by */
  _count(done, by) {
    if (done.kind === "label") this.labelled += by;
    else this.skipped += by;
  }

  /** @param {import("./outbox.js").Decision} decision */
  _refused({ id }) {
    this._turn += 1;
    const done = this._done.find((each) => each.sample.id === id);
    if (done) {
      this._done = this._done.filter((each) => each !== done);
      this._count(done, -1);
    }
    this._waiting = this._waiting.filter((sample) => sample.id !== id);
    if (this.current?.id === id) this.taken = true;
    this._changed();
  }

  _seen() {
    if (document.hidden) return;
    this._renew();
    this._look();
  }

  _look() {
    const refused = this.error instanceof Problem && this.error.status === 403;
    if (!document.hidden && this.current === null && !refused) this.more();
  }

  async _renew() {
    if (this._closed || document.hidden || Date.now() - this._active > IDLE_MS) return;
    const turn = this._turn;
    // Of what is decided and not saved yet as well: nobody else is to be given it meanwhile.
    for (const lease of new Set([...this._leases(), ...this._outbox.leases])) {
      let held;
      try {
        ({ held } = await this._api.post("samples/lease/renew", { lease, seconds: LEASE_S }));
      } catch (error) {
        known(error);
        return;
      }
      // What was decided or undone meanwhile may be missing for that.
      if (this._closed) return;
      if (turn !== this._turn || this._outbox.size > 0) continue;
      const gone = (/** @type {Sample} */ sample) => sample.lease === lease && !held.includes(sample.id);
      this._waiting = this._waiting.filter((sample) => !gone(sample));
      if (this.current && gone(this.current)) this.taken = true;
    }
    this._changed();
  }

  /** Of what is in hand. @returns {string[]} */
  _leases() {
    return [...new Set([this.current, ...this._waiting].filter(Boolean).map((sample) => sample.lease))];
  }

  /** @param {string[]} leases @param {import("../api.js").Options} [options] */
  _release(leases, options) {
    for (const lease of leases) {
      this._api.post("samples/lease/release", { lease }, options).catch(() => {
        // It ends by itself.
      });
    }
  }

  _changed() {
    if (!this._closed) this.dispatchEvent(new Event("changed"));
  }
}

/** What the server said, or that it said nothing; a fault of the page is thrown on. @param {unknown} error */
function known(error) {
  if (error instanceof Problem || error instanceof Unreachable) return error;
  throw error;
}
