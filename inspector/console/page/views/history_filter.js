/** What the history is asked for: a form, the page's address, and the server's query. */

import { address, ofStation } from "../api.js";
import { el, fill } from "../dom.js";
import { live } from "../live.js";
import { why } from "../part.js";
import { SPANS_S, micros, since } from "../spans.js";
import { text } from "../words.js";

const VERDICTS = { rejects: ["FAIL", "FAULT"], PASS: ["PASS"], FAIL: ["FAIL"], FAULT: ["FAULT"] };
const MARKED = { yes: true, no: false };
const REASONS = [
  "anomaly", "camera_lost", "frame_shape", "frame_unreadable", "queue_full", "deadline_missed",
  "too_dark", "saturated", "out_of_focus", "frozen", "over_trigger", "trigger_conflict",
  "not_ready", "restarted", "journal_failed", "inference_error", "not_finite",
];
const FIRST = ["verdicts", "time", "camera", "part"];
const FURTHER = ["from", "until", "reason", "marked", "over", "under"];
const TYPED_MS = 400;

/** Values by their keys, all of them texts; "" asks about nothing. */
export class Filter {
  #values = new Map();

  constructor(parameters) {
    for (const key of [...FIRST, ...FURTHER]) this.#values.set(key, parameters.get(key) ?? "");
  }

  get(key) {
    return this.#values.get(key);
  }

  set(key, value) {
    this.#values.set(key, value);
  }

  clear() {
    for (const key of this.#values.keys()) this.#values.set(key, "");
  }

  get isEmpty() {
    return [...this.#values.values()].every((value) => value === "");
  }

  get isFurther() {
    return FURTHER.some((key) => this.get(key) !== "");
  }

  /** As the page's address bears it; `seen`: the part that is looked at, or null. */
  parameters(seen) {
    const found = [...this.#values].filter(([, value]) => value !== "");
    return new URLSearchParams(seen ? [...found, ["seen", seen]] : found).toString();
  }

  /** As the server is asked. */
  query() {
    return {
      verdicts: VERDICTS[this.get("verdicts")] ?? [],
      camera: this.get("camera"),
      part_id: this.get("part").trim(),
      reason: this.get("reason"),
      marked: MARKED[this.get("marked")] ?? null,
      since_us: since(this.get("time"), this.get("from")),
      until_us: micros(Date.parse(this.get("until"))),
      score_from: share(this.get("over")),
      score_to: share(this.get("under")),
    };
  }

  /** Whether a part that was judged just now is among what is asked for. */
  fits(verdict) {
    const asked = this.query();
    const { score } = verdict;
    return (
      (!asked.verdicts.length || asked.verdicts.includes(verdict.verdict)) &&
      (!asked.camera || asked.camera === verdict.camera) &&
      (!asked.part_id || asked.part_id === verdict.part_id) &&
      (!asked.reason || asked.reason === verdict.reason) &&
      asked.marked !== true &&
      (asked.until_us === null || verdict.judged_us < asked.until_us) &&
      (asked.score_from === null || (score !== null && score >= asked.score_from)) &&
      (asked.score_to === null || (score !== null && score < asked.score_to))
    );
  }
}

/** A share of the limit, as it is typed in per cent. */
function share(percent) {
  const value = Number.parseFloat(percent);
  return Number.isFinite(value) ? value / 100 : null;
}

/** The form of a filter; `changed()` hears of each change. */
export class FilterForm {
  #station;
  #filter;
  #changed;
  #typed = 0;
  #fields = new Map();
  #more = el("div", { class: "more", id: "history-more" });
  #opener;
  #table;
  #clear;
  node;

  constructor(station, filter, changed) {
    this.#station = station;
    this.#filter = filter;
    this.#changed = changed;
    this.#table = el("a", { class: "button", download: "verdicts.csv", onclick: () => this.draw() }, text("history.export"));
    this.#opener = el(
      "button",
      { class: "plain", type: "button", "aria-controls": this.#more.id, onclick: () => this.#unfold(this.#more.hidden) },
      text("history.more"),
    );
    fill(this.#more, this.#further());
    this.#clear = this.button("history.clear_short", () => this.clear());
    this.node = el(
      "form",
      {
        class: "filters", role: "search", "aria-label": text("history.filter"),
        onsubmit: (event) => event.preventDefault(),
      },
      this.#first(),
      this.#opener,
      this.#table,
      this.#clear,
      this.#more,
    );
    this.#unfold(filter.isFurther);
  }

  /** Show what is chosen now; the link to the table asks for it. */
  draw() {
    this.#clear.hidden = this.#filter.isEmpty;
    this.#table.href = address(ofStation(this.#station, "history.csv"), this.#filter.query());
  }

  /** Ask about nothing. */
  clear() {
    this.#filter.clear();
    for (const field of this.#fields.values()) field.value = "";
    this.#changed();
  }

  close() {
    clearTimeout(this.#typed);
  }

  button(key, act) {
    return el("button", { class: "plain", type: "button", onclick: act }, text(key));
  }

  #first() {
    const cameras = live.stations.get(this.#station)?.status?.cameras ?? [];
    const names = new Set([...cameras.map((one) => one.name), this.#filter.get("camera")].filter(Boolean));
    const verdicts = [
      ["", text("history.all_verdicts")],
      ["rejects", text("history.rejects")],
      ...["FAIL", "FAULT", "PASS"].map((one) => [one, text(`verdict.${one}`)]),
    ];
    const spans = ["", ...Object.keys(SPANS_S)].map((one) => [one, text(`history.time.${one || "any"}`)]);
    const part = text("history.part");
    return [
      this.#choice("verdicts", verdicts, { "aria-label": text("history.verdict") }),
      this.#choice("time", spans, { "aria-label": text("history.time") }),
      this.#choice("camera", [["", text("history.all_cameras")], ...[...names].map((one) => [one, one])], {
        "aria-label": text("history.camera"),
      }),
      this.#input("part", { type: "search", maxlength: 256, placeholder: part, "aria-label": part }),
    ];
  }

  #further() {
    const reasons = [["", text("history.any_reason")], ...REASONS.map((one) => [one, why({ reason: one })])];
    const marks = ["", "yes", "no"].map((one) => [one, text(`history.marked.${one || "any"}`)]);
    const percent = { type: "number", min: 0, step: 5, inputmode: "numeric" };
    const fields = {
      from: this.#input("from", { type: "datetime-local" }),
      until: this.#input("until", { type: "datetime-local" }),
      reason: this.#choice("reason", reasons),
      marks: this.#choice("marked", marks),
      over: this.#input("over", percent),
      under: this.#input("under", percent),
    };
    return Object.entries(fields).map(([key, field]) => el("label", {}, text(`history.${key}`), field));
  }

  #choice(key, options, attributes = {}) {
    const chosen = this.#filter.get(key);
    const made = el(
      "select",
      { ...attributes, onchange: () => this.#set(key, made.value) },
      options.map(([value, words]) => el("option", { value, selected: value === chosen }, words)),
    );
    this.#fields.set(key, made);
    return made;
  }

  #input(key, attributes) {
    const made = el("input", {
      ...attributes,
      value: this.#filter.get(key),
      autocomplete: "off",
      oninput: () => {
        clearTimeout(this.#typed);
        this.#typed = setTimeout(() => this.#set(key, made.value), TYPED_MS);
      },
    });
    this.#fields.set(key, made);
    return made;
  }

  #set(key, value) {
    if (this.#filter.get(key) === value) return;
    this.#filter.set(key, value);
    this.#changed();
  }

  #unfold(shown) {
    this.#more.hidden = !shown;
    this.#opener.setAttribute("aria-expanded", String(shown));
  }
}
