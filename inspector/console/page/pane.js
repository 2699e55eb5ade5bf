/** One camera on the wall screen: its last verdict and picture. */

import { el, fill } from "./dom.js";
import { shapeOf } from "./film_strip.js";
import { live } from "./live.js";
import { called, cureOf, name, why } from "./part.js";
import { free, loadPart, PartLayers } from "./part_layers.js";
import { moment, number, text } from "./words.js";

/** After so long a picture is taken away that is not of the part whose verdict is shown. */
const STALE_MS = 600;
const MARKS = 500;
/** Pictures that load at a time: the next one need not wait until this one is unpacked. */
const LOADS = 2;

/** Shows one camera: its last verdict and picture, or an earlier part that somebody looks at. */
export class Pane {
  #station;
  #verdict = null;
  #pinned = null;
  #newest = null;
  #loads = 0;
  #asked = null;
  #asks = 0;
  #taken = 0;
  #turn = 0;
  #ready = null;
  #shown = null;
  #shownAt = 0;
  #stale = 0;
  #told = "";
  #named = false;
  #tell;
  #closed = false;
  layers = new PartLayers();

  constructor(station, camera, tell) {
    this.#station = station;
    this.#tell = tell;
    this.camera = el("p", { class: "camera", hidden: true }, camera);
    this.banner = el("div", { class: "banner" });
    this.part = el("p", { class: "part_id" });
    this.meter = el("div", { class: "meter", hidden: true }, el("i", {}));
    this.score = el("p", { class: "score" });
    this.reason = el("p", { class: "reason" });
    this.cure = el("p", { class: "cure" });
    this.said = el("bdi", { lang: "en" });
    this.detail = el("details", { class: "detail soft", hidden: true }, el("summary", {}, text("frame.original")), this.said);
    this.caption = el("p", { class: "caption" });
    this.none = el("p", { class: "none soft" }, text("line.no_part"));
    this.earlier = el(
      "p",
      { class: "earlier", hidden: true },
      el("span", {}),
      el("button", { onclick: () => tell.live() }, `▶ ${text("line.live")}`),
    );
    this.closer = el(
      "button",
      { class: "plain closer", hidden: true, onclick: () => tell.closer(this.#verdict) },
      text("line.closer"),
    );
    this.layers.clear();
    this.node = el(
      "article",
      { class: "pane", "aria-label": camera },
      el(
        "div",
        { class: "inner" },
        el("div", { class: "seen" }, this.layers.node, this.none, this.caption),
        el(
          "div",
          { class: "told", tabindex: 0, role: "group", "aria-label": text("line.verdict") },
          this.camera, this.earlier, this.banner, this.part, this.score, this.meter,
          this.reason, this.cure, this.closer, this.detail,
        ),
      ),
    );
  }

  set named(value) {
    this.#named = value;
    this.camera.hidden = !value || this.#pinned !== null;
  }

  /** The camera's newest verdict came. */
  hear(verdict) {
    if (isSame(this.#newest, verdict)) return this.look();
    this.#newest = verdict;
    if (this.#pinned) return;
    this.#verdict = verdict;
    this.look();
    this.#tell.drawSoon();
  }

  /** Look at an earlier part; null: at the live ones again. */
  pin(verdict) {
    if (verdict === null && this.#pinned === null) return;
    this.#pinned = verdict;
    this.#verdict = verdict ?? this.#newest;
    // What still loads is no longer wanted.
    this.#turn += 1;
    this.#loads = 0;
    this.#drop();
    this.#shown = this.#asked = null;
    this.layers.clear();
    this.look();
    this.#tell.draw();
  }

  /** Load the picture of the part that is shown, if there is one; each is asked for once. */
  look() {
    const verdict = this.#verdict;
    if (verdict === null || this.#loads >= LOADS || document.hidden || this.#closed) return;
    const known = this.#known(verdict);
    if (!(known || this.#pinned) || isSame(this.#asked, verdict)) return;
    this.#asked = verdict;
    void this.#load(verdict, known, this.#turn);
  }

  async #load(verdict, known, turn) {
    const number = (this.#asks += 1);
    this.#loads += 1;
    const found = await loadPart(this.#station, verdict, { kept: known?.kept }).catch(() => null);
    if (turn === this.#turn) this.#loads -= 1;
    if (this.#closed || turn !== this.#turn || number < this.#taken) {
      free(found);
    } else if (found) {
      this.#taken = number;
      this.#drop();
      this.#ready = { found, verdict };
      this.#tell.draw();
    } else if (isSame(verdict, this.#verdict)) {
      // The picture is gone meanwhile.
      this.#taken = number;
      this.#drop();
      this.#shown = verdict;
      this.layers.clear();
      this.#tell.draw();
    }
    // A part that was overtaken while two were loaded is left out.
    this.look();
  }

  draw() {
    if (this.#closed) return;
    this.#drawVerdict();
    if (this.#ready) {
      const { found, verdict } = this.#ready;
      this.#ready = null;
      this.layers.draw(found, verdict, text("line.picture", { part: called(verdict) }));
      this.#shown = verdict;
      this.#shownAt = performance.now();
      tell("part", verdict);
    }
    const shown = this.layers.node.hidden ? null : this.#shown;
    const mismatch = shown !== null && !isSame(shown, this.#verdict);
    fill(this.caption, mismatch ? text("line.picture", { part: called(shown) }) : "");
    this.none.hidden = shown !== null;
    if (this.#verdict) fill(this.none, text("line.no_picture"));
    if (mismatch) this.#stale ||= setTimeout(() => this.#dropStale(), STALE_MS);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#stale);
    this.#drop();
  }

  #known(verdict) {
    return live.stations.get(this.#station)?.pictures.get(`${verdict.epoch}/${verdict.seq}`);
  }

  #drop() {
    this.#ready?.found.picture.close();
    this.#ready?.found.map?.close();
    this.#ready = null;
  }

  #dropStale() {
    this.#stale = 0;
    if (!isSame(this.#shown, this.#verdict) && performance.now() - this.#shownAt >= STALE_MS) {
      this.layers.clear();
    }
    this.#tell.draw();
  }

  #drawVerdict() {
    const verdict = this.#verdict;
    const key = verdict && `${verdict.epoch}/${verdict.seq}/${this.#pinned !== null}`;
    if (verdict === null || key === this.#told) return;
    this.#told = key;
    tell("verdict", verdict);
    if (this.node.dataset.verdict !== verdict.verdict) {
      this.node.dataset.verdict = verdict.verdict;
      const words = text(`verdict.${verdict.verdict}`);
      const lines = words.split(" ");
      const spans = lines.map((one, at) => el("span", {}, at > 0 ? ` ${one}` : one));
      fill(this.banner, shapeOf(verdict.verdict), el("strong", {}, spans));
      this.banner.style.setProperty("--width", widthOf(words));
      this.banner.style.setProperty("--longest", Math.max(...lines.map(widthOf)));
      this.banner.style.setProperty("--lines", lines.length);
    }
    this.node.classList.toggle("pinned", this.#pinned !== null);
    this.named = this.#named;
    this.earlier.hidden = this.closer.hidden = this.#pinned === null;
    if (this.#pinned) {
      const at = moment(verdict.judged_us, false);
      fill(this.earlier.firstChild, text("line.earlier", { at }));
    }
    const purpose = verdict.purpose === "production" ? "" : ` · ${text(`line.${verdict.purpose}`)}`;
    fill(this.part, name(verdict), ` · ${moment(verdict.judged_us, false)}${purpose}`);
    const { score } = verdict;
    this.meter.hidden = score === null;
    this.score.hidden = score === null;
    if (score !== null) {
      fill(this.score, text("line.score", { score: number(score, 2) }));
      this.meter.firstChild.style.width = `${Math.min(100, score * 50)}%`;
    }
    fill(this.reason, why(verdict));
    fill(this.cure, cureOf(verdict));
    fill(this.said, verdict.detail);
    this.detail.hidden = !verdict.detail;
  }
}

let marks = 0;

/** The pixels of a part, or the words of a verdict, are drawn: for whoever measures the delay. */
function tell(what, verdict) {
  const shown = `${verdict.epoch}/${verdict.seq}`;
  document.body.dataset[what === "part" ? "shown" : "told"] = shown;
  performance.mark(`${what} shown`, { detail: shown });
  marks += 1;
  if (marks % MARKS === 0) performance.clearMarks();
}

function isSame(one, other) {
  return one && other ? one.seq === other.seq && one.epoch === other.epoch : one === other;
}

/** How wide a word is at a font size of 1, about; a Chinese character is as wide as it is high. */
function widthOf(words) {
  return [...words].reduce((sum, one) => sum + (one > "\u2e80" ? 1 : 0.66), 0);
}
