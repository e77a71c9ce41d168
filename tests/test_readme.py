"""What README points to is there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_every_link_into_the_repository_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_every_promise_names_the_tests_that_hold_us_to_it() -> None:
    table = README.split("<!-- promises -->")[1].split("<!-- end -->")[0]
    rows = [row.split("|")[1:-1] for row in table.strip().splitlines()[2:]]
    assert [row[0].strip() for row in rows] == [str(number) for number in range(1, 11)]
    assert all("(tests/" in row[3] for row in rows)
