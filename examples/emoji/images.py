"""The glyphs of a colour font as a folder of images, one folder a class.

The classes are the subgroups of Unicode's list of emoji (``face-smiling``, ``food-fruit``, ...).

Example: ``python -m examples.emoji.images --out emoji``

On Debian and Ubuntu the font and the list are ``apt install fonts-noto-color-emoji unicode-data``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from free.images.emoji import pack_emoji

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
LIST = Path("/usr/share/unicode/emoji/emoji-test.txt")

#: Asks for the coloured form of a character; the font's glyphs are that anyway.
_VARIATION_SELECTOR = 0xFE0F
#: The five modifiers of skin tone.
_SKIN_TONES = range(0x1F3FB, 0x1F400)


def listed(text: str, skin_tones: bool) -> Iterator[tuple[str, list[int]]]:
    """The class and the code points of every emoji of Unicode's list ``emoji-test.txt``."""
    subgroup = ""
    for line in text.splitlines():
        if line.startswith("# subgroup:"):
            subgroup = line.partition(":")[2].strip().replace(" & ", "-")
        elif match := re.match(r"([0-9A-F ]+); (?:fully-qualified|component)", line):
            points = [int(point, 16) for point in match[1].split()]
            toned = len(points) > 1 and any(point in _SKIN_TONES for point in points)
            if skin_tones or not toned:
                yield subgroup, [point for point in points if point != _VARIATION_SELECTOR]


def glyph_of(points: list[int], characters: dict[int, str], joined: dict[Any, str]) -> str | None:
    """The name of the one glyph that stands for a sequence of code points; None if none does."""
    if any(point not in characters for point in points):
        return None
    names = tuple(characters[point] for point in points)
    return names[0] if len(names) == 1 else joined.get(names)


def joined_glyphs(font: Any) -> dict[Any, str]:
    """The font's ligatures: names of the glyphs in a row -> name of the one in their place."""
    return {
        (first, *ligature.Component): ligature.LigGlyph
        for lookup in font["GSUB"].table.LookupList.Lookup
        for table in lookup.SubTable
        if lookup.LookupType == 4
        for first, ligatures in table.ligatures.items()
        for ligature in ligatures
    }


def on_white(png: bytes, size: int) -> Image.Image:
    """A glyph's bitmap in the middle of a white square, ``size`` pixels wide."""
    glyph = Image.open(io.BytesIO(png)).convert("RGBA")
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side), "white")
    corner = ((side - glyph.width) // 2, (side - glyph.height) // 2)
    square.alpha_composite(glyph, corner)
    return square.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)


def main(
    out: Annotated[Path, typer.Option(help="Folder that gets a folder for each class.")],
    size: Annotated[int, typer.Option(help="Side of an image in pixels.", min=1)] = 32,
    font: Annotated[Path, typer.Option(help="Colour font with bitmaps (CBDT).")] = FONT,
    emoji_list: Annotated[Path, typer.Option("--list", help="Unicode's emoji-test.txt.")] = LIST,
    skin_tones: Annotated[bool, typer.Option(help="Also the variants in five skin tones.")] = False,
    pack: Annotated[
        Path | None, typer.Option(help="Also pack them as the package carries them, there.")
    ] = None,
) -> None:
    """Write the glyphs of a colour font as PNG files, in a folder for each class."""
    from fontTools.ttLib import TTFont

    for path, package in ((font, "fonts-noto-color-emoji"), (emoji_list, "unicode-data")):
        if not path.is_file():
            raise typer.BadParameter(f"no {path}: `apt install {package}` has it on Debian")
    opened: Any = TTFont(font)
    bitmaps = opened["CBDT"].strikeData[0]
    characters, joined = opened.getBestCmap(), joined_glyphs(opened)
    written: set[str] = set()
    for subgroup, points in listed(emoji_list.read_text(encoding="utf-8"), skin_tones):
        name = glyph_of(points, characters, joined)
        if name is None or name in written or name not in bitmaps:
            continue
        written.add(name)
        folder = out / subgroup
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ("-".join(f"{point:04X}" for point in points) + ".png")
        on_white(bitmaps[name].imageData, size).save(file)
    classes = sum(path.is_dir() for path in out.iterdir())
    if pack is not None:
        pack_emoji(out, pack)
    typer.echo(f"{len(written)} images in {classes} classes written to {out}")


if __name__ == "__main__":
    typer.run(main)
