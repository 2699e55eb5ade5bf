/** How light and dark lie in pictures of good parts: the range of each bar of the histogram. */

import { get, load, ofPart, ofStation } from "../api.js";
import { mayBeSeen } from "../part.js";
import { measure } from "./aids.js";
import { ofSet } from "./photos.js";

/** So many pictures tell the range, and fewer than the least do not. */
const MOST = 10;
const LEAST = 5;

/**
 * `[low, high]` of each bar over the photos of a set, within its region; null where there are too
 * few. `width`: of the camera's picture, px. Throws Refused.
 */
export async function barsOfPhotos(station, set, width) {
  const fine = set.photos.filter((one) => one.objections.length === 0).slice(-MOST);
  const bars = [];
  for (const photo of fine.length < LEAST ? [] : fine) {
    const where = ofSet(station, set.number, `/picture/${encodeURIComponent(photo.name)}`);
    bars.push(await barsOf(await load(`${where}?side=small`), set.region, width));
  }
  return ranges(bars);
}

/** The same over the last passed parts of a model whose pictures the station has. Throws Refused. */
export async function barsOfPassed(station, camera, sha256) {
  const { entries } = await get(ofStation(station, "history"), { verdicts: ["PASS"], camera, limit: 100 });
  const passed = entries.filter((one) => one.verdict.model?.sha256 === sha256 && mayBeSeen(one));
  const bars = [];
  for (const { verdict } of passed.slice(0, 2 * MOST)) {
    if (bars.length === MOST) break;
    const answer = await load(ofPart(station, verdict, "thumbnail"));
    const about = JSON.parse(answer?.headers.get("X-Picture") ?? "null");
    // What was published is the judged region alone.
    if (about?.origin === "published") bars.push(await barsOf(answer, null, 1));
    else if (about?.heatmap_area) bars.push(await barsOf(answer, about.heatmap_area, about.width));
  }
  return ranges(bars);
}

/** The bars of an area (null: all) of a picture, in pixels of one that is `width` wide. */
async function barsOf(answer, area, width) {
  const picture = await createImageBitmap(await answer.blob());
  const { x, y, w, h } = area ?? { x: 0, y: 0, w: width, h: (picture.height * width) / picture.width };
  const scale = picture.width / width;
  const { bars } = measure(picture, { x: x * scale, y: y * scale, w: w * scale, h: h * scale });
  picture.close();
  return bars;
}

function ranges(found) {
  if (found.length < LEAST) return null;
  return found[0].map((_, at) => {
    const shares = found.map((bars) => bars[at]);
    return [Math.min(...shares), Math.max(...shares)];
  });
}
