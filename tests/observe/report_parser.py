"""Reads a report as a browser and a screen reader do: strict about tags, with tables, headings and charts by name."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import attrs

__all__ = ["ParsedReport", "parse_report"]

VOID = {"meta", "link", "br", "img"}


@attrs.define
class Table:
    caption: str = ""
    rows: list[list[str]] = attrs.field(factory=list[list[str]])


class ParsedReport(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tables: list[Table] = []
        self.headings: list[tuple[int, str]] = []
        self.facts: dict[str, str] = {}
        self.charts: dict[str, Any] = {}
        self.chart_labels: dict[str, str] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self._words = ""
        self._term = ""
        self._json = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.append(attributes["id"] or "")
        self.fetched += [attributes[name] or "" for name in ("src", "srcset", "data", "action") if name in attributes]
        if tag == "link" and attributes.get("href") != "data:,":
            self.fetched.append(attributes.get("href") or "")
        if tag == "a":
            self.links.append(attributes.get("href") or "")
        if attributes.get("class") == "chart":
            assert attributes.get("role") == "img"
            self.chart_labels[attributes["id"] or ""] = attributes.get("aria-label") or ""
        if tag == "table":
            self.tables.append(Table())
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in {"th", "td", "caption", "dt", "dd", "h1", "h2", "h3"}:
            self._words = ""
        self._json = attributes.get("type") == "application/json"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"unbalanced {tag}"
        if tag in {"th", "td"}:
            self.tables[-1].rows[-1].append(self._words)
        elif tag == "caption":
            self.tables[-1].caption = self._words
        elif tag == "dt":
            self._term = self._words
        elif tag == "dd":
            self.facts[self._term] = self._words
        elif tag in {"h1", "h2", "h3"}:
            self.headings.append((int(tag[1]), self._words))

    def handle_data(self, data: str) -> None:
        if self._json and self.open[-1] == "script":
            self.charts = json.loads(data)
        elif self.open and self.open[-1] not in {"script", "style"}:
            self.text += data
            self._words += data

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the one table with that caption, its head first."""
        (found,) = [table for table in self.tables if table.caption == caption]
        return found.rows


def parse_report(page: str) -> ParsedReport:
    parsed = ParsedReport()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed
