/** A part as it comes: picture, heatmap and boxes as three layers, drawn once and then let go. */

import { el, fill } from "./dom.js";
import { ofPart, ofStation } from "./api.js";

const COLOURS = colours();

/**
 * What there is to see of a part, or null: `picture` and `map` (ImageBitmaps, to be closed), `over`
 * (the rectangle of the picture that the map covers, 0 to 1) and `area` (the rectangle of the
 * camera's picture that `picture` covers, null where it is not known). `known` is what the station
 * of live.js says about the part's picture.
 */
export async function loadPart(station, verdict, known) {
  return known?.kept ? kept(station, verdict) : published(station, verdict);
}

async function published(station, verdict) {
  const where = `published/${encodeURIComponent(verdict.epoch)}/${verdict.seq}`;
  const answer = await fetch(ofStation(station, where), { cache: "no-store" }).catch(() => null);
  if (answer?.status === 401) document.dispatchEvent(new Event("logged-out"));
  if (answer?.status !== 200) return null;
  const data = await answer.arrayBuffer();
  const begin = 4 + new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, begin - 4)));
  const [picture, map] = await Promise.all([
    bitmap(new Blob([data.slice(begin, begin + head.jpeg)])),
    bitmap(new Blob([data.slice(begin + head.jpeg)])),
  ]);
  return picture && { picture, map, over: WHOLE, area: head.area };
}

async function kept(station, verdict) {
  const [about, picture, map] = await Promise.all(
    ["about", "picture", "heatmap"].map((content) =>
      fetch(ofPart(station, verdict, content))
        .then((answer) => (answer.ok ? (content === "about" ? answer.json() : answer.blob()) : null))
        .then((found) => (content === "about" || found === null ? found : bitmap(found)))
        .catch(() => null),
    ),
  );
  if (!picture || !about) {
    map?.close();
    picture?.close();
    return null;
  }
  const { width: w, height: h, heatmap_area: seen } = about;
  const over = seen && { x: seen.x / w, y: seen.y / h, w: seen.w / w, h: seen.h / h };
  return { picture, map, over, area: about.origin === "kept" ? { x: 0, y: 0, w, h } : null };
}

const WHOLE = { x: 0, y: 0, w: 1, h: 1 };

function bitmap(blob) {
  return createImageBitmap(blob).catch(() => null);
}

/** `node` shows one part after another; `opacity` of the heatmap (0 to 1) may be set at any time. */
export class PartLayers {
  #picture = el("canvas", {});
  #heat = el("canvas", {});
  #boxes = el("svg", { "aria-hidden": "true" });
  #map = new OffscreenCanvas(1, 1);

  /** `silent`: what stands beside it says enough to a screen reader. */
  constructor(silent = false) {
    const heard = silent ? { "aria-hidden": "true" } : { role: "img" };
    this.node = el("div", { class: "layers", ...heard }, this.#picture, this.#heat, this.#boxes);
  }

  set opacity(value) {
    this.#heat.style.opacity = value;
  }

  set boxes(value) {
    this.#boxes.style.visibility = value ? "visible" : "hidden";
  }

  /** Show what `loadPart` returned, whose bitmaps are closed; `label` is for a screen reader. */
  draw(found, verdict, label = null) {
    const { picture, map, over, area } = found;
    const { width, height } = picture;
    for (const canvas of [this.#picture, this.#heat]) {
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
    }
    this.#picture.getContext("2d").drawImage(picture, 0, 0);
    const heat = this.#heat.getContext("2d");
    heat.clearRect(0, 0, width, height);
    if (map && over) {
      const drawn = this.#coloured(map);
      heat.drawImage(drawn, over.x * width, over.y * height, over.w * width, over.h * height);
    }
    this.#box(verdict, area, width, height);
    picture.close();
    map?.close();
    if (label !== null) this.node.setAttribute("aria-label", label);
    this.node.hidden = false;
  }

  /** Show nothing. */
  clear() {
    this.node.hidden = true;
  }

  #box(verdict, area, width, height) {
    this.#boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const scale = area ? width / area.w : 0;
    fill(
      this.#boxes,
      (area ? verdict.regions : []).map((one) =>
        el("rect", {
          x: (one.x - area.x) * scale, y: (one.y - area.y) * scale,
          width: one.w * scale, height: one.h * scale,
        }),
      ),
    );
  }

  /** A map (grey; 128 is the limit) in colours: clear below half the limit, yellow to red above. */
  #coloured(map) {
    const made = this.#map;
    if (made.width !== map.width || made.height !== map.height) {
      made.width = map.width;
      made.height = map.height;
    }
    const context = made.getContext("2d", { willReadFrequently: true });
    context.drawImage(map, 0, 0);
    const image = context.getImageData(0, 0, map.width, map.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let at = 0; at < pixels.length; at += 1) pixels[at] = COLOURS[pixels[at] & 255];
    context.putImageData(image, 0, 0);
    return made;
  }
}

/** The colour of each level of a map, as a canvas holds it: red in the lowest byte. */
function colours() {
  const found = new Uint32Array(256);
  for (let grey = 0; grey < 256; grey += 1) {
    const level = grey / 128;
    const green = Math.round(Math.max(0, Math.min(255, 255 * (2 - 1.6 * level))));
    const alpha = Math.round(Math.max(0, Math.min(255, 255 * (1.6 * level - 0.8))));
    found[grey] = ((alpha << 24) | (green << 8) | 255) >>> 0;
  }
  return found;
}
