/** Focus and exposure as bars: measured on the live picture, beside the range of good parts. */

import { call, el, fill } from "../dom.js";
import { number, text } from "../words.js";

/** Pictures are measured at this size, as photos are: sensor noise would pass for sharpness. */
const SIDE = 256;
const BARS = 32;
const WHITE = 254;
const BLACK = 2;
/** So much of the region may be white, or black, before anybody is told. */
const CLIPPED = 0.02;
const EMPTY = 0.6;
const DARK = 40;
const BRIGHT = 215;
/** Below this share of the best sharpness the picture counts as less sharp. */
const LESS = 0.8;
/** So far from the good parts' range the mean brightness may be. */
const SLACK = 10;

const small = new OffscreenCanvas(SIDE, SIDE);
const context = small.getContext("2d", { willReadFrequently: true });

/**
 * Measure a region of a picture: `{brightness, sharpness, white, black, bars, coarse}`. Brightness is
 * the mean grey, 0 to 255; sharpness the standard deviation of the edges; white and black are shares;
 * bars are the shares of 32 steps of grey. It is measured at `size`; `coarse`: the picture has less,
 * so that its sharpness cannot be compared with that of others.
 */
export function measure(picture, area, size = [SIDE, SIDE]) {
  const [width, height] = size;
  if (small.width !== width || small.height !== height) [small.width, small.height] = size;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, area.x, area.y, area.w, area.h, 0, 0, width, height);
  const data = context.getImageData(0, 0, width, height).data;
  const grey = new Float32Array(width * height);
  const bars = new Array(BARS).fill(0);
  let [sum, white, black] = [0, 0, 0];
  for (let at = 0; at < grey.length; at += 1) {
    const [r, g, b] = [data[4 * at], data[4 * at + 1], data[4 * at + 2]];
    const level = 0.299 * r + 0.587 * g + 0.114 * b;
    const most = Math.max(r, g, b);
    grey[at] = level;
    sum += level;
    white += most >= WHITE;
    black += most <= BLACK;
    bars[Math.min(BARS - 1, Math.floor((level * BARS) / 256))] += 1;
  }
  const share = (count) => count / grey.length;
  return {
    brightness: sum / grey.length,
    sharpness: edges(grey, width, height),
    white: share(white),
    black: share(black),
    bars: bars.map(share),
    coarse: area.w < width || area.h < height,
  };
}

function edges(grey, width, height) {
  let [sum, squares, count] = [0, 0, 0];
  for (let y = 1; y < height - 1; y += 1) {
    for (let x = 1; x < width - 1; x += 1) {
      const at = y * width + x;
      const edge = grey[at - 1] + grey[at + 1] + grey[at - width] + grey[at + width] - 4 * grey[at];
      sum += edge;
      squares += edge * edge;
      count += 1;
    }
  }
  return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
}

/** The bars, and a line of advice under each. `show(measures, range)` draws; `again()` forgets the best. */
export class Aids {
  #best = 0;
  #good = null;
  #sharp = meter();
  #light = meter();
  #bars = el("svg", { class: "bars", viewBox: `0 0 ${BARS} 100`, preserveAspectRatio: "none", role: "img" });
  #legend = el("span", { class: "legend", hidden: true }, text("setup.green"));
  #focus = el("p", { class: "advice", id: "focus-advice" });
  #exposure = el("p", { class: "advice", id: "light-advice" });
  node = el(
    "div",
    { class: "aids" },
    el(
      "section",
      {},
      el("div", { class: "heading" },
        el("h3", {}, text("setup.focus")),
        el("button", { class: "plain", onclick: () => this.again() }, text("setup.again"))),
      this.#sharp.node,
      this.#focus,
    ),
    el(
      "section",
      {},
      el("h3", {}, text("setup.light")),
      this.#light.node,
      this.#bars,
      el("div", { class: "ends soft" },
        el("span", {}, text("setup.black")), this.#legend, el("span", {}, text("setup.white"))),
      this.#exposure,
    ),
  );

  again() {
    this.#best = 0;
  }

  /**
   * `good`: `{brightness, sharpness}` of good parts, each `[low, high]`, and `bars`, 32 of them, or
   * null where these are not known; or null. The bands have what the advice takes for well.
   */
  show(found, good) {
    const range = good && (found.coarse ? { ...good, sharpness: null } : good);
    // Beside other good parts it is measured otherwise, and the best so far says nothing.
    if ((good === null) !== (this.#good === null)) this.again();
    this.#good = good;
    this.#best = Math.max(this.#best, found.sharpness);
    const top = 1.15 * Math.max(this.#best, range?.sharpness?.[1] ?? 0, 1);
    const [least, most] = range?.sharpness ?? [];
    this.#sharp.show(found.sharpness / top, {
      band: range?.sharpness && [(LESS * least) / top, most / top],
      mark: this.#best / top,
      label: text("setup.focus_label", {
        now: number(found.sharpness, 1), best: number(this.#best, 1),
      }),
    });
    this.#light.show(found.brightness / 255, {
      band: range && [range.brightness[0] - SLACK, range.brightness[1] + SLACK].map((one) => one / 255),
      label: text("setup.light_label", { now: number(found.brightness) }),
    });
    this.#histogram(found.bars, range?.bars ?? null);
    this.#legend.hidden = range === null;
    call(this.#bars, text("setup.bars_label", {
      white: number(100 * found.white), black: number(100 * found.black),
    }));
    advise(this.#focus, ...focusAdvice(found, range, this.#best));
    advise(this.#exposure, ...lightAdvice(found, range));
  }

  /** The bars, each before the range of good parts. */
  #histogram(bars, good) {
    const most = Math.max(...bars, ...(good ?? []).map(([, high]) => high), 0.02);
    const rect = (kind, at, inset, low, high) =>
      el("rect", {
        class: kind, x: at + inset, width: 1 - 2 * inset,
        y: 100 - (100 * high) / most, height: (100 * (high - low)) / most,
      });
    fill(
      this.#bars,
      good?.map(([low, high], at) => rect("band", at, 0, low, high)),
      bars.map((one, at) => rect(at === 0 || at === BARS - 1 ? "end" : "", at, good ? 0.25 : 0.1, 0, one)),
    );
  }
}

function focusAdvice(found, range, best) {
  if (range?.sharpness) {
    const less = found.sharpness < LESS * range.sharpness[0];
    return less ? ["bad", "setup.focus_less_than_good"] : ["well", "setup.focus_as_good"];
  }
  return found.sharpness < LESS * best ? ["bad", "setup.focus_back"] : ["well", "setup.focus_best"];
}

function lightAdvice(found, range) {
  const values = { white: number(100 * found.white), now: number(found.brightness) };
  if (found.white > CLIPPED) return ["bad", "setup.too_bright", values];
  if (found.black > EMPTY || found.brightness < DARK) return ["bad", "setup.too_dark", values];
  if (found.brightness > BRIGHT) return ["bad", "setup.rather_bright", values];
  if (range && found.brightness < range.brightness[0] - SLACK) return ["bad", "setup.darker", values];
  if (range && found.brightness > range.brightness[1] + SLACK) return ["bad", "setup.brighter", values];
  return ["well", range ? "setup.light_as_good" : "setup.light_good", values];
}

function advise(node, kind, key, values = {}) {
  const said = text(key, values);
  // A screen reader, and an eye, are not troubled by what stays the same.
  if (node.textContent !== said) fill(node, said);
  node.className = `advice ${kind}`;
}

/** A bar from 0 to 1 with a band behind it and a mark. */
function meter() {
  const band = el("rect", { class: "band", y: 0, height: 20 });
  const value = el("rect", { class: "value", x: 0, y: 5, height: 10 });
  const mark = el("rect", { class: "mark", y: 0, width: 0.8, height: 20 });
  const node = el(
    "svg",
    { class: "meter", viewBox: "0 0 100 20", preserveAspectRatio: "none", role: "img" },
    band, value, mark,
  );
  return {
    node,
    show(now, told) {
      value.setAttribute("width", 100 * Math.min(1, now));
      const [low, high] = told.band ?? [0, 0];
      band.setAttribute("x", 100 * Math.max(0, low));
      band.setAttribute("width", 100 * Math.max(told.band ? 0.01 : 0, Math.min(1, high) - Math.max(0, low)));
      mark.setAttribute("x", told.mark ? 100 * told.mark : -5);
      call(node, told.label);
    },
  };
}
