/** What the page asks of its server. */

/**
 * A request that was refused: `code` and `cause` as in texts.csv under `error.` and `cause.`, `detail`
 * in the words of the server or the station.
 */
export class Refused extends Error {
  constructor(status, code, detail, cause = "") {
    super(detail || code);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.cause = cause;
  }
}

const TOLD_MS = 60_000;
let csrf = "";
/** Whether somebody has touched the page since the server was told so, and when that was. */
let touched = true;
let toldAt = 0;

for (const kind of ["pointerdown", "keydown"]) {
  const here = () => {
    touched = true;
    // A page on which somebody only looks around asks for nothing else.
    if (Date.now() - toldAt > TOLD_MS) get("/api/session").catch(() => {});
  };
  document.addEventListener(kind, here, { capture: true, passive: true });
}

/** The token that every deed bears, as the session says. */
export function setToken(token) {
  csrf = token;
}

/** The JSON at `path`; `query` becomes its parameters, lists repeated, null left out. Throws Refused. */
export async function get(path, query = {}) {
  return (await request(address(path, query), {})).json();
}

/** Send a deed: a JSON object, or the bytes of a file. Throws Refused. */
export async function post(path, body, type = "application/json") {
  const sent = type === "application/json" ? JSON.stringify(body ?? {}) : body;
  const send = async () => {
    const headers = { "Content-Type": type, "X-CSRF-Token": csrf };
    return (await request(path, { method: "POST", headers, body: sent })).json();
  };
  try {
    return await send();
  } catch (error) {
    if (error.code !== "csrf") throw error;
    // The page's server was started anew, and has another token for this page.
    setToken((await get("/api/session")).csrf);
    return send();
  }
}

/** The answer at `path` as it came, null where there is nothing; it may be kept. Throws Refused. */
export async function load(path, signal = undefined) {
  const answer = await request(path, { cache: "default", signal });
  return answer.status === 204 ? null : answer;
}

/** `path` with parameters. */
export function address(path, query = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") found.append(name, one);
    }
  }
  const text = found.toString();
  return text ? `${path}?${text}` : path;
}

/** The address of something of a part; `content` as inspector/console/parts.py lists it. */
export function ofPart(station, verdict, content) {
  const where = `/api/stations/${encodeURIComponent(station)}/parts`;
  return `${where}/${encodeURIComponent(verdict.epoch)}/${verdict.seq}/${content}`;
}

/** The address of something of a station. */
export function ofStation(station, what) {
  return `/api/stations/${encodeURIComponent(station)}/${what}`;
}

async function request(path, options) {
  const headers = { ...options.headers };
  if (touched) {
    // What a page asks for by itself keeps no session alive; see docs/console.md.
    headers["X-Somebody-Here"] = "1";
    touched = false;
    toldAt = Date.now();
  }
  let answer;
  try {
    const asked = { credentials: "same-origin", cache: "no-store", ...options, headers };
    answer = await fetch(path, asked);
  } catch {
    throw new Refused(0, "no_page", "");
  }
  if (answer.ok) return answer;
  let told = {};
  try {
    told = await answer.json();
  } catch {
    // A server in between answers in words of its own.
  }
  if (told.code === "who" && path !== "/api/session") document.dispatchEvent(new Event("logged-out"));
  throw new Refused(answer.status, told.code ?? "refused", told.detail ?? "", told.cause ?? "");
}
