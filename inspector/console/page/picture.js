/** A part's picture with its heatmap over it and its regions boxed. */

import { load, ofPart } from "./api.js";
import { el } from "./dom.js";
import { text } from "./words.js";

const LIMIT = 128;
const WHOLE = { x: 0, y: 0, w: 1, h: 1 };
const LARGEST_PX = 4096;
/** After so long the picture of the part before is dimmed, so that nobody takes it for this one. */
const DIMMED_MS = 300;

/**
 * Shows one part after another in `node`, which fills its container and opens large on a tap.
 *
 * `show(station, verdict, label, options)` loads and draws a part, and resolves to whether there was
 * a picture; `problem` then is why it could not be loaded, or null. What was shown before stays
 * until then. Options: `kept`: prefer what the station kept, the whole frame, over what was published
 * with the verdict, which is quicker; `large`: of twice the size; `chosen`: somebody asked for this
 * part, and whatever still loads is given up. Without `chosen`, as on a running line, each part that
 * loads is drawn, and of those that come meanwhile the last.
 *
 * `opacity` (0 to 1) of the heatmap and `boxes` may be set at any time. Call `close` at the end.
 */
export class PartPicture {
  #canvas = el("canvas", { "aria-hidden": "true" });
  #heat = new OffscreenCanvas(1, 1);
  #node;
  #sizes = new ResizeObserver(() => this.#draw());
  #asked = 0;
  #loading = null;
  #next = null;
  #shown = null;
  #opacity = 0.6;
  #boxes = true;

  problem = null;

  /** `tap`: called in place of opening the picture large. */
  constructor(tap = null) {
    const open = tap ?? (() => this.#enlarge());
    this.#node = el(
      "button",
      { class: "part", type: "button", disabled: true, onclick: open, "aria-label": text("picture.picture") },
      this.#canvas,
    );
    this.#sizes.observe(this.#node);
  }

  get node() {
    return this.#node;
  }

  get opacity() {
    return this.#opacity;
  }

  set opacity(value) {
    this.#opacity = Number(value);
    this.#draw();
  }

  get boxes() {
    return this.#boxes;
  }

  set boxes(value) {
    this.#boxes = value;
    this.#draw();
  }

  /** Show no part; `label` says of it what a screen reader reads. */
  clear(label = "") {
    this.#giveUp();
    this.#put(null, label);
  }

  /** Show nothing any more, and free what it holds. */
  close() {
    this.clear();
    this.#sizes.disconnect();
  }

  async show(station, verdict, label = "", options = {}) {
    if (options.chosen) this.#giveUp();
    if (this.#loading !== null) {
      this.#next?.done(true);
      return new Promise((done) => {
        this.#next = { done, again: () => this.show(station, verdict, label, options) };
      });
    }
    const stop = (this.#loading = new AbortController());
    const asked = ++this.#asked;
    const dim = setTimeout(() => this.#node.classList.add("waiting"), DIMMED_MS);
    let found = null;
    let problem = null;
    try {
      found = await loaded(station, verdict, options, stop.signal);
    } catch (error) {
      problem = error;
    }
    clearTimeout(dim);
    if (asked !== this.#asked) {
      free(found);
      return true;
    }
    this.problem = problem;
    this.#loading = null;
    this.#put(found && { ...found, station, verdict, label }, label);
    const next = this.#next;
    this.#next = null;
    if (next) void next.again().then(next.done);
    return found !== null;
  }

  #giveUp() {
    this.#asked += 1;
    this.#loading?.abort();
    this.#loading = null;
    this.#next?.done(true);
    this.#next = null;
  }

  #put(part, label) {
    free(this.#shown);
    this.#shown = part;
    this.#node.classList.remove("waiting");
    this.#node.disabled = part === null;
    const open = part === null ? "" : text("picture.large");
    this.#node.setAttribute("aria-label", [label || text("picture.picture"), open].filter(Boolean).join(". "));
    if (part?.map) colour(part.map, this.#heat);
    this.#draw();
  }

  #draw() {
    const canvas = this.#canvas;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.min(LARGEST_PX, Math.round(this.#node.clientWidth * ratio));
    const height = Math.min(LARGEST_PX, Math.round(this.#node.clientHeight * ratio));
    if (width < 1 || height < 1) return;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (this.#shown === null) return;
    const { picture, map, about, verdict } = this.#shown;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    context.save();
    context.translate((width - w) / 2, (height - h) / 2);
    context.beginPath();
    context.rect(0, 0, w, h);
    context.clip();
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, w, h);
    const area = about.origin === "published" ? WHOLE : about.heatmap_area;
    if (map && area && this.#opacity > 0) {
      const [x, y] = [w / (about.width ?? 1), h / (about.height ?? 1)];
      context.globalAlpha = this.#opacity;
      context.drawImage(this.#heat, area.x * x, area.y * y, area.w * x, area.h * y);
      context.globalAlpha = 1;
    }
    const frame = about.frame_area;
    if (this.#boxes && frame) {
      for (const one of verdict.regions) {
        const [x, y] = [w / frame.w, h / frame.h];
        box(context, (one.x - frame.x) * x, (one.y - frame.y) * y, one.w * x, one.h * y, ratio);
      }
    }
    context.restore();
  }

  #enlarge() {
    const { station, verdict, label } = this.#shown;
    const large = new PartPicture(() => dialog.close());
    large.opacity = this.#opacity;
    large.boxes = this.#boxes;
    const dialog = el(
      "dialog",
      {
        class: "large",
        "aria-label": label || text("picture.picture"),
        onclose: () => {
          large.close();
          dialog.remove();
        },
      },
      large.node,
      el(
        "div",
        { class: "controls" },
        controls(large),
        el("button", { type: "button", onclick: () => dialog.close() }, text("picture.close")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    void large.show(station, verdict, label, { kept: true, large: true, chosen: true });
  }
}

/** A slider for the heatmap of these pictures, and a switch for their boxes. */
export function controls(...pictures) {
  const slider = el("input", {
    type: "range", min: 0, max: 100, step: 5, value: Math.round(pictures[0].opacity * 100),
    oninput: (event) => pictures.forEach((one) => (one.opacity = event.target.value / 100)),
  });
  const boxes = el("input", {
    type: "checkbox", checked: pictures[0].boxes,
    onchange: (event) => pictures.forEach((one) => (one.boxes = event.target.checked)),
  });
  return [
    el("label", { class: "slider" }, text("picture.heat"), slider),
    el("label", { class: "switch" }, boxes, text("picture.boxes")),
  ];
}

/** A part's pictures, with what the server says of them; null where there are none. Throws Refused. */
async function loaded(station, verdict, options, signal) {
  const published = ["model", "map"];
  const kept = [options.large ? "large" : "picture", "heatmap"];
  let problem = null;
  for (const names of options.kept ? [kept, published] : [published, kept]) {
    const [picture, map] = await Promise.allSettled(
      names.map((name) => image(ofPart(station, verdict, name), signal)),
    );
    if (picture.value) {
      const { bitmap, about } = picture.value;
      return { picture: bitmap, about, map: map.value?.bitmap ?? null };
    }
    map.value?.bitmap.close();
    // What was published may still be here although the station does not answer.
    problem ??= picture.reason ?? null;
  }
  if (problem) throw problem;
  return null;
}

async function image(address, signal) {
  const answer = await load(address, signal);
  if (answer === null) return null;
  const about = JSON.parse(answer.headers.get("X-Picture") ?? "null");
  return { bitmap: await createImageBitmap(await answer.blob()), about };
}

function free(part) {
  part?.picture.close();
  part?.map?.close();
}

/** A white frame with a dark edge, which shows on every part. */
function box(context, x, y, w, h, ratio) {
  for (const [colour_, width] of [["#000c", 5], ["#fff", 2.5]]) {
    context.strokeStyle = colour_;
    context.lineWidth = width * ratio;
    context.strokeRect(x, y, w, h);
  }
}

/** A map (grey; 128 is the limit) in colours: clear below 0.7 of the limit, yellow to red above. */
export function colour(map, onto) {
  onto.width = map.width;
  onto.height = map.height;
  const context = onto.getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0);
  const pixels = context.getImageData(0, 0, map.width, map.height);
  const data = new Uint32Array(pixels.data.buffer);
  for (let at = 0; at < data.length; at += 1) data[at] = COLOURS[data[at] & 255];
  context.putImageData(pixels, 0, 0);
}

const COLOURS = new Uint32Array(
  new Uint8Array(
    Array.from({ length: 256 }, (_, grey) => {
      const level = grey / LIMIT;
      const [green, alpha] = [255 * (2 - 1.6 * level), 255 * (2.2 * level - 1.54)];
      return [255, bounded(green), 0, bounded(alpha)];
    }).flat(),
  ).buffer,
);

function bounded(value) {
  return Math.round(Math.max(0, Math.min(255, value)));
}
