/**
 * Decisions on their way to the server: sent one after the other, tried again until the server says
 * what became of them, and kept over a reload of the page.
 *
 * @typedef {object} Decision
 * @property {"label" | "skip" | "undo"} kind
 * @property {string} id of the sample.
 * @property {string} lease by which it is decided.
 * @property {unknown} [label]
 * @property {number} [seconds] for which what is undone is held again.
 *
 * @typedef {object} Refusal
 * @property {Decision} decision
 * @property {Problem} problem
 */

import { Problem, Unreachable } from "../api.js";

const KEY = "candor.label.outbox";
const AGAIN_S = 1;
/** Of answers that the same request will only get again. */
const FINAL = [400, 404, 409, 413, 415, 422];

/** @type {Outbox | null} */
let only = null;

/** The page's outbox, which outlives the tabs. @param {import("../api.js").Api} api */
export function outboxOf(api) {
  only ??= new Outbox(api);
  return only;
}

/** Fires `changed`, and `settled` and `refused` with the decision, and the problem, as its detail. */
export class Outbox extends EventTarget {
  /** @param {import("../api.js").Api} api */
  constructor(api) {
    super();
    this._api = api;
    /** @type {Decision[]} */
    this._waiting = kept();
    /** Why the first of them is still there. @type {Error | null} */
    this.trouble = null;
    /** What was refused, until somebody has read it. @type {Refusal[]} */
    this.refusals = [];
    /** Nobody has samples of these leases any more. */
    this._left = new Set(this._waiting.map((decision) => decision.lease));
    this._running = false;
    /** @type {(() => void)[]} */
    this._whenEmpty = [];
    window.addEventListener("beforeunload", (event) => {
      // They outlive a reload, but not the closing of their tab of the browser.
      if (this.size > 0) event.preventDefault();
    });
    this._run();
  }

  /** How many wait. */
  get size() {
    return this._waiting.length;
  }

  /** By which those that wait are decided. @returns {string[]} */
  get leases() {
    return [...new Set(this._waiting.map((decision) => decision.lease))];
  }

  /** @param {Decision} decision */
  put(decision) {
    this._keep([...this._waiting, decision]);
    this._run();
  }

  /** Wait until none waits. @returns {Promise<void>} */
  empty() {
    return this.size === 0 ? Promise.resolve() : new Promise((done) => this._whenEmpty.push(done));
  }

  async _run() {
    if (this._running) return;
    this._running = true;
    try {
      while (this.size > 0) await this._send(this._waiting[0]);
    } finally {
      this._running = false;
    }
    for (const done of this._whenEmpty.splice(0)) done();
    for (const lease of this._left) {
      this._left.delete(lease);
      this._api.post("samples/lease/release", { lease }).catch(() => {
        // It ends by itself.
      });
    }
  }

  /** @param {Decision} decision */
  async _send(decision) {
    const { kind, id, ...body } = decision;
    try {
      await this._api.post(`samples/${encodeURIComponent(id)}/${kind}`, body);
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      if (error instanceof Problem && FINAL.includes(error.status)) {
        this.trouble = null;
        // What was to be done with it afterwards goes, too.
        this._keep(this._waiting.filter((each) => each.id !== id));
        /** @type {Refusal} */
        const refusal = { decision, problem: error };
        this.refusals.push(refusal);
        this.dispatchEvent(new CustomEvent("refused", { detail: refusal }));
        return;
      }
      this.trouble = error;
      this.dispatchEvent(new Event("changed"));
      const wait_s = (error instanceof Problem && error.retryAfter) || AGAIN_S;
      await new Promise((done) => setTimeout(done, 1000 * wait_s));
      return;
    }
    this.trouble = null;
    this._keep(this._waiting.slice(1));
    this.dispatchEvent(new CustomEvent("settled", { detail: { decision } }));
  }

  /** Somebody has read it. @param {Refusal} refusal */
  dismiss(refusal) {
    this.refusals = this.refusals.filter((each) => each !== refusal);
  }

  /** @param {Decision[]} waiting */
  _keep(waiting) {
    this._waiting = waiting;
    sessionStorage.setItem(KEY, JSON.stringify(waiting));
    this.dispatchEvent(new Event("changed"));
  }
}

/** What an earlier page did not get rid of. @returns {Decision[]} */
function kept() {
  return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
}
