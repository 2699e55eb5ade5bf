"""What the name of a folder, or of a photo, says of the parts that are shown.

Names are looked at as words, in the languages in which people have sent data sets. A word that is
in no list says nothing, and whoever asks must not take it for "good".
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final, Literal

from inspector.imaging import folders

Sound = Literal["good", "bad", "mask", ""]

_GOOD: Final = frozenset(
    {"good", "ok", "okay", "normal", "pass", "passed", "io", "clean", "defectfree", "nodefect"}
    | {"accept", "accepted", "flawless", "nondefective", "undamaged"}
    | {"gut", "gute", "guten", "gutes", "fehlerfrei", "fehlerfreie", "inordnung"}
    | {"bon", "bons", "bonne", "bonnes", "conforme", "conformes", "sain", "saine"}
    | {"bueno", "buenos", "buena", "buenas", "buono", "buoni", "buona", "buone"}
    | {"bom", "boa", "bons", "boas", "goed", "goede", "dobre", "dobry", "iyi"}
    | {"годный", "годные", "хорошие", "норма"}
)
_BAD: Final = frozenset(
    {"bad", "ng", "nok", "ko", "nio", "fail", "failed", "reject", "rejected", "rejects", "scrap"}
    | {"def", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal"}
    | {"faulty", "fault", "faults", "damaged", "damage", "broken", "crack", "cracks", "cracked"}
    | {"scratch", "scratches", "scratched", "stain", "stains", "stained", "dent", "dents", "hole"}
    | {"holes", "burr", "burrs", "chip", "chipped", "contamination", "missing", "bent", "cut"}
    | {"imperfect", "outlier", "outliers", "flaw", "flaws", "flawed"}
    | {"schlecht", "schlechte", "ausschuss", "defekt", "defekte", "fehler", "fehlerhaft"}
    | {"fehlerhafte", "kaputt", "kratzer", "riss", "risse", "delle", "dellen", "grat", "fleck"}
    | {"flecken", "beschadigt", "verschmutzt", "bruch", "schaden", "anomalie", "anomalien"}
    | {"mauvais", "mauvaise", "mauvaises", "defaut", "defauts", "defectueux", "rebut", "rebuts"}
    | {"rayure", "rayures", "fissure", "fissures", "tache", "taches"}
    | {"malo", "malos", "mala", "malas", "defecto", "defectos", "defectuoso", "defectuosos"}
    | {"defectuosa", "defectuosas", "difetto", "difetti", "difettoso", "difettosi", "difettosa"}
    | {"difettose", "scarto", "scarti", "ruim", "ruins", "defeito", "defeitos", "fout", "foute"}
    | {"zle", "zly", "wadliwy", "wadliwe", "kotu", "брак", "дефект", "дефекты", "негодные"}
)
_FAR_EAST_BAD: Final = (
    *("不良", "不合格", "不正常", "次品", "缺陷", "异常", "異常", "废品", "廢品", "坏", "壞"),
    *("划痕", "劣", "否", "欠陥", "불량", "불합격", "결함", "비정상", "이상"),
)
_FAR_EAST_GOOD: Final = (
    *("无缺陷", "無缺陷", "无异常", "無異常", "無欠陥", "異常なし", "欠陥なし", "不良なし"),
    *("무결함", "良", "合格", "正常", "好", "양품", "합격", "정상"),
)
"""Written without spaces, so that they are looked for inside a name; the longer ones decide."""
_FAR_EAST_NOT: Final = (*"非未不无無没沒莫비미불않", "ない", "なし", "아님")
_LABEL: Final = frozenset({"label", "labels"})
"""Of a data set these are masks; a part on the line may well be a label."""
_MASK: Final = frozenset({"maske", "masken", "masque", "masques", "seg", "segmap", "mascara"})
_NOT: Final = frozenset(
    {"not", "no", "non", "un", "sub", "never", "without", "nicht", "kein", "keine", "ohne"}
    | {"pas", "sans", "sin", "sem", "senza", "nao", "nie", "bez", "neni", "не", "ne", "без"}
    | {"niet", "geen", "ikke", "icke", "inte", "nem", "degil"}
)
_DOUBT: Final = frozenset(
    {"almost", "nearly", "half", "semi", "quasi", "false", "falsely", "fake", "pseudo", "maybe"}
    | {"perhaps", "possibly", "probably", "below", "under", "unsure", "unclear", "questionable"}
    | {"borderline", "doubtful", "suspect", "suspected", "fast", "vielleicht", "falsch"}
    | {"presque", "casi", "quasi", "quase"}
)
"""With these words a name says neither that the parts are good nor that they are defective."""
_DOUBTFUL_SIGNS: Final = frozenset("?？✗✘❌✖×👎")
_THINGS: Final = (
    *("parts", "part", "images", "image", "imgs", "img", "photos", "photo", "pictures", "pics"),
    *("samples", "sample", "products", "product", "items", "item", "teile", "teil", "bilder"),
    *("fotos", "foto", "ware", "stuecke", "stucke", "pieces", "piezas", "pezzi", "pecas"),
)
"""What a name may have after its first word, even without a space between: "okparts"."""
_NEUTRAL: Final = frozenset(
    {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
    | {"mon", "tue", "wed", "thu", "fri", "sat", "sun", "montag", "dienstag", "mittwoch"}
    | {"donnerstag", "freitag", "samstag", "sonntag", "lundi", "mardi", "mercredi", "jeudi"}
    | {"vendredi", "samedi", "dimanche", "january", "february", "march", "april", "may", "june"}
    | {"july", "august", "september", "october", "november", "december", "januar", "februar"}
    | {"marz", "mai", "juni", "juli", "oktober", "dezember", "jan", "feb", "mar", "apr", "jun"}
    | {"jul", "aug", "sep", "oct", "nov", "dec", "day", "days", "tag", "jour", "week", "woche"}
    | {"kw", "month", "year", "date", "time", "morning", "noon", "afternoon", "evening", "night"}
    | {"am", "pm", "early", "late", "shift", "schicht", "batch", "lot", "charge", "los", "series"}
    | {"session", "set", "run", "take", "round", "group", "folder", "ordner", "dir", "sub"}
    | {"camera", "cameras", "cam", "kamera", "view", "side", "station", "line", "linie", "machine"}
    | {"maschine", "position", "angle", "left", "right", "top", "bottom", "front", "back", "upper"}
    | {"lower", "inside", "outside", "links", "rechts", "oben", "unten", "vorn", "hinten", "light"}
    | {"again", "more", "extra", "new", "old", "first", "second", "third", "copy", "data", "dcim"}
    | {"canon", "apple", "nikon", "msdcf", "media", "und", "and", "et", "of", "the"}
    | {"年", "月", "日", "号", "號", "批次", "相机", "相機", "カメラ", "ロット", *_THINGS}
)
"""Words that tell when, where or how photos were taken, and so nothing of the parts."""
_UNSORTED: Final = frozenset(
    {"validation", "valid", "val", "dev", "eval", "evaluation", "holdout", "query", "unlabeled"}
    | {"unlabelled", "unknown", "unsorted", "unchecked", "todo", "misc", "other", "others", "rest"}
    | {"raw", "all", "mixed", "backup", "archive", "originals", "original", "unsortiert", "alle"}
)
"""Words that tell neither that the parts are good nor what is wrong with them."""
_FEWEST_DIGITS: Final = 4
"""Shorter numbers may be those of classes."""
_SHORTEST_MISSPELT: Final = 4


def sound(name: str) -> Sound:
    """What the name of a folder says of the photos in it; "" when it says nothing."""
    # "OK no. 3" is a number; "n ok" is written for "not ok".
    name = re.sub(r"(?i)(?<![^\W\d_])no[\W_]*(?=\d)", "", name)
    name = re.sub(r"(?i)(?<![^\W\d_])n(?=[\W_]+(ok|okay|good|gut)(?![^\W\d_]))", "not", name)
    words = _words(name)
    joined = "".join(words)
    each = {joined, *words, *map(_bare, words), _bare(joined)}
    if folders.sounds_like_mask(name) or each & (_LABEL | _MASK):
        return "mask"
    far = _far_east(name)
    if not far and not re.search(r"[\W_]", name) and joined in _GOOD:
        return "good"
    if each & _DOUBT or _DOUBTFUL_SIGNS & set(name):
        # "false_rejects" are no defects, and "false_good" no good parts.
        return ""
    if far == "bad" or each & _BAD:
        return "bad"
    if joined not in _GOOD and any(map(_denies, words)):
        rest = [word for word in words if not _denies(word)]
        is_denied = far == "good" or each & _GOOD or {"".join(rest), *rest} & _GOOD
        return "bad" if is_denied else ""
    return "good" if far or each & _GOOD else ""


def is_all_bad(name: str) -> bool:
    """Whether a name says that the parts are defective, and nothing else: "NG 2024", no "ng_demo".

    A folder of a whole data set may be called after its defects.
    """
    if sound(name) != "bad":
        return False
    words = [word for word in _words(name) if len(word) > 1 or not word.isascii()]
    known = _BAD | _NOT | _GOOD | _NEUTRAL
    return all({word, _bare(word)} & known or _far_east(word) == "bad" for word in words)


def tells(name: str) -> bool:
    """Whether a folder's name may tell more than when, where or how its photos were taken.

    It does not with a word for that or with a number too long to be that of a class, and no other
    word: "camera 2", "lot B", "2026-11-03", "S0001". "A", "1" and "+" are how people call classes.
    """
    words = _words(name)
    if any(not _is_letter(word) and word not in _NEUTRAL for word in words):
        return True
    is_number = sum(letter.isdigit() for letter in name) >= _FEWEST_DIGITS
    return not is_number and not any(word in _NEUTRAL for word in words)


def telling(names: Iterable[str]) -> list[str]:
    """Those of folders beside one another whose names may tell their parts apart, sorted."""
    named = sorted(names)
    found = [name for name in named if tells(name)]
    # P0001 and F0001 may have passed and failed; S0001 and S0002 are numbers.
    letters = {
        name: "".join(words)
        for name in named
        if (words := _words(name)) and all(map(_is_letter, words)) and name not in found
    }
    return found or (list(letters) if len(set(letters.values())) > 1 else [])


def is_kind(name: str) -> bool:
    """Whether a folder beside good parts may be called after a defect, so "rust", no "camera 2"."""
    return sound(name) == "bad" or any(
        not _is_letter(word) and word not in _NEUTRAL | _UNSORTED for word in _words(name)
    )


def words_of_classes(name: str) -> set[str]:
    """The words of a photo's name that may be that of a class."""
    return {word for word in _words(name) if not _is_letter(word) and word not in _NEUTRAL}


def misspelt(name: str) -> str:
    """The word for good parts that ``name`` is nearly; "" when it is none."""
    bare = "".join(_words(name))
    if sound(name) or len(bare) < _SHORTEST_MISSPELT:
        return ""
    return next(iter(difflib.get_close_matches(bare, sorted(_GOOD), 1, 0.85)), "")


def _words(name: str) -> list[str]:
    """The words of a name in small letters: split at signs, digits and CapitalLetters."""
    decomposed = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    # A few scripts, such as Hangul, are written of parts that NFKD takes asunder.
    plain = unicodedata.normalize("NFC", plain)
    parts = re.findall(r"[^\W\d_]+", plain)
    return [
        word.lower()
        for part in parts
        for word in re.findall(r"[A-Z]+(?=[A-Z][a-z]{2})|[A-Z]?[a-z]+|[A-Z]+|[^A-Za-z]+", part)
    ]


def _bare(word: str) -> str:
    for thing in _THINGS:
        if word.endswith(thing) and len(word) > len(thing):
            return word.removesuffix(thing)
    return word


def _far_east(name: str) -> Sound:
    whole = unicodedata.normalize("NFKC", name)
    found = [(-len(one), "good", one) for one in _FAR_EAST_GOOD if one in whole]
    found += [(-len(one), "bad", one) for one in _FAR_EAST_BAD if one in whole]
    if not found:
        return ""
    _, says, one = min(found)
    if says == "bad":
        return "bad"
    return "bad" if any(no in whole.replace(one, "") for no in _FAR_EAST_NOT) else "good"


def _denies(word: str) -> bool:
    if word in _NOT:
        return True
    for good in _FAR_EAST_GOOD:
        word = word.replace(good, "")
    return any(no in word for no in _FAR_EAST_NOT)


def _is_letter(word: str) -> bool:
    """A single letter of an alphabet tells nothing; a Chinese character is a word."""
    return len(word) == 1 and unicodedata.name(word, "").startswith(("LATIN", "GREEK", "CYRILLIC"))
