/** What people did to the station: who, when, what, from and to. */

import { get, ofStation } from "../api.js";
import { el, fill } from "../dom.js";
import { Endless } from "../endless.js";
import { moment, has, text } from "../words.js";

const KINDS = ["recipe", "limit", "install", "mark", "stop", "start", "reset", "reload"];
const COLUMNS = ["when", "who", "what", "subject", "change", "note"];

export function open(root, app, parameters) {
  let kind = KINDS.includes(parameters.get("kind")) ? parameters.get("kind") : "";
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
    const query = kind ? `?${new URLSearchParams({ kind })}` : "";
    window.history.replaceState(null, "", `#/${encodeURIComponent(app.station)}/deeds${query}`);
    scrolled.scrollTop = 0;
    void pages.start(new Search(app.station, kind));
  };
  const chosen = el(
    "select",
    { "aria-label": text("deeds.kind"), onchange: () => { kind = chosen.value; start(); } },
    ["", ...KINDS].map((one) => el("option", { value: one, selected: one === kind }, one ? done(one) : text("deeds.all_kinds"))),
  );
  fill(
    root,
    el("h1", { class: "unseen" }, text("deeds.menu")),
    el(
      "div",
      { class: "filters" },
      chosen,
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
    none: () => el("p", {}, text(kind ? "deeds.none" : "deeds.nothing")),
  });
  start();
  return () => pages.close();
}

/** Deeds of one kind, or all, page by page. */
class Search {
  #station;
  #kind;
  #before;
  more = true;

  constructor(station, kind, before = null) {
    this.#station = station;
    this.#kind = kind;
    this.#before = before;
  }

  async next() {
    const found = await get(ofStation(this.#station, "deeds"), { before: this.#before });
    this.#before = found.next_deed;
    this.more = found.next_deed !== null;
    return found.deeds.filter((deed) => !this.#kind || deed.kind === this.#kind);
  }

  rest() {
    return new Search(this.#station, this.#kind, this.#before);
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
    subject: deed.kind === "mark" ? part(station, deed.subject) : deed.subject,
    change: deed.kind === "mark" ? text(`part.marked_${after}`) : change(exchange ? exchange.slice(1, 3) : [before, after]),
    note: exchange ? "" : deed.note,
  };
  return el(
    "tr",
    {},
    COLUMNS.map((one) =>
      el("td", { class: one, "data-label": text(`deeds.${one}`) }, cells[one] && el("bdi", {}, cells[one])),
    ),
  );
}

/** From what to what; of a model's digest the beginning is enough. */
function change(ends) {
  return ends.filter(Boolean).map((one) => (/^[0-9a-f]{64}$/.test(one) ? one.slice(0, 12) : one)).join(" → ");
}

/** A marked part, with a link to what is known of it. */
function part(station, subject) {
  const seq = subject.slice(subject.lastIndexOf("/") + 1);
  const place = `#/${encodeURIComponent(station)}/history?${new URLSearchParams({ seen: subject })}`;
  return el("a", { href: place }, text("deeds.part", { seq }));
}
