/** A good part put into the basket of what is taught, from any view. */

import { ofStation, post } from "./api.js";
import { el } from "./dom.js";
import { text } from "./words.js";

/** Put the part of an entry of the history in, and mark it good where it is not. Throws Refused. */
export async function putIn(station, entry) {
  const part = { epoch: entry.verdict.epoch, seq: entry.verdict.seq };
  await post(ofStation(station, "basket/add"), part);
  if (entry.marks.at(-1)?.label === "good") return false;
  await post(ofStation(station, "deeds/mark"), { ...part, label: "good", note: "" });
  return true;
}

/** Where it went, with a link there. */
export function whereItWent(station, { recipe, camera }) {
  const href = `#/${encodeURIComponent(station)}/teach?${new URLSearchParams({ camera })}`;
  return [text("basket.in", { recipe, camera }), " ", el("a", { href }, text("basket.open"))];
}
