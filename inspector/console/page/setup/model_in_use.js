/** How the good parts looked by which the model in use was trained. */

import { get, load, ofPart, ofStation } from "../api.js";
import { live } from "../live.js";

/** A picture follows its verdict, so that the last part may not have one yet. */
const TRIED = 6;

/**
 * `{area, size, sha256, range}` of a camera: the rectangle of its picture that is judged, the size at
 * which the model sees it, which model that is, and `{brightness, sharpness}` of the good parts, each
 * `[low, high]`. Null where the station does not tell, or has not judged a part whose picture was
 * published.
 */
export async function modelInUse(station, camera) {
  const told = await get(ofStation(station, "judging"));
  const judged = told.cameras.find((one) => one.camera === camera);
  const known = live.stations.get(station);
  // Only what was published shows what the model saw; parts of earlier starts have it no more.
  const isPublished = ({ epoch, seq }) => known?.pictures.get(`${epoch}/${seq}`)?.kept === false;
  const parts = [...(known?.verdicts ?? []), ...(known?.rejects ?? [])].filter((one) =>
    one.camera === camera && one.score !== null && one.model?.sha256 === judged?.model.sha256 && isPublished(one));
  parts.sort((one, other) => other.judged_us - one.judged_us);
  const seen = await lookedAt(station, parts.slice(0, TRIED));
  if (seen === null) return null;
  const { area, size } = seen;
  const { exposure } = judged;
  return {
    area,
    size,
    sha256: judged.model.sha256,
    range: {
      brightness: [exposure.brightness_low, exposure.brightness_high],
      // The station tells a variance.
      sharpness: [Math.sqrt(exposure.sharpness_low), Math.sqrt(exposure.sharpness_high)],
    },
  };
}

/** Area and size of the first of some parts whose picture was published, or null. */
async function lookedAt(station, verdicts) {
  for (const verdict of verdicts) {
    const answer = await load(ofPart(station, verdict, "model"));
    const area = JSON.parse(answer?.headers.get("X-Picture") ?? "{}").frame_area;
    if (!area) continue;
    const picture = await createImageBitmap(await answer.blob());
    const size = [picture.width, picture.height];
    picture.close();
    return { area, size };
  }
  return null;
}
