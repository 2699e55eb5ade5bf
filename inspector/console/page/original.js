/** What the station, or the page's server, said in words of its own: a detail beside those of the page. */

import { el } from "./dom.js";
import { reason, text } from "./words.js";

/** Those words, which a touch shows; null where there are none. They are English in every language. */
export function original(words) {
  return words ? el("details", { class: "original" }, el("summary", {}, text("frame.original")), said(words)) : null;
}

/** The words alone. */
export function said(words) {
  return el("bdi", { lang: "en" }, words);
}

/** Why a request failed: in words of the page, and what was answered as a detail. */
export function explained(error) {
  return [reason(error), original(error.code === "no_page" ? "" : error.detail)];
}
