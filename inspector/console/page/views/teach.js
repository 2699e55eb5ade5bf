/** Teach in: good parts that were rejected go into a basket, and the model is taught them. */

import { get, ofPart, ofStation, post } from "../api.js";
import { putIn } from "../basket.js";
import { el, fill } from "../dom.js";
import { Job, JobProgress } from "../job.js";
import { live } from "../live.js";
import { explained, original } from "../original.js";
import { PartPicture, controls } from "../picture.js";
import { moment, number, reason, text } from "../words.js";
import { lacksModel, noModel } from "../wrong.js";

const KIND = "teach";
const SHOWN = 60;
const PAGES = 12;
const DOUBTFUL = 1.5;
const TOLERANT = 1.1;
const STRIP = 12;
const AGAIN_MS = 5000;

export function open(root, app, parameters) {
  const view = new Teach(root, app, parameters.get("camera") ?? "");
  return () => view.close();
}

class Teach {
  #root;
  #app;
  #station;
  #job;
  #progress;
  #camera = "";
  #recipe = "";
  #source = "good";
  #candidates = null;
  #basket = [];
  #about = null;
  #page = "";
  #chosen = false;
  #closed = false;
  #shown = "";
  #written = null;
  #newer = 0;
  #lacks = false;
  #asked = 0;
  #busy = new Set();
  #listeners = [];

  constructor(root, app, camera) {
    this.#root = root;
    this.#camera = camera;
    this.#app = app;
    this.#station = app.station;
    this.#progress = new JobProgress(app, this.#station, KIND);
    this.#on("status", () => this.#follow());
    this.#on("snapshot", () => this.#follow());
    this.#on("verdict", (event) => this.#count(event.detail));
    this.#job = new Job(this.#station, KIND, (job) => this.#changed(job));
    this.#follow();
  }

  close() {
    this.#closed = true;
    this.#job.close();
    for (const [kind, heard] of this.#listeners) live.removeEventListener(kind, heard);
  }

  #on(kind, heard) {
    live.addEventListener(kind, heard);
    this.#listeners.push([kind, heard]);
  }

  /** Which cameras there are, and which recipe is in force, as the station says. */
  #follow() {
    const status = live.stations.get(this.#station)?.status;
    if (!status) {
      if (this.#page === "") this.#draw();
      return;
    }
    const cameras = status.cameras.map((one) => one.name);
    const camera = cameras.includes(this.#camera) ? this.#camera : cameras[0];
    const lacks = lacksModel(status);
    const other = camera !== this.#camera || status.recipe !== this.#recipe || lacks !== this.#lacks;
    this.#lacks = lacks;
    // What could not be loaded is asked for again once the station is back.
    const failed = this.#candidates?.problem && live.stations.get(this.#station).alive;
    if (other || (failed && Date.now() > this.#asked + AGAIN_MS)) {
      [this.#camera, this.#recipe] = [camera, status.recipe];
      void this.#load();
    }
  }

  async #load() {
    this.#asked = Date.now();
    this.#candidates = null;
    this.#about = null;
    this.#written = null;
    this.#draw();
    await Promise.all([this.#loadBasket(), this.#loadCandidates(), this.#loadAbout()]);
  }

  async #loadAbout() {
    const asked = { recipe: this.#recipe, camera: this.#camera };
    try {
      this.#about = await get(ofStation(this.#station, "teach"), asked);
    } catch (error) {
      this.#about = { state: true, program: true, problem: error.code, detail: error.detail };
    }
    this.#draw();
  }

  async #loadBasket() {
    try {
      const { parts } = await get(ofStation(this.#station, "basket"));
      this.#basket = parts.filter(
        (one) => one.verdict.recipe === this.#recipe && one.verdict.camera === this.#camera,
      );
    } catch (error) {
      this.#app.say(explained(error), "problem");
    }
    this.#draw();
  }

  async #loadCandidates() {
    const [source, camera, recipe] = [this.#source, this.#camera, this.#recipe];
    const asked = source === "good" ? { marked: true } : { verdicts: ["FAIL"] };
    const found = [];
    let before = {};
    let problem = "";
    this.#newer = 0;
    try {
      for (let page = 0; page < PAGES && found.length < SHOWN; page += 1) {
        const told = await get(ofStation(this.#station, "history"), {
          camera, limit: 100, ...asked, ...before,
        });
        found.push(...told.entries.filter((one) => fits(one, source, recipe)));
        if (told.next_epoch === null) break;
        before = { before_epoch: told.next_epoch, before_seq: told.next_seq };
      }
    } catch (error) {
      problem = reason(error);
    }
    if (source !== this.#source || camera !== this.#camera || recipe !== this.#recipe) return;
    this.#candidates = { found: found.slice(0, SHOWN), problem };
    this.#draw();
  }

  #count({ station, verdict }) {
    const ours = station === this.#station && verdict.camera === this.#camera;
    if (!ours || this.#source !== "rejects" || verdict.verdict !== "FAIL") return;
    this.#newer += 1;
    const button = this.#root.querySelector("#newer");
    if (button === null) return;
    fill(button, text("teach.newer", { count: this.#newer }));
    button.hidden = false;
  }

  #changed(job) {
    if (this.#closed) return;
    const state = job === null ? "" : `${job.id} ${job.state}`;
    if (state !== this.#shown) {
      const first = this.#shown === "";
      this.#shown = state;
      // Whoever comes back while nothing waits for an answer wants to choose parts.
      this.#chosen = first && (job?.state !== "done" || Boolean(job.result.used)) && job?.state !== "running";
      if (job?.state !== "running") void this.#loadBasket();
    }
    this.#progress.show(job);
    this.#draw();
  }

  #draw() {
    if (this.#closed) return;
    const job = this.#job?.job ?? null;
    const page = job?.state === "running" ? "going" : job === null || this.#chosen ? "choose" : "result";
    // An element that has the focus, or is half scrolled, stays while a job tells its progress.
    const shown = page === "going" ? `going ${this.#basket.length}` : page;
    if (page === "going" && shown === this.#page) return;
    const keep = this.#root.querySelector(".tiles")?.scrollTop ?? 0;
    const focus = document.activeElement?.id;
    this.#page = shown;
    const content =
      page === "going" ? this.#drawGoing(job) : page === "result" ? this.#drawResult(job) : this.#drawChoose(job);
    fill(this.#root, el("div", { class: `teach ${page}` }, this.#head(page), content));
    const tiles = this.#root.querySelector(".tiles");
    if (tiles) tiles.scrollTop = keep;
    if (focus && document.activeElement?.id !== focus) document.getElementById(focus)?.focus();
  }

  #head(page) {
    const steps = ["choose", "going", "result"];
    const failed = page === "result" && this.#job.job?.state !== "done";
    const at = failed ? 1 : steps.indexOf(page);
    const cameras = live.stations.get(this.#station)?.status?.cameras.map((one) => one.name) ?? [];
    return el(
      "div",
      { class: "teach-head" },
      el("h1", {}, text("teach.title")),
      el(
        "ol",
        { class: "steps" },
        steps.map((step, index) =>
          el(
            "li",
            { class: index < at ? "past" : "", "aria-current": index === at ? "step" : null },
            text(`teach.step.${step}`),
          ),
        ),
      ),
      cameras.length > 1
        ? el(
            "select",
            {
              id: "teach-camera",
              "aria-label": text("teach.camera"),
              onchange: (event) => {
                this.#camera = event.target.value;
                void this.#load();
              },
            },
            cameras.map((name) => el("option", { value: name, selected: name === this.#camera }, name)),
          )
        : null,
      this.#recipe && page !== "result"
        ? el("span", { class: "soft" }, text("teach.of", { recipe: this.#recipe, camera: this.#camera }))
        : null,
      page === "result" && this.#job.job?.state === "done"
        ? el(
            "button",
            { type: "button", class: "plain", id: "teach-more", onclick: () => this.#choose() },
            text("teach.more"),
          )
        : null,
    );
  }

  #choose() {
    this.#chosen = true;
    this.#draw();
    void this.#loadAbout();
    void this.#loadCandidates();
  }

  // ---- 1: parts are chosen -------------------------------------------------------------------

  #drawChoose(job) {
    return el(
      "div",
      { class: "teach-columns" },
      el(
        "section",
        { class: "panel teach-from", "aria-labelledby": "teach-from" },
        el("h2", { id: "teach-from" }, text("teach.from")),
        el(
          "div",
          { class: "switches", role: "group", "aria-label": text("teach.from") },
          ["good", "rejects"].map((source) =>
            el(
              "button",
              {
                type: "button",
                id: `source-${source}`,
                class: "plain",
                "aria-pressed": String(source === this.#source),
                onclick: () => {
                  this.#source = source;
                  this.#candidates = null;
                  this.#draw();
                  void this.#loadCandidates();
                },
              },
              text(`teach.source.${source}`),
            ),
          ),
          el("button", {
            type: "button", id: "newer", class: "plain", hidden: this.#newer === 0,
            onclick: () => void this.#loadCandidates(),
          }, text("teach.newer", { count: this.#newer })),
        ),
        this.#drawCandidates(),
      ),
      el(
        "section",
        { class: "panel teach-basket", "aria-labelledby": "teach-basket" },
        el("h2", { id: "teach-basket" }, text("teach.basket", { count: this.#basket.length })),
        this.#basket.length === 0
          ? el("p", { class: "soft" }, text("teach.empty"))
          : el("div", { class: "tiles", role: "list" }, this.#basket.map((part) => this.#inBasket(part))),
        this.#drawAct(),
        job === null ? null : this.#drawLast(job),
      ),
    );
  }

  #drawCandidates() {
    if (this.#lacks) return noModel(this.#app);
    const told = this.#candidates;
    if (told === null) return el("p", { class: "soft", role: "status" }, text(live.stations.get(this.#station)?.status ? "teach.loading" : "frame.no_station"));
    if (told.problem) {
      return el(
        "div",
        {},
        el("p", { class: "problem", role: "alert" }, told.problem),
        el("button", { type: "button", class: "plain", id: "again", onclick: () => void this.#load() }, text("teach.again")),
      );
    }
    if (told.found.length === 0) {
      return el(
        "div",
        { class: "empty" },
        el("p", { class: "soft" }, text(`teach.none.${this.#source}`)),
        this.#source === "good"
          ? el("button", { type: "button", class: "plain", id: "to-history", onclick: () => this.#app.go("history", { verdicts: "FAIL" }) },
              text("teach.to_history"))
          : null,
      );
    }
    const inside = new Map(this.#basket.map((one) => [key(one.verdict), "teach.inside"]));
    // The run of the model in use knows the parts of its last lesson, and would refuse them.
    const last = this.#job.job?.result;
    if (last?.used?.deed === "use") for (const part of last.parts) inside.set(key(part), "teach.taught");
    return el(
      "div",
      { class: "tiles", role: "list" },
      told.found.map((entry) => this.#candidate(entry, inside.get(key(entry.verdict)))),
    );
  }

  #candidate(entry, inside) {
    const verdict = entry.verdict;
    const may = this.#app.may("operator");
    const put = el(
      "button",
      {
        type: "button",
        class: inside ? "plain put" : "put",
        id: `put-${verdict.seq}`,
        disabled: Boolean(inside) || !may || this.#busy.has(key(verdict)),
        "aria-label": `${text(inside ?? this.#putWords())}: ${named(verdict)}`,
        onclick: () => void this.#put(entry),
      },
      inside ? `✓ ${text(inside)}` : `+ ${text(this.#putWords())}`,
    );
    return el(
      "div",
      { class: "tile", role: "listitem" },
      this.#thumbnail(verdict, ofPart(this.#station, verdict, "thumbnail"), inside ? null : () => this.#put(entry)),
      caption(verdict),
      put,
    );
  }

  #putWords() {
    return this.#source === "good" ? "teach.put" : "teach.put_good";
  }

  #inBasket(part) {
    const verdict = part.verdict;
    return el(
      "div",
      { class: "tile", role: "listitem" },
      this.#thumbnail(verdict, ofStation(this.#station, `basket/${part.id}/picture`), null),
      caption(verdict),
      el(
        "button",
        {
          type: "button",
          class: "plain put",
          id: `out-${part.id}`,
          disabled: !this.#app.may("operator"),
          "aria-label": `${text("teach.out")}: ${named(verdict)}`,
          onclick: () => void this.#remove(part),
        },
        `✕ ${text("teach.out")}`,
      ),
    );
  }

  #thumbnail(verdict, source, put) {
    return el(
      "button",
      {
        type: "button",
        class: "look",
        "aria-label": `${text("teach.look")}: ${named(verdict)}`,
        onclick: () => this.#look(verdict, put),
      },
      el("img", { src: source, alt: "", loading: "lazy", onerror: (event) => event.target.classList.add("gone") }),
    );
  }

  /** A part in large, with its heatmap; `put` is what its button does, null for none. */
  #look(verdict, put) {
    const picture = new PartPicture(() => dialog.close());
    const none = el("p", { class: "soft", hidden: true }, text("teach.no_picture"));
    const dialog = el(
      "dialog",
      {
        class: "large",
        "aria-label": named(verdict),
        onclose: () => {
          picture.close();
          dialog.remove();
        },
      },
      el("p", {}, el("strong", {}, named(verdict)), ` – ${share(verdict.score)} – ${moment(verdict.judged_us)}`),
      none,
      picture.node,
      el(
        "div",
        { class: "controls" },
        controls(picture),
        put && this.#app.may("operator")
          ? el("button", {
              type: "button",
              onclick: () => {
                dialog.close();
                void put();
              },
            }, `+ ${text(this.#putWords())}`)
          : null,
        el("button", { type: "button", class: "plain", onclick: () => dialog.close() }, text("picture.close")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    void picture
      .show(this.#station, verdict, named(verdict), { kept: true, large: true, chosen: true })
      .then((there) => (none.hidden = there));
  }

  async #put(entry) {
    const { verdict } = entry;
    this.#busy.add(key(verdict));
    this.#draw();
    try {
      if (await putIn(this.#station, entry)) entry.marks.push({ label: "good" });
    } catch (error) {
      this.#app.say(explained(error), "problem");
    }
    this.#busy.delete(key(verdict));
    this.#written = null;
    await this.#loadBasket();
  }

  async #remove(part) {
    try {
      await post(ofStation(this.#station, "basket/remove"), { ids: [part.id] });
    } catch (error) {
      this.#app.say(explained(error), "problem");
    }
    this.#written = null;
    await this.#loadBasket();
  }

  /** What can be done with the basket, or why it cannot be taught here. */
  #drawAct() {
    const about = this.#about;
    const count = this.#basket.length;
    if (about === null || this.#lacks) return null;
    if (!about.state) return el("p", { class: "problem" }, text("error.no_state"));
    const missing = about.program ? about.problem : "no_tools";
    const running = this.#job.running;
    const can = count > 0 && missing === "" && this.#app.may("engineer") && running === null;
    return el(
      "div",
      { class: "teach-act" },
      count === 1 ? el("p", { class: "soft" }, text("teach.one")) : null,
      missing && count > 0
        ? el(
            "p",
            { class: "problem" },
            text(`error.${missing}`),
            original(about.detail),
          )
        : null,
      running !== null ? el("p", { class: "soft" }, text("error.job_busy")) : null,
      missing === ""
        ? el(
            "button",
            { type: "button", id: "teach-start", disabled: !can, onclick: () => void this.#start() },
            text("teach.start", { count }),
          )
        : el(
            "button",
            { type: "button", id: "teach-folder", disabled: count === 0 || !this.#app.may("operator"), onclick: () => void this.#write() },
            text("teach.folder"),
          ),
      missing === "" && !this.#app.may("engineer") ? el("p", { class: "soft" }, text("teach.engineer")) : null,
      this.#written === null ? null : this.#drawWritten(this.#written),
    );
  }

  #drawWritten({ folder, command, parts }) {
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(command);
        this.#app.say(text("teach.copied"));
      } catch {
        const range = document.createRange();
        range.selectNodeContents(this.#root.querySelector("#teach-command"));
        getSelection().removeAllRanges();
        getSelection().addRange(range);
      }
    };
    return el(
      "div",
      { class: "teach-written", role: "status" },
      el("p", {}, text("teach.written", { count: parts }), el("br"), el("code", {}, folder)),
      el("p", {}, text("teach.type")),
      el("pre", { id: "teach-command", tabindex: "0" }, command),
      el("button", { type: "button", class: "plain", id: "teach-copy", onclick: () => void copy() }, text("teach.copy")),
    );
  }

  async #write() {
    try {
      this.#written = await post(ofStation(this.#station, "teach/folder"), { recipe: this.#recipe, camera: this.#camera });
    } catch (error) {
      this.#app.say(explained(error), "problem");
    }
    this.#draw();
  }

  async #start() {
    const count = this.#basket.length;
    if (!(await this.#app.confirm(text("teach.sure", { count }), text("teach.start", { count })))) return;
    this.#chosen = false;
    try {
      await post(ofStation(this.#station, "teach/start"), { recipe: this.#recipe, camera: this.#camera });
      await this.#job.again();
    } catch (error) {
      this.#chosen = true;
      this.#app.say(explained(error), "problem");
      await this.#loadAbout();
    }
  }

  #drawLast(job) {
    const used = job.result?.used;
    return el(
      "p",
      { class: "soft teach-last" },
      used ? usedWords(used) : text(`teach.last.${job.state}`, { at: moment(job.ended_us) }),
      " ",
      el("button", { type: "button", class: "plain", id: "teach-see", onclick: () => { this.#chosen = false; this.#draw(); } }, text("teach.see")),
    );
  }

  // ---- 2: it goes on -------------------------------------------------------------------------

  #drawGoing(job) {
    this.#progress.show(job);
    return el(
      "div",
      { class: "teach-going" },
      el("p", {}, text("teach.going", { count: job.about.parts })),
      this.#progress.node,
      this.#basket.length === 0
        ? null
        : el(
            "div",
            { class: "strip" },
            this.#basket.map((part) =>
              this.#thumbnail(part.verdict, ofStation(this.#station, `basket/${part.id}/picture`), null),
            ),
          ),
    );
  }

  // ---- 3: what came of it --------------------------------------------------------------------

  #drawResult(job) {
    if (job.state !== "done") {
      this.#progress.show(job);
      return el(
        "div",
        { class: "teach-going" },
        this.#progress.node,
        el("p", {}, text("teach.unchanged")),
        el("button", { type: "button", id: "teach-again", onclick: () => this.#choose() }, text("teach.back_to_basket")),
      );
    }
    const result = { ...job.result, parts: job.result.parts.map(asOnTheLine) };
    return el(
      "div",
      { class: "teach-columns" },
      el(
        "section",
        { class: "panel", "aria-labelledby": "teach-parts" },
        el("h2", { id: "teach-parts" }, text("teach.parts")),
        findings(result).map(([kind, words]) => el("p", { class: `finding ${kind}` }, words)),
        this.#drawParts(result.parts),
      ),
      el(
        "section",
        { class: "panel", "aria-labelledby": "teach-trial" },
        el("h2", { id: "teach-trial" }, text("teach.trial")),
        this.#drawTrial(result.trial, job.left_out),
        this.#drawUse(job),
      ),
    );
  }

  #drawParts(parts) {
    return el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": text("teach.scores") },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", {}, text("teach.part")),
            ["before", "unseen", "now"].map((name) =>
              el("th", { class: "number", title: text(`teach.${name}.more`) }, text(`teach.${name}`)),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          parts.map((part) =>
            el(
              "tr",
              {},
              el("td", {}, el("img", { class: "small", src: ofPart(this.#station, part, "thumbnail"), alt: "", loading: "lazy" }), ` ${named(part)}`),
              [part.before, part.unseen, part.now].map((score) => el("td", { class: "number" }, judged(score))),
            ),
          ),
        ),
      ),
      el("p", { class: "soft" }, text("teach.scale")),
    );
  }

  #drawTrial(trial, leftOut) {
    if (trial === null) {
      const why = leftOut.fetch ?? leftOut.try ?? "";
      return [
        el("p", { class: "finding warn" }, text("teach.no_trial")),
        why ? el("p", { class: "soft" }, why) : null,
      ];
    }
    const counts = counted(trial);
    return [
      el("p", {}, text("teach.tried", { count: number(trial.judged), rejected: number(counts.rejected), passed: number(counts.passed) })),
      ["better", "worse"].map((name) => {
        const parts = trial.changed.filter(CHANGES[name]);
        const [changed, of] = [counts[name], name === "better" ? counts.rejected : counts.passed];
        return el(
          "div",
          { class: `change ${name}` },
          el(
            "p",
            {},
            el("strong", {}, number(changed)),
            changed && of ? ` (${number((100 * changed) / of, 1)} %)` : "",
            ` ${text(`teach.${name}`)}`,
          ),
          parts.length === 0
            ? null
            : el(
                "div",
                { class: "strip" },
                parts.slice(0, STRIP).map((part) =>
                  this.#thumbnail({ ...part, score: part.score_then, regions: [] }, ofPart(this.#station, part, "thumbnail"), null),
                ),
              ),
        );
      }),
      el("p", { class: "soft" }, text("teach.same", { count: number(trial.judged - counts.better - counts.worse) })),
    ];
  }

  #drawUse(job) {
    const { bundle, model, used } = job.result;
    const may = this.#app.may("engineer");
    const act = el(
      "div",
      { class: "teach-use" },
      used
        ? el("p", { class: "finding well" }, usedWords(used))
        : null,
      used?.deed === "use"
        ? el("button", { type: "button", id: "teach-back", disabled: !may, onclick: () => void this.#change("back", job) }, text("teach.back"))
        : el("button", { type: "button", id: "teach-use", disabled: !may, onclick: () => void this.#change("use", job) }, text("teach.use")),
    );
    return [
      act,
      may
        ? el("a", { class: "teach-save", href: ofStation(this.#station, "teach/bundle"), download: "taught.onnx" }, text("teach.save", { size: number(bundle.bytes / 1e6, 1) }))
        : el("p", { class: "soft" }, text("teach.engineer")),
      el("p", { class: "soft" }, `${model.name} ${model.version} – ${text("teach.of", job.about)}`),
    ];
  }

  async #change(deed, job) {
    const { recipe, camera } = job.about;
    const trial = deed === "use" ? job.result.trial : null;
    const sure = [
      trial ? text("teach.use_trial", { count: number(trial.judged), ...counted(trial) }) : "",
      text(`teach.${deed}_sure`, { recipe, camera }),
    ];
    if (!(await this.#app.confirm(sure.join(" ").trim(), text(`teach.${deed}`)))) return;
    const button = this.#root.querySelector(".teach-use button");
    button.disabled = true;
    fill(button, text("teach.changing"));
    try {
      await post(ofStation(this.#station, `teach/${deed}`), { job: job.id });
      this.#app.say(text(`teach.${deed}_done`));
    } catch (error) {
      this.#app.say(explained(error), "problem");
    }
    await this.#job.again();
    this.#draw();
  }
}

/** A taught part's scores as the station would tell them: it divides by the factor on the limit. */
function asOnTheLine(part) {
  const scaled = (score) => (score === null ? null : score / part.limit_factor);
  return { ...part, before: scaled(part.before), unseen: scaled(part.unseen), now: scaled(part.now) };
}

/** Whether the taught model is in use, since when, and who said so. */
function usedWords(used) {
  const by = used.by ? ` (${used.by})` : "";
  return text(`teach.used.${used.deed}`, { at: moment(used.at_us), by });
}

function fits(entry, source, recipe) {
  if (!entry.has_picture || entry.verdict.recipe !== recipe) return false;
  return source === "rejects" || entry.marks.at(-1)?.label === "good";
}

const rejected = (verdict) => verdict !== "PASS";

/** What a change is for the line, of a count or of a part of a trial. */
const CHANGES = {
  better: (one) => rejected(one.then) && one.now === "PASS",
  worse: (one) => one.then === "PASS" && rejected(one.now),
};

/** How many pictures of a trial were rejected and passed, and of how many that would change. */
function counted(trial) {
  const count = (holds) => trial.counts.filter(holds).reduce((sum, one) => sum + one.parts, 0);
  return {
    rejected: count((one) => rejected(one.then)),
    passed: count((one) => one.then === "PASS"),
    better: count(CHANGES.better),
    worse: count(CHANGES.worse),
  };
}

function key(verdict) {
  return `${verdict.epoch}/${verdict.seq}`;
}

function named(verdict) {
  return verdict.part_id || text("teach.number", { seq: verdict.seq });
}

function share(score) {
  return score === null || score === undefined ? "–" : `${number(100 * score)} %`;
}

function caption(verdict) {
  return el(
    "p",
    { class: "caption" },
    el("span", { class: `verdict ${verdict.verdict}` }, text(`verdict.${verdict.verdict}`)),
    ` ${share(verdict.score)}`,
    el("br"),
    el("span", { class: "soft" }, named(verdict)),
  );
}

/** A score with a sign: whether such a part passes. */
function judged(score) {
  if (score === null) return "–";
  const passes = score < 1;
  return el(
    "span",
    { class: passes ? "passes" : "fails" },
    `${share(score)} `,
    el("span", { role: "img", "aria-label": text(passes ? "teach.passes" : "teach.fails") }, passes ? "✓" : "✕"),
  );
}

/** What a person must know of a lesson: [kind, words], the most important first. */
function findings(result) {
  const { parts } = result;
  const found = [];
  const count = parts.length;
  const pass = parts.filter((part) => part.now < 1).length;
  found.push([pass === count ? "well" : "warn", text(pass === count ? "teach.all_pass" : "teach.some_pass", { pass, count })]);
  const unseen = parts.filter((part) => part.unseen !== null);
  const still = unseen.filter((part) => part.unseen >= 1).length;
  if (unseen.length === 0) found.push(["warn", text("teach.alone")]);
  else if (still) found.push(["warn", text("teach.still", { still, count: unseen.length })]);
  else found.push(["well", text("teach.like", { count: unseen.length })]);
  const doubtful = parts.filter((part) => part.before >= DOUBTFUL);
  if (doubtful.length) found.push(["warn", text("teach.doubtful", { parts: doubtful.map(named).join(", ") })]);
  const rise = result.limit_now / result.limit_before;
  if (rise > TOLERANT) found.push(["warn", text("teach.rise", { share: number(100 * (rise - 1)) })]);
  if (result.items_from_lessons >= result.items_from_lessons_at_most) found.push(["warn", text("teach.full")]);
  return found;
}
