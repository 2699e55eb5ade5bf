"""A printed paper label: stripe, sign, text and bar code."""

from __future__ import annotations

import functools
from typing import Final

import cv2
import numpy as np

from inspector.cameras.simulated.families.canvas import (
    HEIGHT,
    WIDTH,
    Drawn,
    Family,
    Layer,
    Rng,
    blob,
    clouds,
    disc,
    grain,
    line,
    paint,
    place,
    plain,
    polygon,
    rectangle,
    relief,
    spot,
    turned,
)
from inspector.cameras.simulated.scene import Conditions, Floats

SIZE: Final = (440.0, 320.0)

# A type of our own, five rows of three: OpenCV 4 and 5 draw text with different fonts.
_GLYPHS: Final = {
    "A": "010101111101101",
    "B": "110101110101110",
    "C": "011100100100011",
    "D": "110101101101110",
    "E": "111100110100111",
    "G": "011100101101011",
    "I": "111010010010111",
    "L": "100100100100111",
    "N": "110101101101101",
    "O": "111101101101111",
    "P": "111101111100100",
    "R": "110101110101101",
    "S": "011100010001110",
    "T": "111010010010010",
    "U": "101101101101111",
    "0": "010101101101010",
    "1": "010110010010111",
    "2": "110001010100111",
    "4": "101101111001001",
    "5": "111100110001110",
    "7": "111001010010010",
    "8": "010101010101010",
    "9": "010101011001110",
    ".": "000000000000010",
    "-": "000000111000000",
    " ": "0" * 15,
}
_LINES: Final = (
    ("LINE INSPECTOR", 5.0, -150.0, -88.0),
    ("NO. 1275-48", 3.0, -150.0, -42.0),
    ("TENSILE STEEL ROD", 2.4, -150.0, -14.0),
    ("DIN 975  L 1000", 2.4, -150.0, 8.0),
    ("STORE DRILL SIDE UP", 2.4, -150.0, 30.0),
    ("LOT 20451-B", 3.0, 40.0, 118.0),
)


def _text(ink: Floats, text: str, cell: float, left: float, top: float) -> None:
    for place_of, glyph in enumerate(text):
        for number, bit in enumerate(_GLYPHS[glyph]):
            if bit == "1":
                row, column = divmod(number, 3)
                at = (left + cell * (4 * place_of + column + 0.5), top + cell * (row + 0.5))
                np.maximum(ink, rectangle(at, (1.1 * cell, 1.1 * cell)), out=ink)


@functools.lru_cache(maxsize=1)
def _black() -> Floats:
    """Coverage of the black print."""
    ink = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    for text, cell, left, top in _LINES:
        _text(ink, text, cell, left, top)
    rng = np.random.default_rng(4006)
    left = -170.0
    while left < 10.0:
        width = float(rng.choice([2.0, 2.0, 4.0, 6.0]))
        np.maximum(ink, rectangle((left + width / 2, 98), (width, 70)), out=ink)
        left += width + float(rng.choice([2.0, 3.0, 5.0]))
    return ink


@functools.lru_cache(maxsize=1)
def _sign() -> Floats:
    """Coverage of the sign, drawn in the second colour, around the origin."""
    ring = disc((0, 0), 34) - disc((0, 0), 27)
    arrow = polygon([(0, -20), (18, 14), (0, 5), (-18, 14)])
    return np.asarray(np.clip(np.maximum(ring, arrow), 0, 1), dtype=np.float32)


def _moved(cover: Floats, dx: float, dy: float, turn_deg: float = 0.0) -> Floats:
    shifted = np.zeros((2, 3))
    shifted[:, :2] = turned(np.eye(2), turn_deg).T
    middle = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    shifted[:, 2] = middle + np.array([dx, dy]) - shifted[:, :2] @ middle
    return np.asarray(cv2.warpAffine(cover, shifted, (WIDTH, HEIGHT)), dtype=np.float32)


def _draw(rng: Rng, texture: float) -> Drawn:
    fibre = 1.0 + texture * (0.012 * grain(rng, 1.0, 1.0) + 0.012 * clouds(rng, 90))
    density = np.clip(0.9 + 0.04 * texture * clouds(rng, 60), 0.0, 1.0)
    # Black and colour are printed one after the other, and never exactly upon one another.
    slip = rng.normal(0, 0.6, (2, 2))
    paper = rectangle((0, 0), SIZE)

    def redraw(
        sign: tuple[float, float, float] = (0.0, 0.0, 0.0),
        ghost: tuple[float, float] | None = None,
        lost: Floats | None = None,
        smear: Floats | None = None,
    ) -> Layer:
        layer = plain((226.0, 232.0, 235.0), paper)
        black = _moved(_black(), *slip[0])
        if ghost is not None:
            black = np.maximum(black, 0.6 * _moved(_black(), slip[0, 0] + ghost[0], ghost[1]))
        if smear is not None:
            wiped = cv2.blur(black, (31, 3))
            black = black * (1 - smear) + wiped * smear
        red = np.maximum(
            _moved(rectangle((0, -130), (SIZE[0], 34)), *slip[1]),
            _moved(_sign(), 150 + slip[1, 0] + sign[0], -30 + slip[1, 1] + sign[1], sign[2]),
        )
        keep = 1.0 if lost is None else 1.0 - lost
        paint(layer, red * keep * density, (58.0, 52.0, 188.0))
        paint(layer, black * keep * density, (34.0, 32.0, 32.0))
        layer[:, :, :3] *= fibre[:, :, None]
        return np.clip(layer, 0, 255)

    return Drawn(redraw(), paper > 0.99, redraw)


def _shifted_sign(drawn: Drawn, rng: Rng) -> Layer:
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(5, 16)
    return drawn.redraw(sign=(float(reach * np.cos(turn)), float(reach * np.sin(turn)), 0.0))


def _turned_sign(drawn: Drawn, rng: Rng) -> Layer:
    return drawn.redraw(sign=(0.0, 0.0, float(rng.uniform(12, 180) * rng.choice([-1, 1]))))


def _double_print(drawn: Drawn, rng: Rng) -> Layer:
    return drawn.redraw(ghost=tuple(rng.uniform(2, 6, 2) * rng.choice([-1, 1], 2)))


def _at_print(drawn: Drawn, rng: Rng, sizes: tuple[float, float]) -> Floats:
    """A spot over some of the print."""
    printed = Drawn(drawn.layer, drawn.room & (drawn.layer[:, :, 1] < 120), drawn.redraw)
    size = float(rng.uniform(*sizes))
    return np.asarray(np.clip(blob(rng, place(printed, rng), size) / 0.2, 0, 1), dtype=np.float32)


def _missing_print(drawn: Drawn, rng: Rng) -> Layer:
    return drawn.redraw(lost=_at_print(drawn, rng, (12, 45)))


def _smeared_print(drawn: Drawn, rng: Rng) -> Layer:
    return drawn.redraw(smear=_at_print(drawn, rng, (18, 50)))


def _wrinkle(drawn: Drawn, rng: Rng) -> Layer:
    layer = drawn.layer.copy()
    turn = rng.uniform(0, np.pi)
    middle = np.array(place(drawn, rng, 30.0))
    half = rng.uniform(40, 110) * np.array([np.cos(turn), np.sin(turn)])
    ridge = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    bent = middle + rng.normal(0, 8, 2)
    points = np.array([middle - half, bent, middle + half])
    for width, tall in ((9, 1.0), (4, 2.0)):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels = points + np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
        cv2.polylines(mask, [np.round(pixels).astype(np.int32)], False, 255, width, cv2.LINE_AA)
        ridge += tall * cv2.GaussianBlur(mask, (0, 0), 2.5).astype(np.float32) / 255.0
    layer[:, :, :3] *= relief(ridge, 0.4)[:, :, None]
    return np.clip(layer, 0, 255)


LABEL: Final = Family(
    says="a printed paper label with text, sign and bar code",
    draw=_draw,
    defects={
        "double_print": _double_print,
        "missing_print": _missing_print,
        "scratch": line((40, 130), (1.0, 2.0), (-70, -35), 0.03),
        "shifted_sign": _shifted_sign,
        "smeared_print": _smeared_print,
        "stain": spot((14, 46), (0.72, 0.82, 0.88), (0.4, 0.9)),
        "turned_sign": _turned_sign,
        "wrinkle": _wrinkle,
    },
    conditions=Conditions(shift_px=6.0, turn_deg=1.5),
)
