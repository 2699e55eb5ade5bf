/** All stations beside each other: what each judged last, and which of them judges nothing. */

import { el, fill } from "../dom.js";
import { shapeOf } from "../film_strip.js";
import { live } from "../live.js";
import { name, when, why } from "../part.js";
import { free, loadPart, PartLayers } from "../part_layers.js";
import { number, text } from "../words.js";
import { stopOf, whatIsWrong } from "../wrong.js";

/** Between two parts on a tile: nobody reads twenty a second. */
const SHOWN_MS = 1000;
/** A part is drawn so long after its verdict, when its picture is there, too. */
const PICTURE_MS = 100;
/** A picture that takes longer comes after its verdict. */
const LONGEST_MS = 400;

export function open(root, app) {
  const ending = new AbortController();
  const tiles = new Map(app.session.stations.map((station) => [station, new Tile(station)]));
  const on = (kind, hear) => live.addEventListener(kind, hear, { signal: ending.signal });
  for (const kind of ["verdict", "picture", "status", "recent"]) {
    on(kind, ({ detail }) => tiles.get(detail.station)?.drawSoon());
  }
  const all = () => tiles.forEach((tile) => tile.draw());
  on("snapshot", all);
  on("connection", all);
  document.addEventListener("visibilitychange", all, { signal: ending.signal });
  fill(
    root,
    el("h1", { class: "unseen" }, text("stations.menu")),
    el("ul", { class: "tiles" }, [...tiles.values()].map((tile) => tile.node)),
  );
  all();
  return () => {
    ending.abort();
    tiles.forEach((tile) => tile.close());
  };
}

/** One station: a part a second, its verdict and its picture together, and what is wrong. */
class Tile {
  #station;
  #timer = 0;
  #drawnAt = -Infinity;
  #turn = 0;
  /** Of parts, `EPOCH/SEQ`: the one shown, the one whose picture is, and the last one asked for. */
  #part = "";
  #pictured = "";
  #asked = "";
  #told = "";
  #closed = false;
  #layers = new PartLayers({ silent: true, flat: 0.6 });

  constructor(station) {
    this.#station = station;
    this.#layers.clear();
    this.banner = el("p", { class: "banner" });
    this.part = el("p", { class: "which" });
    this.wrong = el("p", { class: "wrong", hidden: true });
    this.numbers = el("p", { class: "soft figures" });
    this.node = el(
      "li",
      {},
      el(
        "a",
        { href: `#/${encodeURIComponent(station)}/line` },
        el("strong", { class: "station" }, station),
        this.banner, this.part, this.wrong, this.numbers,
        el("span", { class: "seen" }, this.#layers.node),
      ),
    );
  }

  /** Draw it when its turn comes. */
  drawSoon() {
    if (this.#timer || this.#closed || document.hidden) return;
    const wait = Math.max(PICTURE_MS, SHOWN_MS - (performance.now() - this.#drawnAt));
    this.#timer = setTimeout(() => this.draw(), wait);
  }

  draw() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    // Before the first snapshot nothing is known, which is no fault of a station.
    if (this.#closed || document.hidden || live.stations.size === 0) return;
    this.#drawnAt = performance.now();
    void this.#drawPart(this.#turn += 1);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #drawPart(turn) {
    const station = live.stations.get(this.#station);
    const part = lastOf(station);
    const key = part && keyOf(part);
    const known = part && station.pictures.get(key);
    let found = null;
    if (known && ![this.#pictured, this.#asked].includes(key)) {
      this.#asked = key;
      const loading = loadPart(this.#station, part, { kept: known.kept }).catch(() => null);
      const late = new Promise((done) => setTimeout(done, LONGEST_MS, undefined));
      found = await Promise.race([loading, late]);
      if (found === undefined) void loading.then((one) => this.#drawLate(one, part));
    }
    if (this.#closed || turn !== this.#turn) {
      // It is asked for again if its part is still the one to show.
      if (found) this.#asked = "";
      return free(found);
    }
    this.#part = key ?? "";
    if (found) this.#picture(found, part);
    else if (key !== this.#pictured) {
      this.#layers.clear();
      this.#pictured = "";
    }
    this.#tell(station, part);
  }

  #drawLate(found, part) {
    if (found && !this.#closed && this.#part === keyOf(part)) this.#picture(found, part);
    else free(found);
  }

  #picture(found, part) {
    this.#layers.draw(found, part);
    this.#pictured = keyOf(part);
  }

  #tell(station, part) {
    const found = whatIsWrong(station, live.connected);
    const stop = stopOf(found, station);
    const wrong = stop ?? found[0];
    const told = JSON.stringify([wrong, stop, part && keyOf(part), station?.shift, station?.alive]);
    if (told === this.#told) return;
    this.#told = told;
    this.node.dataset.state = stop ? "stop" : wrong ? "warning" : "well";
    this.node.dataset.verdict = stop || !part ? "" : part.verdict;
    // A verdict of a station that judges no longer must not look like one that was just given.
    if (stop) {
      const words = stop.key === "page" ? "frame.no_page" : "stations.stop";
      fill(this.banner, el("span", { "aria-hidden": "true" }, "■ "), text(words));
    } else if (part) fill(this.banner, shapeOf(part.verdict), text(`verdict.${part.verdict}`));
    else fill(this.banner, text("line.no_part"));
    this.wrong.hidden = !wrong;
    fill(this.wrong, wrong ? text(`wrong.${wrong.key}`, wrong.values) : "");
    fill(this.part, part ? this.#named(station, part, stop) : "");
    fill(this.numbers, station?.shift ? this.#figures(station.shift, !stop && station.alive) : "");
  }

  #named(station, part, stop) {
    const camera = station.status?.cameras.length > 1 ? ` · ${part.camera}` : "";
    const purpose = part.purpose === "production" ? "" : ` · ${text(`line.${part.purpose}`)}`;
    const said = stop ? "" : why(part);
    return [name(part), `${camera} · ${when(part.judged_us)}${purpose}`, said && ` · ${said}`];
  }

  #figures({ yield: share, per_minute: rate, failed, faults, complete }, isNow) {
    const said = [
      complete
        ? text("stations.yield", { share: share === null ? "–" : `${number(share * 100, 1)} %` })
        : text("stations.counting"),
      text("stations.rate", { rate: number(isNow ? rate : null) }),
      text("stations.rejects", { failed: number(failed), faults: number(faults) }),
    ];
    return said.map((one) => el("span", {}, one));
  }
}

/** The part to show: of the newest of each camera one that did not pass, or else the newest. */
function lastOf(station) {
  const newest = new Map();
  for (const one of station?.verdicts ?? []) {
    newest.delete(one.camera);
    newest.set(one.camera, one);
  }
  const each = [...newest.values()];
  return each.findLast((one) => one.verdict !== "PASS") ?? each.at(-1) ?? null;
}

function keyOf(verdict) {
  return `${verdict.epoch}/${verdict.seq}`;
}
