/** A new model for a camera: a file is sent to the station piece by piece, or the last one is taken back. */

import { address, ofStation, post } from "./api.js";
import { call, el, fill } from "./dom.js";
import { live } from "./live.js";
import { explained } from "./original.js";
import { number, text } from "./words.js";

/** The server takes twice as much at once. */
const PIECE = 512 * 1024;
const PATIENCE_MS = 30_000;
const PAUSE_MS = 500;
const MAY_PASS = new Set(["no_page", "no_answer", "busy", "not_ready"]);
const MB = 1024 * 1024;

/**
 * Fill `root` (a section) with the panel of `station`. Returns what closes it: a file that is being
 * sent stays where it is, and the next try goes on from there.
 */
export function installPanel(root, app, station) {
  let closed = false;
  let stopped = false;
  let working = false;
  let file = null;
  let told = "";

  const may = app.may("engineer");
  const camera = el("select", { id: "install-camera", onchange: show });
  const recipe = el("select", { id: "install-recipe", onchange: show });
  const cameraLabel = el("label", {}, text("install.camera"), camera);
  const recipeLabel = el("label", {}, text("install.recipe"), recipe);
  const now = el("p", { class: "now" });
  // The browser's own control speaks the browser's language, which need not be the page's.
  const input = el("input", { type: "file", id: "install-file", accept: ".onnx", disabled: !may, onchange: choose });
  const chosen = el("span", { class: "name" }, text("install.none"));
  const picker = el("label", { class: "file" }, input, el("span", { class: "pick" }, text("install.file")), chosen);
  const start = el("button", { id: "install-start", disabled: true, onclick: () => void install() }, text("install.start"));
  const back = el("button", { id: "install-back", class: "plain", onclick: () => void goBack() }, text("install.back"));
  const bar = el("progress", { max: 1, "aria-label": text("install.progress") });
  const said = el("p", { class: "soft", role: "status" });
  const stop = el("button", { id: "install-stop", class: "plain", onclick: () => { stopped = true; } }, text("install.stop"));
  const progress = el("div", { class: "progress", hidden: true }, bar, stop);

  root.classList.add("panel", "install");
  call(root, text("install.title"));
  fill(
    root,
    el("h2", {}, text("install.title")),
    el("p", { class: "soft" }, text(may ? "install.about" : "install.role")),
    el("div", { class: "where" }, cameraLabel, recipeLabel),
    now,
    el("div", { class: "acts" }, picker, start, back),
    el("div", { class: "how" }, progress, said),
  );

  const status = () => live.stations.get(station)?.status ?? null;
  const alive = () => live.connected && (live.stations.get(station)?.alive ?? false);
  const shownCamera = () => status()?.cameras.find((one) => one.name === camera.value) ?? null;
  const inForce = () => recipe.value === status()?.recipe;

  function show() {
    if (closed) return;
    const found = status();
    offer(camera, found?.cameras.map((one) => one.name) ?? []);
    offer(recipe, found?.recipes ?? [], found?.recipe);
    cameraLabel.hidden = camera.options.length < 2;
    recipeLabel.hidden = recipe.options.length < 2;
    const one = shownCamera();
    const line = !alive()
      ? text("frame.no_station")
      : !inForce()
        ? text("install.not_now")
        : one?.model
          ? text(one.installed ? "install.now_installed" : "install.now_own", {
              name: one.model.name, version: one.model.version, sha256: one.model.sha256.slice(0, 12),
            })
          : "";
    if (line !== told) fill(now, told = line);
    start.disabled = !may || working || file === null || !alive();
    back.disabled = !may || working || !alive() || (inForce() && !one?.installed);
    camera.disabled = recipe.disabled = working;
    input.disabled = working || !may;
  }

  function choose() {
    file = input.files[0] ?? null;
    fill(chosen, file ? `${file.name} (${number(file.size / MB, 1)} MB)` : text("install.none"));
    fill(said, "");
    show();
  }

  async function install() {
    const where = { recipe: recipe.value, camera: camera.value };
    const question = text("install.question", { ...where, file: file.name });
    if (!(await app.confirm(question, text("install.start")))) return;
    await work(async () => {
      say(text("install.reading"));
      bar.removeAttribute("value");
      const sha256 = await digest(file);
      await send(sha256);
      if (closed || stopped) return;
      stop.hidden = true;
      bar.removeAttribute("value");
      say(text("install.checking"));
      await post(ofStation(station, "install"), { ...where, sha256 });
      input.value = "";
      choose();
      app.say(text(inForce() ? "install.done" : "install.done_later", where));
    });
  }

  async function goBack() {
    const where = { recipe: recipe.value, camera: camera.value };
    // A second try, or another page, does not go a second step.
    const sha256 = inForce() ? (shownCamera()?.model?.sha256 ?? "") : "";
    if (!(await app.confirm(text("install.back_question", where), text("install.back")))) return;
    await work(async () => {
      stop.hidden = true;
      bar.removeAttribute("value");
      say(text("install.checking"));
      await post(ofStation(station, "install/back"), { ...where, sha256 });
      app.say(text(inForce() ? "install.reverted" : "install.reverted_later", where));
    });
  }

  async function work(deed) {
    working = true;
    stopped = false;
    progress.hidden = stop.hidden = false;
    show();
    let last = "";
    try {
      await deed();
      if (stopped) last = text("install.stopped");
    } catch (error) {
      last = explained(error);
      if (!closed) app.say(explained(error), "problem");
    } finally {
      working = false;
      progress.hidden = true;
      say(last);
      show();
    }
  }

  /** Send what the station lacks; a page or a station that is gone for a moment is waited for. */
  async function send(sha256) {
    const to = (offset) => address(ofStation(station, "install/pieces"), { sha256, size: file.size, offset });
    const type = "application/octet-stream";
    let there = null;
    let until = Date.now() + PATIENCE_MS;
    while (!closed && !stopped && (there === null || there < file.size)) {
      const before = there;
      try {
        const piece = there === null ? new Blob([]) : file.slice(there, there + PIECE);
        there = (await post(to(there ?? 0), piece, type)).offset;
        say(text("install.sending", { there: number(there / MB, 1), size: number(file.size / MB, 1) }));
        bar.value = there / file.size;
      } catch (error) {
        if (!MAY_PASS.has(error.code)) throw error;
        if (Date.now() > until) throw error;
        there = null;
        say(text("install.waiting"));
      }
      if (before !== null && there !== null && there > before) until = Date.now() + PATIENCE_MS;
      else if (there === null || before !== null) {
        // No step forward: not again at once, and not for ever.
        if (Date.now() > until) throw Object.assign(new Error(), { code: "no_answer" });
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  function say(words) {
    if (!closed && said.textContent !== words) fill(said, words);
  }

  for (const kind of ["status", "snapshot", "connection"]) live.addEventListener(kind, show);
  show();
  return () => {
    closed = true;
    for (const kind of ["status", "snapshot", "connection"]) live.removeEventListener(kind, show);
  };
}

/** Have a list of choices offer these, and keep what is chosen. */
function offer(select, names, first = names[0]) {
  const known = [...select.options].map((one) => one.value);
  if (known.join("\n") === names.join("\n")) return;
  const chosen = names.includes(select.value) ? select.value : first;
  fill(select, names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
}

/** The SHA-256 of a file, in hex. */
async function digest(file) {
  const found = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(found)].map((one) => one.toString(16).padStart(2, "0")).join("");
}
