/** A model put into use, and the first verdict by it. */

import { post } from "../api.js";
import { el, fill } from "../dom.js";
import { live } from "../live.js";
import { explained, original } from "../original.js";
import { why } from "../part.js";
import { PartPicture } from "../picture.js";
import { briefly, number, text } from "../words.js";
import { ofModel } from "./train.js";

const SHAPES = { PASS: "✓", FAIL: "✕", FAULT: "!" };

/** The panel. `told`: `station`, `app`, `camera()`, `models()`, `first(verdict)`, `go(step)`. */
export class Use {
  #told;
  #ending = new AbortController();
  #model = el("select", { id: "model", onchange: () => this.#draw() });
  #recipe = el("select", { id: "recipe", onchange: () => this.#draw() });
  #go = el("button", { id: "use", onclick: () => void this.#use() }, text("setup.use"));
  #by = el("p", { class: "soft" });
  #file = el("section", { class: "by-hand" });
  #choice = el(
    "div",
    { class: "choice" },
    el("label", {}, text("setup.use_model"), this.#model),
    el("label", {}, text("setup.use_recipe"), this.#recipe),
  );
  #train = el("button", { class: "plain", id: "to-train", onclick: () => this.#told.go("train") }, text("setup.to_train"));
  #said = el("p", { role: "status", class: "advice" });
  #picture = new PartPicture();
  #verdict = el("div", { class: "first", role: "status" });
  #waiting = "";
  node = el(
    "div",
    { class: "use" },
    this.#verdict,
    el("p", { class: "soft" }, text("setup.use_how")),
    this.#choice,
    this.#by,
    this.#train,
    this.#go,
    this.#said,
    this.#file,
  );

  constructor(told) {
    this.#told = told;
    const { signal } = this.#ending;
    live.addEventListener("verdict", (event) => this.#heard(event.detail), { signal });
    live.addEventListener("status", () => this.show(), { signal });
  }

  close() {
    this.#ending.abort();
    this.#picture.close();
  }

  show() {
    const models = this.#told.models();
    choose(this.#model, models.map((one) => [one.number, text("setup.model_choice", {
      name: one.name, at: briefly(one.made_us), photos: one.photos,
    })]));
    const status = live.stations.get(this.#told.station)?.status;
    const recipes = status?.recipes ?? [];
    choose(this.#recipe, recipes.map((name) => [name, name]), status?.recipe);
    this.#draw();
  }

  get #chosen() {
    return this.#told.models().find((one) => String(one.number) === this.#model.value);
  }

  #draw() {
    const model = this.#chosen;
    const station = live.stations.get(this.#told.station);
    const ready = model !== undefined && this.#recipe.value !== "" && station?.alive;
    this.#choice.hidden = this.#go.hidden = model === undefined;
    this.#train.hidden = model !== undefined;
    this.#by.className = model === undefined ? "advice bad" : "soft";
    const camera = this.#told.camera();
    const now = station?.status?.cameras.find((one) => one.name === camera)?.model;
    const isHere = now?.sha256 === model?.sha256 && this.#recipe.value === station?.status?.recipe;
    this.#go.disabled = !ready || isHere || !this.#told.app.may("engineer");
    fill(this.#by, model === undefined
      ? text("setup.no_model")
      : isHere
        ? text("setup.in_use", { name: model.name })
        : now ? text("setup.by_now", { name: now.name, version: now.version }) : "");
  }

  async #use() {
    const { app, station } = this.#told;
    const model = this.#chosen;
    const recipe = this.#recipe.value;
    const values = { name: model.name, recipe, camera: this.#told.camera() };
    if (!(await app.confirm(text("setup.use_sure", values), text("setup.use")))) return;
    this.#go.disabled = true;
    this.#tell(text("setup.using"), "");
    try {
      await post(ofModel(station, model, "use"), { recipe, camera: this.#told.camera() });
      this.#waiting = model.sha256;
      const inForce = live.stations.get(station)?.status?.recipe === recipe;
      this.#tell(text(inForce ? "setup.used" : "setup.used_elsewhere", values), "well");
    } catch (error) {
      this.#tell(explained(error), "bad");
      this.#byHand(model, recipe);
    }
    this.#draw();
  }

  /** What else can be done where the station does not take it. */
  #byHand(model, recipe) {
    fill(
      this.#file,
      el("p", { class: "soft" }, text("setup.by_hand")),
      el("pre", { class: "lines", tabindex: "0" },
        `recipes:\n  ${recipe}:\n    ${this.#told.camera()}:\n      bundle: ${model.folder}/part.onnx`),
      el("a", { class: "button plain", href: ofModel(this.#told.station, model, "bundle") }, text("setup.download")),
    );
  }

  #heard({ station, verdict }) {
    if (station !== this.#told.station) return;
    if (this.#waiting === "" || verdict.model?.sha256 !== this.#waiting) return;
    if (verdict.score === null) {
      this.#tell([text("setup.first_fault", { why: why(verdict) }), original(verdict.detail)], "bad");
      return;
    }
    this.#waiting = "";
    void this.#first(verdict);
  }

  async #first(verdict) {
    const said = text(`verdict.${verdict.verdict}`);
    fill(
      this.#verdict,
      el("h3", {}, text("setup.first")),
      el("p", { class: `verdict ${verdict.verdict}` }, `${SHAPES[verdict.verdict]} ${said}`),
      el("p", {}, text("setup.first_score", { score: number(verdict.score, 2) })),
      el("div", { class: "first-picture" }, this.#picture.node),
      el("div", { class: "row end" },
        el("button", { id: "to-line", onclick: () => this.#told.app.go("line") }, text("setup.to_line"))),
    );
    this.#tell("", "");
    this.#told.first(verdict);
    this.#verdict.scrollIntoView({ block: "nearest" });
    // The picture follows its verdict.
    for (let tries = 0; tries < 10 && !this.#ending.signal.aborted; tries += 1) {
      if (await this.#picture.show(this.#told.station, verdict, said)) return;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }

  #tell(said, kind) {
    fill(this.#said, said);
    this.#said.className = `advice ${kind}`;
  }
}

/** Fill a choice anew only where it has changed, and keep what was chosen. */
function choose(select, options, wanted = undefined) {
  const key = JSON.stringify(options);
  if (select.dataset.key === key) return;
  const before = select.value;
  select.dataset.key = key;
  fill(select, options.map(([value, name]) => el("option", { value }, name)));
  const keep = options.some(([value]) => String(value) === before);
  if (keep) select.value = before;
  else if (wanted !== undefined) select.value = wanted;
}

