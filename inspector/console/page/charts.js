/**
 * The three charts of the page, drawn as SVG: a histogram with a limit that is dragged, a curve over
 * time, and a sparkline. Each has a `node`, is drawn by `draw`, and is ended by `close`; it is drawn
 * anew in whatever size the view gives it. Looks are in charts.css, so that colours come from the page's own.
 */

import { call, el, fill } from "./dom.js";

const BINS = 74;
const GRIP = 44;
const STEP = 0.01;
const PAGE = 0.1;

/** An SVG that is drawn anew whenever its size changes. */
class Chart {
  #watch = new ResizeObserver(() => this.render());

  constructor(attributes) {
    this.node = el("svg", attributes);
    this.#watch.observe(this.node);
  }

  get height() {
    return Math.max(120, this.node.clientHeight || 160);
  }

  get width() {
    return Math.max(160, this.node.clientWidth || 320);
  }

  close() {
    this.#watch.disconnect();
  }
}

/**
 * How parts scored, with the limit in force and one that is tried. `draw` takes `recent` and
 * `reference` (scores, in units of `unit`: the limit that the model came with), `ticks`
 * (`{at, kind, title}`; kind is good or bad), `inForce` and `value` (factors on the unit).
 * `onchange(value)` is called while the limit is dragged, or moved by keys.
 */
export class Histogram extends Chart {
  #data = null;
  #names;
  #range;
  #onchange;
  #grip;
  #drawn = el("g");
  #tried = el("g");
  #scale = null;
  #finger = null;

  constructor({ range, names, onchange }) {
    super({ class: "histogram", role: "group", "aria-label": names.chart });
    this.#names = names;
    this.#range = range;
    this.#onchange = onchange;
    this.#grip = el("rect", {
      class: "grip", tabindex: 0, role: "slider", "aria-label": names.limit, "aria-valuemin": range[0],
      "aria-valuemax": range[1], onkeydown: (event) => this.#key(event),
    });
    // The grip stays where it is in the document: it would lose the focus otherwise.
    fill(this.node, this.#drawn, this.#tried, this.#grip);
    this.node.addEventListener("pointerdown", (event) => this.#down(event));
    this.node.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.node.addEventListener(end, () => (this.#finger = null));
    }
  }

  get value() {
    return this.#data?.value ?? 1;
  }

  /** Show these scores. */
  draw(data) {
    this.#data = data;
    this.render();
  }

  /** Move the limit that is tried, without a call of `onchange`. */
  move(value) {
    if (this.#data === null) return;
    this.#data.value = value;
    this.render();
  }

  #down(event) {
    if (this.#data === null || event.button !== 0) return;
    const place = event.clientX - this.node.getBoundingClientRect().left;
    const near = Math.abs(place - this.#scale(this.value)) < GRIP;
    // A finger elsewhere scrolls the page.
    if (event.pointerType !== "mouse" && !near) return;
    this.#finger = event.pointerId;
    this.node.setPointerCapture(event.pointerId);
    this.#grip.focus({ preventScroll: true });
    this.#drag(event);
  }

  #drag(event) {
    if (event.pointerId !== this.#finger) return;
    const box = this.node.getBoundingClientRect();
    this.#set(this.#scale.back(event.clientX - box.left));
  }

  #key(event) {
    const [low, high] = this.#range;
    const to = {
      ArrowLeft: this.value - STEP, ArrowDown: this.value - STEP,
      ArrowRight: this.value + STEP, ArrowUp: this.value + STEP,
      PageDown: this.value - PAGE, PageUp: this.value + PAGE, Home: low, End: high,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#set(to);
  }

  #set(value) {
    const [low, high] = this.#range;
    const to = Math.min(high, Math.max(low, Math.round(value / STEP) * STEP));
    if (Math.abs(to - this.value) < STEP / 2) return;
    this.move(to);
    this.#onchange(to);
  }

  render() {
    if (this.#data === null) return;
    const { recent, reference, ticks, inForce, value } = this.#data;
    const left = 8;
    const [top, right, bottom] = [26, this.width - 8, this.height - 42];
    const least = Math.min(0.4, ...recent, ...reference);
    const [from, to] = [Math.max(0, Math.floor(least * 10 - 0.5) / 10), this.#range[1] + 0.15];
    const x = scale(from, to, left, right);
    this.#scale = x;
    const of = recent.length;
    const passed = shares(recent.filter((score) => score < value), from, to, of);
    const failed = shares(recent.filter((score) => score >= value), from, to, of);
    const before = shares(reference, from, to, reference.length);
    const most = Math.max(...passed, ...failed, ...before, 0.001);
    // Square roots: one reject among a thousand good parts is still seen.
    const y = (share) => bottom - Math.sqrt(share / most) * (bottom - top);
    const width = (right - left) / BINS;
    const edge = (index) => left + index * width;
    const bar = (kind, share, first, last) =>
      share === 0 ? null : el("rect", {
        class: kind, x: first, y: y(share), width: Math.max(1.5, last - first - 1), height: bottom - y(share),
      });
    // The bin in which the limit lies is cut in two, so that no part is on the wrong side of it.
    const cut = (index) => Math.min(edge(index + 1), Math.max(edge(index), x(value)));
    const bars = passed.map((share, index) => [
      bar("pass", share, edge(index), cut(index)),
      bar("fail", failed[index], cut(index), edge(index + 1)),
    ]);
    const outline = before.flatMap((share, index) => [
      `${edge(index)},${y(share)}`, `${edge(index + 1)},${y(share)}`,
    ]);
    const places = [0.5, 1, 1.5].filter((at) => at > from);
    fill(
      this.#drawn,
      el("rect", { class: "over", x: x(value), y: top, width: Math.max(0, right - x(value)), height: bottom - top }),
      bars,
      reference.length ? el("polyline", { class: "before", points: outline.join(" ") }) : null,
      el("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      places.map((at) => [
        el("line", { class: "axis", x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4 }),
        el("text", { x: x(at), y: this.height - 4, "text-anchor": "middle" }, at.toFixed(1)),
      ]),
      el("text", { class: "axis-name", x: right, y: this.height - 4, "text-anchor": "end" }, this.#names.axis),
      ticks.map((one) => tick(one, Math.min(right - 5, Math.max(left + 5, x(one.at))), bottom + 14)),
      el("line", { class: "in-force", x1: x(inForce), x2: x(inForce), y1: top, y2: bottom + 6 }),
    );
    const end = x(value) > this.width - 90;
    fill(
      this.#tried,
      el("line", { class: "limit", x1: x(value), x2: x(value), y1: top - 6, y2: bottom }),
      el("path", { class: "knob", d: `M${x(value) - 9},2 h18 v12 l-9,10 l-9,-10 z` }),
      el("text", {
        class: "limit", x: x(value) + (end ? -14 : 14), y: 15, "text-anchor": end ? "end" : "start",
      }, `${this.#names.limit} ${value.toFixed(2)}`),
    );
    for (const [name, at] of Object.entries({
      x: x(value) - GRIP / 2, y: 0, width: GRIP, height: bottom, rx: 6,
      "aria-valuenow": value.toFixed(2), "aria-valuetext": value.toFixed(2),
    })) this.#grip.setAttribute(name, at);
  }
}

/**
 * A curve over time. `draw` takes `points` (`{at, value}`; value null where there is none), `line`
 * (a level to compare with, `{at, name}`, or null), `low` and `high` (what the axis shows at least)
 * and `words` (of a value, of a time). `label` is what a screen reader reads.
 */
export class TimeSeries extends Chart {
  #data = null;

  constructor() {
    super({ class: "series", role: "img" });
  }

  draw(data) {
    this.#data = data;
    call(this.node, data.label);
    this.render();
  }

  render() {
    if (this.#data === null) return;
    const { points, line, low, high, words } = this.#data;
    const known = points.filter((point) => point.value !== null);
    const values = [low, high, ...known.map((point) => point.value), ...(line ? [line.at] : [])];
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const [left, top, right, bottom] = [52, 10, this.width - 10, this.height - 24];
    const first = points[0]?.at ?? 0;
    const last = Math.max(points.at(-1)?.at ?? 1, first + 1);
    const [x, y] = [scale(first, last, left, right), scale(least, most, bottom, top)];
    const dots = known.map((point) => `${x(point.at)},${y(point.value)}`);
    fill(
      this.node,
      [least, most].map((at) => [
        el("line", { class: "axis", x1: left, x2: right, y1: y(at), y2: y(at) }),
        el("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, words.value(at)),
      ]),
      known.length
        ? [
            el("text", { x: left, y: this.height - 5 }, words.time(first)),
            el("text", { x: right, y: this.height - 5, "text-anchor": "end" }, words.time(last)),
          ]
        : null,
      line
        ? [
            el("line", { class: "compared", x1: left, x2: right, y1: y(line.at), y2: y(line.at) }),
            el("text", { class: "compared", x: left + 4, y: Math.max(top + 12, y(line.at) - 5) }, line.name),
          ]
        : null,
      el("polyline", { class: "curve", points: dots.join(" ") }),
      known.map((point) =>
        el("circle", { class: "dot", cx: x(point.at), cy: y(point.value), r: 3 },
          el("title", {}, `${words.time(point.at)}: ${words.value(point.value)}`)),
      ),
    );
  }
}

/** A small curve in a line of text: `draw(values, label)`, null where there is no value. */
export class Sparkline {
  node = el("svg", { class: "spark", role: "img", viewBox: "0 0 100 24", width: 100, height: 24 });

  draw(values, label) {
    call(this.node, label);
    const known = values.filter((value) => value !== null);
    const y = scale(Math.min(...known), Math.max(...known), 21, 3);
    const x = scale(0, Math.max(1, values.length - 1), 2, 98);
    const points = values.flatMap((value, at) => (value === null ? [] : [`${x(at)},${y(value)}`]));
    fill(this.node, known.length ? el("polyline", { class: "curve", points: points.join(" ") }) : null);
  }

  close() {}
}

function scale(from, to, first, last) {
  const span = to - from || 1;
  const found = (value) => first + ((value - from) / span) * (last - first);
  found.back = (place) => from + ((place - first) / (last - first)) * span;
  return found;
}

/** How many of `values`, as a share of `count`, lie in each bin; the outer ones have what is beyond. */
function shares(values, from, to, count) {
  const found = new Array(BINS).fill(0);
  for (const value of values) {
    const bin = Math.floor(((value - from) / (to - from)) * BINS);
    found[Math.min(BINS - 1, Math.max(0, bin))] += 1 / count;
  }
  return found;
}

function tick({ kind, title }, x, y) {
  const shape = kind === "good"
    ? el("circle", { class: "good", cx: x, cy: y, r: 5 })
    : el("path", { class: "bad", d: `M${x},${y - 6} l6,6 l-6,6 l-6,-6 z` });
  shape.append(el("title", {}, title));
  return shape;
}
