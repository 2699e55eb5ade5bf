/** The page's words in the language of whoever reads it. */

import { get } from "./api.js";
import { isolated } from "./shown.js";

const NAMES = { en: "English", zh: "简体中文" };
/** British, for a day before its month and 24 hours. */
const TAGS = { en: "en-GB", zh: "zh-CN" };
let language = "en";
let texts = {};

/** Languages and their own names. */
export const languages = Object.entries(NAMES);

/** The language in use. */
export function current() {
  return language;
}

/** A language as browsers name it, with its region; the one in use by default. */
export function tag(code = language) {
  return TAGS[code];
}

/** Load the words: of the language chosen before, or the browser's own. */
export async function load(chosen = localStorage.getItem("language")) {
  const wanted = [chosen, ...navigator.languages].map((one) => (one ?? "").slice(0, 2));
  language = wanted.find((one) => one in NAMES) ?? "en";
  texts = await get(`/api/texts/${language}`);
  document.documentElement.lang = tag();
}

/** Choose a language for this browser. */
export async function choose(name) {
  localStorage.setItem("language", name);
  await load(name);
}

/** The text of a key, with `{name}` replaced. A key without a text is shown as it is. */
export function text(key, values = {}) {
  const found = texts[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (whole, name) => isolated(values[name] ?? whole));
}

/** Whether there is a text of this key. */
export function has(key) {
  return key in texts;
}

/** A moment in µs since the Unix epoch, as the reader's clock shows it. */
export function moment(us, withDate = true) {
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  if (withDate) Object.assign(options, { year: "numeric", month: "2-digit", day: "2-digit" });
  return format(Intl.DateTimeFormat, options).format(new Date(us / 1000));
}

/** A moment of these weeks, in few letters. */
export function briefly(us) {
  const options = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return format(Intl.DateTimeFormat, options).format(new Date(us / 1000));
}

/** A number as the reader writes it. */
export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value === null || value === undefined
    ? "–"
    : format(Intl.NumberFormat, options).format(value);
}

const formats = new Map();

/** A formatter of a kind: to make one for each part takes longer than all else about it. */
function format(Kind, options) {
  const key = `${Kind.name} ${tag()} ${JSON.stringify(options)}`;
  if (!formats.has(key)) formats.set(key, new Kind(tag(), options));
  return formats.get(key);
}

/** Why a request failed, in the page's own words. */
export function reason(error) {
  const key = `error.${error.code}`;
  const what = has(key) ? text(key) : text("error.other");
  const cause = `cause.${error.cause}`;
  return has(cause) ? text("frame.because", { what, why: text(cause) }) : what;
}
