/** A part's picture with its heatmap over it and its regions boxed. */

import { call, el } from "./dom.js";
import { free, loadPart, PartLayers } from "./part_layers.js";
import { text } from "./words.js";

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
  #layers = new PartLayers({ silent: true });
  #node;
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
    this.#node = el("button", { class: "part", type: "button", disabled: true, onclick: open }, this.#layers.node);
    this.clear();
    this.opacity = this.#opacity;
  }

  get node() {
    return this.#node;
  }

  get opacity() {
    return this.#opacity;
  }

  set opacity(value) {
    this.#opacity = Number(value);
    this.#layers.opacity = this.#opacity;
  }

  get boxes() {
    return this.#boxes;
  }

  set boxes(value) {
    this.#boxes = value;
    this.#layers.boxes = value;
  }

  /** Show no part; `label` says of it what a screen reader reads. */
  clear(label = "") {
    this.#giveUp();
    this.#layers.clear();
    this.#put(null, label);
  }

  /** Show nothing any more, and free what it holds. */
  close() {
    this.clear();
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
      found = await loadPart(station, verdict, { ...options, signal: stop.signal });
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
    if (found) this.#layers.draw(found, verdict);
    else this.#layers.clear();
    this.#put(found && { station, verdict, label }, label);
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
    this.#shown = part;
    this.#node.classList.remove("waiting");
    this.#node.disabled = part === null;
    const open = part === null ? "" : text("picture.large");
    call(this.#node, [label || text("picture.picture"), open].filter(Boolean).join(". "));
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
