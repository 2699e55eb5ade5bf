/** The page's words in the language of whoever reads it. */

import { get } from "./api.js";

const NAMES = { en: "English", zh: "简体中文" };
let language = "en";
let texts = {};

/** Languages and their own names. */
export const languages = Object.entries(NAMES);

/** The language in use. */
export function current() {
  return language;
}

/** Load the words: of the language chosen before, or the browser's own. */
export async function load(chosen = localStorage.getItem("language")) {
  const wanted = [chosen, ...navigator.languages].map((one) => (one ?? "").slice(0, 2));
  language = wanted.find((one) => one in NAMES) ?? "en";
  texts = await get(`/api/texts/${language}`);
  document.documentElement.lang = language === "zh" ? "zh-CN" : language;
}

/** Choose a language for this browser. */
export async function choose(name) {
  localStorage.setItem("language", name);
  await load(name);
}

/** The text of a key, with `{name}` replaced. A key without a text is shown as it is. */
export function text(key, values = {}) {
  const found = texts[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** Whether there is a text of this key. */
export function has(key) {
  return key in texts;
}

/** A moment in µs since the Unix epoch, as the reader's clock shows it. */
export function moment(us, withDate = true) {
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  if (withDate) Object.assign(options, { year: "numeric", month: "2-digit", day: "2-digit" });
  const tag = language === "zh" ? "zh-CN" : "en-GB";
  return new Intl.DateTimeFormat(tag, options).format(new Date(us / 1000));
}

/** A number as the reader writes it. */
export function number(value, digits = 0) {
  const tag = language === "zh" ? "zh-CN" : "en-GB";
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value === null || value === undefined
    ? "–"
    : new Intl.NumberFormat(tag, options).format(value);
}

/** Why a request failed, in words. */
export function reason(error) {
  const key = `error.${error.code}`;
  const known = has(key) ? text(key) : text("error.other");
  return error.detail && error.code !== "no_page" ? `${known} (${error.detail})` : known;
}
