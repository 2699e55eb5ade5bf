"""A window in which the region of a picture is chosen with the mouse."""

from __future__ import annotations

import time
import tkinter
from typing import Final

import numpy as np

from inspector.imaging.geometry import Box
from inspector.verdict import Frame8

_SHARE_OF_SCREEN: Final = 0.8
_LEAST_PX: Final = 16
_HINT: Final = "drag a rectangle around the part; Enter: take it, Esc: the whole picture"


class PickerWindow:
    """A window that shows a picture; ``run`` waits until a rectangle was dragged over it."""

    def __init__(self, picture: Frame8) -> None:
        """Open it with ``picture``, uint8 BGR ``[H, W, 3]``.

        Raises ``tkinter.TclError`` without a display.
        """
        self.root = tkinter.Tk()
        self.root.title("Line Inspector: region")
        self._height, self._width = picture.shape[:2]
        self._shrink = self._fit()
        shown = _shrink(picture, self._shrink)
        height, width = shown.shape[:2]
        self._image = tkinter.PhotoImage(master=self.root, data=_ppm(shown), format="PPM")
        self.canvas = tkinter.Canvas(
            self.root, width=width, height=height, highlightthickness=0, cursor="crosshair"
        )
        self.canvas.pack()
        self.canvas.create_image(0, 0, image=self._image, anchor="nw")
        self._hint = tkinter.Label(self.root, text=_HINT, anchor="w")
        self._hint.pack(fill="x")
        self._from = (0, 0)
        self._box: Box | None = None
        self._is_done = self._is_closed = False
        self.canvas.bind("<ButtonPress-1>", self._press)
        self.canvas.bind("<B1-Motion>", self._drag)
        for key in ("<Return>", "<KP_Enter>"):
            self.root.bind(key, lambda _: self._end())
        self.root.bind("<Escape>", lambda _: self._end(whole=True))
        self.root.protocol("WM_DELETE_WINDOW", self._close)

    def run(self) -> Box | None:
        """The rectangle in camera pixels, None for the whole picture.

        Raises KeyboardInterrupt when the window is closed by its button, as Ctrl-C would.
        """
        try:
            self.root.focus_force()
            # In Tk's own loop, Ctrl-C would have no effect until the mouse moves.
            while not self._is_done:
                self.root.update()
                time.sleep(0.01)
        finally:
            self.root.destroy()
        if self._is_closed:
            raise KeyboardInterrupt
        return self._box

    def _fit(self) -> int:
        wide = self._width / (self.root.winfo_screenwidth() * _SHARE_OF_SCREEN)
        high = self._height / (self.root.winfo_screenheight() * _SHARE_OF_SCREEN)
        return max(1, int(np.ceil(max(wide, high))))

    def _press(self, event: tkinter.Event[tkinter.Misc]) -> None:
        self._from = (event.x, event.y)
        self._show(None)

    def _drag(self, event: tkinter.Event[tkinter.Misc]) -> None:
        left, right = sorted((self._from[0], event.x))
        top, bottom = sorted((self._from[1], event.y))
        x, x1 = (min(max(v * self._shrink, 0), self._width) for v in (left, right))
        y, y1 = (min(max(v * self._shrink, 0), self._height) for v in (top, bottom))
        big_enough = x1 - x >= _LEAST_PX and y1 - y >= _LEAST_PX
        self._show(Box(x=x, y=y, w=x1 - x, h=y1 - y) if big_enough else None)

    def _show(self, box: Box | None) -> None:
        self._box = box
        self.canvas.delete("region")
        self._hint["text"] = _HINT
        if box is not None:
            corners = (box.x, box.y, box.x + box.w, box.y + box.h)
            # One of two colours shows on any background.
            for width, colour in ((3, "black"), (1, "yellow")):
                self.canvas.create_rectangle(
                    *(corner / self._shrink for corner in corners),
                    outline=colour,
                    width=width,
                    tags="region",
                )
            self._hint["text"] = f"{box.x},{box.y},{box.w},{box.h}   {_HINT}"

    def _end(self, whole: bool = False) -> None:
        if whole:
            self._box = None
        self._is_done = True

    def _close(self) -> None:
        self._is_done = self._is_closed = True


def _shrink(picture: Frame8, times: int) -> Frame8:
    """Means of ``times`` × ``times`` pixels; an incomplete row or column at the edge is cut off."""
    if times == 1:
        return picture
    height, width = (side // times for side in picture.shape[:2])
    cut = picture[: height * times, : width * times]
    cells = cut.reshape(height, times, width, times, 3)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float32), dtype=np.uint8)


def _ppm(picture: Frame8) -> bytes:
    rgb = np.ascontiguousarray(picture[:, :, ::-1])
    return b"P6 %d %d 255\n" % (picture.shape[1], picture.shape[0]) + rgb.tobytes()
