/** A part as it comes: picture, heatmap and boxes as three layers, drawn once and then let go. */

import { load, ofPart, ofStation } from "./api.js";
import { el, fill } from "./dom.js";
import { colour } from "./picture.js";

/**
 * What there is to see of a part, or null: `picture` and `map` (ImageBitmaps, to be closed), `over`
 * (the rectangle of the picture that the map covers, 0 to 1) and `area` (the rectangle of the
 * camera's picture that `picture` covers, null where it is not known). `known` is what the station
 * of live.js says about the part's picture.
 */
export async function loadPart(station, verdict, known) {
  const live = known?.kept ? null : await published(station, verdict);
  return live ?? kept(station, verdict);
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
  const [picture, map] = await Promise.all(
    ["picture", "heatmap"].map((content) => load(ofPart(station, verdict, content)).catch(() => null)),
  );
  const drawn = picture && (await bitmap(await picture.blob()));
  if (!drawn) return null;
  const about = JSON.parse(picture.headers.get("X-Picture"));
  const { width: w, height: h, heatmap_area: seen } = about;
  const over = seen && { x: seen.x / w, y: seen.y / h, w: seen.w / w, h: seen.h / h };
  return { picture: drawn, map: map && (await bitmap(await map.blob())), over, area: about.frame_area };
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
      colour(map, this.#map);
      heat.drawImage(this.#map, over.x * width, over.y * height, over.w * width, over.h * height);
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
}
