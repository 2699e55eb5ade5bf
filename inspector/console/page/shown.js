/** Text of others as it may be shown: what it holds acts on nothing that stands around it. */

/** Controls, marks of direction, what has no width, and what is no character: as on a terminal. */
const ACTS = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
/** Hebrew, Arabic and whatever else is written from right to left. */
const LEFTWARDS = /[\u0590-\u08ff\ufb1d-\ufdfd\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
/** Around a name within a sentence: no characters, so that no text of others can hold them. */
const [OPEN, CLOSE] = ["\ufdd0", "\ufdd1"];
const NAME = /\ufdd0([^\ufdd0\ufdd1]*)\ufdd1/;

const SHORT = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** `text` with an escape such as `\x1b` for each character that would act; marks of names are left out. */
export function plain(text) {
  return String(text).split(NAME).join("").replace(ACTS, escape);
}

/** A value for a sentence: a name that is written leftwards turns nothing around it. */
export function isolated(value) {
  const name = String(value);
  return LEFTWARDS.test(name) && !NAME.test(name) ? `${OPEN}${plain(name)}${CLOSE}` : name;
}

/** The pieces of `text` in turn: every second one is a name that was `isolated`. All are plain. */
export function pieces(text) {
  return String(text).split(NAME).map(plain);
}

function escape(letter) {
  const code = letter.codePointAt(0);
  if (letter in SHORT) return SHORT[letter];
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}
