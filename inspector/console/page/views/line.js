/** The wall screen: the last part, the last rejects, the shift's numbers, and what is wrong. */

import { ofStation, post } from "../api.js";
import { el, fill } from "../dom.js";
import { live } from "../live.js";
import { loadPart, PartLayers } from "../part_layers.js";
import { FilmStrip, shapeOf } from "../film_strip.js";
import { moment, number, reason, text } from "../words.js";
import { cureOf, reasonOf, whatIsWrong } from "../wrong.js";

/** After so long a picture is taken away that is not of the part whose verdict is shown. */
const STALE_MS = 600;
const STRIP_MS = 250;
const ANNOUNCED_MS = 5000;
const MARKS = 500;
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
        el("span", {}, text("line.heatmap")),
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
        el("span", {}, text("line.boxes")),
      ),
    );
    this.node = el(
      "section",
      { class: "line", "aria-label": text("line.menu") },
      el("h1", { class: "unseen" }, text("line.menu")),
      this.wrong,
      this.panes,
      el("aside", { "aria-label": text("line.numbers") }, this.numbers.node, controls),
      this.strip.node,
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
    clearTimeout(this.#stripTimer);
    for (const pane of this.#panes.values()) pane.close();
    this.strip.close();
  }

  get #known() {
    return live.stations.get(this.#station);
  }

  #hear(verdict) {
    this.#pane(verdict.camera).hear(verdict);
    this.#draw("numbers");
    if (verdict.verdict !== "PASS") {
      this.#draw("strip");
      this.#announce(verdict);
    }
  }

  #seen(told) {
    this.#panes.get(told.camera)?.look();
    this.#draw("strip");
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
        live: () => this.#live(),
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
      for (const one of due) {
        if (one === "status") this.#drawStatus();
        else if (one === "numbers") this.numbers.draw(this.#known);
        else if (one === "strip") this.#drawStrip();
        else one.draw();
      }
    });
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
    const has_more = found.length > 1 || listed[0].detail;
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
            this.#allWrong && one.detail ? el("small", {}, text("line.says", { words: one.detail })) : null,
          ),
        ),
      ),
      has_more ? more : null,
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
    this.announcer.textContent =
      `${text(`verdict.${verdict.verdict}`)}. ${verdict.part_id} ${reasonOf(verdict)}`;
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
      this.#app.say(reason(error), "problem");
    } finally {
      this.#ordering = false;
    }
  }
}

/** One camera: its last verdict and picture, or an earlier part that somebody looks at. */
class Pane {
  #station;
  #verdict = null;
  #pinned = null;
  #newest = null;
  #loading = false;
  #ready = null;
  #shown = null;
  #shownAt = 0;
  #stale = 0;
  #told = "";
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
    this.detail = el("p", { class: "detail soft" });
    this.caption = el("p", { class: "caption" });
    this.none = el("p", { class: "none soft" }, text("line.no_part"));
    this.earlier = el(
      "p",
      { class: "earlier", hidden: true },
      el("span", {}),
      el("button", { onclick: () => tell.live() }, `▶ ${text("line.live")}`),
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
          { class: "told" },
          this.camera, this.earlier, this.banner, this.part, this.score, this.meter,
          this.reason, this.cure, this.detail,
        ),
      ),
    );
  }

  set named(value) {
    this.camera.hidden = !value;
  }

  /** The camera's newest verdict came. */
  hear(verdict) {
    if (isSame(this.#newest, verdict)) return this.look();
    this.#newest = verdict;
    if (this.#pinned) return;
    this.#verdict = verdict;
    this.look();
    this.#tell.draw();
  }

  /** Look at an earlier part; null: at the live ones again. */
  pin(verdict) {
    if (verdict === null && this.#pinned === null) return;
    this.#pinned = verdict;
    this.#verdict = verdict ?? this.#newest;
    this.#drop();
    this.#shown = null;
    this.layers.clear();
    this.look();
    this.#tell.draw();
  }

  /** Load the picture of the part that is shown, if there is one. */
  look() {
    const verdict = this.#verdict;
    if (verdict === null || this.#loading || document.hidden || this.#closed) return;
    const known = this.#known(verdict);
    if (!(known || this.#pinned) || isSame(this.#shown ?? this.#ready?.verdict, verdict)) return;
    void this.#load(verdict, known);
  }

  async #load(verdict, known) {
    this.#loading = true;
    const found = await loadPart(this.#station, verdict, known).catch(() => null);
    this.#loading = false;
    const wanted = this.#pinned === null || isSame(this.#pinned, verdict);
    if (found && (this.#closed || !wanted)) {
      found.picture.close();
      found.map?.close();
    } else if (found) {
      this.#drop();
      this.#ready = { found, verdict };
      this.#tell.draw();
    } else if (wanted) {
      // The picture is gone meanwhile: it is not asked for again.
      this.#shown = verdict;
      this.layers.clear();
      this.#tell.draw();
      return;
    }
    // A part that was overtaken while this one was loaded is left out.
    this.look();
  }

  draw() {
    if (this.#closed) return;
    this.#drawVerdict();
    if (this.#ready) {
      const { found, verdict } = this.#ready;
      this.#ready = null;
      this.layers.draw(found, verdict, text("line.picture", { part: nameOf(verdict) }));
      this.#shown = verdict;
      this.#shownAt = performance.now();
      tell("part", verdict);
    }
    const shown = this.layers.node.hidden ? null : this.#shown;
    const mismatch = shown !== null && !isSame(shown, this.#verdict);
    this.caption.textContent = mismatch ? text("line.picture", { part: nameOf(shown) }) : "";
    this.none.hidden = shown !== null;
    if (this.#verdict) this.none.textContent = text("line.no_picture");
    if (mismatch) this.#stale ||= setTimeout(() => this.#drop_stale(), STALE_MS);
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

  #drop_stale() {
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
      fill(this.banner, shapeOf(verdict.verdict), el("strong", {}, words));
      this.banner.style.setProperty("--width", widthOf(words));
    }
    this.node.classList.toggle("pinned", this.#pinned !== null);
    this.earlier.hidden = this.#pinned === null;
    if (this.#pinned) {
      const at = moment(verdict.judged_us, false);
      this.earlier.firstChild.textContent = text("line.earlier", { at });
    }
    const purpose = verdict.purpose === "production" ? "" : ` · ${text(`line.${verdict.purpose}`)}`;
    this.part.textContent = `${nameOf(verdict)} · ${moment(verdict.judged_us, false)}${purpose}`;
    const { score } = verdict;
    this.meter.hidden = score === null;
    this.score.hidden = score === null;
    if (score !== null) {
      this.score.textContent = text("line.score", { score: number(score, 2) });
      this.meter.firstChild.style.width = `${Math.min(100, score * 50)}%`;
    }
    this.reason.textContent = reasonOf(verdict);
    this.cure.textContent = cureOf(verdict);
    this.detail.textContent = verdict.detail ? text("line.says", { words: verdict.detail }) : "";
  }
}

/** The numbers of the shift, the recipe, the cameras, and the station's orders. */
class Numbers {
  #cells = new Map();
  #orders;
  #cameras = el("ul", { class: "cameras", "aria-label": text("line.health") });
  #camerasShown = "";

  constructor(orders) {
    this.#orders = orders;
    const cell = (name, label, ...before) => {
      const value = el("dd", {}, "–");
      const note = el("dt", {}, before, label);
      this.#cells.set(name, { value, note: note.lastChild });
      return el("div", { class: name }, note, value);
    };
    this.node = el(
      "div",
      { class: "numbers" },
      el(
        "dl",
        {},
        cell("yield", text("line.yield")),
        ["PASS", "FAIL", "FAULT"].map((verdict) =>
          cell(verdict, text(`verdict.${verdict}`), shapeOf(verdict)),
        ),
        cell("rate", text("line.rate")),
        cell("latency", text("line.latency")),
        cell("recipe", text("line.recipe")),
      ),
      this.#cameras,
      el("div", { class: "orders" }, orders),
    );
  }

  draw(station) {
    const shift = station?.shift;
    if (!shift) return;
    this.#write("yield", shift.yield === null ? "–" : `${number(shift.yield * 100, 1)} %`);
    this.#write("PASS", number(shift.passed));
    this.#write("FAIL", number(shift.failed));
    this.#write("FAULT", number(shift.faults));
    this.#write("rate", number(shift.per_minute));
    const digits = shift.typical_ms < 10 ? 1 : 0;
    const times = { typical: number(shift.typical_ms, digits), slowest: number(shift.slowest_ms) };
    this.#write("latency", shift.typical_ms === null ? "–" : text("line.ms", times));
    const hours = { from: clock(shift.from_us), until: clock(shift.until_us) };
    this.#note("yield", text(shift.complete ? "line.yield" : "line.yield_counting", hours));
  }

  drawStatus(station, connected) {
    const status = station?.status;
    const alive = connected && station?.alive;
    this.#write("recipe", status?.recipe ?? "–");
    for (const button of this.#orders) {
      const { deed } = button.dataset;
      button.hidden = !alive || deed !== orderFor(status);
    }
    const cameras = alive ? status.cameras : [];
    const shown = JSON.stringify(cameras.map((one) => [one.name, one.state]));
    if (shown === this.#camerasShown) return;
    this.#camerasShown = shown;
    fill(
      this.#cameras,
      cameras.map((one) =>
        el("li", { class: one.state }, el("b", {}, one.name), " ", text(`line.camera.${one.state}`)),
      ),
    );
  }

  #write(name, words) {
    const { value } = this.#cells.get(name);
    if (value.textContent !== words) value.textContent = words;
  }

  #note(name, words) {
    const { note } = this.#cells.get(name);
    if (note.textContent !== words) note.textContent = words;
  }
}

function orderFor(status) {
  if (status.state === "Error") return "reset";
  if (status.stopped) return "start";
  return ["Ready", "SingleExecution", "ContinuousExecution"].includes(status.state) ? "stop" : "";
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

function nameOf(verdict) {
  return verdict.part_id || text("line.number", { seq: verdict.seq });
}

function clock(us) {
  return moment(us, false).slice(0, 5);
}

/** How wide a word is at a font size of 1, about; a Chinese character is as wide as it is high. */
function widthOf(words) {
  return [...words].reduce((sum, one) => sum + (one > "\u2e80" ? 1 : 0.66), 0);
}
