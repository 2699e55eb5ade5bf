/** The wall screen: the last part, the last rejects, the shift's numbers, and what is wrong. */

import { ofStation, post } from "../api.js";
import { el, fill } from "../dom.js";
import { FilmStrip } from "../film_strip.js";
import { live } from "../live.js";
import { Numbers, Trend } from "../numbers.js";
import { explained, original } from "../original.js";
import { Pane } from "../pane.js";
import { called, why } from "../part.js";
import { text } from "../words.js";
import { whatIsWrong } from "../wrong.js";

const STRIP_MS = 500;
const ANNOUNCED_MS = 5000;
/** So long a verdict waits for its picture, so that one frame shows both. */
const TOGETHER_MS = 60;
const ALL = "";

export function open(root, app) {
  const view = new LineView(app);
  fill(root, view.node);
  view.start();
  return () => view.close();
}

class LineView {
  #app;
  #station;
  #panes = new Map();
  #camera = ALL;
  #due = new Set();
  #frame = 0;
  #later = new Set();
  #waiting = 0;
  #stripDrawn = 0;
  #stripTimer = 0;
  #announced = 0;
  #ending = new AbortController();
  #wrongShown = "";
  #allWrong = false;
  #ordering = false;
  #opacity = Number(localStorage.getItem("line.opacity") ?? 0.6);
  #boxes = localStorage.getItem("line.boxes") !== "no";

  constructor(app) {
    this.#app = app;
    this.#station = app.station;
    this.#camera = localStorage.getItem(`line.camera.${this.#station}`) ?? ALL;
    this.wrong = el("div", { class: "wrong", role: "status", hidden: true });
    this.panes = el("div", { class: "panes" });
    this.strip = new FilmStrip(
      this.#station,
      (verdict) => this.#look(verdict),
      () => this.#live(),
    );
    this.numbers = new Numbers(this.#orders());
    this.trend = new Trend();
    this.announcer = el("p", { class: "unseen", "aria-live": "polite" });
    this.cameras = el("select", {
      "aria-label": text("line.cameras"),
      hidden: true,
      onchange: (event) => this.#choose(event.target.value),
    });
    const controls = el(
      "div",
      { class: "controls" },
      this.cameras,
      el(
        "label",
        { class: "heat" },
        el("span", {}, text("picture.heat")),
        el("input", {
          type: "range", min: 0, max: 100, value: this.#opacity * 100,
          oninput: (event) => this.#fade(event.target.value / 100),
        }),
      ),
      el(
        "label",
        { class: "check" },
        el("input", {
          type: "checkbox", checked: this.#boxes,
          onchange: (event) => this.#showBoxes(event.target.checked),
        }),
        el("span", {}, text("picture.boxes")),
      ),
    );
    this.node = el(
      "section",
      { class: "line", "aria-label": text("line.menu") },
      el("h1", { class: "unseen" }, text("line.menu")),
      this.wrong,
      this.panes,
      this.strip.node,
      el("aside", { "aria-label": text("line.numbers") }, this.numbers.node, this.trend.node, controls),
      this.announcer,
    );
  }

  start() {
    const { signal } = this.#ending;
    const on = (kind, hear) => live.addEventListener(kind, hear, { signal });
    const mine = (hear) => (event) => event.detail.station === this.#station && hear(event.detail);
    on("verdict", mine((told) => this.#hear(told.verdict)));
    on("picture", mine((told) => this.#seen(told)));
    on("status", mine(() => this.#draw("status")));
    on("recent", mine(() => this.#renew()));
    on("snapshot", () => this.#renew());
    on("connection", () => this.#draw("status"));
    document.addEventListener("visibilitychange", () => this.#renew(), { signal });
    this.#renew();
  }

  close() {
    this.#ending.abort();
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#waiting);
    clearTimeout(this.#stripTimer);
    for (const pane of this.#panes.values()) pane.close();
    this.strip.close();
  }

  get #known() {
    return live.stations.get(this.#station);
  }

  #hear(verdict) {
    this.#pane(verdict.camera).hear(verdict);
    this.#drawSoon("numbers", "strip");
    if (verdict.verdict !== "PASS") this.#announce(verdict);
  }

  #seen(told) {
    this.#panes.get(told.camera)?.look();
    this.#drawSoon("strip");
  }

  /** Show everything anew: the view was opened, the connection made again, or parts found. */
  #renew() {
    const station = this.#known;
    const newest = new Map((station?.verdicts ?? []).map((one) => [one.camera, one]));
    for (const verdict of newest.values()) this.#pane(verdict.camera).hear(verdict);
    this.#draw("status", "numbers", "strip");
  }

  #pane(camera) {
    let pane = this.#panes.get(camera);
    if (!pane) {
      pane = new Pane(this.#station, camera, {
        draw: () => this.#draw(pane),
        drawSoon: () => this.#drawSoon(pane),
        live: () => this.#live(),
        closer: (verdict) =>
          this.#app.go("history", { seen: `${verdict.epoch}/${verdict.seq}` }),
      });
      pane.layers.opacity = this.#opacity;
      pane.layers.boxes = this.#boxes;
      this.#panes.set(camera, pane);
      this.#arrange();
    }
    return pane;
  }

  /** Have it drawn with the next frame, however often it is asked for until then. */
  #draw(...what) {
    for (const one of what) this.#due.add(one);
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      const due = this.#due;
      this.#due = new Set();
      // With a picture comes all that waited for it.
      const isPictured = [...due].some((one) => one instanceof Pane && this.#later.has(one));
      if (isPictured) this.#later.forEach((one) => due.add(one));
      due.forEach((one) => this.#later.delete(one));
      if (this.#later.size === 0) this.#wait(0);
      for (const one of due) {
        if (one === "status") this.#drawStatus();
        else if (one === "numbers") this.numbers.draw(this.#known);
        else if (one === "strip") this.#drawStrip();
        else one.draw();
      }
    });
  }

  /** Have it drawn when one of them is, as a pane whose picture has come, or after a moment. */
  #drawSoon(...what) {
    for (const one of what) this.#later.add(one);
    if (!this.#waiting) this.#wait(setTimeout(() => this.#draw(...this.#later), TOGETHER_MS));
  }

  #wait(timer) {
    clearTimeout(this.#waiting);
    this.#waiting = timer;
  }

  #drawStatus() {
    const station = this.#known;
    for (const camera of station?.status?.cameras ?? []) this.#pane(camera.name);
    this.#drawWrong(whatIsWrong(station, live.connected));
    this.numbers.drawStatus(station, live.connected);
    this.numbers.draw(station);
    this.node.classList.toggle("stale", !live.connected || !station?.alive);
    this.#arrange();
  }

  #drawWrong(found) {
    const shown = JSON.stringify([found, this.#allWrong]);
    if (shown === this.#wrongShown) return;
    this.#wrongShown = shown;
    this.wrong.hidden = found.length === 0;
    if (found.length === 0) {
      fill(this.wrong);
      return;
    }
    const listed = this.#allWrong ? found : found.slice(0, 1);
    const more = el(
      "button",
      {
        class: "plain",
        "aria-expanded": String(this.#allWrong),
        onclick: () => {
          this.#allWrong = !this.#allWrong;
          this.#draw("status");
        },
      },
      this.#allWrong
        ? text("line.less")
        : found.length > 1
          ? text("line.more", { count: found.length - 1 })
          : text("line.details"),
    );
    const hasMore = found.length > 1 || listed[0].detail;
    this.wrong.className = `wrong ${found[0].kind}`;
    fill(
      this.wrong,
      el(
        "ol",
        {},
        listed.map((one) =>
          el(
            "li",
            { class: one.kind },
            el("strong", {}, text(`wrong.${one.key}`, one.values)),
            " ",
            el("span", {}, text(`wrong.${one.key}.do`, one.values)),
            this.#allWrong ? one.more.map((words) => el("p", {}, words)) : null,
            this.#allWrong ? original(one.detail) : null,
          ),
        ),
      ),
      found[0].key === "no_model" &&
        el("a", { class: "button go", href: `#/${encodeURIComponent(this.#station)}/setup` }, text("frame.to_set_up")),
      hasMore ? more : null,
    );
  }

  #drawStrip() {
    const wait = STRIP_MS - (performance.now() - this.#stripDrawn);
    if (wait > 0) {
      this.#stripTimer ||= setTimeout(() => {
        this.#stripTimer = 0;
        this.#draw("strip");
      }, wait);
      return;
    }
    this.#stripDrawn = performance.now();
    this.strip.draw(this.#known);
    this.trend.draw(this.#known, this.#camera);
  }

  /** Which cameras are shown, and how many beside each other. */
  #arrange() {
    const names = [...this.#panes.keys()].sort();
    if (!names.includes(this.#camera)) this.#camera = ALL;
    const shown = names.filter((name) => this.#camera === ALL || name === this.#camera);
    const wanted = shown.map((name) => this.#panes.get(name).node);
    const there = [...this.panes.children];
    if (wanted.length !== there.length || wanted.some((node, at) => node !== there[at])) {
      fill(this.panes, wanted);
    }
    this.panes.dataset.count = Math.min(shown.length, 4);
    for (const name of names) this.#panes.get(name).named = names.length > 1;
    const listed = [ALL, ...names].join("\n");
    if (this.cameras.dataset.listed !== listed) {
      this.cameras.dataset.listed = listed;
      fill(
        this.cameras,
        el("option", { value: ALL }, text("line.all_cameras")),
        names.map((name) => el("option", { value: name }, name)),
      );
      this.cameras.value = this.#camera;
    }
    this.cameras.hidden = names.length < 2;
  }

  #choose(camera) {
    this.#camera = camera;
    localStorage.setItem(`line.camera.${this.#station}`, camera);
    this.#arrange();
    this.#draw("strip");
  }

  #fade(opacity) {
    this.#opacity = opacity;
    localStorage.setItem("line.opacity", opacity);
    for (const pane of this.#panes.values()) pane.layers.opacity = opacity;
  }

  #showBoxes(boxes) {
    this.#boxes = boxes;
    localStorage.setItem("line.boxes", boxes ? "yes" : "no");
    for (const pane of this.#panes.values()) pane.layers.boxes = boxes;
  }

  /** Show an earlier part in place of the live ones of its camera, until `#live`. */
  #look(verdict) {
    this.strip.freeze(true);
    for (const pane of this.#panes.values()) pane.pin(null);
    const pane = this.#pane(verdict.camera);
    if (this.#camera !== ALL && this.#camera !== verdict.camera) {
      this.#camera = verdict.camera;
      this.cameras.value = verdict.camera;
      this.#arrange();
    }
    pane.pin(verdict);
  }

  #live() {
    for (const pane of this.#panes.values()) pane.pin(null);
    this.strip.freeze(false);
  }

  #announce(verdict) {
    if (performance.now() - this.#announced < ANNOUNCED_MS) return;
    this.#announced = performance.now();
    fill(this.announcer, `${text(`verdict.${verdict.verdict}`)}. ${called(verdict)}. ${why(verdict)}`);
  }

  /** Start, stop and reset, for whoever may. */
  #orders() {
    if (!this.#app.may("operator")) return [];
    return ["stop", "start", "reset"].map((deed) =>
      el(
        "button",
        { class: deed === "stop" ? "plain" : "", "data-deed": deed, hidden: true,
          onclick: () => void this.#order(deed) },
        text(`line.${deed}`),
      ),
    );
  }

  async #order(deed) {
    const question = text(`line.${deed}.ask`, { station: this.#station });
    if (this.#ordering || !(await this.#app.confirm(question, text(`line.${deed}`)))) return;
    this.#ordering = true;
    try {
      await post(ofStation(this.#station, `deeds/${deed}`));
      this.#app.say(text(`line.${deed}.done`, { station: this.#station }));
    } catch (error) {
      this.#app.say(explained(error), "problem");
    } finally {
      this.#ordering = false;
    }
  }
}
