/** A list that is fetched page by page while its reader scrolls. */

import { el, fill } from "./dom.js";
import { live } from "./live.js";
import { explained } from "./original.js";
import { text } from "./words.js";

/** Items that are looked for before the reader scrolls on. */
const ENOUGH = 25;
/** Items that one list may have; then it begins anew. */
const MOST = 2000;
const AHEAD = "300px";

/**
 * Fills a list from a search: `search.next()` resolves to the items of one more page, of which there
 * may be none although `search.more` is true; `search.rest()` is a search from there on.
 *
 * `scrolled` is what scrolls, and `end` stands in it below the items. `put(items)` shows items,
 * `clear()` removes all, `none()` is what is shown where there are none. `said` is told how far it
 * is. Where a page cannot be had it says why, and tries again when `station` comes back.
 */
export class Endless {
  #station;
  #end;
  #said;
  #acts;
  #search = null;
  #busy = false;
  #failed = false;
  #watch;
  #isThere = true;
  #heal = () => {
    const isThere = live.connected && live.stations.get(this.#station)?.alive === true;
    const isBack = isThere && !this.#isThere;
    this.#isThere = isThere;
    if (isBack && this.#failed) this.#again();
  };
  count = 0;

  constructor(station, { scrolled, end, said, put, clear, none }) {
    this.#station = station;
    this.#end = end;
    this.#said = said;
    this.#acts = { put, clear, none };
    this.#watch = new IntersectionObserver(
      (seen) => seen.some((one) => one.isIntersecting) && void this.load(),
      { root: scrolled, rootMargin: AHEAD },
    );
    for (const kind of ["status", "connection", "snapshot"]) live.addEventListener(kind, this.#heal);
  }

  get more() {
    return this.#search.more;
  }

  /** Begin anew with another search. */
  start(search) {
    this.#search = search;
    this.#busy = this.#failed = false;
    this.count = 0;
    this.#acts.clear();
    fill(this.#end);
    return this.load();
  }

  close() {
    this.#search = null;
    this.#watch.disconnect();
    for (const kind of ["status", "connection", "snapshot"]) live.removeEventListener(kind, this.#heal);
  }

  /** Show some more. */
  async load() {
    const search = this.#search;
    if (this.#busy || this.#failed || !search.more || this.count >= MOST) return;
    this.#busy = true;
    this.#watch.disconnect();
    try {
      let found = 0;
      while (search.more && found < ENOUGH) {
        this.#tell(text(this.count ? "list.searching_on" : "list.searching"));
        const items = await search.next();
        if (search !== this.#search) return;
        found += items.length;
        this.count += items.length;
        this.#acts.put(items);
      }
    } catch (error) {
      if (search === this.#search) this.#fail(error);
      return;
    }
    this.#busy = false;
    this.#finish(search);
  }

  #finish(search) {
    const { count } = this;
    this.#tell(text(search.more ? "list.count_more" : "list.count", { count }));
    if (search.more && count >= MOST) {
      const on = button("list.on", () => this.start(search.rest()));
      fill(this.#end, el("p", {}, text("list.many", { count })), on);
    } else if (search.more) {
      fill(this.#end);
      this.#watch.observe(this.#end);
    } else if (count > 0) fill(this.#end, el("p", { class: "soft" }, text("list.end")));
    else fill(this.#end, this.#acts.none());
  }

  #fail(error) {
    this.#busy = false;
    this.#failed = true;
    this.#tell("");
    fill(this.#end, el("p", { class: "problem", role: "alert" }, explained(error)), button("list.again", () => this.#again()));
  }

  #again() {
    this.#failed = false;
    fill(this.#end);
    void this.load();
  }

  #tell(words) {
    fill(this.#said, words);
  }
}

function button(key, act) {
  return el("button", { class: "plain", type: "button", onclick: () => void act() }, text(key));
}
