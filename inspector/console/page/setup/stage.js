/** What a camera sees now, and the region that is drawn on it. */

import { load, ofStation } from "../api.js";
import { call, el, fill } from "../dom.js";
import { reason, text } from "../words.js";

const PERIOD_MS = 300;
/** While a model is trained, or waited for, the picture need not be a film. */
const SLOW_MS = 2000;
const TROUBLE_MS = 1000;
/** A region smaller than this is a slip of the finger; camera pixels. */
export const LEAST = 32;
const HANDLE_PX = 24;

/**
 * The live picture. `watch(camera)` begins, null ends; it rests while nobody sees the page. Pictures
 * go to `onframe(bitmap, size)`, drawn regions to `onregion(region)`; `ondrag()` hears of each change
 * before. `close` ends everything.
 */
export class Stage {
  #station;
  #told;
  #camera = null;
  #ending = new AbortController();
  #canvas = el("canvas", { role: "img", "aria-label": text("setup.no_picture") });
  #overlay = el("svg", { class: "overlay", "aria-hidden": "true", preserveAspectRatio: "xMidYMid meet" });
  #problem = el("p", { class: "problem", role: "status" });
  #resized = new ResizeObserver(() => this.#draw());
  #size = null;
  #region = null;
  #drag = null;
  #drawing = false;
  /** Whether a picture every two seconds will do. */
  slow = false;
  #seen = () => {};
  node = el("div", { class: "stage" }, this.#canvas, this.#overlay, this.#problem);

  constructor(station, told) {
    this.#station = station;
    this.#told = told;
    this.#resized.observe(this.node);
    const signal = this.#ending.signal;
    document.addEventListener("visibilitychange", () => this.#seen(), { signal });
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.#overlay.addEventListener(kind, (event) => this.#pointed(event), { signal });
    }
    void this.#loop();
  }

  get size() {
    return this.#size;
  }

  get dragging() {
    return this.#drag !== null;
  }

  get region() {
    return this.#region;
  }

  set region(region) {
    this.#region = region;
    this.#draw();
  }

  /** Whether a region can be drawn. */
  set drawing(on) {
    this.#drawing = on;
    this.node.classList.toggle("drawing", on);
    this.#draw();
  }

  watch(camera) {
    if (camera === this.#camera) return;
    this.#camera = camera;
    this.#size = null;
    fill(this.#problem, "");
    this.#canvas.width = this.#canvas.height = 1;
    call(this.#canvas, text("setup.no_picture"));
    this.#draw();
    this.#seen();
  }

  close() {
    this.#ending.abort();
    this.#resized.disconnect();
    this.#seen();
  }

  async #loop() {
    const ended = this.#ending.signal;
    while (!ended.aborted) {
      const camera = this.#camera;
      if (document.hidden || camera === null) {
        await new Promise((resolve) => { this.#seen = resolve; });
        continue;
      }
      const begun = performance.now();
      let pause = this.slow ? SLOW_MS : PERIOD_MS;
      try {
        const where = ofStation(this.#station, `preview/${encodeURIComponent(camera)}`);
        const answer = await load(where, ended);
        if (answer === null) pause = TROUBLE_MS;
        await this.#hear(answer, camera);
      } catch (error) {
        if (ended.aborted) return;
        pause = TROUBLE_MS;
        if (camera === this.#camera) this.#trouble(reason(error));
      }
      const rest = Math.max(30, pause - (performance.now() - begun));
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, rest);
        this.#seen = () => { clearTimeout(timer); resolve(); };
      });
    }
  }

  async #hear(answer, camera) {
    if (answer === null) {
      if (camera === this.#camera) this.#trouble(text("setup.not_ready"));
      return;
    }
    // Of the camera's own picture, by which a region is counted; what came is smaller.
    const { width, height } = JSON.parse(answer.headers.get("X-Picture"));
    const bitmap = await createImageBitmap(await answer.blob());
    if (camera === this.#camera && !this.#ending.signal.aborted) this.#show(bitmap, width, height, camera);
    bitmap.close();
  }

  #show(bitmap, width, height, camera) {
    const changed = this.#size?.width !== width || this.#size?.height !== height;
    this.#size = { width, height };
    this.#canvas.width = bitmap.width;
    this.#canvas.height = bitmap.height;
    this.#canvas.getContext("2d").drawImage(bitmap, 0, 0);
    call(this.#canvas, text("setup.picture_label", { camera, width, height }));
    fill(this.#problem, "");
    this.node.classList.remove("stale");
    if (changed) this.#draw();
    this.#told.onframe(bitmap, this.#size);
  }

  /** Say why there is no picture, as long as there is none. */
  told(said) {
    if (this.#size === null) this.#trouble(said);
  }

  #trouble(said) {
    if (this.#problem.textContent !== said) fill(this.#problem, said);
    this.node.classList.add("stale");
  }

  /** Camera pixels in one pixel of the screen. */
  get #unit() {
    const matrix = this.#overlay.getScreenCTM();
    return matrix ? 1 / matrix.a : 1;
  }

  #draw() {
    const size = this.#size;
    if (size === null) {
      fill(this.#overlay);
      return;
    }
    this.#overlay.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    const one = this.#region;
    if (one === null) {
      fill(this.#overlay);
      return;
    }
    const whole = `M0 0H${size.width}V${size.height}H0Z`;
    const inner = `M${one.x} ${one.y}h${one.w}v${one.h}h${-one.w}Z`;
    const unit = this.#unit;
    fill(
      this.#overlay,
      el("path", { class: "outside", d: `${whole} ${inner}`, "fill-rule": "evenodd" }),
      el("rect", { class: "edge", x: one.x, y: one.y, width: one.w, height: one.h }),
      this.#drawing &&
        corners(one).map(([x, y]) => el("circle", { class: "handle", cx: x, cy: y, r: 8 * unit })),
    );
  }

  #at(event) {
    const matrix = this.#overlay.getScreenCTM().inverse();
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
    return [clip(point.x, this.#size.width), clip(point.y, this.#size.height)];
  }

  #pointed(event) {
    if (!this.#drawing || this.#size === null) return;
    if (event.type === "pointerdown" && event.button === 0) {
      event.preventDefault();
      this.#overlay.setPointerCapture(event.pointerId);
      this.#drag = this.#begin(this.#at(event));
    } else if (this.#drag === null) {
      return;
    } else if (event.type === "pointermove") {
      this.region = this.#dragged(this.#at(event));
      this.#told.ondrag();
    } else {
      const found = event.type === "pointerup" ? this.#dragged(this.#at(event)) : null;
      const { before } = this.#drag;
      this.#drag = null;
      const drawn = found !== null && found.w >= LEAST && found.h >= LEAST;
      this.region = drawn ? found : before;
      if (drawn) this.#told.onregion(found);
      else this.#told.ondrag();
    }
  }

  #begin(at) {
    const before = this.#region;
    if (before !== null) {
      const reach = HANDLE_PX * this.#unit;
      const near = corners(before).findIndex(([x, y]) => Math.hypot(x - at[0], y - at[1]) <= reach);
      if (near >= 0) return { before, fixed: corners(before)[(near + 2) % 4], moved: null };
      const inside = at[0] > before.x && at[0] < before.x + before.w &&
        at[1] > before.y && at[1] < before.y + before.h;
      if (inside) return { before, fixed: null, moved: at };
    }
    return { before, fixed: at, moved: null };
  }

  #dragged([x, y]) {
    const { before, fixed, moved } = this.#drag;
    if (moved !== null) {
      const left = Math.min(Math.max(0, before.x + x - moved[0]), this.#size.width - before.w);
      const top = Math.min(Math.max(0, before.y + y - moved[1]), this.#size.height - before.h);
      return { ...before, x: Math.round(left), y: Math.round(top) };
    }
    const [left, right] = [Math.round(Math.min(x, fixed[0])), Math.round(Math.max(x, fixed[0]))];
    const [top, bottom] = [Math.round(Math.min(y, fixed[1])), Math.round(Math.max(y, fixed[1]))];
    return { x: left, y: top, w: right - left, h: bottom - top };
  }
}

/** In turn around the region, so that the one opposite is two further. */
function corners({ x, y, w, h }) {
  return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
}

function clip(value, most) {
  return Math.min(Math.max(0, value), most);
}
