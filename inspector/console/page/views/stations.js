/** All stations beside each other: what each judged last, and which of them judges nothing. */

import { el, fill } from "../dom.js";
import { shapeOf } from "../film_strip.js";
import { live } from "../live.js";
import { name, why } from "../part.js";
import { free, loadPart, PartLayers } from "../part_layers.js";
import { moment, number, text } from "../words.js";
import { whatIsWrong } from "../wrong.js";

/** Between two drawings of a station: nobody reads twenty parts a second on a tile. */
const DRAWN_MS = 500;
/** Between two pictures of a station. */
const SEEN_MS = 2000;

export function open(root, app) {
  const ending = new AbortController();
  const tiles = new Map(app.session.stations.map((station) => [station, new Tile(station)]));
  const on = (kind, hear) => live.addEventListener(kind, hear, { signal: ending.signal });
  for (const kind of ["verdict", "picture", "status", "recent"]) {
    on(kind, ({ detail }) => tiles.get(detail.station)?.draw());
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

/** One station: its verdict as large as the tile allows, and what is wrong in place of it. */
class Tile {
  #station;
  #timer = 0;
  #drawnAt = -Infinity;
  #layers = new PartLayers({ silent: true, flat: 0.6 });
  #loading = false;
  #seenAt = -Infinity;
  #seen = "";
  #told = "";
  #closed = false;

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

  /** Draw it anew, at once or when the last time is long enough ago. */
  draw() {
    if (this.#timer || this.#closed || document.hidden) return;
    const wait = Math.max(0, DRAWN_MS - (performance.now() - this.#drawnAt));
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#drawnAt = performance.now();
      this.#draw();
      void this.#load();
    }, wait);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #draw() {
    const station = live.stations.get(this.#station);
    const [wrong] = whatIsWrong(station, live.connected);
    const last = station?.verdicts.at(-1);
    const { shift } = station ?? {};
    const told = JSON.stringify([wrong, last?.epoch, last?.seq, shift]);
    if (told === this.#told) return;
    this.#told = told;
    const isStopped = wrong?.kind === "stop";
    this.node.dataset.state = isStopped ? "stop" : (wrong?.kind ?? "well");
    this.node.dataset.verdict = isStopped || !last ? "" : last.verdict;
    // A verdict of a station that judges no longer must not look like one that was just given.
    if (isStopped) fill(this.banner, el("span", { "aria-hidden": "true" }, "■ "), text("stations.stop"));
    else if (last) fill(this.banner, shapeOf(last.verdict), text(`verdict.${last.verdict}`));
    else fill(this.banner, text("line.no_part"));
    this.wrong.hidden = !wrong;
    fill(this.wrong, wrong ? text(`wrong.${wrong.key}`, wrong.values) : "");
    if (last) fill(this.part, name(last), ` · ${moment(last.judged_us, false)} `, isStopped ? "" : why(last));
    else fill(this.part);
    fill(this.numbers, shift ? this.#figures(shift) : "");
  }

  #figures({ yield: share, per_minute: rate, failed, faults }) {
    const said = [
      text("stations.yield", { share: share === null ? "–" : `${number(share * 100, 1)} %` }),
      text("stations.rate", { rate: number(rate) }),
      text("stations.rejects", { failed: number(failed), faults: number(faults) }),
    ];
    return said.map((one) => el("span", {}, one));
  }

  /** The picture of the newest part that has one. */
  async #load() {
    if (this.#loading || this.#closed || performance.now() - this.#seenAt < SEEN_MS) return;
    const station = live.stations.get(this.#station);
    const part = station?.verdicts.findLast((one) => station.pictures.has(keyOf(one)));
    if (!part || keyOf(part) === this.#seen) return;
    this.#loading = true;
    this.#seenAt = performance.now();
    const known = station.pictures.get(keyOf(part));
    const found = await loadPart(this.#station, part, { kept: known.kept }).catch(() => null);
    this.#loading = false;
    this.#seen = keyOf(part);
    if (this.#closed) free(found);
    else if (found) this.#layers.draw(found, part);
  }
}

function keyOf(verdict) {
  return `${verdict.epoch}/${verdict.seq}`;
}
