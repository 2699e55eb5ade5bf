/** One recorded part, or two side by side: picture, why, what is known of it, and its marks. */

import { get, ofPart, ofStation, post } from "../api.js";
import { putIn, whereItWent } from "../basket.js";
import { call, el, fill } from "../dom.js";
import { explained } from "../original.js";
import { badge, called, distance, isFalseReject, isYoung, judged, mark, mayBeSeen, name, when, why } from "../part.js";
import { PartPicture, controls } from "../picture.js";
import { has, moment, number, reason, text } from "../words.js";

const LONGEST_NOTE = 200;
/** How often, and after how long, the picture of a part that was just judged is looked for. */
const TRIES = 3;
const LATER_MS = 1500;

/** A part's picture and facts. */
class Pane {
  #station;
  #asked = 0;
  #caption = el("figcaption", {});
  #none = el("p", { class: "none" });
  #facts = el("div", { class: "facts", tabindex: 0, role: "region" });
  picture = new PartPicture();
  entry = null;
  node;

  constructor(station) {
    this.#station = station;
    const seen = el("div", { class: "seen" }, this.picture.node, this.#none);
    this.node = el("figure", { class: "pane" }, this.#caption, seen, this.#facts);
  }

  /** Show a part; null: what stands in `words`. Resolves to whether there is a picture. */
  async show(entry, words = "") {
    const asked = ++this.#asked;
    this.entry = entry;
    this.draw();
    fill(this.#none, words);
    if (entry === null || !mayBeSeen(entry)) {
      this.picture.clear(entry ? called(entry.verdict) : words);
      if (entry !== null) fill(this.#none, text("history.no_picture"));
      return false;
    }
    const { verdict } = entry;
    const label = `${text(`verdict.${verdict.verdict}`)}: ${called(verdict)}`;
    for (let tries = isYoung(verdict) ? TRIES : 1; ; tries -= 1) {
      const found = await this.picture.show(this.#station, verdict, label, { kept: true, chosen: true });
      if (asked !== this.#asked || found) return found;
      const { problem } = this.picture;
      fill(this.#none, problem ? reason(problem) : text("history.no_picture"));
      if (tries <= 1) return false;
      await new Promise((done) => setTimeout(done, LATER_MS));
      if (asked !== this.#asked) return false;
      fill(this.#none, "");
    }
  }

  /** Show what is known now. */
  draw() {
    const { entry } = this;
    const part = entry ? `: ${called(entry.verdict)}` : "";
    call(this.#facts, `${text("history.facts")}${part}`);
    fill(this.#caption, entry && [badge(entry.verdict), name(entry.verdict)]);
    fill(this.#facts, entry && known(entry, this.#station));
  }

  close() {
    this.#asked += 1;
    this.picture.close();
  }
}

/**
 * The panel beside the list. `acts`: `step(by)` goes to another part of the list, `changed(entry)`
 * hears of a mark, `left()` that the panel was closed, `compared(on)` of two side by side.
 */
export class Detail {
  #app;
  #acts;
  #pinned;
  #pane;
  #head = el("div", { class: "head" });
  #title = el("h2", {});
  #tools = el("div", { class: "tools" });
  #note = el("input", { name: "note", maxlength: LONGEST_NOTE, autocomplete: "off" });
  #marking;
  #newer;
  #older;
  #compare;
  #full;
  #comparing = false;
  #basket;
  /** The parts in the basket, EPOCH/SEQ each. */
  #inside = new Set();
  node;

  constructor(app, acts) {
    this.#app = app;
    this.#acts = acts;
    this.#pane = new Pane(app.station);
    this.#pinned = new Pane(app.station);
    const button = (key, act, more = {}, shown = text(key)) =>
      el("button", { class: "plain", type: "button", onclick: act, ...more }, shown);
    this.#newer = button("history.newer_part", () => acts.step(-1), { "aria-label": text("history.newer_part") }, "▲");
    this.#older = button("history.older_part", () => acts.step(1), { "aria-label": text("history.older_part") }, "▼");
    this.#compare = button("history.compare", () => this.#toggle(), { "aria-pressed": "false" });
    const back = button("history.back", () => this.back(), { class: "plain back" });
    fill(this.#head, back, this.#title, this.#newer, this.#older, this.#compare);
    this.#full = el("a", { class: "button", download: "" }, text("history.full"));
    this.#basket = button("history.basket", () => void this.#putIn(), { class: "plain basket" });
    fill(this.#tools, controls(this.#pane.picture, this.#pinned.picture), this.#basket, this.#full);
    void this.#lookInside();
    this.#marking = this.#form();
    this.node = el(
      "section",
      { class: "detail panel empty", tabindex: -1, "aria-label": text("history.part_seen") },
      el("p", { class: "choose soft" }, text("history.choose")),
      this.#head,
      el("div", { class: "panes" }, this.#pinned.node, this.#pane.node),
      this.#tools,
      this.#marking,
    );
    this.#pinned.node.hidden = true;
  }

  async show(entry) {
    this.node.classList.remove("empty");
    this.#note.value = "";
    this.#enable(true);
    this.#full.hidden = true;
    fill(this.#title, badge(entry.verdict), name(entry.verdict));
    const shown = this.#pane.show(entry);
    this.#drawBasket();
    this.#full.href = ofPart(this.#app.station, entry.verdict, "full");
    this.#full.download = `part-${entry.verdict.seq}.png`;
    const found = await shown;
    if (this.#pane.entry === entry) this.#full.hidden = !found;
  }

  /** Whether there is a newer and an older part to go to. */
  neighbours(newer, older) {
    this.#newer.disabled = !newer;
    this.#older.disabled = !older;
  }

  /** One step back: out of a comparison, or out of the part. */
  back() {
    if (this.#comparing && this.#pane.entry !== null) this.#toggle();
    else {
      if (this.#comparing) this.#toggle();
      this.node.classList.add("empty");
      void this.#pane.show(null);
      this.#acts.left();
    }
  }

  close() {
    this.#pane.close();
    this.#pinned.close();
  }

  #toggle() {
    const entry = this.#pane.entry ?? this.#pinned.entry;
    this.#comparing = !this.#comparing;
    this.#pinned.node.hidden = !this.#comparing;
    this.#compare.setAttribute("aria-pressed", String(this.#comparing));
    fill(this.#compare, text(this.#comparing ? "history.compare_end" : "history.compare"));
    this.node.classList.toggle("two", this.#comparing);
    this.#acts.compared(this.#comparing);
    if (this.#comparing) {
      void this.#pinned.show(entry);
      void this.#pane.show(null, text("history.choose_second"));
      this.#full.hidden = true;
      this.#drawBasket();
      this.#enable(false);
    } else {
      void this.#pinned.show(null);
      if (this.#pane.entry === null) void this.show(entry);
    }
  }

  // The basket

  /** What is in the basket; a page without one, or that does not answer, has nothing in it. */
  async #lookInside() {
    try {
      const { parts } = await get(ofStation(this.#app.station, "basket"));
      this.#inside = new Set(parts.map((one) => `${one.verdict.epoch}/${one.verdict.seq}`));
    } catch {
      return;
    }
    this.#drawBasket();
  }

  #drawBasket(busy = false) {
    const { entry } = this.#pane;
    const isInside = entry !== null && this.#inside.has(`${entry.verdict.epoch}/${entry.verdict.seq}`);
    this.#basket.hidden = entry === null || entry.verdict.score === null;
    fill(this.#basket, text(isInside ? "teach.inside" : "history.basket"));
    this.#basket.disabled = isInside || busy || !this.#app.may("operator");
  }

  async #putIn() {
    const { entry } = this.#pane;
    const { station } = this.#app;
    this.#drawBasket(true);
    try {
      const isMarked = await putIn(station, entry);
      if (isMarked) {
        entry.marks.push({ label: "good", note: "", client: "", by: this.#app.session.name, at_us: Date.now() * 1000 });
        this.#redraw(entry);
      }
      this.#inside.add(`${entry.verdict.epoch}/${entry.verdict.seq}`);
      this.#app.say(whereItWent(station, entry.verdict));
    } catch (error) {
      this.#app.say(explained(error), "problem");
    }
    this.#drawBasket();
  }

  // Marks

  #form() {
    if (!this.#app.may("operator")) return el("p", { class: "soft marking" }, text("history.may_not_mark"));
    call(this.#note, text("history.note"));
    this.#note.setAttribute("placeholder", text("history.note"));
    const button = (label, shape) =>
      el(
        "button",
        { class: `plain ${label}`, type: "button", onclick: () => this.#mark(label) },
        el("span", { "aria-hidden": "true" }, shape),
        ` ${text(`history.was_${label}`)}`,
      );
    return el(
      "form",
      { class: "marking", onsubmit: (event) => event.preventDefault() },
      this.#note,
      button("good", "✓"),
      button("bad", "✕"),
    );
  }

  #enable(on) {
    for (const one of this.#marking.querySelectorAll("button, input")) one.disabled = !on;
  }

  async #mark(label) {
    const { entry } = this.#pane;
    const { epoch, seq } = entry.verdict;
    const note = this.#note.value.trim();
    const made = { label, note, client: "", by: this.#app.session.name, at_us: Date.now() * 1000, saving: true };
    entry.marks.push(made);
    this.#redraw(entry);
    this.#enable(false);
    try {
      await post(ofStation(this.#app.station, "deeds/mark"), { epoch, seq, label, note });
      made.saving = false;
      if (this.#pane.entry === entry) this.#note.value = "";
    } catch (error) {
      entry.marks.splice(entry.marks.indexOf(made), 1);
      this.#app.say(explained(error), "problem");
    }
    this.#redraw(entry);
    if (this.#pane.entry === entry) this.#enable(true);
  }

  #redraw(entry) {
    for (const pane of [this.#pane, this.#pinned]) if (pane.entry === entry) pane.draw();
    this.#acts.changed(entry);
  }
}

/** Everything that is known of a part. */
function known(entry, station) {
  const { verdict, marks, delivered } = entry;
  const told = judged(verdict, marks);
  const spots = verdict.regions.length;
  return [
    el("p", { class: "why" }, verdict.score === null ? why(verdict) : distance(verdict)),
    verdict.score !== null && why(verdict) && el("p", {}, why(verdict)),
    spots > 0 && el("p", {}, text("history.spots", { spots })),
    advice(verdict),
    marks.length > 0 && el("h2", {}, text("history.marks"), told && ` – ${told}`),
    marks.length > 0 && el("ul", { class: "marks" }, marks.map(said)),
    isFalseReject(verdict, marks) && el("p", {},
      el("a", { class: "button", href: `#/${encodeURIComponent(station)}/teach` }, text("history.teach"))),
    el("h2", {}, text("history.facts")),
    el("dl", {}, facts(verdict).map(([label, value]) => [el("dt", {}, label), el("dd", {}, el("bdi", {}, value))])),
    delivered.length > 0 && el("h2", {}, text("history.delivered")),
    delivered.length > 0 && el("ul", {}, delivered.map(passedOn)),
  ];
}

/** What to do, where there is a word for it. */
function advice(verdict) {
  const key = `reason.${verdict.reason}.do`;
  return verdict.reason && has(key) && el("p", { class: "soft" }, text(key));
}

function said(one) {
  const who = one.by || one.client;
  const about = one.saving ? text("history.saving") : [who, when(one.at_us)].filter(Boolean).join(", ");
  return el("li", {}, mark(one), " ", el("bdi", { class: "soft" }, about), one.note && el("bdi", { class: "note" }, one.note));
}

function passedOn(one) {
  const words = [text(`history.outcome.${one.outcome}`), one.client, when(one.at_us)];
  return el("li", {}, el("bdi", {}, words.filter(Boolean).join(", ")));
}

function facts(verdict) {
  const { model } = verdict;
  const rows = [
    ["judged", moment(verdict.judged_us)],
    ["camera", verdict.camera],
    ["recipe", verdict.recipe],
    ["model", model && `${model.name} ${model.version}`],
    ["score", verdict.score === null ? "" : text("history.of_limit", { score: number(verdict.score, 2) })],
    ["tolerance", verdict.limit_factor === 1 ? "" : `× ${number(verdict.limit_factor, 2)}`],
    ["lot", verdict.lot],
    ["purpose", verdict.purpose === "production" ? "" : text(`history.purpose.${verdict.purpose}`)],
    ["took", verdict.judge_ms === null ? "" : text("history.ms", { ms: number(verdict.judge_ms, 1) })],
    ["waited", verdict.queue_ms === null ? "" : text("history.ms", { ms: number(verdict.queue_ms, 1) })],
    ["triggered", verdict.triggered_us && moment(verdict.triggered_us)],
    ["grabbed", verdict.grabbed_us && moment(verdict.grabbed_us)],
    ["trigger", verdict.trigger_seq],
    ["client", verdict.client],
    ["number", verdict.seq],
    ["detail", verdict.detail],
  ];
  return rows
    .filter(([, value]) => value !== null && value !== "" && value !== undefined)
    .map(([key, value]) => [text(`history.fact.${key}`), String(value)]);
}
