/** What an alarm says, and where to look first, in words of the page. */

import { cureOf } from "./part.js";
import { has, number, text } from "./words.js";

/** Sentences; none for an alarm of a station that tells no numbers. `alarm` is one of its status. */
export function alarmWords(alarm) {
  const { kind, bad, parts, usual } = alarm;
  if (kind === "fail" && bad !== null) {
    const numbers = { bad: number(bad), parts: number(parts), usual: share(usual) };
    return [text("alarm.fail", numbers), text(alarm.passed ? "alarm.fail_changed" : "alarm.fail_first")];
  }
  if (kind === "fault" && bad !== null) {
    const numbers = { bad: number(bad), parts: number(parts), usual: share(usual) };
    const most = has(`reason.${alarm.reason}`) ? text("alarm.most", { why: text(`reason.${alarm.reason}`) }) : "";
    return [text("alarm.fault", numbers), most, cureOf(alarm)].filter(Boolean);
  }
  if (kind === "drift" && alarm.score !== null && alarm.calibrated !== null) {
    const numbers = { score: number(alarm.score, 2), calibrated: number(alarm.calibrated, 2) };
    return [text("alarm.drift", numbers), text("wrong.drift.do")];
  }
  if (kind === "storage" && has(`alarm.storage_${alarm.where}`)) return [text(`alarm.storage_${alarm.where}`)];
  return [];
}

function share(value) {
  const percent = 100 * value;
  return number(percent, Number.isInteger(percent) ? 0 : 1);
}
