/** The shift in numbers, and the scores of the last parts. */

import { call, el, fill } from "./dom.js";
import { shapeOf } from "./film_strip.js";
import { moment, number, text } from "./words.js";
import { lacksModel } from "./wrong.js";

const BARS = 48;

/** The numbers of the shift, the recipe, the cameras, and the station's orders. */
export class Numbers {
  #cells = new Map();
  #orders;
  #cameras = el("ul", { class: "cameras", "aria-label": text("line.health") });
  #camerasShown = "";

  constructor(orders) {
    this.#orders = orders;
    const cell = (name, label, ...before) => {
      const value = el("dd", {}, "–");
      const note = el("span", {}, label);
      this.#cells.set(name, { value, note });
      return el("div", { class: `of-${name}` }, el("dt", {}, before, note), value);
    };
    this.node = el(
      "div",
      { class: "numbers" },
      el("dl", {}, cell("yield", text("line.yield_counting", { time: "–" }))),
      el(
        "dl",
        { class: "counts" },
        ["PASS", "FAIL", "FAULT"].map((verdict) =>
          cell(verdict, text(`verdict.${verdict}`), shapeOf(verdict)),
        ),
      ),
      el("dl", { class: "pair" }, cell("rate", text("line.rate")), cell("recipe", text("line.recipe"))),
      el("dl", {}, cell("latency", text("line.latency"))),
      this.#cameras,
      el("div", { class: "orders" }, orders),
    );
  }

  draw(station) {
    const shift = station?.shift;
    if (!shift) return;
    this.#write("yield", shift.yield === null ? "–" : `${number(shift.yield * 100, 1)} %`);
    this.#write("PASS", number(shift.passed));
    this.#write("FAIL", number(shift.failed));
    this.#write("FAULT", number(shift.faults));
    this.#write("rate", number(shift.per_minute));
    const digits = shift.typical_ms < 10 ? 1 : 0;
    const times = { typical: number(shift.typical_ms, digits), slowest: number(shift.slowest_ms) };
    this.#write("latency", shift.typical_ms === null ? "–" : text("line.ms", times));
    const since = { time: moment(shift.from_us, false).slice(0, 5) };
    this.#note("yield", text(shift.complete ? "line.yield" : "line.yield_counting", since));
  }

  drawStatus(station, connected) {
    const status = station?.status;
    const alive = connected && station?.alive;
    this.#write("recipe", status?.recipe ?? "–");
    for (const button of this.#orders) {
      const { deed } = button.dataset;
      button.hidden = !alive || deed !== orderFor(status);
    }
    const cameras = alive ? status.cameras : [];
    const shown = JSON.stringify(cameras.map((one) => [one.name, one.state]));
    if (shown === this.#camerasShown) return;
    this.#camerasShown = shown;
    fill(
      this.#cameras,
      cameras.map((one) =>
        el("li", { class: one.state }, el("b", {}, one.name), " ", text(`line.camera.${one.state}`)),
      ),
    );
  }

  #write(name, words) {
    const { value } = this.#cells.get(name);
    if (value.textContent !== words) fill(value, words);
  }

  #note(name, words) {
    const { note } = this.#cells.get(name);
    if (note.textContent !== words) fill(note, words);
  }
}

/** The scores of the last parts as bars, with the limit across; a part without a score is a gap. */
export class Trend {
  #bars = [];
  #label = "";

  constructor() {
    for (let at = 0; at < BARS; at += 1) {
      this.#bars.push(el("rect", { x: at + 0.15, width: 0.7, y: 0, height: 0 }));
    }
    this.svg = el(
      "svg",
      { viewBox: `0 0 ${BARS} 100`, preserveAspectRatio: "none", role: "img" },
      this.#bars,
      el("line", { x1: 0, x2: BARS, y1: 50, y2: 50 }),
    );
    this.node = el("div", { class: "trend" }, el("p", {}, text("line.trend")), this.svg);
  }

  /** `camera`: only its parts; "": those of all. */
  draw(station, camera) {
    const known = station?.verdicts ?? [];
    const shown = known.filter((one) => camera === "" || one.camera === camera).slice(-BARS);
    this.#bars.forEach((bar, at) => {
      const verdict = shown[at - (BARS - shown.length)];
      const height = verdict ? Math.min(100, Math.max(3, (verdict.score ?? 0) * 50)) : 0;
      bar.setAttribute("y", 100 - height);
      bar.setAttribute("height", height);
      bar.setAttribute("class", verdict?.verdict ?? "");
    });
    const above = shown.filter((one) => one.verdict === "FAIL").length;
    const label = text("line.trend_words", { count: shown.length, above });
    if (label !== this.#label) call(this.svg, (this.#label = label));
  }
}

function orderFor(status) {
  if (lacksModel(status)) return "";
  if (status.state === "Error") return "reset";
  if (status.stopped) return "start";
  return ["Ready", "SingleExecution", "ContinuousExecution"].includes(status.state) ? "stop" : "";
}
