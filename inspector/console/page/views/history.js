/** Every verdict that the station recorded: found by a filter, looked at, compared and marked. */

import { get, ofPart, ofStation } from "../api.js";
import { el, fill } from "../dom.js";
import { Endless } from "../endless.js";
import { live } from "../live.js";
import { explained } from "../original.js";
import { badge, distance, isYoung, judged, mark, mayBeSeen, name, when, why } from "../part.js";
import { text } from "../words.js";
import { Filter, FilterForm } from "./history_filter.js";
import { Detail } from "./history_part.js";

/** Entries that one answer may bear. */
const PAGE = 50;
const LATER_MS = 2000;
const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
/** Where keys mean something else. */
const OWN_KEYS = "input, select, textarea, dialog, header, .pane .facts";

export function open(root, app, parameters) {
  const view = new History(root, app, parameters);
  return () => view.close();
}

/** Verdicts that a query finds, page by page. */
class Search {
  #station;
  #query;
  #place;
  more = true;

  constructor(station, query, place = {}) {
    this.#station = station;
    this.#query = query;
    this.#place = place;
  }

  /** The entries of one more page; there may be none although others follow. Throws Refused. */
  async next() {
    const query = { ...this.#query, ...this.#place, limit: PAGE };
    const found = await get(ofStation(this.#station, "history"), query);
    this.more = found.next_epoch !== null;
    this.#place = { before_epoch: found.next_epoch, before_seq: found.next_seq };
    return found.entries;
  }

  /** A search from here on. */
  rest() {
    return new Search(this.#station, this.#query, this.#place);
  }
}

class History {
  #root;
  #app;
  #filter;
  #form;
  #pages;
  #detail;
  #isOpen = true;
  #rows = [];
  #seen = null;
  #newer = 0;
  #list = el("ol", { class: "parts" });
  #fresh = el("button", { class: "plain fresh", type: "button", hidden: true, onclick: () => this.#start() });
  #hear = (event) => this.#judged(event.detail);
  #press = (event) => this.#key(event);

  constructor(root, app, parameters) {
    this.#root = root;
    this.#app = app;
    this.#filter = new Filter(parameters);
    this.#form = new FilterForm(app.station, this.#filter, () => this.#start());
    this.#detail = new Detail(app, {
      step: (by) => this.#step(by),
      changed: (entry) => this.#row(entry)?.draw(),
      left: () => this.#leave(),
      compared: (on) => this.#compare(on),
    });
    const said = el("span", { class: "soft", role: "status" });
    const end = el("div", { class: "end" });
    const scrolled = el("div", { class: "found" }, this.#list, end);
    fill(
      root,
      el("h1", { class: "unseen" }, text("history.menu")),
      this.#form.node,
      el("div", { class: "list panel" }, el("div", { class: "top" }, said, this.#fresh), scrolled),
      this.#detail.node,
    );
    this.#pages = new Endless(app.station, {
      scrolled,
      end,
      said,
      put: (entries) => this.#put(entries),
      clear: () => this.#empty(),
      none: () => this.#none(),
    });
    live.addEventListener("verdict", this.#hear);
    document.addEventListener("keydown", this.#press);
    // The address is written anew by the start.
    const asked = parameters.get("seen");
    this.#start();
    if (asked) void this.#openPart(asked);
  }

  close() {
    this.#isOpen = false;
    live.removeEventListener("verdict", this.#hear);
    document.removeEventListener("keydown", this.#press);
    this.#form.close();
    this.#pages.close();
    this.#detail.close();
    this.#root.classList.remove("comparing", "seeing");
  }

  // The list

  #start() {
    this.#address();
    this.#root.querySelector(".found").scrollTop = 0;
    void this.#pages.start(new Search(this.#app.station, this.#filter.query()));
  }

  /** The page's address bears the filter and the part that is looked at, and so does a link to it. */
  #address() {
    const seen = this.#seen && `${this.#seen.verdict.epoch}/${this.#seen.verdict.seq}`;
    const query = this.#filter.parameters(seen);
    const place = `#/${encodeURIComponent(this.#app.station)}/history${query ? `?${query}` : ""}`;
    window.history.replaceState(null, "", place);
    this.#form.draw();
  }

  #put(entries) {
    const made = entries.map((entry) => new Row(this.#app.station, entry, () => this.#see(entry)));
    this.#rows.push(...made);
    this.#list.append(...made.map((row) => row.node));
    for (const row of made) row.choose(this.#seen !== null && same(row.entry, this.#seen));
    this.#neighbours();
  }

  #empty() {
    this.#rows = [];
    this.#newer = 0;
    this.#fresh.hidden = true;
    fill(this.#list);
  }

  #none() {
    if (this.#filter.isEmpty) return el("p", {}, text("history.nothing"));
    return [
      el("p", {}, text("history.none")),
      this.#filter.get("part") && el("p", { class: "soft" }, text("history.whole_id")),
      this.#form.button("history.clear", () => this.#form.clear()),
    ];
  }

  #judged(told) {
    if (told.station !== this.#app.station || !this.#filter.fits(told.verdict)) return;
    this.#newer += 1;
    fill(this.#fresh, text("history.newer", { count: this.#newer }));
    this.#fresh.hidden = false;
  }

  // The part that is looked at

  #see(entry) {
    this.#seen = entry;
    for (const row of this.#rows) row.choose(same(row.entry, entry));
    this.#root.classList.add("seeing");
    this.#address();
    this.#neighbours();
    void this.#detail.show(entry);
    // On a phone the part hides the list, where the focus was.
    if (this.#list.offsetParent === null) this.#detail.node.focus();
  }

  #leave() {
    const row = this.#seen && this.#row(this.#seen);
    this.#root.classList.remove("seeing");
    this.#seen = null;
    for (const one of this.#rows) one.choose(false);
    this.#address();
    row?.button.focus();
  }

  #compare(on) {
    this.#root.classList.toggle("comparing", on);
    if (!on || this.#list.offsetParent !== null) return;
    // On a phone the second part is chosen in the list, which the first one hides.
    this.#root.classList.remove("seeing");
    this.#row(this.#seen)?.button.focus();
    this.#app.say(text("history.choose_second"));
  }

  #row(entry) {
    return this.#rows.find((row) => same(row.entry, entry));
  }

  #at() {
    return this.#rows.findIndex((row) => this.#seen !== null && same(row.entry, this.#seen));
  }

  #neighbours() {
    const at = this.#at();
    this.#detail.neighbours(at > 0, at >= 0 && (at + 1 < this.#rows.length || this.#pages.more));
  }

  async #step(by) {
    const at = this.#at();
    // A part that a link opened need not stand in the list.
    if (at < 0 && this.#seen !== null) return;
    if (at + by >= this.#rows.length) await this.#pages.load();
    const row = this.#rows[at < 0 ? 0 : at + by];
    if (!this.#isOpen || row === undefined) return;
    const isInList = this.#list.contains(document.activeElement);
    row.node.scrollIntoView({ block: "nearest" });
    if (isInList) row.button.focus({ preventScroll: true });
    this.#see(row.entry);
  }

  #key(event) {
    if (event.target.closest?.(OWN_KEYS) || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in STEPS) {
      event.preventDefault();
      void this.#step(STEPS[event.key]);
    } else if (event.key === "Escape") this.#detail.back();
  }

  /** Look at the part that a link names, wherever it stands. */
  async #openPart(seen) {
    const [epoch, number] = seen.split("/");
    const seq = Number(number);
    const query = { before_epoch: epoch, before_seq: seq + 1, limit: 1 };
    try {
      const [entry] = (await get(ofStation(this.#app.station, "history"), query)).entries;
      if (!this.#isOpen || this.#seen !== null) return;
      if (entry?.verdict.epoch === epoch && entry.verdict.seq === seq) {
        this.#see(this.#row(entry)?.entry ?? entry);
      } else this.#app.say(text("history.gone"), "problem");
    } catch (error) {
      if (!this.#isOpen) return;
      const isGone = error.code === "unknown" || error.code === "malformed";
      this.#app.say(isGone ? text("history.gone") : explained(error), "problem");
    }
  }
}

function same(one, other) {
  return one.verdict.seq === other.verdict.seq && one.verdict.epoch === other.verdict.epoch;
}

/** A part in the list. */
class Row {
  #station;
  #marks = el("span", { class: "marks" });
  button;
  node;

  constructor(station, entry, choose) {
    this.#station = station;
    this.entry = entry;
    const { verdict } = entry;
    this.button = el(
      "button",
      { class: "row", type: "button", onclick: choose },
      this.#thumbnail(),
      el("span", { class: "what" }, badge(verdict), name(verdict)),
      el("time", {}, when(verdict.judged_us)),
      el(
        "span",
        { class: "facts" },
        this.#marks,
        el("bdi", { class: "camera" }, verdict.camera),
        el("span", { class: "distance" }, verdict.verdict === "FAULT" ? why(verdict) : distance(verdict)),
      ),
    );
    this.node = el("li", {}, this.button);
    this.draw();
  }

  /** Show the marks that the entry has now. */
  draw() {
    const { verdict, marks } = this.entry;
    const last = marks.at(-1);
    fill(this.#marks, last && mark(last), last && el("span", { class: "soft" }, judged(verdict, marks)));
  }

  choose(chosen) {
    if (chosen) this.button.setAttribute("aria-current", "true");
    else this.button.removeAttribute("aria-current");
  }

  #thumbnail() {
    const holder = el("span", { class: "thumb" });
    if (mayBeSeen(this.entry)) this.#load(holder, isYoung(this.entry.verdict));
    return holder;
  }

  /** `again`: if there is none now, look once more. */
  #load(holder, again) {
    const src = ofPart(this.#station, this.entry.verdict, "thumbnail");
    const onerror = () => {
      image.remove();
      if (again) setTimeout(() => holder.isConnected && this.#load(holder, false), LATER_MS);
    };
    const image = el("img", { src, alt: "", loading: "lazy", decoding: "async", onerror });
    holder.append(image);
  }
}
