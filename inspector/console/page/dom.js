/**
 * Elements made from data. Text always becomes a text node, so that no part's name is markup, and
 * goes through shown.js, so that none acts on what stands around it.
 */

import { pieces, plain } from "./shown.js";

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "rect", "line", "circle", "text", "g", "polyline", "title"]);
/** Attributes that people see or hear. */
const WORDS = new Set(["alt", "aria-label", "aria-valuetext", "label", "placeholder", "title"]);

/**
 * An element. `attributes`: `class`, `onclick` and the like (functions), `disabled` and the like
 * (booleans), anything else as it stands; null and false are left out. `children`: elements, text,
 * arrays of them; null and false are left out.
 */
export function el(tag, attributes = {}, ...children) {
  const made = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in made) made.value = value;
    else made.setAttribute(name, value === true ? "" : WORDS.has(name) ? plain(value) : value);
  }
  put(made, children);
  return made;
}

/** Put children at the end of an element. */
export function put(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    if (child instanceof Node) parent.append(child);
    // In what keeps its lines a line feed is one.
    else if (parent.localName === "pre") parent.append(String(child).split("\n").map(plain).join("\n"));
    else putText(parent, child);
  }
}

function putText(parent, text) {
  for (const [at, piece] of pieces(text).entries()) {
    if (piece === "") continue;
    if (at % 2 === 0) parent.append(piece);
    else parent.append(el("bdi", {}, piece));
  }
}

/** Call an element something, for whoever hears the page. */
export function call(node, words) {
  node.setAttribute("aria-label", plain(words));
}

/** Have an element contain these children and no others. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  put(parent, children);
  return parent;
}

/** Have a choice offer these names; one that is open is left alone. */
export function options(choice, names, chosen) {
  if ([...choice.options].map((one) => one.value).join("\n") !== names.join("\n")) {
    fill(choice, names.map((one) => el("option", { value: one }, one)));
  }
  choice.value = chosen;
}
