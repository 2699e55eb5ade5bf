/** The limit: how parts scored, what another limit would change, and setting it. */

import { get, ofStation, post } from "../api.js";
import { Histogram } from "../charts.js";
import { confidence } from "../confidence.js";
import { el, fill, options } from "../dom.js";
import { live } from "../live.js";
import { explained } from "../original.js";
import { moment, number, reason, text } from "../words.js";
import { noModel } from "../wrong.js";

const RANGE = [0.5, 2];
const EVERY_MS = 10_000;
const SHOWN = 60;

export function open(root, app, parameters) {
  const station = app.station;
  let closed = false;
  let camera = parameters.get("camera") ?? "";
  let judged = null;
  let scores = { parts: [], marked: [] };
  let last = null;
  let tried = null;
  let isShown = false;
  let looking = 0;

  const chart = new Histogram({
    range: RANGE,
    names: { chart: text("limit.chart"), limit: text("limit.limit"), axis: text("limit.axis") },
    onchange: (value) => pick(value),
  });
  const title = el("h1", {}, text("limit.menu"));
  const cameras = el("select", { "aria-label": text("limit.camera"), hidden: true, onchange: () => look(cameras.value) });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const value = el("strong", { class: "value" });
  const effect = el("div", { class: "effect", "aria-live": "polite" });
  // Buttons stay where they are: one that is made anew would lose the focus.
  const unfolds = el("button", { class: "plain", id: "show", onclick: unfold });
  const apply = el("button", { id: "apply", onclick: () => void set(tried) });
  const leave = el("button", { class: "plain", id: "leave", onclick: () => pick(inForce(), true) });
  const undo = el("button", { class: "plain", id: "undo", onclick: () => void set(Number(last.before)) });
  const lastly = el("p", { class: "soft" });
  const about = el("p", { class: "soft about" });
  const legend = el("ul", { class: "legend", "aria-label": text("limit.legend") });
  const strip = el("section", { class: "strip", "aria-label": text("limit.parts"), hidden: true });
  const less = stepper("−", "limit.lower", -0.01);
  const more = stepper("+", "limit.higher", 0.01);
  const body = el(
    "div",
    { class: "limit", hidden: true },
    el("div", { class: "panel picture" }, chart.node, legend),
    el(
      "div",
      { class: "panel choice" },
      el("div", { class: "stepper" }, less, value, more),
      effect,
      unfolds,
      apply,
      leave,
      lastly,
      undo,
      about,
    ),
    strip,
  );
  const waiting = el("div", { class: "soft" }, text("limit.loading"));
  fill(root, el("div", { class: "head" }, title, cameras), problem, waiting, body);

  function stepper(sign, key, by) {
    return el("button", { class: "plain", "aria-label": text(key), onclick: () => pick(tried + by, true) }, sign);
  }

  const inForce = () => judged?.limit_factor ?? 1;
  const part = (one) => one.raw !== null;
  const fails = (one, limit) => one.raw >= limit;

  /** Parts that would be judged otherwise at the limit that is tried. */
  function changed(list = scores.parts) {
    return list.filter((one) => part(one) && fails(one, inForce()) !== fails(one, tried));
  }

  function pick(to, moves = false) {
    tried = Math.min(RANGE[1], Math.max(RANGE[0], Math.round(to * 100) / 100));
    if (moves) chart.move(tried);
    say();
  }

  async function look(chosen = camera) {
    camera = chosen;
    looking += 1;
    try {
      const told = await get(ofStation(station, "judging"));
      const found = told.cameras.find((one) => one.camera === camera) ?? told.cameras[0];
      if (closed) return;
      if (found === undefined) {
        fill(waiting, noModel(app));
        return;
      }
      const other = judged === null || found.camera !== judged.camera || found.model.sha256 !== judged.model.sha256;
      camera = found.camera;
      const [kept, deeds] = await Promise.all([
        get(ofStation(station, `scores/${encodeURIComponent(camera)}`)),
        get(ofStation(station, "deeds"), { kinds: "limit" }),
      ]);
      if (closed || camera !== found.camera) return;
      // What somebody else has set meanwhile is where this one begins again.
      if (other || tried === null || (tried === inForce() && found.limit_factor !== inForce())) {
        tried = found.limit_factor;
      }
      judged = found;
      scores = kept;
      last = deeds.deeds.find(
        (deed) => deed.subject === `${found.recipe}/${camera}`,
      );
      options(cameras, told.cameras.map((one) => one.camera), camera);
      cameras.hidden = told.cameras.length < 2;
      problem.hidden = true;
      show();
    } catch (error) {
      if (closed) return;
      fill(problem, `${reason(error)}. ${text("limit.again")}`);
      problem.hidden = false;
      waiting.hidden = true;
    } finally {
      looking -= 1;
    }
  }

  function show() {
    waiting.hidden = true;
    body.hidden = false;
    fill(title, `${text("limit.menu")}: ${judged.recipe}`);
    const parts = scores.parts.filter(part);
    chart.draw({
      recent: parts.map((one) => one.raw),
      reference: judged.calibration.scores,
      ticks: scores.marked.filter(part).map((one) => ({
        at: one.raw,
        kind: one.label,
        title: `${text(`limit.marked_${one.label}`)}: ${name(one)}, ${number(one.raw, 2)}`,
      })),
      inForce: inForce(),
      value: tried,
    });
    fill(
      legend,
      el("li", { class: "bars" }, text("limit.legend_parts", { count: number(parts.length) })),
      el("li", { class: "outline" }, text("limit.legend_good", { count: number(judged.calibration.good_parts) })),
      el("li", { class: "dashed" }, text("limit.legend_now", { limit: number(inForce(), 2) })),
      ["good", "bad"]
        .filter((label) => scores.marked.some((one) => one.label === label))
        .map((label) => el("li", { class: label }, text(`limit.marked_${label}`))),
    );
    say();
  }

  /** What the limit that is tried would change. */
  function say() {
    if (judged === null) return;
    const parts = scores.parts.filter(part);
    const [others, is, rises] = [changed(), inForce(), tried > inForce()];
    fill(value, number(tried, 2));
    less.disabled = tried <= RANGE[0];
    more.disabled = tried >= RANGE[1];
    const rejected = parts.filter((one) => fails(one, tried)).length;
    const count = { parts: number(parts.length), count: number(others.length), rejected: number(rejected) };
    const sentence = parts.length === 0
      ? text("limit.no_parts")
      : tried === is
        ? text("limit.same", count)
        : others.length === 0
        ? text("limit.no_change", count)
        : text(rises ? "limit.would_pass" : "limit.would_fail", count);
    const sure = interval();
    fill(
      effect,
      el("p", { class: "sentence" }, sentence),
      sure && el("p", { class: "interval" }, sure),
      warnings().map(warning),
    );
    unfolds.hidden = others.length === 0 && !isShown;
    fill(unfolds, text(isShown ? "limit.hide" : "limit.show"));
    unfolds.setAttribute("aria-expanded", String(isShown));
    apply.disabled = tried === is || !app.may("engineer");
    fill(apply, app.may("engineer")
      ? text("limit.apply", { limit: number(tried, 2) })
      : text("limit.needs_engineer"));
    fill(about, text("limit.about", { count: number(judged.calibration.good_parts) }));
    history();
    if (isShown) shown(others);
  }

  /** How many good parts of the training reach the limit that is tried. */
  function goodRejected() {
    const { scores: good, good_parts: of, good_rejected: known } = judged.calibration;
    if (tried === 1) return known;
    // Of very many parts the station tells a selection.
    return good.length ? Math.round((good.filter((score) => score >= tried).length / good.length) * of) : 0;
  }

  /** How many good parts the limit that is tried rejects, as far as those of the training tell. */
  function interval() {
    const { scores: good, good_parts: of } = judged.calibration;
    if (good.length === 0) return null;
    const [low, high] = confidence(goodRejected(), of).map((share) => number(100 * share, 1));
    return text("limit.interval", { limit: number(tried, 2), low, high });
  }

  function warning(words) {
    return el("p", { class: "warning" }, `▲ ${words}`);
  }

  function warnings() {
    const marked = scores.marked.filter(part);
    const missed = marked.filter((one) => one.label === "bad" && !fails(one, tried)).length;
    const wrong = marked.filter((one) => one.label === "good" && fails(one, tried)).length;
    const { good_parts: of } = judged.calibration;
    const count = goodRejected();
    const test = judged.self_test;
    const expected = test?.expected ?? test?.score ?? null;
    return [
      missed ? text("limit.missed", { count: number(missed) }) : null,
      wrong ? text("limit.wrong", { count: number(wrong) }) : null,
      count > 0 ? text("limit.good_rejected", { count: number(count), of: number(of) }) : null,
      expected !== null && expected < tried && tried > inForce()
        ? text("limit.defect", { defect: test.defect, score: number(expected, 2) })
        : null,
    ].filter((one) => one !== null);
  }

  function history() {
    leave.hidden = tried === inForce();
    fill(leave, text("limit.leave", { limit: number(inForce(), 2) }));
    lastly.hidden = undo.hidden = !last;
    if (!last) return;
    const values = { who: last.by || last.client || text("limit.somebody"), when: moment(last.at_us), from: last.before, to: last.after };
    const before = Number(last.before);
    fill(lastly, text("limit.last", values));
    undo.hidden = !app.may("engineer") || Number(last.after) !== inForce() || before === inForce();
    fill(undo, text("limit.back", { limit: number(before, 2) }));
  }

  async function set(limit) {
    const at = { limit: number(limit, 2), now: number(inForce(), 2), camera, recipe: judged.recipe };
    const kept = tried;
    tried = limit;
    const [others, words] = [changed(), warnings()];
    tried = kept;
    const [parts, count] = [number(scores.parts.filter(part).length), number(others.length)];
    const key = limit > inForce() ? "limit.would_pass" : "limit.would_fail";
    const asked = [text("limit.question", at), text(key, { parts, count }), ...words.map((one) => `▲ ${one}`)];
    if (!(await app.confirm(asked.join(" "), text("limit.set", at)))) return;
    apply.disabled = true;
    try {
      await post(ofStation(station, "deeds/limit"), { recipe: judged.recipe, camera, limit_factor: limit });
      app.say(text("limit.done", at));
      tried = limit;
    } catch (error) {
      app.say(explained(error), "problem");
    }
    await look();
  }

  function unfold() {
    isShown = !isShown;
    strip.hidden = !isShown;
    if (isShown) shown(changed());
    say();
  }

  let listed = "";
  function shown(parts) {
    const some = parts.slice(0, SHOWN);
    const key = some.map((one) => `${one.epoch}/${one.seq}`).join();
    if (key === listed) return;
    listed = key;
    fill(
      strip,
      some.map((one) =>
        el("button", { class: "plain part", onclick: () => enlarge(one), title: moment(one.at_us) },
          thumbnail(one, 200), el("span", {}, name(one)), el("span", { class: "soft" }, number(one.raw, 2))),
      ),
      parts.length > SHOWN ? el("p", { class: "soft" }, text("limit.rest", { count: number(parts.length - SHOWN) })) : null,
      parts.length === 0 ? el("p", { class: "soft" }, text("limit.none")) : null,
    );
  }

  function thumbnail(one, px) {
    const where = ofStation(station, `thumbnails/${encodeURIComponent(one.epoch)}/${one.seq}?px=${px}`);
    const image = el("img", { alt: "", loading: "lazy", src: where });
    image.onerror = () => image.replaceWith(el("span", { class: "none soft" }, text("limit.no_picture")));
    return image;
  }

  function enlarge(one) {
    const mark = (label) =>
      el("button", { class: "plain", disabled: !app.may("operator"), onclick: () => void marked(one, label, dialog) },
        text(`limit.mark_${label}`));
    const dialog = el(
      "dialog",
      { class: "part", "aria-label": name(one), onclose: () => dialog.remove() },
      thumbnail(one, 640),
      el("p", {}, `${name(one)} · ${moment(one.at_us)} · ${number(one.raw, 2)}`),
      el("div", { class: "marks" }, mark("good"), mark("bad"),
        el("button", { class: "plain", onclick: () => app.go("history", { seen: `${one.epoch}/${one.seq}` }) },
          text("line.closer")),
        el("button", { onclick: () => dialog.close() }, text("limit.close"))),
    );
    root.append(dialog);
    dialog.showModal();
  }

  async function marked(one, label, dialog) {
    try {
      await post(ofStation(station, "deeds/mark"), { epoch: one.epoch, seq: one.seq, label });
      app.say(text("limit.mark_done"));
      dialog.close();
    } catch (error) {
      app.say(explained(error), "problem");
    }
    await look();
  }

  // A station that does not answer is not asked again and again meanwhile.
  const timer = setInterval(() => looking || void look(), EVERY_MS);
  const heard = (event) => {
    const status = event.detail.station === station && event.detail.status;
    const now = status && status.cameras.find((one) => one.name === camera);
    if (!now || judged === null || looking) return;
    if (status.recipe !== judged.recipe || now.limit_factor !== judged.limit_factor) void look();
  };
  live.addEventListener("status", heard);
  void look();
  return () => {
    closed = true;
    clearInterval(timer);
    live.removeEventListener("status", heard);
    chart.close();
  };
}

function name(part) {
  return part.part_id || `#${part.seq}`;
}
