/** A model from the photos of a set: training, how far it is, and what came of it. */

import { address, get, ofStation, post } from "../api.js";
import { el, fill } from "../dom.js";
import { Job, JobProgress } from "../job.js";
import { live } from "../live.js";
import { explained } from "../original.js";
import { number, text } from "../words.js";
import { isComing, ofSet } from "./photos.js";

const PACES = ["quick", "usual", "thorough"];

/** The address of something of a model. */
export function ofModel(station, model, what) {
  return ofStation(station, `models/${model.number}/${what}`);
}

/**
 * The panel. `told`: `station`, `app`, `limits`, `set()`, `found(models)`, `go(step)`, `look(name)` (at
 * a photo of the set). `models` are those of the station, the newest first.
 */
export class Train {
  #told;
  #job;
  #progress;
  #seen = "";
  #busy = false;
  #tools = null;
  #commands = [];
  #paces = el("fieldset", { class: "paces" });
  #begin = el("button", { id: "train", onclick: () => void this.#start() }, text("setup.train"));
  #how = el("p", { class: "soft" });
  #photos = el("button", { class: "plain", id: "to-photos", hidden: true, onclick: () => this.#told.go("photos") },
    text("setup.to_photos"));
  #result = el("section", { class: "result" });
  models = [];
  node;

  constructor(told) {
    this.#told = told;
    this.#progress = new JobProgress(told.app, told.station, "train");
    this.#progress.node.classList.remove("panel");
    fill(
      this.#paces,
      el("legend", {}, text("setup.pace")),
      PACES.map((pace) =>
        el(
          "label",
          { class: "tick" },
          el("input", { type: "radio", name: "pace", value: pace, checked: pace === "usual" }),
          el("span", {}, text(`setup.pace.${pace}`)),
        ),
      ),
    );
    this.node = el("div", { class: "train" }, this.#progress.node, this.#result, this.#how, this.#photos, this.#paces, this.#begin);
    this.#job = new Job(told.station, "train", () => this.#changed());
  }

  close() {
    this.#job.close();
  }

  /** Ask the server which models there are. */
  async refresh() {
    const set = this.#told.set();
    try {
      const found = await get(address(ofStation(this.#told.station, "models"), { set: set?.number }));
      this.#tools = found.tools;
      this.#commands = found.commands;
      this.models = found.models;
    } catch (error) {
      if (live.connected) this.#told.app.say(explained(error), "problem");
      return;
    }
    this.#told.found(this.models);
    this.show();
  }

  show() {
    const { app, limits } = this.#told;
    const photos = this.#told.set()?.photos.length ?? 0;
    const going = this.#job.running !== null;
    const without = this.#tools === false;
    this.#begin.disabled = !app.may("engineer") || !this.#tools || going || this.#busy || photos < limits.fewest;
    this.#begin.hidden = this.#paces.hidden = without || this.#job.job?.state === "running";
    const coming = isComing(this.#told.set(), limits);
    const few = !coming && photos < limits.fewest;
    fill(this.#how, without
      ? text("setup.no_tools")
      : few
        ? text("setup.enough_few", { count: photos, fewest: limits.fewest, good: limits.good_start })
        : coming ? text("setup.loading") : text("setup.train_how", { count: photos }));
    this.#how.className = few || without ? "advice bad" : "soft";
    this.#photos.hidden = !few || without;
    // What to type comes after what it is for; how to train comes after what there is already.
    if (without) this.#result.before(this.#how);
    else this.#result.after(this.#how);
    this.#progress.show(this.#job.job);
    const came = without ? this.#typed() : this.#came();
    fill(this.#result, came);
    this.#result.hidden = came === null;
    // What comes next is to use what is there.
    const again = came !== null && !without;
    this.#begin.className = again && this.#result.querySelector("#to-use.plain") === null ? "plain" : "";
    fill(this.#begin, text(again ? "setup.train_again" : "setup.train"));
  }

  #typed() {
    if (this.#commands.length === 0) return null;
    return el("pre", { class: "lines", id: "train-commands", tabindex: "0" }, this.#commands.join("\n"));
  }

  /** What came of the last job, or else of the last model. */
  #came() {
    const job = this.#job.job;
    if (job?.state === "running" || job?.state === "failed") return null;
    const model = this.models.find((one) => one.number === job?.result?.model) ?? this.models[0];
    return model ? resultOf(this.#told, model) : null;
  }

  #changed() {
    const job = this.#job.job;
    const key = `${job?.id} ${job?.state}`;
    if (job?.state === "done" && key !== this.#seen) void this.refresh();
    this.#seen = key;
    this.show();
  }

  async #start() {
    const { app, station } = this.#told;
    const pace = this.#paces.querySelector(":checked").value;
    this.#busy = true;
    this.show();
    try {
      await post(ofSet(station, this.#told.set().number, "/train"), { pace });
      await this.#job.again();
    } catch (error) {
      app.say(explained(error), "problem");
    } finally {
      this.#busy = false;
      this.show();
    }
  }
}

/** A model's figures in plain words, and where to go with it. */
function resultOf(told, model) {
  const percent = (share) => number(100 * share, 1);
  const figures = [];
  if (model.interval) {
    figures.push(text("setup.expect", {
      low: percent(model.interval[0]), high: percent(model.interval[1]), count: model.good_parts,
    }));
  }
  if (model.drawn) figures.push(text("setup.drawn", { drawn: model.drawn, found: model.drawn - model.passed }));
  const mine = told.set()?.number === model.set;
  const there = new Set(told.set()?.photos.map((one) => one.name));
  const named = model.suspects ?? [];
  const suspects = mine ? named.filter((name) => there.has(name)) : named;
  const thrown = named.length - suspects.length;
  return el(
    "div",
    { class: "came" },
    el("h3", {}, text("setup.model", { name: model.name, photos: model.photos })),
    figures.map((line) => el("p", {}, line)),
    suspects.length > 0 && [
      el("p", { class: "advice bad" }, text("setup.suspects", { count: suspects.length })),
      mine && el("ul", { class: "photos" }, suspects.slice(0, 6).map((name) => suspect(told, model, name))),
    ],
    thrown > 0 && el("p", { class: "advice bad" }, text("setup.thrown_since", { count: thrown })),
    el(
      "div",
      { class: "row" },
      model.report && el("a", {
        class: "button plain", id: "report", target: "_blank", rel: "noopener",
        href: ofModel(told.station, model, "report"),
      }, text("setup.report")),
      el("button", { class: thrown > 0 ? "plain" : "", id: "to-use", onclick: () => told.go("use") }, text("setup.to_use")),
    ),
  );
}

function suspect(told, model, name) {
  const where = ofSet(told.station, model.set, `/picture/${encodeURIComponent(name)}`);
  const label = name.replace(/\.\w+$/, "");
  return el(
    "li",
    {},
    el(
      "button",
      { class: "photo wrong", "aria-label": text("setup.photo_fine", { name: label }), onclick: () => told.look(name) },
      el("img", { src: address(where, { side: "small" }), alt: "", loading: "lazy", onerror: (event) => event.target.remove() }),
      el("span", {}, `▲ ${label}`),
    ),
  );
}
