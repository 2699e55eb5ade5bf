/** What people did to the station: who, when, what, from and to. */

import { get, ofStation } from "../api.js";
import { el, fill } from "../dom.js";
import { Endless } from "../endless.js";
import { original } from "../original.js";
import { SPANS_S, micros, since } from "../spans.js";
import { has, moment, text } from "../words.js";

const KINDS = ["recipe", "limit", "install", "revert", "mark", "acknowledge", "stop", "start", "reset", "reload"];
const ASKED = ["kind", "time", "who", "from", "until"];
const TYPED_MS = 400;
const COLUMNS = ["when", "who", "what", "subject", "change", "note"];

export function open(root, app, parameters) {
  const filter = new Filter(parameters);
  const rows = el("tbody", {});
  const end = el("div", { class: "end" });
  const said = el("span", { class: "soft", role: "status" });
  const scrolled = el(
    "div",
    { class: "found", role: "region", tabindex: 0, "aria-label": text("deeds.list") },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, COLUMNS.map((one) => el("th", { scope: "col" }, text(`deeds.${one}`))))),
      rows,
    ),
    end,
  );
  const start = () => {
    const query = filter.parameters();
    const address = `#/${encodeURIComponent(app.station)}/deeds${query ? `?${query}` : ""}`;
    window.history.replaceState(null, "", address);
    scrolled.scrollTop = 0;
    void pages.start(new Search(app.station, filter.query()));
  };
  let typed = 0;
  const change = (key, value) => {
    if (filter.get(key) === value) return;
    filter.set(key, value);
    start();
  };
  const choice = (key, label, names) => {
    const options = names.map(([value, words]) => el("option", { value, selected: value === filter.get(key) }, words));
    const made = el("select", { "aria-label": label, onchange: () => change(key, made.value) }, options);
    return made;
  };
  const input = (key, label, attributes) => {
    const later = () => {
      clearTimeout(typed);
      typed = setTimeout(() => change(key, made.value), TYPED_MS);
    };
    const made = el("input", { ...attributes, value: filter.get(key), autocomplete: "off", "aria-label": label, oninput: later });
    return made;
  };
  const kinds = ["", ...KINDS].map((one) => [one, one ? done(one) : text("deeds.all_kinds")]);
  const spans = ["", ...Object.keys(SPANS_S)].map((one) => [one, text(`history.time.${one || "any"}`)]);
  const who = text("deeds.who");
  fill(
    root,
    el("h1", { class: "unseen" }, text("deeds.menu")),
    el(
      "div",
      { class: "filters" },
      choice("kind", text("deeds.kind"), kinds),
      choice("time", text("deeds.when"), spans),
      input("who", who, { type: "search", maxlength: 64, placeholder: who }),
      el("label", {}, text("history.from"), input("from", text("history.from"), { type: "datetime-local" })),
      el("label", {}, text("history.until"), input("until", text("history.until"), { type: "datetime-local" })),
      el("button", { class: "plain", type: "button", onclick: start }, text("deeds.refresh")),
      said,
    ),
    scrolled,
  );
  const pages = new Endless(app.station, {
    scrolled,
    end,
    said,
    put: (deeds) => rows.append(...deeds.map((deed) => row(app.station, deed))),
    clear: () => fill(rows),
    none: () => el("p", {}, text(filter.isEmpty ? "deeds.nothing" : "deeds.none")),
  });
  start();
  return () => {
    clearTimeout(typed);
    pages.close();
  };
}

/** What is asked for; all of it texts, "" asks about nothing. */
class Filter {
  #values = new Map();

  constructor(parameters) {
    for (const key of ASKED) this.#values.set(key, parameters.get(key) ?? "");
    if (!KINDS.includes(this.get("kind"))) this.set("kind", "");
  }

  get(key) {
    return this.#values.get(key);
  }

  set(key, value) {
    this.#values.set(key, value);
  }

  get isEmpty() {
    return [...this.#values.values()].every((value) => value.trim() === "");
  }

  /** As the page's address bears it. */
  parameters() {
    return new URLSearchParams([...this.#values].filter(([, value]) => value !== "")).toString();
  }

  /** As the server is asked. */
  query() {
    return {
      kinds: this.get("kind"),
      who: this.get("who").trim(),
      since_us: since(this.get("time"), this.get("from")),
      until_us: micros(Date.parse(this.get("until"))),
    };
  }
}

/** Deeds that are asked for, page by page. */
class Search {
  #station;
  #asked;
  #before;
  more = true;

  constructor(station, asked, before = null) {
    this.#station = station;
    this.#asked = asked;
    this.#before = before;
  }

  async next() {
    const found = await get(ofStation(this.#station, "deeds"), { ...this.#asked, before: this.#before });
    this.#before = found.next_deed;
    this.more = found.next_deed !== null;
    return found.deeds;
  }

  rest() {
    return new Search(this.#station, this.#asked, this.#before);
  }
}

function done(kind) {
  return has(`deeds.kind.${kind}`) ? text(`deeds.kind.${kind}`) : kind;
}

/** How the station notes an exchange of models: from, to, and how many parts the later one was taught. */
const EXCHANGE = /^(.+?) to (.+?)(?:, taught (\d+) good parts)?$/;

function row(station, deed) {
  const { before, after } = deed;
  const exchange = ["install", "revert"].includes(deed.kind) ? EXCHANGE.exec(deed.note) : null;
  const who = [deed.by, deed.client].filter(Boolean);
  const cells = {
    when: el("time", {}, moment(deed.at_us)),
    who: who.length > 1 && who[0] !== who[1] ? `${who[0]} (${who[1]})` : who[0] || text("deeds.nobody"),
    what: exchange?.[3] ? text("deeds.taught", { count: exchange[3] }) : done(deed.kind),
    subject: subject(station, deed),
    change: exchange ? exchange.slice(1, 3).join(" → ") : change(deed),
    // Of an alarm that somebody has seen: what the station said of it.
    note: exchange ? "" : deed.kind === "acknowledge" ? original(deed.note) : deed.note,
  };
  return el(
    "tr",
    {},
    COLUMNS.map((one) =>
      el("td", { class: one, "data-label": text(`deeds.${one}`) }, cells[one] && el("bdi", {}, cells[one])),
    ),
  );
}

/** A file's digest by its first letters, as the view Recipe shows it, and all of it on demand. */
function brief(whole) {
  const short = whole.replace(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1…");
  return whole && el("span", { title: short === whole ? null : whole }, short);
}

function subject(station, deed) {
  if (deed.kind === "mark") return part(station, deed.subject);
  const [alarm, where] = deed.subject.split("/");
  if (deed.kind !== "acknowledge" || !has(`recipe.alarm_${alarm}`)) return deed.subject;
  return `${text(`recipe.alarm_${alarm}`)}${alarm === "storage" ? "" : ` (${where})`}`;
}

function change({ kind, before, after }) {
  if (kind === "mark") return text(`part.marked_${after}`);
  // After a reset there is a state, or again what stands in the way.
  if (kind === "reset") {
    return has(`state.${after}`) ? [text(`state.${after}`), original(before)] : [text("state.Error"), original(after)];
  }
  return brief([before, after].filter(Boolean).join(" → "));
}

/** A marked part, with a link to what is known of it. */
function part(station, subject) {
  const seq = subject.slice(subject.lastIndexOf("/") + 1);
  const place = `#/${encodeURIComponent(station)}/history?${new URLSearchParams({ seen: subject })}`;
  return el("a", { href: place }, text("deeds.part", { seq }));
}
