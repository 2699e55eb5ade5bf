/**
 * What stations publish, as it comes: `live.stations` by name, and events on `live`:
 * `verdict`, `picture`, `status`, `gap`, `recent`, `job`, `photos`, `snapshot`, `connection`;
 * `detail` is the data.
 * It connects again by itself, and then has a new snapshot. Tabs of one browser share a connection.
 *
 * A station has `status`, `alive`, `shift` (counts), `verdicts` and `rejects` (the last ones, the
 * oldest first), and `pictures`: by `EPOCH/SEQ`, whether there is a picture of the part, `kept` by
 * the station alone or published, and the `area` of the camera's picture that it covers.
 */

import { get } from "./api.js";
import { Stream } from "./stream.js";

const KEPT = 60;
const PICTURES = 300;
const SILENT_MS = 12000;
const MISSED_MS = 10000;

class Live extends EventTarget {
  stations = new Map();
  connected = false;
  #stream = null;
  #watch = 0;
  #heard = 0;
  #renewed = 0;

  open() {
    this.close();
    this.#heard = performance.now();
    this.#stream = new Stream({
      hear: (kind, text) => {
        this.#heard = performance.now();
        if (kind === "snapshot") this.#snapshot(JSON.parse(text));
        else if (kind === "beat") this.#say(true);
        else if (kind === "missed") this.#missed();
        else this.#hear(kind, JSON.parse(text));
      },
      lost: () => {
        // Whoever has the stream is there, and connects again by itself.
        this.#heard = performance.now();
        this.#say(false);
      },
      snapshot: () => (this.connected ? JSON.stringify([...this.stations.values()].map(plain)) : ""),
    });
    this.#watch = setInterval(() => {
      if (this.#stream.isRefused) void this.#again();
      else if (performance.now() - this.#heard > SILENT_MS) {
        // The connection was cut without a word, or the tab that has it is held up.
        this.#heard = performance.now();
        this.#say(false);
        this.#stream.take();
      }
    }, 2000);
  }

  close() {
    clearInterval(this.#watch);
    this.#stream?.close();
    this.#stream = null;
  }

  /** The browser gives up for good where it got an answer that is no stream, as after a log-out. */
  async #again() {
    clearInterval(this.#watch);
    const stream = this.#stream;
    try {
      await get("/api/session");
    } catch (error) {
      // Who is logged out gets the form to log in, and this is opened after it.
      if (error.status === 401) {
        if (stream === this.#stream) this.close();
        return;
      }
    }
    if (stream === this.#stream) this.open();
  }

  /** Too much came for this browser: a new snapshot tells what was left out, to all tabs. */
  #missed() {
    if (!this.#stream.leads || performance.now() - this.#renewed < MISSED_MS) return;
    this.#renewed = performance.now();
    this.#stream.take();
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

/** As the server tells a station. */
function plain(station) {
  return { ...station, pictures: Object.fromEntries(station.pictures) };
}

function isSame(one, other) {
  return one.seq === other.seq && one.epoch === other.epoch;
}

function keep(list, item) {
  list.push(item);
  if (list.length > KEPT) list.shift();
}

export const live = new Live();
