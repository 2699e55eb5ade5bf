/**
 * What stations publish, as it comes: `live.stations` by name, and events on `live`:
 * `verdict`, `picture`, `status`, `gap`, `missed`, `job`, `photos`, `snapshot`, `connection`;
 * `detail` is the data.
 * It connects again by itself, and then has a new snapshot.
 */

const KEPT = 60;

class Live extends EventTarget {
  stations = new Map();
  connected = false;
  #source = null;

  open() {
    this.close();
    this.#source = new EventSource("/api/events");
    this.#source.addEventListener("snapshot", (event) => this.#snapshot(JSON.parse(event.data)));
    for (const kind of ["verdict", "picture", "status", "gap", "missed", "job", "photos"]) {
      this.#source.addEventListener(kind, (event) => this.#hear(kind, JSON.parse(event.data)));
    }
    this.#source.onopen = () => this.#say(true);
    this.#source.onerror = () => {
      this.#say(false);
      // The browser gives up for good where it got an answer that is no stream, as after a log-out.
      if (this.#source?.readyState === EventSource.CLOSED) setTimeout(() => this.#again(), 2000);
    };
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  #again() {
    if (this.#source?.readyState === EventSource.CLOSED) this.open();
  }

  #say(connected) {
    if (connected === this.connected) return;
    this.connected = connected;
    this.dispatchEvent(new CustomEvent("connection", { detail: { connected } }));
  }

  #snapshot(stations) {
    this.stations = new Map(stations.map((one) => [one.station, one]));
    this.#say(true);
    this.dispatchEvent(new CustomEvent("snapshot", { detail: stations }));
  }

  #hear(kind, data) {
    const station = this.stations.get(data.station);
    if (station && kind === "status") {
      station.status = data.status;
      station.alive = data.alive;
    } else if (station && kind === "verdict") {
      keep(station.verdicts, data.verdict);
      if (data.verdict.verdict !== "PASS") keep(station.rejects, data.verdict);
    }
    this.dispatchEvent(new CustomEvent(kind, { detail: data }));
  }
}

function keep(list, item) {
  list.push(item);
  if (list.length > KEPT) list.shift();
}

export const live = new Live();
