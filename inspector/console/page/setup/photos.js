/** A set of photos: taking them, what is wrong with them, throwing them away. */

import { address, ofStation, post } from "../api.js";
import { el, fill } from "../dom.js";
import { explained } from "../original.js";
import { reason, text } from "../words.js";

/** Photos that are shown at once; the newest are first. */
const SHOWN = 60;
/** Files that were not kept and are named. */
const NAMED = 5;
/** Refusals of one photo, after which the next one is sent. */
const OF_ONE_PHOTO = new Set(["photo", "photo_shape", "too_long", "too_slow"]);
/** So many photos tell how good parts look. */
const ENOUGH_TO_COMPARE = 5;

/** The address of what is done with a set. */
export function ofSet(station, set, what = "") {
  return ofStation(station, `photos/${set}${what}`);
}

/** `{brightness, sharpness}` of the photos, each `[low, high]`, as the bars show them; or null. */
export function rangeOf(set) {
  const fine = (set?.photos ?? []).filter((one) => one.objections.length === 0);
  if (fine.length < ENOUGH_TO_COMPARE) return null;
  const span = (values) => [Math.min(...values), Math.max(...values)];
  return {
    brightness: span(fine.map((one) => one.brightness)),
    // A photo's sharpness is a variance.
    sharpness: span(fine.map((one) => Math.sqrt(one.sharpness))),
  };
}

/** Whether it is not known yet which photos there are. */
export function isComing(set, limits) {
  return set === null && limits.coming;
}

/** What photos are wrong with, in words. */
function wordsOf(objection) {
  return text(`setup.objection.${objection.kind}`, { like: objection.like.replace(/\.\w+$/, "") });
}

/**
 * The panel. `told`: `station`, `app`, `limits` (fewest, good_start), `set()` (the set shown, or null),
 * `need()` (makes a set where there is none; resolves to its number), `fresh()` (makes another one),
 * `changed(set)`, `refresh()`.
 */
export class Photos {
  #told;
  #busy = false;
  #last = el("p", { id: "photo-said", role: "status", class: "advice" });
  #count = el("p", { class: "count" });
  #gauge = el("progress", { "aria-label": text("setup.photos_so_far") });
  #take = el("button", { id: "take", onclick: () => void this.#takeOne() }, text("setup.take"));
  #files = el("input", {
    type: "file", id: "files", accept: "image/*", multiple: true, hidden: true, onchange: () => void this.#addFiles(),
  });
  #add = el("button", { class: "plain", id: "add", onclick: () => this.#files.click() }, text("setup.add"));
  #each = el("button", { class: "plain", id: "each", onclick: () => void this.#takeEach() });
  #fresh = el("button", { class: "plain", id: "new-set", onclick: () => void this.#begin() }, text("setup.new_set"));
  #keep = el("input", { type: "checkbox", id: "keep-all" });
  #grid = el("ul", { class: "photos", "aria-label": text("setup.photos") });
  #key = "";
  node = el(
    "div",
    { class: "collect" },
    el("p", { class: "soft" }, text("setup.photos_how")),
    el("div", { class: "row" }, this.#take, this.#each, this.#add, this.#files),
    el("div", { class: "row" },
      el("label", { class: "tick" }, this.#keep, text("setup.keep_all")), this.#fresh),
    this.#count,
    this.#gauge,
    this.#last,
    this.#grid,
  );

  constructor(told) {
    this.#told = told;
  }

  show() {
    const { app, limits } = this.#told;
    const set = this.#told.set();
    const photos = set?.photos ?? [];
    const may = app.may("engineer") && limits.writable;
    this.#take.disabled = !may || this.#busy;
    this.#each.disabled = !may;
    this.#add.disabled = !may || this.#busy;
    this.#fresh.hidden = !may || photos.length === 0;
    fill(this.#each, text(set?.taking ? "setup.each_stop" : "setup.each"));
    this.#each.setAttribute("aria-pressed", String(set?.taking === true));
    this.#gauge.max = limits.good_start;
    this.#gauge.value = Math.min(photos.length, limits.good_start);
    if (isComing(set, limits)) {
      fill(this.#count, text("setup.loading"));
      return;
    }
    const enough = photos.length < limits.fewest ? "few" : photos.length < limits.good_start ? "try" : "good";
    fill(this.#count, text(`setup.enough_${enough}`, {
      count: photos.length, fewest: limits.fewest, good: limits.good_start,
    }));
    this.#draw(set, photos);
  }

  /** What the server tells of a photo that was taken by itself. */
  hear(told) {
    if (told.taken) this.#say(told.taken);
    else if (told.why) this.#words(text(`setup.why.${told.why}`), told.taking ? "bad" : "");
  }

  /** Show a photo of the set in large, by its file's name; one that was thrown away is not there. */
  look(name) {
    const set = this.#told.set();
    const photo = set?.photos.find((one) => one.name === name);
    if (photo) this.#large(set, photo);
    else this.#told.app.say(text("setup.thrown", { name: name.replace(/\.\w+$/, "") }));
  }

  #draw(set, photos) {
    // Drawn anew only where something has changed, so that a focus stays where it is.
    const key = JSON.stringify([set?.number, photos.map((one) => [one.name, one.objections.length])]);
    if (key === this.#key) return;
    this.#key = key;
    fill(this.#grid, photos.slice(-SHOWN).reverse().map((photo) => this.#card(set, photo)));
  }

  #picture(set, photo, side) {
    const where = ofSet(this.#told.station, set.number, `/picture/${encodeURIComponent(photo.name)}`);
    return address(where, { side, made: set.made_us });
  }

  #card(set, photo) {
    const name = photo.name.replace(/\.\w+$/, "");
    const wrong = photo.objections[0];
    const label = wrong ? `${name}: ${wordsOf(wrong)}` : text("setup.photo_fine", { name });
    return el(
      "li",
      {},
      el(
        "button",
        { class: `photo ${wrong ? "wrong" : ""}`, "aria-label": label, onclick: () => this.#large(set, photo) },
        el("img", { src: this.#picture(set, photo, "small"), alt: "", loading: "lazy" }),
        el("span", {}, wrong ? `▲ ${name}` : name),
      ),
    );
  }

  #large(set, photo) {
    const name = photo.name.replace(/\.\w+$/, "");
    const throwAway = async () => {
      dialog.close();
      try {
        this.#told.changed(await post(ofSet(this.#told.station, set.number, "/remove"), { photo: photo.name }));
        this.#words(text("setup.thrown", { name }), "");
      } catch (error) {
        this.#told.app.say(explained(error), "problem");
      }
    };
    const dialog = el(
      "dialog",
      { class: "photo-large", "aria-label": name, onclose: () => dialog.remove() },
      el("img", { src: this.#picture(set, photo, "large"), alt: text("setup.photo_fine", { name }) }),
      photo.objections.map((one) => el("p", { class: "advice bad" }, wordsOf(one))),
      el(
        "div",
        { class: "row end" },
        el("button", { class: "plain", onclick: () => dialog.close() }, text("setup.close")),
        this.#told.app.may("engineer") &&
          el("button", { id: "throw-away", onclick: () => void throwAway() }, text("setup.throw_away")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  }

  /** Photos of another part belong in a set of their own. */
  async #begin() {
    try {
      await this.#told.fresh();
      this.#words(text("setup.new_set_made"), "");
    } catch (error) {
      this.#told.app.say(explained(error), "problem");
    }
  }

  async #takeOne() {
    this.#busy = true;
    this.show();
    try {
      const number = await this.#told.need();
      const taken = await post(ofSet(this.#told.station, number, "/take"), { keep_all: this.#keep.checked });
      this.#say(taken);
      await this.#told.refresh();
    } catch (error) {
      const said = error.code === "not_ready" ? text("setup.not_ready") : reason(error);
      this.#words(said, "bad");
      this.#told.app.say(error.code === "not_ready" ? said : explained(error), "problem");
    } finally {
      this.#busy = false;
      this.show();
    }
  }

  /** Send the files that were chosen, one after another; one that is not kept is named with what is wrong. */
  async #addFiles() {
    const files = [...this.#files.files];
    this.#files.value = "";
    if (files.length === 0) return;
    this.#busy = true;
    this.show();
    let kept = 0;
    let turned = 0;
    const refused = [];
    try {
      const number = await this.#told.need();
      const where = address(ofSet(this.#told.station, number, "/add"), { keep_all: this.#keep.checked ? "1" : "" });
      for (const [at, file] of files.entries()) {
        this.#words(text("setup.adding", { number: at + 1, count: files.length }), "");
        try {
          const taken = await post(where, file, "application/octet-stream");
          if (taken.name && taken.turned) turned += 1;
          if (taken.name) kept += 1;
          else refused.push([file.name, taken.objections.map(wordsOf).join(" ")]);
        } catch (error) {
          if (!OF_ONE_PHOTO.has(error.code)) throw error;
          refused.push([file.name, reason(error)]);
        }
      }
      await this.#told.refresh();
      this.#words(text("setup.added", { count: kept, of: files.length }), refused.length === 0 ? "well" : "bad");
    } catch (error) {
      this.#words(`${text("setup.added", { count: kept, of: files.length })} ${reason(error)}`, "bad");
      this.#told.app.say(explained(error), "problem");
    } finally {
      this.#busy = false;
      this.show();
    }
    if (turned > 0) this.#last.append(el("span", {}, text("setup.added_turned", { count: turned, of: kept })));
    for (const [name, why] of refused.slice(0, NAMED)) this.#last.append(el("span", {}, `${name}: ${why}`));
    if (refused.length > NAMED) {
      this.#last.append(el("span", {}, text("setup.added_more", { count: refused.length - NAMED })));
    }
  }

  async #takeEach() {
    try {
      const number = await this.#told.need();
      const set = this.#told.set();
      const on = !set.taking;
      const goal = Math.max(this.#told.limits.good_start, set.photos.length + 1);
      const body = { on, goal: Math.min(goal, this.#told.limits.most), keep_all: this.#keep.checked };
      this.#told.changed(await post(ofSet(this.#told.station, number, "/each"), body));
      this.#words(text(on ? "setup.each_began" : "setup.why.stopped"), "");
    } catch (error) {
      this.#told.app.say(explained(error), "problem");
    }
  }

  #say(taken) {
    const wrong = taken.objections.map(wordsOf).join(" ");
    const name = taken.name.replace(/\.\w+$/, "");
    if (taken.name && wrong) this.#words(text("setup.kept_doubtful", { name, wrong }), "bad");
    else if (taken.name) this.#words(text("setup.kept", { name }), "well");
    else this.#words(text("setup.not_kept", { wrong }), "bad");
  }

  #words(said, kind) {
    fill(this.#last, said);
    this.#last.className = `advice ${kind}`;
  }
}
