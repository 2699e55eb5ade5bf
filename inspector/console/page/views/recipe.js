/** The recipe: which one is in force, changing it, and how its models do. */

import { alarmWords } from "../alarm.js";
import { get, ofStation, post } from "../api.js";
import { Sparkline, TimeSeries } from "../charts.js";
import { el, fill, options } from "../dom.js";
import { installPanel } from "../install.js";
import { live } from "../live.js";
import { explained, original } from "../original.js";
import { moment, number, reason, text } from "../words.js";
import { lacksModel, noModel } from "../wrong.js";

const EVERY_MS = 10_000;
const BLOCKS = 25;
const LEAST_PARTS = 10;

export function open(root, app, parameters) {
  const station = app.station;
  let closed = false;
  let judging = null;
  let isBusy = false;
  let isTaken = false;
  let looking = 0;
  let camera = parameters.get("camera") ?? "";
  let parts = [];
  let told = "";

  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const waiting = el("p", { class: "soft" }, text("recipe.loading"));
  const control = el("section", { class: "panel control", hidden: true, "aria-label": text("recipe.control") });
  const alarms = el("section", { class: "panel alarms", hidden: true, "aria-label": text("recipe.alarms") });
  const recipes = el("div", { class: "recipes" });
  const busy = el("p", { class: "soft", role: "status" });
  const models = el("div", { class: "models" });
  const cameras = el("select", { "aria-label": text("recipe.camera"), onchange: () => look(cameras.value) });
  const times = new Map();
  const drift = new TimeSeries();
  const rejects = new TimeSeries();
  const driftWords = el("p", { class: "soft" });
  const rejectWords = el("p", { class: "soft" });
  const install = el("section", { id: "install" });
  const closeInstall = installPanel(install, app, station);
  const curves = el("section", { class: "panel curves" },
    el("div", { class: "head" }, el("h2", {}, text("recipe.curves")), cameras),
    el("h3", {}, text("recipe.rejects")), rejects.node, rejectWords,
    el("h3", {}, text("recipe.drift")), drift.node, driftWords);
  const body = el(
    "div",
    { class: "recipe", hidden: true },
    control,
    alarms,
    el("div", { class: "column" },
      el("section", { class: "panel" }, el("h2", {}, text("recipe.choose")), recipes, busy),
      el("section", { class: "panel" }, el("h2", {}, text("recipe.model")), models)),
    curves,
    install,
  );
  fill(root, el("h1", {}, text("recipe.menu")), problem, waiting, body);

  const status = () => live.stations.get(station)?.status ?? null;

  async function look(chosen = camera) {
    looking += 1;
    try {
      const found = await get(ofStation(station, "judging"));
      const shown = found.cameras.find((one) => one.camera === chosen) ?? found.cameras[0];
      // A new station has no model, and so no part was judged.
      const kept = shown && (await get(ofStation(station, `scores/${encodeURIComponent(shown.camera)}`)));
      if (closed) return;
      judging = found;
      camera = shown?.camera ?? "";
      parts = kept?.parts ?? [];
      problem.hidden = true;
      waiting.hidden = true;
      body.hidden = false;
      show();
    } catch (error) {
      if (closed) return;
      fill(problem, `${reason(error)}. ${text("recipe.again")}`);
      problem.hidden = false;
      waiting.hidden = true;
    } finally {
      looking -= 1;
    }
  }

  /** What changes as parts go by; what a finger may be on is made anew only when it is another. */
  function show() {
    const now = JSON.stringify([
      judging.recipes, judging.control !== null, isTaken, isBusy, status()?.recipe, judging.cameras.map((one) => [
        one.model, one.limit_factor, one.self_test, one.golden,
      ]),
    ]);
    if (now !== told) {
      told = now;
      showControl();
      showRecipes();
      showModels();
    }
    showAlarms();
    showTimes();
    curves.hidden = judging.cameras.length === 0;
    if (!curves.hidden) showCurves();
  }

  function showControl() {
    const has = judging.control !== null;
    control.hidden = !has;
    if (!has) return;
    const who = judging.control.client || text("recipe.nameless");
    fill(
      control,
      el("strong", {}, text("recipe.plc")),
      el("p", {}, text(isTaken ? "recipe.plc_taken" : "recipe.plc_about", { who })),
      isTaken || !app.may("engineer")
        ? null
        : el("button", { class: "plain", id: "take-over", onclick: takeOver }, text("recipe.take_over")),
    );
  }

  async function takeOver() {
    if (!(await app.confirm(text("recipe.take_over_question"), text("recipe.take_over")))) return;
    isTaken = true;
    show();
  }

  function showRecipes() {
    const now = inForce();
    const locked = !app.may("operator") || (judging.control !== null && !isTaken);
    fill(
      recipes,
      judging.recipes.map((one) => {
        const is = one.recipe === now;
        return el(
          "button",
          {
            class: is ? "choice now" : "choice plain", "aria-pressed": String(is), "data-recipe": one.recipe,
            disabled: isBusy || (!is && locked), onclick: () => void change(one),
          },
          el("strong", {}, is ? "✓ " : "", one.recipe),
          el("span", {}, is ? text("recipe.in_force") : bundles(one)),
        );
      }),
    );
    const reload = el("button", { class: "plain", id: "reload", disabled: isBusy || !app.may("engineer"), onclick: () => void reread() },
      text("recipe.reload"));
    recipes.append(reload);
  }

  const inForce = () => status()?.recipe || judging.cameras[0]?.recipe;

  function bundles(recipe) {
    const several = recipe.cameras.length > 1;
    const names = recipe.cameras.map((one) => (several ? `${one.camera}: ${one.bundle}` : one.bundle));
    return [...new Set(names)].join(", ");
  }

  async function change(recipe) {
    if (recipe.recipe === inForce()) return;
    const from = judging.cameras.map((one) => `${one.camera}: ${one.model.name} ${one.model.version}`).join(", ") || "–";
    const to = recipe.cameras.map((one) => `${one.camera}: ${one.bundle}`).join(", ");
    const asked = [text("recipe.question", { from: inForce(), to: recipe.recipe }), text("recipe.models", { from, to })];
    if (judging.control !== null) asked.push(text("recipe.plc_back"));
    if (!(await app.confirm(asked.join(" "), text("recipe.change", { to: recipe.recipe })))) return;
    const body_ = { recipe: recipe.recipe, take_over: isTaken };
    await deed("recipe", body_, text("recipe.changed", { to: recipe.recipe }));
  }

  async function reread() {
    if (!(await app.confirm(text("recipe.reload_question"), text("recipe.reload")))) return;
    await deed("reload", {}, text("recipe.reloaded"));
  }

  async function deed(kind, body_, done) {
    isBusy = true;
    fill(busy, text("recipe.busy"));
    show();
    try {
      await post(ofStation(station, `deeds/${kind}`), body_);
      app.say(done);
    } catch (error) {
      app.say(explained(error), "problem");
    }
    if (closed) return;
    isBusy = false;
    fill(busy, "");
    await look();
  }

  function showModels() {
    times.clear();
    for (const one of judging.cameras) times.set(one.camera, { words: el("span"), curve: new Sparkline() });
    if (judging.cameras.length === 0) fill(models, noModel(app));
    else fill(models, judging.cameras.map((one) =>
      el(
        "dl",
        {},
        row("recipe.camera", one.camera),
        row("recipe.name", `${one.model.name} ${one.model.version}`),
        row("recipe.taught", text("recipe.taught_with", { count: number(one.training_parts), when: date(one.created) })),
        row("recipe.limit", `${number(one.limit_factor, 2)}${one.limit_factor === one.of_file ? "" : ` ${text("recipe.limit_set", { file: number(one.of_file, 2) })}`}`),
        row("recipe.known", text("recipe.known_well", { count: number(one.golden) }), "well"),
        ...selfTest(one.self_test),
        row("recipe.time", [times.get(one.camera).words, " ", times.get(one.camera).curve.node]),
      ),
    ));
  }

  /** How long the last parts of each camera took. */
  function showTimes() {
    const verdicts = live.stations.get(station)?.verdicts ?? [];
    for (const [name, { words, curve }] of times) {
      const taken = verdicts.filter((one) => one.camera === name && one.judge_ms !== null).map((one) => one.judge_ms);
      fill(words, taken.length ? text("recipe.ms", { ms: number(taken.at(-1), 0) }) : text("recipe.no_parts"));
      curve.node.style.visibility = taken.length > 1 ? "visible" : "hidden";
      curve.draw(taken, text("recipe.times", { count: number(taken.length) }));
    }
  }

  function selfTest(test) {
    if (test === null) return row("recipe.self_test", text("recipe.no_test"), "care");
    if (test.at_us === null) return row("recipe.self_test", text("recipe.not_tested", test), "care");
    const when = moment(test.at_us);
    return test.missed
      ? row("recipe.self_test", [text("recipe.test_missed", { ...test, when }), " ", missed(test), original(test.missed)], "wrong")
      : row("recipe.self_test", text("recipe.test_found", { defect: test.defect, when }), "well");
  }

  function showAlarms() {
    const standing = status()?.alarms ?? [];
    const key = JSON.stringify(standing.map((one) => [one.kind, one.where, one.acknowledged_us, one.detail]));
    if (alarms.dataset.key === key) return;
    alarms.dataset.key = key;
    alarms.hidden = standing.length === 0;
    alarms.className = `panel alarms${standing.some((one) => one.acknowledged_us === null) ? " new" : ""}`;
    fill(alarms, el("h2", {}, text("recipe.alarms")), standing.map(alarm));
  }

  function alarm(one) {
    const seen = one.acknowledged_us !== null;
    const who = one.by || one.client || text("recipe.somebody");
    const where = one.kind === "storage" ? "" : ` (${one.where})`;
    const title = `${text(`recipe.alarm_${one.kind}`)}${where}`;
    if (seen) {
      const words = text("recipe.seen", { who, when: moment(one.acknowledged_us) });
      return el("details", { class: "alarm" }, el("summary", {}, `○ ${title}. ${words}`), alarmWords(one).map((said) => el("p", {}, said)), original(one.detail));
    }
    return el(
      "div",
      { class: "alarm new" },
      el("div", {}, el("strong", {}, `▲ ${title}`), alarmWords(one).map((said) => el("p", {}, said)), original(one.detail)),
      el("button", { class: "plain", disabled: !app.may("operator"), onclick: (event) => void acknowledge(one, event.target) },
        text("recipe.acknowledge")),
    );
  }

  async function acknowledge(one, button) {
    button.disabled = true;
    try {
      await post(ofStation(station, "deeds/acknowledge"), { kind: one.kind, where: one.where });
      app.say(text("recipe.acknowledged"));
    } catch (error) {
      button.disabled = false;
      app.say(explained(error), "problem");
    }
  }

  function showCurves() {
    options(cameras, judging.cameras.map((one) => one.camera), camera);
    cameras.hidden = judging.cameras.length < 2;
    const { limit_factor: factor, drift: now } = judging.cameras.find((one) => one.camera === camera);
    const found = blocks(parts);
    const count = number(parts.length);
    const words = { time: (at) => moment(at, false) };
    const share = parts.filter((one) => one.verdict === "FAIL").length / Math.max(1, parts.filter((one) => one.raw !== null).length);
    fill(rejectWords, parts.length
      ? text("recipe.rejects_now", { count, share: number(100 * share, 1) })
      : text("recipe.no_parts"));
    rejects.draw({
      label: `${text("recipe.rejects")}: ${rejectWords.textContent}`,
      points: found.map((block) => ({ at: block.at, value: block.rejected })),
      line: null, low: 0, high: 0.05,
      words: { ...words, value: (value) => `${number(100 * value, 0)} %` },
    });
    // In units of the limit in force, as the station says it.
    const reference = now.calibrated;
    fill(driftWords, now.recent === null || reference === null
      ? text("recipe.no_drift")
      : text(now.alarm ? "recipe.drifts" : "recipe.drift_now", { recent: number(now.recent, 2), calibrated: number(reference, 2) }));
    drift.draw({
      label: `${text("recipe.drift")}: ${driftWords.textContent}`,
      points: found.map((block) => ({ at: block.at, value: block.median === null ? null : block.median / factor })),
      line: reference === null ? null : { at: reference, name: text("recipe.at_training") },
      low: Math.min(1, reference ?? 1) * 0.8, high: 1,
      words: { ...words, value: (value) => number(value, 2) },
    });
  }

  // A station that does not answer is not asked again and again meanwhile.
  const timer = setInterval(() => looking || void look(), EVERY_MS);
  const heard = (event) => {
    if (event.detail.station !== station || judging === null) return;
    showAlarms();
    const isOther = event.detail.status.recipe !== judging.cameras[0]?.recipe;
    if (isOther && !lacksModel(event.detail.status) && !isBusy && !looking) void look();
  };
  const known = () => judging !== null && showAlarms();
  live.addEventListener("status", heard);
  live.addEventListener("snapshot", known);
  void look();
  return () => {
    closed = true;
    clearInterval(timer);
    live.removeEventListener("status", heard);
    live.removeEventListener("snapshot", known);
    drift.close();
    rejects.close();
    closeInstall();
  };
}

/** Why a known defect counts as missed: its verdict, or a score that has moved. */
function missed({ score, expected }) {
  if (score === null) return text("recipe.missed_unjudged");
  if (expected === null) return text("recipe.missed_score", { score: number(score, 2) });
  return text("recipe.missed_expected", { score: number(score, 2), expected: number(expected, 2) });
}

function row(key, words, kind = "") {
  return [el("dt", {}, text(key)), el("dd", { class: kind }, words)];
}

/** The parts, which are the newest first, in blocks: when, which share was rejected, and the median of the passed. */
function blocks(parts) {
  const size = Math.max(LEAST_PARTS, Math.ceil(parts.length / BLOCKS));
  const found = [];
  const old = [...parts].reverse();
  for (let first = 0; first + LEAST_PARTS <= old.length; first += size) {
    const block = old.slice(first, first + size);
    const judged = block.filter((one) => one.raw !== null);
    const passed = judged.filter((one) => one.verdict === "PASS").map((one) => one.raw).sort((a, b) => a - b);
    found.push({
      at: block.at(-1).at_us,
      rejected: judged.length ? (judged.length - passed.length) / judged.length : null,
      median: passed.length ? passed[Math.floor(passed.length / 2)] : null,
    });
  }
  return found;
}

function date(created) {
  const at = Date.parse(created);
  return Number.isNaN(at) ? created : moment(at * 1000);
}
