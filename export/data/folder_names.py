"""What the name of a folder, or of a photo, says of the parts that are shown.

Names are looked at as words, in the languages in which people have sent data sets. A word that is
in no list says nothing, and whoever asks must not take it for "good".
"""

from __future__ import annotations

import difflib
import re
import unicodedata
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
    *(
        "不良",
        "不合格",
        "不正常",
        "次品",
        "缺陷",
        "异常",
        "異常",
        "废品",
        "廢品",
        "坏",
        "壞",
        "划痕",
    ),
    *("欠陥", "불량", "결함", "비정상", "이상"),
)
_FAR_EAST_GOOD: Final = (
    *(
        "无缺陷",
        "無缺陷",
        "无异常",
        "無異常",
        "無欠陥",
        "異常なし",
        "무결함",
        "良",
        "合格",
        "正常",
        "好",
    ),
    *("양품", "정상"),
)
"""Written without spaces, so that they are looked for inside a name; the longer ones decide."""
_LABEL: Final = frozenset({"label", "labels"})
"""Of a data set these are masks; a part on the line may well be a label."""
_MASK: Final = frozenset({"maske", "masken", "masque", "masques", "seg", "segmap", "mascara"})
_NOT: Final = frozenset(
    {"not", "no", "non", "un", "nicht", "kein", "keine", "pas", "nao", "nie", "не", "ne"}
)
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
    | {"canon", "apple", "nikon", "msdcf", "media", "und", "and", "et", "of", "the", "w", "x"}
    | {*_THINGS}
)
"""Words that tell when, where or how photos were taken, and so nothing of the parts."""
_SHORTEST_MISSPELT: Final = 4


def sound(name: str) -> Sound:
    """What the name of a folder says of the photos in it; "" when it says nothing."""
    words = _words(name)
    joined = "".join(words)
    each = {joined, *words, *map(_bare, words), _bare(joined)}
    if folders.sounds_like_mask(name) or each & (_LABEL | _MASK):
        return "mask"
    if far := _far_east(name):
        return far
    if not re.search(r"[\W_]", name) and joined in _GOOD:
        return "good"
    if each & _BAD:
        return "bad"
    if joined not in _GOOD and _NOT & set(words[:-1]):
        rest = [word for word in words if word not in _NOT]
        return "bad" if {"".join(rest), *rest} & _GOOD else ""
    return "good" if each & _GOOD else ""


def is_neutral(name: str) -> bool:
    """Whether a folder's name tells only when, where or how its photos were taken."""
    return all(len(word) == 1 or word in _NEUTRAL for word in _words(name))


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
    found = [(-len(one), "good") for one in _FAR_EAST_GOOD if one in name]
    found += [(-len(one), "bad") for one in _FAR_EAST_BAD if one in name]
    if not found:
        return ""
    return "good" if min(found)[1] == "good" else "bad"
