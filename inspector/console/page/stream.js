/**
 * The server's events, of which all tabs of a browser share one stream: a browser opens no more than
 * six connections to a server, and each stream is one for as long as its tab is open.
 *
 * One tab leads: it has the lock, receives, and hands on to the others what it hears. When it closes,
 * the next one that waits for the lock leads at once. A tab that comes into view takes the lock away,
 * because a browser may hold up the tabs that nobody sees. A browser without locks or channels has a
 * stream for each tab.
 */

const NAME = "line-inspector events";
const KINDS = ["snapshot", "verdict", "picture", "status", "gap", "recent", "job", "photos", "missed", "beat"];

export class Stream {
  #tell;
  #source = null;
  #channel = null;
  #waiting = null;
  #release = () => {};
  #turn = 0;
  #ending = new AbortController();
  #id = `${Math.random()}`;
  /** Whether this tab receives by itself. */
  leads = false;

  /**
   * `tell.hear(kind, text)` hears the events, `tell.lost()` that the connection is interrupted, in
   * whichever tab. `tell.snapshot()` is what a tab that comes later is told; "" for nothing.
   */
  constructor(tell) {
    this.#tell = tell;
    if (!("locks" in navigator) || !("BroadcastChannel" in window)) {
      this.leads = true;
      this.#connect();
      return;
    }
    this.#channel = new BroadcastChannel(NAME);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    const { signal } = this.#ending;
    const seen = () => document.visibilityState === "visible" && !this.leads && this.take();
    document.addEventListener("visibilitychange", seen, { signal });
    if (document.visibilityState === "visible") this.take();
    else {
      this.#channel.postMessage({ asks: this.#id });
      this.#wait();
    }
  }

  /** Whether the browser has given up, as after an answer that is no stream. */
  get isRefused() {
    return this.#source?.readyState === EventSource.CLOSED;
  }

  /** Receive in this tab from now on, by a new connection. */
  take() {
    if (this.leads) this.#connect();
    else {
      this.#waiting?.abort();
      void this.#hold({ steal: true });
    }
  }

  close() {
    this.#ending.abort();
    this.#turn += 1;
    this.#waiting?.abort();
    this.leads = false;
    this.#source?.close();
    this.#source = null;
    this.#release();
    this.#channel?.close();
    this.#channel = null;
  }

  #wait() {
    this.#waiting = new AbortController();
    void this.#hold({ signal: this.#waiting.signal });
  }

  async #hold(options) {
    const turn = (this.#turn += 1);
    try {
      await navigator.locks.request(NAME, options, () => {
        if (turn !== this.#turn) return undefined;
        this.leads = true;
        this.#connect();
        return new Promise((release) => (this.#release = release));
      });
    } catch {
      // Another tab has taken the lock, or this one no longer waits for it.
    }
    if (turn !== this.#turn) return;
    this.leads = false;
    this.#source?.close();
    this.#source = null;
    this.#wait();
  }

  #connect() {
    this.#source?.close();
    const source = (this.#source = new EventSource("/api/events"));
    for (const kind of KINDS) {
      source.addEventListener(kind, ({ data }) => {
        this.#channel?.postMessage({ kind, text: data });
        this.#tell.hear(kind, data);
      });
    }
    source.onerror = () => {
      this.#channel?.postMessage({ lost: true });
      this.#tell.lost();
    };
  }

  #receive({ asks, to, kind, text, lost }) {
    if (asks !== undefined) {
      const known = this.leads ? this.#tell.snapshot() : "";
      if (known) this.#channel.postMessage({ to: asks, kind: "snapshot", text: known });
    } else if (this.leads || (to !== undefined && to !== this.#id)) return;
    else if (lost) this.#tell.lost();
    else this.#tell.hear(kind, text);
  }
}
