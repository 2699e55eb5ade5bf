import { el, fill } from "../dom.js";
import { text } from "../words.js";

export function open(root, app, parameters) {
  fill(root, el("h1", {}, text("line.menu")));
}
