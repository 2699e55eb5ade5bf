/** The last rejects as a film strip, which can be frozen; a click shows the part. */

import { call, el, fill } from "./dom.js";
import { called, why } from "./part.js";
import { free, loadPart, PartLayers } from "./part_layers.js";
import { moment, number, text } from "./words.js";

const FRAMES = 16;

/** PASS, FAIL and FAULT as shapes that differ without their colours. */
export function shapeOf(verdict) {
  const drawn = {
    PASS: [
      el("circle", { cx: 12, cy: 12, r: 11 }),
      el("path", { d: "M6.500 12.500l4 4 7-8.500", class: "line" }),
    ],
    FAIL: [
      el("path", { d: "M7.400 1h9.200L23 7.400v9.200L16.600 23H7.400L1 16.600V7.400z" }),
      el("path", { d: "M7.500 7.500l9 9m0-9l-9 9", class: "line" }),
    ],
    FAULT: [
      el("path", { d: "M12 1L23.500 22H.500z" }),
      el("path", { d: "M9.700 11a2.400 2.400 0 1 1 3.700 2c-1 .700-1.400 1.200-1.400 2.300m0 3.200v.100", class: "line" }),
    ],
  };
  return el("svg", { viewBox: "0 0 24 24", class: `shape ${verdict}`, "aria-hidden": "true" }, drawn[verdict]);
}

export class FilmStrip {
  #station;
  #frames = [];
  #frozen = false;
  #new = 0;
  #last = null;
  #known = null;
  #loading = false;
  #closed = false;

  /** `look(verdict)` is called when somebody wants to see a part, `goOn()` to see live ones again. */
  constructor(station, look, goOn) {
    this.#station = station;
    this.button = el("button", {
      class: "plain freeze", "aria-pressed": "false",
      onclick: () => (this.#frozen ? goOn() : this.freeze(true)),
    });
    this.list = el("ol", { tabindex: "0", "aria-label": text("line.rejects") });
    this.empty = el("p", { class: "soft" }, text("line.no_rejects"));
    this.node = el(
      "div",
      { class: "strip" },
      el("div", { class: "about" }, el("h2", {}, text("line.rejects")), this.button),
      this.empty,
      this.list,
    );
    for (let at = 0; at < FRAMES; at += 1) this.#frames.push(new Frame(station, look));
    this.freeze(false);
  }

  /** Hold the strip as it is, or have it go on. */
  freeze(frozen) {
    this.#frozen = frozen;
    this.#new = 0;
    this.button.setAttribute("aria-pressed", String(frozen));
    this.node.classList.toggle("frozen", frozen);
    this.#write();
    if (!frozen && this.#known) this.draw(this.#known);
  }

  /** Show the newest rejects of a station of live.js, the newest first. */
  draw(station) {
    if (!station || this.#closed) return;
    this.#known = station;
    const rejects = station.rejects.slice(-FRAMES).reverse();
    if (this.#frozen) {
      const at = station.rejects.findIndex((one) => keyOf(one) === this.#last);
      this.#new = station.rejects.length - 1 - at;
      this.#write();
    } else {
      this.#last = rejects.length > 0 ? keyOf(rejects[0]) : null;
      this.#place(rejects);
    }
    void this.#load();
  }

  close() {
    this.#closed = true;
  }

  /** Frames keep their parts and move: only a part that is new is drawn. */
  #place(rejects) {
    const wanted = new Set(rejects.map(keyOf));
    const free = this.#frames.filter((one) => !wanted.has(one.key));
    const taken = new Map(
      this.#frames.filter((one) => wanted.has(one.key)).map((one) => [one.key, one]),
    );
    const order = rejects.map((verdict) => {
      const found = taken.get(keyOf(verdict));
      if (found) return found;
      const frame = free.pop();
      frame.take(verdict);
      return frame;
    });
    order.forEach((frame, at) => {
      const there = this.list.children[at];
      if (there !== frame.node) this.list.insertBefore(frame.node, there ?? null);
    });
    while (this.list.children.length > order.length) this.list.lastChild.remove();
    this.empty.hidden = order.length > 0;
    this.list.hidden = order.length === 0;
  }

  /** Load the pictures that are missing, one after the other. */
  async #load() {
    if (this.#loading || document.hidden) return;
    this.#loading = true;
    try {
      for (;;) {
        const next = [...this.list.children]
          .map((node) => this.#frames.find((one) => one.node === node))
          .find((one) => !one.done && this.#known?.pictures.has(one.key));
        if (!next || this.#closed) return;
        await next.load(this.#known.pictures.get(next.key));
      }
    } finally {
      this.#loading = false;
    }
  }

  #write() {
    const words = this.#frozen ? `▶ ${text("line.live")}` : `❚❚ ${text("line.freeze")}`;
    const more = this.#frozen && this.#new > 0 ? ` (+${number(this.#new)})` : "";
    if (this.button.textContent !== words + more) fill(this.button, words + more);
  }
}

class Frame {
  #station;
  #verdict = null;
  #layers = new PartLayers({ silent: true, flat: 0.6 });
  #words = el("span", { class: "words" });
  #at = el("span", { class: "at" });
  #shape = el("span", { class: "sign" });
  key = "";
  done = false;

  constructor(station, look) {
    this.#station = station;
    this.#layers.clear();
    this.button = el(
      "button",
      { class: "plain", onclick: () => look(this.#verdict) },
      this.#layers.node, this.#shape, this.#words, this.#at,
    );
    this.node = el("li", {}, this.button);
  }

  take(verdict) {
    this.#verdict = verdict;
    this.key = keyOf(verdict);
    this.done = false;
    this.#layers.clear();
    const words = verdict.score === null ? why(verdict) : number(verdict.score, 2);
    fill(this.#shape, shapeOf(verdict.verdict));
    fill(this.#words, words);
    this.#words.classList.toggle("figure", verdict.score !== null);
    fill(this.#at, moment(verdict.judged_us, false));
    const label = [text(`verdict.${verdict.verdict}`), called(verdict), why(verdict)];
    call(this.button, `${label.join(", ")}, ${this.#at.textContent}`);
    this.button.dataset.verdict = verdict.verdict;
  }

  async load(known) {
    const { key } = this;
    const found = await loadPart(this.#station, this.#verdict, { kept: known?.kept }).catch(() => null);
    if (key !== this.key) {
      free(found);
      return;
    }
    this.done = true;
    if (found) this.#layers.draw(found, this.#verdict);
  }
}

function keyOf(verdict) {
  return `${verdict.epoch}/${verdict.seq}`;
}
