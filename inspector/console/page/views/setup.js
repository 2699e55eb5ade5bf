/** Set up: from a camera that points at the belt to the first verdict by a model of one's own. */

import { get, ofStation, post } from "../api.js";
import { el, fill } from "../dom.js";
import { live } from "../live.js";
import { explained } from "../original.js";
import { Aids, measure } from "../setup/aids.js";
import { barsOfPassed, barsOfPhotos } from "../setup/good_bars.js";
import { modelInUse } from "../setup/model_in_use.js";
import { Photos, ofSet, rangeOf } from "../setup/photos.js";
import { LEAST, Stage } from "../setup/stage.js";
import { Train } from "../setup/train.js";
import { Use } from "../setup/use.js";
import { briefly, text } from "../words.js";

const STEPS = ["picture", "region", "photos", "train", "use"];
const REFRESH_MS = 400;
/** After this the good parts of the model in use are asked for again, if they were not to be had. */
const AGAIN_MS = 3000;
/** Two regions of which this share is common show the same part alike. */
const ALIKE = 0.9;

export function open(root, app, parameters) {
  const view = new SetUp(root, app, parameters);
  void view.begin();
  return () => view.close();
}

class SetUp {
  #app;
  #root;
  #ending = new AbortController();
  #stage;
  #aids = new Aids();
  #photos;
  #train;
  #use;
  #used = false;
  /**
   * `writable`: whether the server has a folder for photos; null until it was heard. `coming`: the
   * camera's photos are being asked for.
   */
  #limits = { writable: null, coming: true, fewest: 10, good_start: 100, most: 500, sets: [] };
  #set = null;
  #camera;
  #step;
  #chosenSet;
  /** How the good parts of the model in use looked, or null. */
  #inUse = null;
  #looking = false;
  #lookedAt = 0;
  /** The histogram of the photos: `{key, bars}`; bars are null while they are not known. */
  #photoBars = { key: "", bars: null };
  #wanted = null;
  #making = false;
  #sending = false;
  #timer = null;
  #steps = el("ol", { class: "steps" });
  #panel = el("section", { class: "panel step" });
  #cameras = el("select", { id: "camera", onchange: () => this.#go({ camera: this.#cameras.value }) });
  #sets = el("select", { id: "set", onchange: () => this.#go({ set: Number(this.#sets.value) }) });
  #fields = {};
  #lines = el("pre", { class: "lines", id: "region-lines", tabindex: "0" });

  constructor(root, app, parameters) {
    this.#app = app;
    this.#root = root;
    this.#camera = parameters.get("camera") ?? "";
    this.#step = STEPS.includes(parameters.get("step")) ? parameters.get("step") : "picture";
    this.#chosenSet = Number(parameters.get("set")) || null;
    this.#stage = new Stage(app.station, {
      onframe: (bitmap, size) => this.#frame(bitmap, size),
      onregion: (region) => void this.#chooseRegion(region),
      ondrag: () => this.#showRegion(),
    });
    this.#photos = new Photos({
      station: app.station,
      app,
      limits: this.#limits,
      set: () => this.#set,
      need: () => this.#need(),
      fresh: () => this.#newSet(),
      changed: (set) => this.#changed(set),
      refresh: () => this.#refresh(),
    });
    this.#train = new Train({
      station: app.station,
      app,
      limits: this.#limits,
      set: () => this.#set,
      found: () => {
        this.#use.show();
        this.#drawSteps();
      },
      go: (step) => this.#go({ step }),
      look: (name) => this.#photos.look(name),
    });
    this.#use = new Use({
      station: app.station,
      app,
      camera: () => this.#camera,
      models: () => this.#train.models.filter((one) => one.camera === this.#camera),
      go: (step) => this.#go({ step }),
      first: () => {
        this.#used = true;
        this.#drawSteps();
        void this.#lookAtModel();
      },
    });
  }

  async begin() {
    const signal = this.#ending.signal;
    live.addEventListener("photos", (event) => this.#heard(event.detail), { signal });
    live.addEventListener("picture", (event) => {
      const missing = (this.#inUse?.range.bars ?? null) === null && rangeOf(this.#set) === null;
      const due = !this.#looking && performance.now() > this.#lookedAt + AGAIN_MS;
      if (event.detail.station === this.#app.station && missing && due) void this.#lookAtModel();
    }, { signal });
    for (const kind of ["snapshot", "status"]) {
      live.addEventListener(kind, () => this.#chooseCamera(), { signal });
    }
    fill(
      this.#root,
      el("h1", { class: "unseen" }, text("setup.menu")),
      el(
        "div",
        { class: "set-up" },
        el(
          "div",
          { class: "top" },
          this.#steps,
          el("label", { class: "beside" }, text("setup.camera"), this.#cameras),
          el("label", { class: "beside" }, text("setup.set"), this.#sets),
        ),
        el("div", { class: "body" }, this.#stage.node, this.#panel),
      ),
    );
    this.#draw();
    this.#chooseCamera();
    // With each new connection, too: the server may have been away when the page was opened.
    live.addEventListener("snapshot", () => void this.#learn(), { signal });
    await this.#learn();
  }

  /** Ask the server which photos and models there are. */
  async #learn() {
    const { signal } = this.#ending;
    const knew = this.#limits.writable !== null;
    try {
      Object.assign(this.#limits, await get(ofStation(this.#app.station, "photos")));
    } catch (error) {
      // That the server is away stands in the frame, and it is asked again when it is back.
      if (!signal.aborted && live.connected) this.#app.say(explained(error), "problem");
      return;
    }
    if (signal.aborted) return;
    await this.#chooseSet();
    if (knew) await this.#refresh();
    else this.#draw();
    void this.#lookAtModel();
    await this.#train.refresh();
  }

  close() {
    this.#ending.abort();
    this.#train.close();
    this.#use.close();
    clearTimeout(this.#timer);
    this.#stage.close();
  }

  // Which camera, which set, which step: the page's address says it, so that a reload keeps it.

  #go({ step = this.#step, camera = this.#camera, set = null }) {
    this.#step = step;
    if (camera !== this.#camera) {
      this.#camera = camera;
      this.#set = null;
      this.#stage.region = null;
      this.#stage.watch(camera);
      void this.#lookAtModel();
    }
    this.#chosenSet = set ?? this.#set?.number ?? null;
    const asked = Object.entries({ step, camera, set: this.#chosenSet }).filter(([, value]) => value);
    const where = `#/${encodeURIComponent(this.#app.station)}/setup?${new URLSearchParams(asked)}`;
    // Not by the frame, which would open the view anew: the picture goes on.
    history.pushState(null, "", where);
    this.#draw();
    void this.#chooseSet().then(() => step === "train" && this.#train.refresh());
  }

  #chooseCamera() {
    const known = live.stations.get(this.#app.station);
    const names = (known?.status?.cameras ?? []).map((one) => one.name);
    if (known !== undefined && !known.alive) {
      this.#stage.told(`${text("wrong.gone")} ${text("wrong.gone.do")}`);
    }
    this.#cameras.parentElement.hidden = names.length === 0;
    const key = names.join("\n");
    if (this.#cameras.dataset.key !== key) {
      this.#cameras.dataset.key = key;
      fill(this.#cameras, names.map((name) => el("option", { value: name }, name)));
    }
    if (this.#camera === "" && names.length > 0) {
      this.#camera = names[0];
      void this.#chooseSet();
    }
    this.#cameras.value = this.#camera;
    this.#stage.watch(this.#camera || null);
  }

  async #chooseSet() {
    const mine = this.#limits.sets.filter((one) => one.camera === this.#camera);
    const chosen = mine.find((one) => one.number === this.#chosenSet) ?? mine.at(-1);
    fill(
      this.#sets,
      mine.length === 0 && el("option", { value: "" }, text("setup.no_set")),
      mine.map((one) => el("option", { value: one.number }, nameOf(one))),
    );
    this.#sets.disabled = mine.length === 0;
    this.#limits.coming = this.#limits.writable === null || mine.length > 0;
    if (chosen === undefined) return;
    this.#sets.value = chosen.number;
    if (chosen.number === this.#set?.number) return;
    try {
      this.#changed(await get(ofSet(this.#app.station, chosen.number)));
    } catch (error) {
      if (!this.#ending.signal.aborted) this.#app.say(explained(error), "problem");
    }
  }

  async #lookAtModel() {
    const camera = this.#camera;
    if (this.#inUse?.camera !== camera) this.#inUse = null;
    this.#looking = true;
    try {
      const found = await modelInUse(this.#app.station, camera);
      if (camera !== this.#camera) return;
      const isSame = found !== null && found.sha256 === this.#inUse?.sha256;
      const bars = isSame ? this.#inUse.range.bars : null;
      const mine = (this.#inUse = found && { ...found, camera, range: { ...found.range, bars } });
      if (mine !== null) mine.range.bars = await barsOfPassed(this.#app.station, camera, mine.sha256);
    } catch {
      // Then the bars stand beside the best of this hour, and the frame says what is wrong.
    } finally {
      this.#looking = false;
      this.#lookedAt = performance.now();
    }
  }

  /** The number of the set in use; it is made where there is none. */
  async #need() {
    if (this.#set === null) await this.#newSet();
    return this.#set.number;
  }

  async #newSet() {
    const made = await post(ofStation(this.#app.station, "photos"), { camera: this.#camera });
    this.#limits.sets.push(made);
    this.#chosenSet = made.number;
    // Whatever is drawn by now.
    const { region } = this.#stage;
    this.#changed(made);
    await this.#chooseSet();
    if (region !== null) await this.#chooseRegion(region);
  }

  async #refresh() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#set === null) return;
    try {
      this.#changed(await get(ofSet(this.#app.station, this.#set.number)));
    } catch (error) {
      if (!this.#ending.signal.aborted) this.#app.say(explained(error), "problem");
    }
  }

  #changed(set) {
    if (this.#ending.signal.aborted) return;
    this.#set = set;
    this.#sets.value = set.number;
    // An answer that was long on its way does not undo what is drawn meanwhile.
    if (!this.#sending && !this.#stage.dragging) this.#stage.region = set.region;
    this.#showRegion();
    this.#photos.show();
    this.#train.show();
    this.#drawSteps();
  }

  #heard(told) {
    if (told.station !== this.#app.station || told.set !== this.#set?.number) return;
    this.#set.taking = told.taking;
    this.#photos.hear(told);
    this.#photos.show();
    // Many photos may come in a row: the list is fetched a few times a second at most.
    if (this.#timer === null) this.#timer = setTimeout(() => void this.#refresh(), REFRESH_MS);
  }

  #frame(bitmap, size) {
    if (this.#step !== "picture" && this.#step !== "region") return;
    const scale = bitmap.width / size.width;
    const region = this.#stage.region;
    const whole = { x: 0, y: 0, w: size.width, h: size.height };
    // What is compared with good parts is measured where and as they were.
    const own = this.#rangeOfPhotos(size);
    const model = own === null && isWithin(this.#inUse?.area, whole) ? this.#inUse : null;
    const alike = model !== null && (region === null || overlap(region, model.area) > ALIKE);
    const one = alike ? model.area : region ?? whole;
    const area = { x: one.x * scale, y: one.y * scale, w: one.w * scale, h: one.h * scale };
    if (alike) this.#aids.show(measure(bitmap, area, model.size), model.range);
    else this.#aids.show(measure(bitmap, area), own);
    if (this.#step === "region") this.#showRegion();
  }

  /** How the photos look; their histogram is measured when it is first asked for. */
  #rangeOfPhotos(size) {
    const range = rangeOf(this.#set);
    if (range === null) return null;
    const { number, region, photos } = this.#set;
    const key = JSON.stringify([number, region, photos.slice(-1).map((one) => one.name)]);
    if (key !== this.#photoBars.key) {
      const mine = (this.#photoBars = { key, bars: this.#photoBars.bars });
      barsOfPhotos(this.#app.station, this.#set, size.width).then(
        (bars) => (mine.bars = bars),
        // Then the bars stand alone; the frame says what is wrong.
        () => {},
      );
    }
    return { ...range, bars: this.#photoBars.bars };
  }

  // The steps.

  #draw() {
    this.#drawSteps();
    this.#stage.drawing = this.#step === "region" && this.#may;
    this.#stage.slow = this.#step === "train" || this.#step === "use";
    fill(
      this.#panel,
      el("div", { class: "title" }, el("h2", {}, text(`setup.step.${this.#step}`)), this.#onwards()),
      el("div", { class: "content" }, this.#content()),
    );
    this.#photos.show();
    this.#train.show();
    this.#use.show();
    this.#showRegion();
  }

  get #may() {
    return this.#app.may("engineer");
  }

  #drawSteps() {
    const photos = this.#set?.photos.length ?? 0;
    const done = {
      picture: this.#stage.size !== null,
      // Whoever has taken photos of the whole picture has chosen it.
      region: this.#stage.region !== null || photos > 0,
      photos: photos >= this.#limits.fewest,
      train: this.#train.models.some((one) => one.camera === this.#camera),
      use: this.#used || this.#isUsed,
    };
    fill(
      this.#steps,
      STEPS.map((step, at) =>
        el(
          "li",
          {},
          el(
            "button",
            {
              class: "plain", "data-step": step, "aria-current": step === this.#step ? "step" : null,
              onclick: () => this.#go({ step }),
            },
            el("span", { class: "number" }, done[step] ? "✓" : at + 1),
            el("span", { class: "name" }, text(`setup.short.${step}`)),
          ),
        ),
      ),
    );
  }

  /** Whether the camera is judged by a model of this page. */
  get #isUsed() {
    const cameras = live.stations.get(this.#app.station)?.status?.cameras ?? [];
    const now = cameras.find((one) => one.name === this.#camera)?.model;
    return this.#train.models.some((one) => one.sha256 !== "" && one.sha256 === now?.sha256);
  }

  #content() {
    switch (this.#step) {
      case "picture":
        return [el("p", { class: "soft" }, text("setup.picture_how")), this.#aids.node];
      case "region":
        return this.#regionPanel();
      case "photos":
        return [this.#hindrance(), this.#photos.node];
      case "train":
        return [this.#hindrance(), this.#train.node];
      default:
        return [this.#hindrance(), this.#use.node];
    }
  }

  #hindrance() {
    if (this.#limits.writable === false) return el("p", { class: "advice bad" }, text("setup.no_state"));
    if (!this.#may) return el("p", { class: "advice bad" }, text("setup.engineer"));
    return null;
  }

  #onwards() {
    const at = STEPS.indexOf(this.#step);
    if (at === STEPS.length - 1) return null;
    const step = STEPS[at + 1];
    return el(
      "button",
      {
        class: "plain", id: "onwards", onclick: () => this.#go({ step }),
        "aria-label": text("setup.onwards", { step: text(`setup.short.${step}`) }),
      },
      text("setup.next"),
    );
  }

  // Step 2.

  #regionPanel() {
    const field = (name) => {
      const made = el("input", {
        type: "number", min: name === "w" || name === "h" ? 1 : 0, step: 1, inputmode: "numeric",
        id: `region-${name}`, disabled: !this.#may, onchange: () => void this.#typed(),
      });
      this.#fields[name] = made;
      return el("label", {}, text(`setup.region.${name}`), made);
    };
    return [
      el("p", { class: "soft" }, text("setup.region_how")),
      el("div", { class: "fields" }, ["x", "y", "w", "h"].map(field)),
      el(
        "div",
        { class: "row" },
        el("button", { class: "plain", id: "whole", disabled: !this.#may, onclick: () => void this.#chooseRegion(null) },
          text("setup.whole")),
      ),
      el(
        "details",
        {},
        el("summary", {}, text("setup.region_lines")),
        this.#lines,
        el("button", { class: "plain", onclick: () => void this.#copy() }, text("setup.copy")),
      ),
    ];
  }

  async #typed() {
    const size = this.#stage.size;
    if (size === null || Object.values(this.#fields).some((one) => one.value === "")) return;
    const typed = (name) => Math.round(Number(this.#fields[name].value));
    const [x, y] = [clip(typed("x"), 0, size.width - LEAST), clip(typed("y"), 0, size.height - LEAST)];
    const [w, h] = [clip(typed("w"), LEAST, size.width), clip(typed("h"), LEAST, size.height)];
    const region = { x, y, w: Math.min(w, size.width - x), h: Math.min(h, size.height - y) };
    // The rest makes room for what was typed; what lies beyond the picture itself is told.
    const fits = x === typed("x") && y === typed("y") && w === typed("w") && h === typed("h");
    if (!fits) this.#app.say(text("setup.region_beyond", size), "problem");
    await this.#chooseRegion(region);
  }

  async #chooseRegion(region) {
    this.#stage.region = region;
    this.#aids.again();
    this.#showRegion();
    if (this.#set === null) {
      // With a set of its own it outlives a reload of the page, and a look at another view.
      if (region !== null && this.#limits.writable && this.#camera !== "") await this.#keepRegion();
      return;
    }
    this.#wanted = { region };
    if (this.#sending) return;
    this.#sending = true;
    try {
      // One after another, so that the last one drawn is the one that stays.
      while (this.#wanted !== null && !this.#ending.signal.aborted) {
        const asked = this.#wanted;
        this.#wanted = null;
        const told = await post(ofSet(this.#app.station, this.#set.number, "/region"), asked);
        if (this.#wanted === null) this.#sending = false;
        this.#changed(told);
      }
    } catch (error) {
      this.#sending = false;
      this.#app.say(explained(error), "problem");
      await this.#refresh();
    } finally {
      this.#sending = false;
    }
  }

  async #keepRegion() {
    if (this.#making) return;
    this.#making = true;
    try {
      await this.#newSet();
    } catch (error) {
      if (!this.#ending.signal.aborted) this.#app.say(reason(error), "problem");
    } finally {
      this.#making = false;
    }
  }

  #showRegion() {
    const region = this.#stage.region;
    const size = this.#stage.size;
    for (const [name, field] of Object.entries(this.#fields)) {
      if (document.activeElement === field) continue;
      const whole = size && { x: 0, y: 0, w: size.width, h: size.height };
      field.value = (region ?? whole)?.[name] ?? "";
    }
    const said = region === null ? text("setup.whole_lines") : linesOf(region);
    if (this.#lines.textContent !== said) fill(this.#lines, said);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#lines.textContent);
      this.#app.say(text("setup.copied"));
    } catch {
      // A browser gives its clipboard to pages that are encrypted, or of this machine, only.
      getSelection().selectAllChildren(this.#lines);
      this.#app.say(text("setup.selected"));
    }
  }
}

/** Whether an area lies in a picture, but for what rounding does. */
function isWithin(area, whole) {
  return area !== undefined && area !== null && area.x >= -1 && area.y >= -1 &&
    area.x + area.w <= whole.w + 1 && area.y + area.h <= whole.h + 1;
}

/** How much two rectangles have in common, as a share of what both cover. */
function overlap(one, other) {
  const across = Math.min(one.x + one.w, other.x + other.w) - Math.max(one.x, other.x);
  const down = Math.min(one.y + one.h, other.y + other.h) - Math.max(one.y, other.y);
  const common = Math.max(0, across) * Math.max(0, down);
  return common / (one.w * one.h + other.w * other.h - common);
}

function clip(value, least, most) {
  return Math.min(Math.max(least, value), most);
}

function nameOf(set) {
  return `${set.number}: ${briefly(set.made_us)}`;
}

function linesOf({ x, y, w, h }) {
  return `region: {x: ${x}, y: ${y}, w: ${w}, h: ${h}}\n--region ${x},${y},${w},${h}`;
}
