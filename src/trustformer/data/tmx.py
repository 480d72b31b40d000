# SPDX-License-Identifier: Apache-2.0
"""Translation memories: TMX 1.4b, read as a stream in bounded memory (https://www.gala-global.org/tmx-14b).

The parser is expat. It loads nothing from outside, and a file that declares an entity is refused, so neither a
foreign file nor an expansion bomb gets in. Encodings are those of the XML declaration or byte order mark.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from xml.parsers import expat

from trustformer.data.corpus import Pair
from trustformer.data.lines import MAX_LINE_BYTES, chunks, count, one_line
from trustformer.errors import DataError
from trustformer.foreign import shown

_CHUNK = 1 << 16
_MAX_TOKEN = 4 << 20  # bytes the parser may hold without an event; a longer tag or comment is an attack
_MAX_DEPTH = 64
_MAX_CODE = 100  # characters of a language code that count; normalising takes the square of their number
_CODES = frozenset({"bpt", "ept", "it", "ph", "ut"})  # what they hold is another format's markup, never text
_APART = frozenset({"ph", "ut"})  # stand for something in the text, such as a line break; the others only wrap
_GAP, _WRAP = "\x00", "\x01"  # no XML holds them
# Tried once a run, so that a run of 1 MiB takes no longer than other text; those of spaces alone match too.
_BEFORE_CLOSING = re.compile(r"(?<![ \x00\x01])[ \x00\x01]++(?=[.,;:!?)\]}»”…])")
_BETWEEN_WORDS = re.compile(r"(?<=\w)\x01*\x00[\x00\x01]*(?=\w)")
_SPACES = re.compile(r"[ \t\r\n]+")


def read_tmx(path: Path, source: str, target: str) -> tuple[list[Pair], list[str]]:
    """Read the pairs of two languages from a `.tmx` or `.tmx.gz` file.

    Inline tags are removed. A language such as `ru` stands for its variants (`RU`, `ru-RU`, `ru_RU`) too; of several
    variants in a unit the one of exactly this code counts, else the first. Where one language is a variant of the
    other (`zh`, `zh-TW`), what is of the narrower one is that side's alone. A property whose type ends in `domain`
    becomes the label.

    Args:
        path: the file.
        source, target: language codes.

    Returns:
        The pairs in file order, and warnings about units that were dropped or odd.

    Raises:
        DataError: not well-formed, not TMX, an entity declaration, no unit with both languages; names the line.
    """
    reader = _Reader(path, _language(source), _language(target))
    reader.read()
    if not reader.pairs:
        languages = ", ".join(sorted(shown(name, 12) for name in reader.languages)[:20]) or "none"
        raise DataError(
            f"{path}, line {reader.line}: the file ends without a unit in both {source} and {target} "
            f"({count(reader.units, 'unit')}, languages: {languages})",
            "set data.source_language and data.target_language (of prepare: --source-language, --target-language)",
        )
    return reader.pairs, [f"{path.name}: {text} (first at line {line})" for text, line in reader.warnings()]


def clean(text: str) -> str:
    """Return a segment's text; characters 0 and 1 stand where a placeholder or a wrapping tag was removed.

    A placeholder between two words leaves a space; any tag before closing punctuation takes the space along.
    """
    text = _SPACES.sub(" ", text)
    text = _BEFORE_CLOSING.sub(lambda run: "" if run[0].strip(" ") else run[0], text)
    text = _BETWEEN_WORDS.sub(" ", text)
    return one_line(_SPACES.sub(" ", text.replace(_GAP, "").replace(_WRAP, "")))


def _language(code: str) -> str:
    return unicodedata.normalize("NFC", code[:_MAX_CODE]).strip().lower().replace("_", "-")


def _is(language: str, wanted: str) -> bool:
    return language == wanted or language.startswith(wanted + "-")


class _Reader:
    """State of one pass over a file."""

    def __init__(self, path: Path, source: str, target: str) -> None:
        self._path, self._wanted = path, (source, target)
        self.pairs: list[Pair] = []
        self.languages: set[str] = set()
        self.units = self.line = 0
        self._dropped: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._stack: list[str] = []
        self._unit: list[tuple[str, str]] = []  # language and text of each variant
        self._unit_line = 0
        self._variant, self._domain = "", ""
        self._text: list[str] | None = None  # of the segment or property being read
        self._length = 0
        self._code_depth = 0  # depth of the outermost inline code being skipped; 0 outside
        self._prop = False
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._entity
        self._parser.SkippedEntityHandler = self._skipped
        self._parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def read(self) -> None:
        """Read the whole file."""
        fed = 0
        try:
            for chunk in chunks(self._path, _CHUNK):
                self._parser.Parse(chunk, False)
                fed += len(chunk)
                if fed - max(0, self._parser.CurrentByteIndex) > _MAX_TOKEN:
                    raise self._error("a single tag or comment of more than 4 MiB")
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            raise DataError(
                f"{self._path}, line {error.lineno}: not well-formed XML: {reason}",
                "export the memory again; the encoding must be the one its first line declares",
            ) from None
        except (ValueError, LookupError) as error:  # an encoding expat asks Python for and cannot use
            raise self._error(f"the encoding cannot be read: {error}") from None
        self.line = self._parser.CurrentLineNumber

    def warnings(self) -> list[tuple[str, int]]:
        """What was dropped or odd, each with its first line."""
        return [(f"{count(number, 'unit')} {what}", self._first[what]) for what, number in self._dropped.items()]

    def _error(self, what: str, hint: str = "export the memory again as TMX 1.4") -> DataError:
        return DataError(f"{self._path}, line {self._parser.CurrentLineNumber}: {what}", hint)

    def _count(self, what: str) -> None:
        self._dropped[what] += 1
        self._first.setdefault(what, self._unit_line)

    def _entity(self, name: str, *_: object) -> None:
        raise self._error(
            f"the file declares the entity {shown(name)!r}; such files are refused", "remove the declaration"
        )

    def _skipped(self, name: str, _: object) -> None:
        raise self._error(f"the entity &{shown(name)}; is not defined", "write the character itself")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._stack and tag != "tmx":
            raise self._error(f"the file is not TMX: its root is <{shown(tag)}>")
        self._stack.append(tag)
        if len(self._stack) > _MAX_DEPTH:
            raise self._error(f"elements nested deeper than {_MAX_DEPTH}")
        if self._text is not None and not self._prop:
            self._inline(tag)
        elif tag == "tu":
            self.units += 1
            self._unit, self._domain, self._unit_line = [], "", self._parser.CurrentLineNumber
        elif tag == "tuv":
            self._variant = _language(attributes.get("xml:lang") or attributes.get("lang") or "")
        elif tag == "seg":
            self._text, self._length = [], 0
        elif tag == "prop" and self._stack[-2] == "tu" and attributes.get("type", "").lower().endswith("domain"):
            self._text, self._length, self._prop = [], 0, True

    def _inline(self, tag: str) -> None:
        if tag in _CODES and not self._code_depth:
            self._code_depth = len(self._stack)
            if self._text is not None:
                self._text.append(_GAP if tag in _APART else _WRAP)
        elif tag in ("seg", "tuv", "tu"):
            raise self._error(f"<{tag}> inside <seg>")

    def _end(self, tag: str) -> None:
        if self._code_depth == len(self._stack):
            self._code_depth = 0
        self._stack.pop()
        if tag == "seg" and self._text is not None:
            self._unit.append((self._variant, clean("".join(self._text))))
            self._text = None
        elif tag == "prop" and self._prop:
            self._domain, self._text, self._prop = one_line("".join(self._text or [])), None, False
        elif tag == "tu":
            self._finish()

    def _characters(self, text: str) -> None:
        if self._text is None or self._code_depth:
            return
        self._length += len(text)
        if self._length > MAX_LINE_BYTES:
            raise self._error("a segment longer than 1 MiB", "split it: one sentence a segment")
        self._text.append(text)

    def _texts(self, wanted: str, other: str) -> list[str]:
        """Texts of a side, those of its exact code first; what the other side's code says more exactly is not its."""
        narrower = len(other) > len(wanted)
        found = [
            (language != wanted, text)
            for language, text in self._unit
            if _is(language, wanted) and not (narrower and _is(language, other))
        ]
        return [text for _, text in sorted(found, key=lambda item: item[0])]

    def _finish(self) -> None:
        if any(not language for language, _ in self._unit):
            self._count("with a variant that names no language")
        if len(self.languages) < 100:
            self.languages.update(language for language, _ in self._unit if language)
        source, target = self._wanted
        sides = [self._texts(source, target), self._texts(target, source)]
        if not all(sides):
            self._count("without one of the languages dropped")
        elif not (sides[0][0] and sides[1][0]):
            self._count("with an empty side dropped")
        else:
            if max(map(len, sides)) > 1:
                self._count("with several variants of a language; that of its code or the first was used")
            self.pairs.append(Pair(sides[0][0], sides[1][0], self._domain))
