"""Reading the Markdown pages of the project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def page_id(page: Path) -> str:
    """A short name for a page."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of every fenced block."""
    yield from _FENCE.findall(text)


def relative_links(text: str) -> list[str]:
    """Targets of links that stay in the project, in prose."""
    prose = _FENCE.sub("", text)
    return [link for link in _LINK.findall(prose) if "://" not in link and ":" not in link]


def anchors(text: str) -> set[str]:
    """The anchors that headings make, as GitHub spells them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(_FENCE.sub("", text))
    }
