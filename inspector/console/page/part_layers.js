/** A part drawn: picture, heatmap and boxes as three layers, drawn once and then let go. */

import { load, ofPart, ofStation } from "./api.js";
import { call, el, fill } from "./dom.js";

const LIMIT = 128;
const WHOLE = { x: 0, y: 0, w: 1, h: 1 };
/** After so long a picture is given up, as where the network is cut. */
const LONGEST_MS = 8000;

/**
 * What there is to see of a part, or null: `picture` and `map` (ImageBitmaps, to be closed), `over`
 * (the rectangle of the picture that the map covers, 0 to 1) and `area` (the rectangle of the
 * camera's picture that `picture` covers, null where it is not known). Options: `kept`: prefer what
 * the station kept, the whole frame, over what was published with the verdict, which is quicker;
 * `large`: of twice the size; `signal` gives it up. Throws Refused where nothing could be loaded and
 * one of both was refused.
 */
export async function loadPart(station, verdict, options = {}) {
  const signal = options.signal ?? AbortSignal.timeout(LONGEST_MS);
  let problem = null;
  for (const look of options.kept ? [kept, published] : [published, kept]) {
    try {
      const found = await look(station, verdict, { ...options, signal });
      if (found) return found;
    } catch (error) {
      // What was published may still be here although the station does not answer.
      problem ??= error;
    }
  }
  if (problem) throw problem;
  return null;
}

async function published(station, verdict, { signal }) {
  const where = `published/${encodeURIComponent(verdict.epoch)}/${verdict.seq}`;
  const answer = await load(ofStation(station, where), signal);
  if (answer === null) return null;
  const data = await answer.arrayBuffer();
  const begin = 4 + new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, begin - 4)));
  const [picture, map] = await Promise.all([
    bitmap(new Blob([new Uint8Array(data, begin, head.jpeg)])),
    bitmap(new Blob([new Uint8Array(data, begin + head.jpeg)])),
  ]);
  return picture && { picture, map, over: WHOLE, area: head.area };
}

async function kept(station, verdict, { large, signal }) {
  const [picture, map] = await Promise.allSettled(
    [large ? "large" : "picture", "heatmap"].map((content) => load(ofPart(station, verdict, content), signal)),
  );
  if (picture.status === "rejected") throw picture.reason;
  const drawn = picture.value && (await bitmap(await picture.value.blob()));
  if (!drawn) return null;
  const { width: w, height: h, heatmap_area: seen, frame_area: area } = JSON.parse(picture.value.headers.get("X-Picture"));
  const over = seen && { x: seen.x / w, y: seen.y / h, w: seen.w / w, h: seen.h / h };
  return { picture: drawn, map: map.value ? await bitmap(await map.value.blob()) : null, over, area };
}

/** Free what `loadPart` returned and nobody draws. */
export function free(found) {
  found?.picture.close();
  found?.map?.close();
}

function bitmap(blob) {
  return createImageBitmap(blob).catch(() => null);
}

/** `node` shows one part after another; `opacity` of the heatmap (0 to 1) may be set at any time. */
export class PartLayers {
  #picture = el("canvas", {});
  #heat = null;
  #flat;
  #boxes = el("svg", { "aria-hidden": "true" });
  #map = new OffscreenCanvas(1, 1);

  /**
   * `silent`: what stands beside it says enough to a screen reader. `flat`: the heatmap's opacity where
   * it never changes; it is then drawn into the picture, because a browser puts all canvases together
   * anew with every frame.
   */
  constructor({ silent = false, flat = null } = {}) {
    const heard = silent ? { "aria-hidden": "true" } : { role: "img" };
    this.#flat = flat;
    if (flat === null) this.#heat = el("canvas", {});
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
    for (const canvas of [this.#picture, this.#heat].filter(Boolean)) {
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
    }
    const seen = this.#picture.getContext("2d");
    seen.drawImage(picture, 0, 0);
    const heat = this.#heat?.getContext("2d") ?? seen;
    if (heat !== seen) heat.clearRect(0, 0, width, height);
    if (map && over) {
      colour(map, this.#map);
      heat.globalAlpha = this.#flat ?? 1;
      heat.drawImage(this.#map, over.x * width, over.y * height, over.w * width, over.h * height);
      heat.globalAlpha = 1;
    }
    this.#box(verdict, area, width, height);
    free(found);
    if (label !== null) call(this.node, label);
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
      (area ? verdict.regions : []).map((one) => {
        const at = {
          x: (one.x - area.x) * scale, y: (one.y - area.y) * scale,
          width: one.w * scale, height: one.h * scale,
        };
        // A white frame with a dark edge shows on every part.
        return [el("rect", { class: "edge", ...at }), el("rect", at)];
      }),
    );
  }
}

/** A map (grey; 128 is the limit) in colours: clear below 0.7 of the limit, yellow to red above. */
function colour(map, onto) {
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
