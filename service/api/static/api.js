/**
 * The server's API, the one that everybody has: JSON in and out, a token where there is one.
 */

/** An answer that says what is wrong: `application/problem+json`, or `{error}`. */
export class Problem extends Error {
  /** @param {number} status @param {Record<string, any>} content */
  constructor(status, content) {
    // Below /v2 it is told as the Open Inference Protocol has it.
    super(content.detail || content.title || content.error || `The server answered ${status}.`);
    this.status = status;
    /** The request's field at fault. @type {string | undefined} */
    this.field = content.field;
    /** Seconds after which the same may succeed. @type {number | null} */
    this.retryAfter = null;
  }
}

/** The server could not be reached. */
export class Unreachable extends Error {
  constructor() {
    super("The server cannot be reached.");
  }
}

/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal]
 * @property {Record<string, string>} [headers]
 * @property {boolean} [keepalive] sent even where the page goes meanwhile.
 */

export class Api {
  /**
   * @param {import("./token.js").TokenKeeper} token
   * @param {import("./connection.js").Connection} connection
   */
  constructor(token, connection) {
    this._token = token;
    this._connection = connection;
  }

  /** Whether requests carry a token. */
  get hasToken() {
    return this._token.value !== null;
  }

  /** Ask the visitor for another token than the one that is used. @returns {Promise<void>} */
  askForToken() {
    return this._token.ask(this._token.value);
  }

  /** The address of a path, for others to use. @param {string} path */
  address(path) {
    return new URL(path.replace(/^\//, ""), document.baseURI.split("#")[0]).href;
  }

  /** @param {string} path @param {Options} [options] @returns {Promise<any>} */
  async get(path, options) {
    return this._content(await this.ask("GET", path, undefined, options), options);
  }

  /** @param {string} path @param {unknown} body @param {Options} [options] @returns {Promise<any>} */
  async post(path, body, options) {
    return this._content(await this.ask("POST", path, body, options), options);
  }

  /** @param {Response} answer @param {Options} [options] @returns {Promise<any>} */
  async _content(answer, options = {}) {
    try {
      return await answer.json();
    } catch (error) {
      if (options.signal?.aborted || error instanceof SyntaxError) throw error;
      // It was lost while it answered.
      this._connection.fails();
      throw new Unreachable();
    }
  }

  /**
   * A request and its answer; where a token is needed the visitor is asked for it first.
   *
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body] sent as JSON.
   * @param {Options} [options]
   * @returns {Promise<Response>}
   * @throws {Problem} @throws {Unreachable}
   */
  async ask(method, path, body, options = {}) {
    for (;;) {
      const used = this._token.value;
      const answer = await this._send(method, path, body, options, used);
      if (answer.ok) return answer;
      if (answer.status === 401) {
        await this._token.ask(used);
        continue;
      }
      throw await problemOf(answer);
    }
  }

  /**
   * @param {string} method @param {string} path @param {unknown} body @param {Options} options
   * @param {string | null} token
   */
  async _send(method, path, body, options, token) {
    /** @type {Record<string, string>} */
    const headers = { ...options.headers };
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    try {
      const answer = await fetch(this.address(path), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: options.signal,
        keepalive: options.keepalive,
      });
      this._connection.works();
      return answer;
    } catch (error) {
      if (options.signal?.aborted) throw error;
      this._connection.fails();
      throw new Unreachable();
    }
  }
}

/** @param {Response} answer @returns {Promise<Problem>} */
async function problemOf(answer) {
  let content = {};
  try {
    content = await answer.json();
  } catch {
    // Not the server's own words: the status has to do.
  }
  const problem = new Problem(answer.status, content);
  const after = Number(answer.headers.get("Retry-After"));
  problem.retryAfter = after > 0 ? after : null;
  return problem;
}
