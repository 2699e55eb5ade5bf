/** A part's picture with its heatmap over it and its regions boxed. */

import { ofPart } from "./api.js";
import { el } from "./dom.js";

const LIMIT = 128;
const BOXED = "#ffffff";

/**
 * A canvas that shows one part after another. `show(station, verdict)` draws a part: from what was
 * published with the verdict where that is still there, else from what the station kept; it resolves
 * to whether there was a picture. `opacity` (0 to 1) of the heatmap and `boxes` may be set at any time.
 */
export class PartPicture {
  #canvas = el("canvas", { class: "part", role: "img" });
  #number = 0;
  #parts = null;
  #opacity = 0.6;
  #boxes = true;

  get node() {
    return this.#canvas;
  }

  get opacity() {
    return this.#opacity;
  }

  set opacity(value) {
    this.#opacity = value;
    this.#draw();
  }

  set boxes(value) {
    this.#boxes = value;
    this.#draw();
  }

  /** Show no part; `label` says of it what a screen reader reads. */
  clear(label = "") {
    this.#number += 1;
    this.#parts = null;
    this.#canvas.setAttribute("aria-label", label);
    this.#draw();
  }

  async show(station, verdict, label = "") {
    const number = ++this.#number;
    this.#canvas.setAttribute("aria-label", label);
    const parts = (await this.#published(station, verdict)) ?? (await this.#kept(station, verdict));
    // Another part may have been asked for meanwhile.
    if (number !== this.#number) return true;
    this.#parts = parts;
    this.#draw();
    return parts !== null;
  }

  async #published(station, verdict) {
    const [picture, map] = await Promise.all([
      load(ofPart(station, verdict, "model")),
      load(ofPart(station, verdict, "map")),
    ]);
    if (picture === null) return null;
    const area = { x: 0, y: 0, w: picture.width, h: picture.height };
    const about = await area_of(station, verdict);
    return { picture, heat: map && coloured(map), area, verdict, seen: about?.heatmap_area ?? null };
  }

  async #kept(station, verdict) {
    const picture = await load(ofPart(station, verdict, "picture"));
    if (picture === null) return null;
    const [map, about] = await Promise.all([
      load(ofPart(station, verdict, "heatmap")),
      area_of(station, verdict),
    ]);
    const scale = about ? picture.width / about.width : 1;
    const seen = about?.heatmap_area ?? null;
    const area = seen && {
      x: seen.x * scale, y: seen.y * scale, w: seen.w * scale, h: seen.h * scale,
    };
    const whole = { x: 0, y: 0, w: about?.width ?? picture.width, h: about?.height ?? picture.height };
    return { picture, heat: map && coloured(map), area, verdict, seen: whole };
  }

  #draw() {
    const canvas = this.#canvas;
    const context = canvas.getContext("2d");
    if (this.#parts === null) {
      canvas.width = canvas.height = 1;
      return;
    }
    const { picture, heat, area, verdict, seen } = this.#parts;
    canvas.width = picture.width;
    canvas.height = picture.height;
    context.drawImage(picture, 0, 0);
    if (heat && area && this.#opacity > 0) {
      context.globalAlpha = this.#opacity;
      context.drawImage(heat, area.x, area.y, area.w, area.h);
      context.globalAlpha = 1;
    }
    if (!this.#boxes || seen === null) return;
    const scale = picture.width / seen.w;
    context.strokeStyle = BOXED;
    context.lineWidth = Math.max(2, picture.width / 250);
    for (const one of verdict.regions) {
      const [x, y] = [(one.x - seen.x) * scale, (one.y - seen.y) * scale];
      context.strokeRect(x, y, one.w * scale, one.h * scale);
    }
  }
}

/** The picture at an address, null where there is none. */
async function load(address) {
  const answer = await fetch(address, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return null;
  return createImageBitmap(await answer.blob()).catch(() => null);
}

async function area_of(station, verdict) {
  if (verdict.regions.length === 0) return null;
  const answer = await fetch(ofPart(station, verdict, "about")).catch(() => null);
  return answer?.ok ? answer.json() : null;
}

/** A map (grey; 128 is the limit) in colours: clear below half the limit, yellow to red above. */
function coloured(map) {
  const made = new OffscreenCanvas(map.width, map.height);
  const context = made.getContext("2d");
  context.drawImage(map, 0, 0);
  const image = context.getImageData(0, 0, map.width, map.height);
  const data = image.data;
  for (let at = 0; at < data.length; at += 4) {
    const level = data[at] / LIMIT;
    data[at] = 255;
    data[at + 1] = Math.max(0, Math.min(255, 255 * (2 - 1.6 * level)));
    data[at + 2] = 0;
    data[at + 3] = Math.max(0, Math.min(255, 255 * (1.6 * level - 0.8)));
  }
  context.putImageData(image, 0, 0);
  return made;
}
