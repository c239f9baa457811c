from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, anchors, page_id, relative_links


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in relative_links(page.read_text("utf-8")) if not leads(page, link)]
    assert broken == []


def leads(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text("utf-8"))
