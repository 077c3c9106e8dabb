/**
 * The labelling of one model: its samples one by one, how they are labelled, and how far that is.
 */

import { Problem, Unreachable } from "../api.js";
import { element, replace } from "../element.js";
import { defaultVersion } from "../kinds.js";
import { newestWins } from "../latest.js";
import { choicesOf, whyElsewhere } from "./choices.js";
import { exportPanel } from "./export.js";
import { cap, isScrolling, isTyping } from "./keys.js";
import { outboxOf } from "./outbox.js";
import { sampleView } from "./sample.js";
import { Sitting } from "./sitting.js";
import { elsewherePanel, nothing } from "./states.js";
import { whyPanel } from "./why.js";

/**
 * @param {HTMLElement} body @param {import("../tabs.js").Context} context
 * @param {any} model @param {import("./sample.js").Aids} aids
 * @param {() => boolean} withKeys
 * @returns {() => void} closes it.
 */
export function desk(body, context, model, aids, withKeys) {
  const { api, connection, announce } = context;
  const version = defaultVersion(model);
  const elsewhere = whyElsewhere(model, version);
  if (elsewhere) {
    replace(body, elsewherePanel(elsewhere), exportPanel(api, model.name, announce));
    return () => {};
  }
  const gone = new AbortController();
  const options = { signal: gone.signal };
  const outbox = outboxOf(api);
  const sitting = new Sitting(api, outbox, model.name);
  const choices = choicesOf(model, version, give);
  const why = whyPanel(api, model);
  const stage = element("div", { class: "stage" });
  const origin = element("p", { class: "origin quiet small" });
  const skip = command("Skip", "ArrowRight", leaveOut);
  const back = command("Undo", "ArrowLeft", takeBack);
  const before = element("span", { class: "quiet small" });
  const saved = element("p", { class: "small", role: "status" });
  const notices = element("div", { role: "alert" });
  const tally = element("p", { class: "tally" });
  const bar = element("progress", { "aria-label": "Labelled, of all that are kept", max: 1, value: 0 });
  const hands = element("section", { class: "card", "aria-label": "Label" }, choices.node, element("div", { class: "buttons" }, skip, back, before), why.node);
  const look = element("section", { class: "card give", "aria-label": "Sample", tabindex: -1 }, stage, origin);
  const none = element("section", { class: "card", "aria-label": "Nothing to label", tabindex: -1 });
  /** What stands in `stage`, and in `none`. */
  let shown = "";
  let said = "";
  /** What had the focus before there was nothing to label. @type {Element | null} */
  let focused = null;
  /** @type {any} */
  let counted = null;

  replace(
    body,
    element("div", { class: "head" }, tally, bar, saved, notices),
    element("div", { class: "columns" }, look, hands),
    none,
    exportPanel(api, model.name, announce),
  );

  /** @type {import("./choices.js").Give} */
  function give(label, words) {
    if (sitting.label(label, words)) announce(`${words}. ${sitting.current ? "Here is the next." : ""}`);
  }

  function leaveOut() {
    if (sitting.skip()) announce(`Skipped. ${sitting.current ? "Here is the next." : ""}`);
  }

  function takeBack() {
    const undone = sitting.undo();
    announce(undone ? `Undone: it was ${undone.words}.` : "There is nothing to undo.");
  }

  function show() {
    const { state, current, last } = sitting;
    const key = state === "shown" ? current.id : state;
    const focus = document.activeElement;
    const left = hands.contains(focus) || look.contains(focus) ? hands : none.contains(focus) ? none : null;
    if (left === hands && state !== "shown") focused = focus;
    hands.hidden = look.hidden = state !== "shown";
    none.hidden = state === "shown";
    back.setAttribute("aria-disabled", String(last === null));
    before.textContent = last ? `The last one: ${last.words}.` : "";
    const saying = state === "shown" ? "" : JSON.stringify([state, counted, sitting.error?.message, sitting.saving, last?.words]);
    if (saying !== said) {
      // Only then: whatever has the focus would lose it.
      said = saying;
      replace(none, state !== "shown" && nothing(sitting, model.name, counted, api), last && element("div", { class: "buttons" }, command("Undo", "ArrowLeft", takeBack)));
    }
    if (key !== shown) {
      shown = key;
      choices.clear();
      why.show(state === "shown" ? current : null);
      stage.dataset.sample = state === "shown" ? current.id : "";
      replace(stage, state === "shown" && sampleView(model, aids, current.input));
      if (state === "shown") origin.textContent = `Kept ${new Date(current.time).toLocaleString()}, version ${current.version}; request ${current.request_id}, row ${current.row + 1}`;
      if (state !== "shown") count();
      if (state === "taken") /** @type {HTMLElement} */ (none.querySelector("button")).focus();
    }
    if (left?.hidden || (left && !left.contains(document.activeElement))) follow(left);
    write();
  }

  /** What had the focus is gone: it goes to what there is instead, or back. @param {HTMLElement} left */
  function follow(left) {
    if (!none.hidden) {
      if (!none.contains(document.activeElement)) none.focus();
    } else if (left === none) {
      if (focused?.isConnected && !focused.closest("[hidden]")) /** @type {HTMLElement} */ (focused).focus();
      else look.focus();
      focused = null;
    }
  }

  /** The numbers, whatever is shown. */
  function write() {
    const mine = `You: ${sitting.labelled} labelled, ${sitting.skipped} skipped.`;
    if (counted) {
      const { unlabelled, leased, labelled, skipped } = counted;
      const all = unlabelled + labelled + skipped;
      tally.textContent = `${mine} Of all ${all}: ${labelled} labelled, ${skipped} skipped, ${unlabelled} wait, ${leased} of these in somebody’s hands.`;
      bar.max = Math.max(1, all);
      bar.value = labelled;
    } else {
      tally.textContent = mine;
    }
    const words = outbox.trouble ? `${outbox.size} not saved yet: ${outbox.trouble.message} Tried again until it is; go on meanwhile.` : "";
    if (saved.textContent !== words) saved.textContent = words;
    saved.classList.toggle("wrong", words !== "");
  }

  const count = newestWins(async () => {
    if (gone.signal.aborted) return;
    try {
      const query = new URLSearchParams({ model: model.name });
      [counted] = (await api.get(`samples/counts?${query}`, options)).counts;
    } catch (error) {
      if (gone.signal.aborted) return;
      // What is lost or refused is said where samples are asked for.
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      return;
    }
    if (sitting.state === "shown") write();
    else show();
  });

  /** @param {import("./outbox.js").Refusal} refusal */
  function tell(refusal) {
    const { decision, problem } = refusal;
    const what = { label: "The label", skip: "The skip", undo: "The undoing" }[/** @type {"label"} */ (decision.kind)];
    const notice = element(
      "p",
      { class: "wrong" },
      `${what} of sample ${decision.id.slice(0, 8)} was not taken: ${problem.message} `,
      element("button", { type: "button", onclick: dismiss }, "Dismiss"),
    );
    notices.append(notice);

    function dismiss() {
      outbox.dismiss(refusal);
      notice.remove();
    }
  }

  /** @param {any} event */
  function refused({ detail }) {
    tell(detail);
    count();
  }

  /** @param {KeyboardEvent} event */
  function pressed(event) {
    sitting.touch();
    const undoes = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    if (!undoes && (!withKeys() || event.ctrlKey || event.metaKey || event.altKey)) return;
    if (event.key.startsWith("Arrow") && isScrolling(event.target)) return;
    if (event.repeat || (sitting.state !== "shown" && !undoes && event.key !== "ArrowLeft")) return;
    if (undoes || event.key === "ArrowLeft") takeBack();
    else if (event.key === "ArrowRight") leaveOut();
    else if (event.key === "?") why.toggle();
    else if (!choices.pressed(event)) return;
    event.preventDefault();
  }

  sitting.addEventListener("changed", () => {
    show();
    // Whoever has the rest may be done with it.
    if (sitting.state === "none") count();
  }, options);
  outbox.addEventListener("changed", show, options);
  outbox.addEventListener("settled", count, options);
  outbox.addEventListener("refused", refused, options);
  connection.addEventListener("back", () => { sitting.more(); count(); }, options);
  document.addEventListener("keydown", pressed, options);
  document.addEventListener("pointerdown", () => sitting.touch(), options);
  window.addEventListener("pagehide", () => sitting.leave(), options);
  window.addEventListener("pageshow", (event) => { if (event.persisted) sitting.back(); }, options);
  // Of those that came while another tab was shown, too.
  for (const refusal of outbox.refusals) tell(refusal);
  show();
  count();
  return () => {
    gone.abort();
    why.close();
    sitting.close();
  };
}

/** @param {string} name @param {string} key @param {() => void} done */
function command(name, key, done) {
  return element("button", { type: "button", "aria-keyshortcuts": key, onclick: done }, `${name} `, element("kbd", { "aria-hidden": "true" }, cap(key)));
}
