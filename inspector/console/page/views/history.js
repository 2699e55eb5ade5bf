/** Every verdict that the station recorded: found by a filter, looked at, compared and marked. */

import { address, get, ofPart, ofStation } from "../api.js";
import { el, fill } from "../dom.js";
import { Endless } from "../endless.js";
import { live } from "../live.js";
import { badge, distance, isYoung, judged, mark, mayBeSeen, name, when, why } from "../part.js";
import { reason, text } from "../words.js";
import { Detail } from "./history_part.js";

const VERDICTS = { rejects: ["FAIL", "FAULT"], PASS: ["PASS"], FAIL: ["FAIL"], FAULT: ["FAULT"] };
const HOUR_S = 3600;
const SPANS_S = { hour: HOUR_S, shift: 8 * HOUR_S, day: 24 * HOUR_S, week: 7 * 24 * HOUR_S };
const REASONS = [
  "anomaly", "camera_lost", "frame_shape", "frame_unreadable", "queue_full", "deadline_missed",
  "too_dark", "saturated", "out_of_focus", "frozen", "over_trigger", "trigger_conflict",
  "not_ready", "restarted", "journal_failed", "inference_error", "not_finite",
];
/** Entries that one answer may bear. */
const PAGE = 50;
const TYPED_MS = 400;
const LATER_MS = 2000;

export function open(root, app, parameters) {
  const view = new History(root, app, parameters);
  return () => view.close();
}

/** Verdicts that a filter finds, page by page. */
class Search {
  #station;
  #query;
  #place = {};
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
  #open = true;
  #rows = [];
  #seen = null;
  #newer = 0;
  #typed = 0;
  #detail;
  #fields = {};
  #list = el("ol", { class: "parts" });
  #end = el("div", { class: "end" });
  #fresh = el("button", { class: "plain fresh", type: "button", hidden: true, onclick: () => this.#restart() });
  #said = el("span", { class: "soft", role: "status" });
  #export = el("a", { class: "button", download: "verdicts.csv", onclick: () => this.#address() });
  #more = el("div", { class: "more", id: "history-more", hidden: true });
  #opener;
  #pages;
  #listeners = [];

  constructor(root, app, parameters) {
    this.#root = root;
    this.#app = app;
    this.#filter = new Filter(parameters);
    this.#detail = new Detail(app, {
      step: (by) => this.#step(by),
      changed: (entry) => this.#rows.find((row) => same(row.entry, entry))?.draw(),
      left: () => this.#leave(),
      compared: (on) => {
        root.classList.toggle("comparing", on);
        // On a phone the second part is chosen in the list, which the first one hides.
        if (on) root.classList.remove("seeing");
      },
    });
    fill(
      root,
      el("h1", { class: "unseen" }, text("history.menu")),
      this.#form(),
      el(
        "div",
        { class: "list panel" },
        el("div", { class: "top" }, this.#said, this.#fresh),
        el("div", { class: "found" }, this.#list, this.#end),
      ),
      this.#detail.node,
    );
    this.#pages = new Endless(app.station, {
      scrolled: root.querySelector(".found"),
      end: this.#end,
      said: this.#said,
      put: (entries) => this.#put(entries),
      clear: () => this.#empty(),
      none: () => this.#nothing(),
    });
    this.#listen(live, "verdict", (event) => this.#judged(event.detail));
    this.#listen(document, "keydown", (event) => this.#key(event));
    this.#restart();
    const asked = parameters.get("seen");
    if (asked) void this.#openPart(asked);
  }

  close() {
    this.#open = false;
    clearTimeout(this.#typed);
    this.#pages.close();
    for (const [target, kind, call] of this.#listeners) target.removeEventListener(kind, call);
    this.#detail.close();
    this.#root.classList.remove("comparing", "seeing");
  }

  #listen(target, kind, call) {
    target.addEventListener(kind, call);
    this.#listeners.push([target, kind, call]);
  }

  // The filter

  #form() {
    const filter = this.#filter;
    const labelled = (key, field) => el("label", {}, text(key), field);
    const choice = (key, options, label = null) => {
      const made = el(
        "select",
        { "aria-label": label, onchange: () => this.#changed(key, made.value) },
        options.map(([value, words]) =>
          el("option", { value, selected: value === filter.get(key) }, words),
        ),
      );
      return (this.#fields[key] = made);
    };
    const typed = (key, label, options) => {
      const made = el("input", {
        "aria-label": label, placeholder: label, value: filter.get(key), autocomplete: "off", ...options,
        oninput: () => {
          clearTimeout(this.#typed);
          this.#typed = setTimeout(() => this.#changed(key, made.value), TYPED_MS);
        },
      });
      return (this.#fields[key] = made);
    };
    const cameras = live.stations.get(this.#app.station)?.status?.cameras ?? [];
    const names = new Set([...cameras.map((one) => one.name), filter.get("camera")].filter(Boolean));
    this.#opener = el(
      "button",
      {
        class: "plain", type: "button", "aria-expanded": "false", "aria-controls": "history-more",
        onclick: () => this.#unfold(this.#more.hidden),
      },
      text("history.more"),
    );
    fill(
      this.#more,
      labelled("history.from", typed("from", null, { type: "datetime-local" })),
      labelled("history.until", typed("until", null, { type: "datetime-local" })),
      labelled("history.reason", choice("reason", [["", text("history.any_reason")], ...REASONS.map((one) => [one, why({ reason: one })])])),
      labelled("history.marks", choice("marked", ["", "yes", "no"].map((one) => [one, text(`history.marked.${one || "any"}`)]))),
      labelled("history.over", typed("over", null, { type: "number", min: 0, step: 5, inputmode: "numeric" })),
      labelled("history.under", typed("under", null, { type: "number", min: 0, step: 5, inputmode: "numeric" })),
      el("button", { class: "plain", type: "button", onclick: () => this.#clear() }, text("history.clear")),
    );
    this.#export.append(text("history.export"));
    const form = el(
      "form",
      { class: "filters", role: "search", "aria-label": text("history.filter"), onsubmit: (event) => event.preventDefault() },
      choice("verdicts", [["", text("history.all_verdicts")], ["rejects", text("history.rejects")], ...["FAIL", "FAULT", "PASS"].map((one) => [one, text(`verdict.${one}`)])], text("history.verdict")),
      choice("time", ["", ...Object.keys(SPANS_S)].map((one) => [one, text(`history.time.${one || "any"}`)]), text("history.time")),
      choice("camera", [["", text("history.all_cameras")], ...[...names].map((one) => [one, one])], text("history.camera")),
      typed("part", text("history.part"), { type: "search", maxlength: 256 }),
      this.#opener,
      this.#export,
      this.#more,
    );
    this.#unfold(["from", "until", "reason", "marked", "over", "under"].some((key) => filter.get(key)));
    return form;
  }

  #unfold(shown) {
    this.#more.hidden = !shown;
    this.#opener.setAttribute("aria-expanded", String(shown));
  }

  #changed(key, value) {
    if (this.#filter.get(key) === value) return;
    this.#filter.set(key, value);
    this.#restart();
  }

  #clear() {
    this.#filter = new Filter(new URLSearchParams());
    for (const field of Object.values(this.#fields)) field.value = "";
    this.#restart();
  }

  /** The page's address bears the filter and the part that is looked at, and so does a link to it. */
  #address() {
    const seen = this.#seen && `${this.#seen.verdict.epoch}/${this.#seen.verdict.seq}`;
    const query = this.#filter.parameters(seen);
    const place = `#/${encodeURIComponent(this.#app.station)}/history${query ? `?${query}` : ""}`;
    window.history.replaceState(null, "", place);
    this.#export.href = address(ofStation(this.#app.station, "history.csv"), this.#filter.query());
  }

  // The list

  #restart() {
    this.#address();
    this.#root.querySelector(".found").scrollTop = 0;
    void this.#pages.start(new Search(this.#app.station, this.#filter.query()));
  }

  #empty() {
    this.#rows = [];
    this.#newer = 0;
    this.#fresh.hidden = true;
    fill(this.#list);
  }

  #nothing() {
    if (this.#filter.isEmpty) return el("p", {}, text("history.nothing"));
    const clear = el("button", { class: "plain", type: "button", onclick: () => this.#clear() }, text("history.clear"));
    return [el("p", {}, text("history.none")), clear];
  }

  #put(entries) {
    const made = entries.map((entry) => new Row(this.#app.station, entry, (row) => this.#see(row.entry)));
    this.#rows.push(...made);
    this.#list.append(...made.map((row) => row.node));
    for (const row of made) row.choose(this.#seen !== null && same(row.entry, this.#seen));
    // What was opened by its address stands here with its marks, too.
    this.#neighbours();
  }

  #judged(told) {
    if (told.station !== this.#app.station || !this.#filter.fits(told.verdict)) return;
    this.#newer += 1;
    this.#fresh.textContent = text("history.newer", { count: this.#newer });
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
  }

  #leave() {
    const row = this.#rows.find((one) => this.#seen !== null && same(one.entry, this.#seen));
    this.#root.classList.remove("seeing");
    this.#seen = null;
    for (const one of this.#rows) one.choose(false);
    this.#address();
    row?.button.focus();
  }

  #neighbours() {
    const at = this.#at();
    this.#detail.neighbours(at > 0, at >= 0 && (at + 1 < this.#rows.length || this.#pages.more));
  }

  #at() {
    return this.#rows.findIndex((row) => this.#seen !== null && same(row.entry, this.#seen));
  }

  async #step(by) {
    const at = this.#at();
    if (at < 0 && this.#seen !== null) return;
    if (at + by >= this.#rows.length) await this.#pages.load();
    const row = this.#rows[at < 0 ? 0 : at + by];
    if (!this.#open || row === undefined) return;
    const isInList = this.#list.contains(document.activeElement);
    row.node.scrollIntoView({ block: "nearest" });
    if (isInList) row.button.focus({ preventScroll: true });
    this.#see(row.entry);
  }

  #key(event) {
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const isTyped = event.target.closest?.("input, select, textarea, dialog, header, .facts");
    if (isTyped || event.altKey || event.ctrlKey || event.metaKey) return;
    if (by) {
      event.preventDefault();
      void this.#step(by);
    } else if (event.key === "Escape") this.#detail.back();
  }

  /** Look at the part that a link names, wherever it stands. */
  async #openPart(seen) {
    const [epoch, seq] = seen.split("/");
    const query = { before_epoch: epoch, before_seq: Number(seq) + 1, limit: 1 };
    try {
      const [entry] = (await get(ofStation(this.#app.station, "history"), query)).entries;
      if (!this.#open || this.#seen !== null) return;
      if (entry && entry.verdict.epoch === epoch && entry.verdict.seq === Number(seq)) {
        this.#see(this.#rows.find((row) => same(row.entry, entry))?.entry ?? entry);
      } else this.#app.say(text("history.gone"), "problem");
    } catch (error) {
      if (this.#open) this.#app.say(error.code === "unknown" ? text("history.gone") : reason(error), "problem");
    }
  }
}

function same(one, other) {
  return one.verdict.seq === other.verdict.seq && one.verdict.epoch === other.verdict.epoch;
}

/** What is asked for; the address bears it. */
class Filter {
  static #KEYS = ["verdicts", "time", "camera", "part", "from", "until", "reason", "marked", "over", "under"];
  #values = new Map();

  constructor(parameters) {
    for (const key of Filter.#KEYS) this.#values.set(key, parameters.get(key) ?? "");
  }

  get(key) {
    return this.#values.get(key);
  }

  set(key, value) {
    this.#values.set(key, value);
  }

  get isEmpty() {
    return [...this.#values.values()].every((value) => value === "");
  }

  /** As the address bears it. */
  parameters(seen) {
    const found = [...this.#values].filter(([, value]) => value !== "");
    return new URLSearchParams(seen ? [...found, ["seen", seen]] : found).toString();
  }

  /** As the server is asked. */
  query() {
    const { time, from, until } = Object.fromEntries(this.#values);
    const since = time in SPANS_S ? Date.now() - SPANS_S[time] * 1000 : Date.parse(from);
    return {
      verdicts: VERDICTS[this.get("verdicts")] ?? [],
      camera: this.get("camera"),
      part_id: this.get("part").trim(),
      reason: this.get("reason"),
      marked: { yes: true, no: false }[this.get("marked")] ?? "",
      since_us: micros(since),
      until_us: micros(Date.parse(until)),
      score_from: share(this.get("over")),
      score_to: share(this.get("under")),
    };
  }

  /** Whether a part that was just judged is among what is asked for. */
  fits(verdict) {
    const asked = this.query();
    return (
      (!asked.verdicts.length || asked.verdicts.includes(verdict.verdict)) &&
      (!asked.camera || asked.camera === verdict.camera) &&
      (!asked.part_id || asked.part_id === verdict.part_id) &&
      (!asked.reason || asked.reason === verdict.reason) &&
      asked.marked !== true &&
      (asked.until_us === null || verdict.judged_us < asked.until_us) &&
      (asked.score_from === null || (verdict.score !== null && verdict.score >= asked.score_from)) &&
      (asked.score_to === null || (verdict.score !== null && verdict.score < asked.score_to))
    );
  }
}

function micros(ms) {
  return Number.isFinite(ms) && ms >= 0 ? Math.round(ms * 1000) : null;
}

/** A share of the limit, as it is typed in per cent. */
function share(percent) {
  const value = Number.parseFloat(percent);
  return Number.isFinite(value) ? value / 100 : null;
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
      { class: "row", type: "button", onclick: () => choose(this) },
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

  #draw(holder, again) {
    const source = ofPart(this.#station, this.entry.verdict, "thumbnail");
    const later = () => {
      image.remove();
      if (again) setTimeout(() => holder.isConnected && this.#draw(holder, false), LATER_MS);
    };
    const image = el("img", { src: source, alt: "", loading: "lazy", decoding: "async", onerror: later });
    holder.append(image);
  }

  #thumbnail() {
    const holder = el("span", { class: "thumb" });
    if (mayBeSeen(this.entry)) this.#draw(holder, isYoung(this.entry.verdict));
    return holder;
  }
}
