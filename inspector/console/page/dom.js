/** Elements made from data. Text always becomes a text node, so that no part's name is markup. */

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "rect", "line", "circle", "text", "g", "polyline", "title"]);

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
    else made.setAttribute(name, value === true ? "" : value);
  }
  put(made, children);
  return made;
}

/** Put children at the end of an element. */
export function put(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
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
