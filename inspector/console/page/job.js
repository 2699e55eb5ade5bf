/** A job beside the line, as it goes on: what it is at, how far, its last lines, and a way to end it. */

import { get, ofStation, post } from "./api.js";
import { el, fill } from "./dom.js";
import { live } from "./live.js";
import { explained } from "./original.js";
import { has, moment, text } from "./words.js";

/**
 * Follows the last job of `kind` of a station. `changed(job, running)` is called at once and whenever
 * something changed: `job` is null where there was none, `running` names the job at work on the whole
 * page (`kind`, `station`, `by`), or is null. `close()` ends it; `again()` asks the server anew.
 */
export class Job {
  #station;
  #kind;
  #changed;
  #closed = false;
  job = null;
  running = null;

  constructor(station, kind, changed) {
    this.#station = station;
    this.#kind = kind;
    this.#changed = changed;
    live.addEventListener("job", this.#hear);
    live.addEventListener("snapshot", this.again);
    void this.again();
  }

  close() {
    this.#closed = true;
    live.removeEventListener("job", this.#hear);
    live.removeEventListener("snapshot", this.again);
  }

  again = async () => {
    try {
      const told = await get(ofStation(this.#station, `jobs/${this.#kind}`));
      this.#set(told.job, told.running);
    } catch {
      // The frame tells that the page's server is gone; a new snapshot asks again.
    }
  };

  #hear = (event) => {
    const { station, job } = event.detail;
    const running = job.state === "running" ? { kind: job.kind, station, by: job.by } : null;
    const ours = station === this.#station && job.kind === this.#kind;
    this.#set(ours ? job : this.job, running);
  };

  #set(job, running) {
    if (this.#closed) return;
    this.job = job;
    this.running = running;
    this.#changed(job, running);
  }
}

/** The words for what a program is at: texts.csv under `stage.`, with `_` for what is no letter. */
function stage(words) {
  const key = `stage.${words.toLowerCase().replace(/[^a-z0-9]+/g, "_")}`;
  return has(key) ? text(key) : words;
}

/**
 * Shows a job in `node`; call it whenever the job changed. It keeps the elements that are there, so
 * that neither focus nor an opened list is lost. `app` says what may be done.
 */
export class JobProgress {
  node = el("section", { class: "job panel" });
  #title = el("p", { class: "job-title" });
  #stage = el("p", { class: "soft job-stage" });
  #bar = el("progress", { "aria-label": text("job.progress") });
  #problem = el("p", { class: "problem", role: "alert" });
  #lines = el("pre", { tabindex: "0", "aria-label": text("job.lines") });
  #more = el("details", {}, el("summary", {}, text("job.lines")), this.#lines);
  #cancel = el("button", { class: "plain", type: "button" }, text("job.cancel"));

  constructor(app, station, kind) {
    this.#cancel.addEventListener("click", async () => {
      if (!(await app.confirm(text("job.cancel_sure"), text("job.cancel")))) return;
      this.#cancel.disabled = true;
      try {
        await post(ofStation(station, `jobs/${kind}/cancel`));
      } catch (error) {
        app.say(explained(error), "problem");
      }
      this.#cancel.disabled = false;
    });
    this.#cancel.hidden = !app.may("engineer");
    fill(
      this.node, this.#title, this.#bar, this.#stage, this.#problem, this.#cancel, this.#more,
    );
  }

  show(job) {
    this.node.hidden = job === null;
    if (job === null) return;
    const going = job.state === "running";
    this.node.dataset.state = job.state;
    const step = has(`step.${job.step}`) ? text(`step.${job.step}`) : job.step;
    write(
      this.#title,
      going
        ? text("job.step", { step, number: job.number, steps: job.steps })
        : text(`job.${job.state}`, { at: moment(job.ended_us), by: job.by }),
    );
    const count = job.total ? `${job.done} / ${job.total}` : job.done ? `${job.done}` : "";
    const at = job.stage ? stage(job.stage) : text("job.starting");
    write(this.#stage, going ? [at, count].filter(Boolean).join(" – ") : "");
    this.#stage.hidden = !going;
    this.#bar.hidden = !going;
    if (job.total) {
      this.#bar.max = job.total;
      this.#bar.value = job.done;
    } else this.#bar.removeAttribute("value");
    write(this.#problem, job.problem);
    this.#problem.hidden = job.problem === "";
    this.#cancel.style.display = going ? "" : "none";
    write(this.#lines, job.lines.join("\n"));
    this.#more.hidden = job.lines.length === 0;
  }
}

function write(node, words) {
  if (node.textContent !== words) fill(node, words);
}
