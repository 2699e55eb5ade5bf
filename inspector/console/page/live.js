/**
 * What stations publish, as it comes: `live.stations` by name, and events on `live`:
 * `verdict`, `picture`, `status`, `gap`, `recent`, `job`, `photos`, `snapshot`, `connection`;
 * `detail` is the data.
 * It connects again by itself, and then has a new snapshot.
 *
 * A station has `status`, `alive`, `shift` (counts), `verdicts` and `rejects` (the last ones, the
 * oldest first), and `pictures`: by `EPOCH/SEQ`, whether there is a picture of the part, `kept` by
 * the station alone or published, and the `area` of the camera's picture that it covers.
 */

import { get } from "./api.js";

const KEPT = 60;
const PICTURES = 300;
const SILENT_MS = 12000;
const MISSED_MS = 10000;

class Live extends EventTarget {
  stations = new Map();
  connected = false;
  #source = null;
  #watch = 0;
  #heard = 0;
  #renewed = 0;

  open() {
    this.close();
    const source = (this.#source = new EventSource("/api/events"));
    this.#heard = performance.now();
    const on = (kind, hear) =>
      source.addEventListener(kind, (event) => {
        this.#heard = performance.now();
        hear(event);
      });
    on("snapshot", (event) => this.#snapshot(JSON.parse(event.data)));
    for (const kind of ["verdict", "picture", "status", "gap", "recent", "job", "photos"]) {
      on(kind, (event) => this.#hear(kind, JSON.parse(event.data)));
    }
    on("missed", () => this.#missed());
    on("beat", () => this.#say(true));
    source.onerror = () => this.#say(false);
    this.#watch = setInterval(() => {
      if (source.readyState === EventSource.CLOSED) void this.#again();
      else if (performance.now() - this.#heard > SILENT_MS) {
        // The connection was cut without a word.
        this.#say(false);
        this.open();
      }
    }, 2000);
  }

  close() {
    clearInterval(this.#watch);
    this.#source?.close();
    this.#source = null;
  }

  /** The browser gives up for good where it got an answer that is no stream, as after a log-out. */
  async #again() {
    clearInterval(this.#watch);
    const source = this.#source;
    try {
      await get("/api/session");
    } catch (error) {
      // Who is logged out gets the form to log in, and this is opened after it.
      if (error.status === 401) return;
    }
    if (source === this.#source) this.open();
  }

  /** Too much came for this browser: a new snapshot tells what was left out. */
  #missed() {
    if (performance.now() - this.#renewed < MISSED_MS) return;
    this.#renewed = performance.now();
    this.open();
  }

  #say(connected) {
    if (connected === this.connected) return;
    this.connected = connected;
    this.dispatchEvent(new CustomEvent("connection", { detail: { connected } }));
  }

  #snapshot(stations) {
    this.stations = new Map(stations.map((one) => [one.station, mapped(one)]));
    this.#say(true);
    this.dispatchEvent(new CustomEvent("snapshot", { detail: stations }));
  }

  #hear(kind, data) {
    const station = this.stations.get(data.station);
    if (!station && kind !== "job") return;
    if (kind === "status") {
      Object.assign(station, { status: data.status, alive: data.alive, shift: data.shift });
    } else if (kind === "verdict") {
      // A verdict that came while the snapshot was made is in both.
      if (station.verdicts.some((one) => isSame(one, data.verdict))) return;
      keep(station.verdicts, data.verdict);
      if (data.verdict.verdict !== "PASS") keep(station.rejects, data.verdict);
      station.shift = data.shift;
    } else if (kind === "picture") {
      const { pictures } = station;
      pictures.set(`${data.epoch}/${data.seq}`, { kept: false, area: data.area });
      if (pictures.size > PICTURES) pictures.delete(pictures.keys().next().value);
    } else if (kind === "recent") {
      this.stations.set(data.station, mapped(data));
    }
    this.dispatchEvent(new CustomEvent(kind, { detail: data }));
  }
}

function mapped(station) {
  return { ...station, pictures: new Map(Object.entries(station.pictures)) };
}

function isSame(one, other) {
  return one.seq === other.seq && one.epoch === other.epoch;
}

function keep(list, item) {
  list.push(item);
  if (list.length > KEPT) list.shift();
}

export const live = new Live();
