/** What is known of a part, as elements and words: the same in every view. */

import { el } from "./dom.js";
import { has, moment, number, text } from "./words.js";

/** Beside each verdict's colour and word stands a shape. */
const SHAPES = { PASS: "✓", FAIL: "✕", FAULT: "?" };
const MARKS = { good: "✓", bad: "✕" };

const YOUNG_MS = 60_000;

/** Whether there may be a picture of a part: that of a part just judged is still to come. */
export function mayBeSeen(entry) {
  return entry.has_picture || isYoung(entry.verdict);
}

/** Whether a part was judged in the last minute. */
export function isYoung(verdict) {
  return Math.abs(Date.now() - verdict.judged_us / 1000) < YOUNG_MS;
}

/** A verdict with its shape, word and colour. */
export function badge(verdict) {
  return el(
    "span",
    { class: `verdict ${verdict.verdict}` },
    el("span", { "aria-hidden": "true" }, SHAPES[verdict.verdict]),
    text(`verdict.${verdict.verdict}`),
  );
}

/** What a part is called: its id, or its number where it has none. */
export function called(verdict) {
  return verdict.part_id || text("part.number", { seq: verdict.seq });
}

/** The same as an element: a name in another direction of writing turns nothing around it. */
export function name(verdict) {
  return el("bdi", { class: "name" }, called(verdict));
}

/** How far a part is from the limit, in words. */
export function distance(verdict) {
  const { score } = verdict;
  if (score === null) return text("part.no_score");
  if (score >= 2) return text("part.times", { times: number(score, 1) });
  const over = Math.floor((score - 1) * 100);
  if (score >= 1) return over ? text("part.over", { over }) : text("part.at_limit");
  // Rounded down: what passed never reads as if it had reached the limit.
  return text("part.below", { share: Math.floor(score * 100) });
}

/** Why a part did not pass, in words; empty for one that did. */
export function why(verdict) {
  const key = `reason.${verdict.reason}`;
  return verdict.reason && has(key) ? text(key) : verdict.detail || verdict.reason;
}

/** What to do about that; "" where nothing is to be done. */
export function cureOf(verdict) {
  const key = `reason.${verdict.reason}.do`;
  return has(key) ? text(key) : "";
}

/** Its moment: of another day with its date. */
export function when(us) {
  const isToday = new Date(us / 1000).toDateString() === new Date().toDateString();
  return moment(us, !isToday);
}

/** What somebody said a part really was, in short. */
export function mark(one) {
  return el(
    "span",
    { class: `mark ${one.label}` },
    el("span", { "aria-hidden": "true" }, MARKS[one.label]),
    text(`part.marked_${one.label}`),
  );
}

/** What the last mark says of the verdict: a false reject, an escape, or nothing. */
export function judged(verdict, marks) {
  const label = marks.at(-1)?.label;
  if (isFalseReject(verdict, marks)) return text("part.false_reject");
  if (verdict.verdict === "PASS" && label === "bad") return text("part.escape");
  return "";
}

/** Whether a part was rejected that somebody says was good. */
export function isFalseReject(verdict, marks) {
  return verdict.verdict === "FAIL" && marks.at(-1)?.label === "good";
}
