/** What the page asks of its server. */

/** A request that was refused: `code` as in texts.csv under `error.`, `detail` in the server's words. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail || code);
    this.status = status;
    this.code = code;
    this.detail = detail;
  }
}

let csrf = "";

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
  const headers = { "Content-Type": type, "X-CSRF-Token": csrf };
  const sent = type === "application/json" ? JSON.stringify(body ?? {}) : body;
  return (await request(path, { method: "POST", headers, body: sent })).json();
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
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
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
  if (answer.status === 401) document.dispatchEvent(new Event("logged-out"));
  throw new Refused(answer.status, told.code ?? "refused", told.detail ?? "");
}
