/** What is wrong with a station, and what to do first. */

import { alarmWords } from "./alarm.js";
import { el } from "./dom.js";
import { moment, text } from "./words.js";

/**
 * What is not as it should be, the most urgent first: `key` of texts.csv under `wrong.` (and
 * `wrong.KEY.do`), `kind` ("stop": no part is judged; "warning": parts are judged), `more` sentences of
 * the page about it, `detail` in the station's own words, `values` for the texts. `station` is one of
 * live.js.
 */
export function whatIsWrong(station, connected) {
  if (!connected) return [{ key: "page", kind: "stop", detail: "", values: {}, more: [] }];
  const found = [];
  const add = (kind, key, detail = "", values = {}, more = []) => found.push({ kind, key, detail, values, more });
  const status = station?.status;
  const obstacles = (status?.obstacles ?? []).map((one) => text(`obstacle.${one.kind}`));
  const alarms = (...kinds) =>
    (status.alarms ?? [])
      .filter((one) => kinds.includes(one.kind))
      .map((one) => [one, alarmWords(one)])
      .filter(([, words]) => words.length)
      .map(([one, words]) => (one.kind === "storage" ? words : [text("alarm.of", { camera: one.where }), ...words]).join(" "));
  if (!status || (!station.alive && !["Halted", "Error"].includes(status.state))) {
    add("stop", "gone");
    return found;
  }
  if (lacksModel(status)) add("stop", "no_model", status.trouble);
  else if (status.state === "Error") add("stop", "error", status.trouble, {}, obstacles);
  else if (status.state === "Halted") add("stop", "halted");
  else if (status.trouble) add("stop", "trouble", status.trouble, {}, obstacles);
  if (status.stopped) add("stop", "stopped", status.stopped, {}, whoStopped(status.stopped_by));
  const cameras = station.alive ? status.cameras : [];
  for (const camera of cameras.filter((one) => one.state === "lost")) {
    add("stop", "camera_lost", camera.detail, { camera: camera.name });
  }
  if (status.inference) add("stop", "inference", status.inference);
  if (status.state === "Preoperational") add("warning", "starting");
  else if (status.state === "Initialized" && found.length === 0) add("warning", "not_judging");
  if (status.storage) add("warning", "storage", status.storage, {}, alarms("storage"));
  if (status.alarm) add("warning", "alarm", status.alarm, {}, alarms("fail", "fault"));
  for (const camera of cameras.filter((one) => one.state === "opening")) {
    add("warning", "camera_opening", camera.detail, { camera: camera.name });
  }
  if (status.drift) add("warning", "drift", status.drift, {}, alarms("drift"));
  if (status.damaged) add("warning", "damaged", "", { count: status.damaged });
  for (const camera of cameras.filter((one) => one.state === "ended")) {
    add("warning", "camera_ended", camera.detail, { camera: camera.name });
  }
  return found;
}

/** What keeps a station from judging any part. */
const STOPS = ["page", "gone", "no_model", "error", "halted", "trouble", "stopped", "starting", "not_judging"];

/** The first of what is wrong (`found`) for which a station judges no part; undefined if it judges. */
export function stopOf(found, station) {
  const isBlind = () => !station.status.cameras.some((one) => one.state === "running");
  return found.find(({ key }) => STOPS.includes(key) || (key === "camera_lost" && isBlind()));
}

/** Whether a station that has started waits for its first model. */
export function lacksModel(status) {
  return status?.state === "Error" && status.cameras.some((one) => one.model === null);
}

/** What to show where a model is needed and there is none: what that means, and the way to one. */
export function noModel(app) {
  return el(
    "div",
    { class: "empty" },
    el("p", {}, text("frame.no_model_yet")),
    el("a", { class: "button go", href: `#/${encodeURIComponent(app.station)}/setup` }, text("frame.to_set_up")),
  );
}

function whoStopped(by) {
  if (!by || !by.at_us) return [];
  const when = moment(by.at_us);
  return [by.client ? text("wrong.stopped_by", { who: by.client, when }) : text("wrong.stopped_at", { when })];
}
