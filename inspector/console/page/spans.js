/** Spans of time that lists are asked for. */

const HOUR_S = 3600;
/** The last hour and so on, s; each has words under `history.time.`. */
export const SPANS_S = { hour: HOUR_S, shift: 8 * HOUR_S, day: 24 * HOUR_S, week: 7 * 24 * HOUR_S };

/** From when on, µs since the Unix epoch: a span that was chosen, or a moment that was typed; else null. */
export function since(span, from) {
  return micros(span in SPANS_S ? Date.now() - SPANS_S[span] * 1000 : Date.parse(from));
}

/** A moment in ms since the Unix epoch in µs; null for none. */
export function micros(ms) {
  return Number.isFinite(ms) && ms >= 0 ? Math.round(ms * 1000) : null;
}
