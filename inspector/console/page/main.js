/** The page's frame: who is here, which station and view is shown, in which language. */

import { get, post, setToken } from "./api.js";
import { el, fill } from "./dom.js";
import { live } from "./live.js";
import { explained } from "./original.js";
import { plain } from "./shown.js";
import * as words from "./words.js";
import { lacksModel, whatIsWrong } from "./wrong.js";
import { logIn } from "./views/log_in.js";

const text = words.text;

/** The views in the order of the menu; each module exports `open(root, app)`, which returns `close`. */
const VIEWS = ["line", "history", "teach", "limit", "setup", "recipe", "deeds"];
/** The view of all stations, where there are several. */
const OVERVIEW = "stations";

const app = {
  session: null,
  station: "",
  /** Whether the person may do what `role` may. */
  may(role) {
    const roles = ["viewer", "operator", "engineer"];
    // A view may still draw what it had asked for when somebody logs out.
    return app.session !== null && roles.indexOf(app.session.role) >= roles.indexOf(role);
  },
  /** Say something that passes by itself; `kind`: "done" or "problem". */
  say,
  /** Ask for confirmation; resolves to true or false. */
  confirm: ask,
  /** Go to a view, with parameters that its address bears. */
  go(view, parameters = {}) {
    location.hash = `#/${app.station}/${view}?${new URLSearchParams(parameters)}`;
  },
};

let close = () => {};
let shown = 0;
let renewedFor = "";

async function start() {
  await loadWords();
  document.addEventListener("logged-out", () => {
    // The question that finds out who is here is refused too, while nobody is.
    if (app.session !== null) void enter();
  });
  window.addEventListener("hashchange", () => void show());
  for (const kind of ["status", "snapshot", "connection"]) live.addEventListener(kind, health);
  live.addEventListener("snapshot", ({ detail }) => void renew(detail.map((one) => one.station)));
  await enter();
}

/** Without words nothing can be said but this, in every language. */
async function loadWords() {
  for (;;) {
    try {
      return await words.load();
    } catch {
      const lines = { en: "The page's server does not answer.", "zh-CN": "页面服务器无应答。" };
      const said = Object.entries(lines).map(([lang, line]) => el("p", { lang }, line));
      fill(document.body, el("main", { class: "alone" }, said));
      await new Promise((go) => setTimeout(go, 2000));
    }
  }
}

async function enter() {
  live.close();
  close();
  close = () => {};
  app.session = null;
  // A view that is still being loaded is for who was here before.
  shown += 1;
  try {
    app.session = await get("/api/session");
  } catch (error) {
    if (error.status === 401) {
      document.title = plain(`${text("log_in.enter")} – Line Inspector`);
      fill(document.body, logIn(enter, frameLanguage()));
    } else {
      fill(document.body, el("main", { class: "alone" }, el("div", {}, explained(error))));
      setTimeout(() => void enter(), 2000);
    }
    return;
  }
  setToken(app.session.csrf);
  live.open();
  draw();
  await show();
}

/** The page's server was started anew with other stations. */
async function renew(names) {
  const told = JSON.stringify(names);
  if (app.session === null || told === renewedFor || told === JSON.stringify(app.session.stations)) return;
  renewedFor = told;
  await enter();
}

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [station, view] = path.split("/").map(decodeURIComponent);
  return {
    station: app.session.stations.includes(station) ? station : app.session.stations[0],
    view: views().includes(view) ? view : "line",
    parameters: new URLSearchParams(query),
  };
}

function views() {
  return app.session.stations.length > 1 ? [OVERVIEW, ...VIEWS] : VIEWS;
}

function isOverview() {
  return place().view === OVERVIEW;
}

function draw() {
  const menu = views().map((view) =>
    el("a", { href: "#", "data-view": view }, text(`${view}.menu`)),
  );
  const stations = el(
    "select",
    { id: "station", "aria-label": text("frame.station"), onchange: changeStation },
    app.session.stations.map((name) => el("option", { value: name }, name)),
  );
  const who = app.session.log_in
    ? el(
        "button",
        { class: "plain", id: "log-out", onclick: logOut, title: text("log_in.leave") },
        `${app.session.name} · ${text("log_in.leave")}`,
      )
    : null;
  fill(
    document.body,
    el("a", { class: "skip", href: "#view", onclick: skip }, text("frame.skip")),
    el(
      "header",
      {},
      el("img", { src: "/static/icon.svg", alt: "", width: 28, height: 28 }),
      app.session.stations.length > 1 ? stations : el("strong", {}, app.session.stations[0]),
      el("span", { id: "health", role: "status" }),
      el("span", { id: "others", role: "status" }),
      el("nav", { "aria-label": text("frame.views") }, menu),
      frameLanguage(),
      who,
    ),
    el("main", { id: "view", tabindex: "-1" }),
    el("div", { id: "said", role: "status", "aria-live": "polite" }),
  );
  health();
}

/** To the content, whose address is none of a view's. */
function skip(event) {
  event.preventDefault();
  document.querySelector("#view").focus();
}

function frameLanguage() {
  return el(
    "select",
    {
      id: "language",
      "aria-label": "Language / 语言",
      onchange: async (event) => {
        try {
          await words.choose(event.target.value);
        } catch (error) {
          event.target.value = words.current();
          if (app.session !== null) say(explained(error), "problem");
          return;
        }
        if (app.session === null) await enter();
        else {
          draw();
          await show();
        }
        document.querySelector("#language")?.focus();
      },
    },
    words.languages.map(([code, name]) =>
      el("option", { value: code, lang: words.tag(code), selected: code === words.current() }, name),
    ),
  );
}

async function show() {
  const root = document.querySelector("#view");
  if (app.session === null || root === null) return;
  const { station, view, parameters } = place();
  app.station = station;
  const chosen = document.querySelector("#station");
  if (chosen) chosen.value = station;
  for (const link of document.querySelectorAll("nav a")) {
    link.href = `#/${encodeURIComponent(station)}/${link.dataset.view}`;
    if (link.dataset.view === view) {
      link.setAttribute("aria-current", "page");
      // Not scrollIntoView, from which the keyboard would go on at this link.
      const menu = link.parentElement;
      menu.scrollLeft = link.offsetLeft - menu.offsetLeft - (menu.clientWidth - link.clientWidth) / 2;
    } else link.removeAttribute("aria-current");
  }
  document.title = plain(`${text(`${view}.menu`)} – ${view === OVERVIEW ? "Line Inspector" : station}`);
  close();
  close = () => {};
  const mine = (shown += 1);
  let module;
  try {
    module = await import(`./views/${view}.js`);
  } catch {
    // Of a page that is older than its server, a view does not fit; or the server is away.
    if (mine === shown) fill(root, el("p", { class: "problem", role: "alert" }, text("frame.no_view")));
    return;
  }
  // Another view may have been chosen while this one was loaded.
  if (mine !== shown) return;
  // Views are styled apart: one of them need not know which classes the others have.
  for (const sheet of document.querySelectorAll('link[href^="/static/views/"]')) {
    sheet.media = sheet.getAttribute("href").endsWith(`/${view}.css`) ? "all" : "not all";
  }
  fill(root);
  root.dataset.view = view;
  close = module.open(root, app, parameters) ?? (() => {});
  health();
}

function health() {
  const shown = document.querySelector("#health");
  if (shown === null || app.session === null) return;
  const station = live.stations.get(app.station);
  // What is said here is of one station.
  shown.hidden = isOverview() && live.connected;
  const [kind, key] = !live.connected
    ? ["bad", "frame.no_page"]
    : station?.alive
      ? station.status.trouble || station.status.stopped || station.status.state === "Error"
        ? ["bad", lacksModel(station.status) ? "frame.no_model" : "frame.not_ready"]
        : ["well", `state.${station.status.state}`]
      : ["bad", "frame.no_station"];
  shown.className = kind;
  fill(shown, text(key));
  others();
}

/** Stations that judge nothing while another one is looked at: the way to the first, and how many more. */
function others() {
  const isElsewhere = (name) => name !== app.station && !isOverview();
  const names = live.connected ? app.session.stations.filter(isElsewhere) : [];
  const stops = names.flatMap((name) => {
    const found = whatIsWrong(live.stations.get(name), true).find((one) => one.kind === "stop");
    return found ? [{ name, said: text(`wrong.${found.key}`, found.values) }] : [];
  });
  const node = document.querySelector("#others");
  const told = JSON.stringify(stops);
  // A button that has the focus stays.
  if (node.dataset.told === told) return;
  node.dataset.told = told;
  const [first] = stops;
  fill(
    node,
    first && el(
      "button",
      {
        class: "plain", title: first.said, "aria-label": `${first.name}: ${first.said}`,
        onclick: () => {
          app.station = first.name;
          app.go("line");
        },
      },
      first.name,
    ),
    stops.length > 1 ? el("span", { class: "soft" }, ` +${stops.length - 1}`) : null,
  );
}

function changeStation(event) {
  app.station = event.target.value;
  app.go(isOverview() ? "line" : place().view);
}

async function logOut() {
  try {
    await post("/api/log-out");
  } catch (error) {
    if (error.code !== "who") return say(explained(error), "problem");
  }
  await enter();
}

function say(words_, kind = "done") {
  const line = el("div", { class: kind }, words_);
  const lines = document.querySelector("#said");
  // What is said again stands there once.
  for (const one of [...lines.children]) if (one.textContent === line.textContent) one.remove();
  lines.append(line);
  // What somebody has opened to read it stays.
  const pass = () => (line.querySelector("details[open]") ? setTimeout(pass, 5000) : line.remove());
  setTimeout(pass, kind === "done" ? 5000 : 15000);
}

function ask(question, yes) {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      { "aria-label": question, onclose: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      el("p", {}, question),
      el(
        "form",
        { method: "dialog" },
        el("button", { value: "no", class: "plain" }, text("frame.cancel")),
        el("button", { value: "yes", id: "confirm" }, yes),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

void start();
