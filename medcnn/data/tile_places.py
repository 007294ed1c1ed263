"""How a manifest names a tile of a slide, read strictly: `FILE#x=X,y=Y,level=L,side=S,px=P`."""

import re
from dataclasses import dataclass

_PLACE = re.compile(r"(?P<file>.+)#x=(?P<x>\d{1,9}),y=(?P<y>\d{1,9}),level=(?P<level>\d{1,2}),side=(?P<side>\d{1,5}),px=(?P<px>\d{1,4})")


@dataclass(frozen=True)
class TilePlace:
    """A tile's place. file: relative path of its slide; x, y: top left corner in level-0 pixels; level: which is read.

    side: in pixels of that level; px: in the tile's own.
    """

    file: str
    x: int
    y: int
    level: int
    side: int
    px: int

    def __str__(self) -> str:
        return f"{self.file}#x={self.x},y={self.y},level={self.level},side={self.side},px={self.px}"


def tile_place(path: str) -> TilePlace | None:
    """The place that a manifest's path names, or None when it names no tile."""
    match = _PLACE.fullmatch(path) if "#x=" in path else None
    return None if match is None else TilePlace(match["file"], *(int(match[name]) for name in ("x", "y", "level", "side", "px")))
