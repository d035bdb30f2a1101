"""Look over the built book: every page is there, nothing is fetched from outside, every picture is described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "object": "data"}
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}


def toc_pages(toc: Path) -> list[str]:
    """Every page named in the table of contents, without suffix."""

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    yield str(node[key])
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for item in node:
                yield from walk(item)

    return [re.sub(r"\.(md|ipynb)$", "", page) for page in walk(yaml.safe_load(toc.read_text()))]


def outside(url: str | None) -> bool:
    return bool(url) and bool(re.match(r"(https?:)?//", str(url)))


def page_problems(path: Path) -> list[str]:
    """What is wrong with one page."""
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    faults = [f"loads {tag[attr]}" for name, attr in LOADS.items() for tag in soup.find_all(name) if outside(tag.get(attr))]
    for link in soup.find_all("link"):
        if LOADING_RELATIONS & set(link.get("rel", [])) and outside(link.get("href")):
            faults.append(f"loads {link['href']}")
    for image in soup.find_all("img"):
        alt = (image.get("alt") or "").strip()
        if not alt or re.fullmatch(r"(\.\./)*_images/.*", alt):
            faults.append(f"picture without a description: {str(image.get('src'))[:80]}")
    faults += [f"formula not rendered: {e.get_text()[:60]}" for e in soup.select(".math .problematic")]
    return faults


def style_problems(path: Path) -> list[str]:
    """Style sheets that fetch something from outside."""
    found = re.findall(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", path.read_text(encoding="utf-8", errors="replace"))
    return [f"loads {url}" for url in found]


def check_book(html: Path, toc: Path) -> list[str]:
    """Every fault of the built book, one line each; an empty list is a sound book."""
    pages = toc_pages(toc)
    problems = [f"{page}: no such page in the built book" for page in pages if not (html / f"{page}.html").is_file()]
    for path in sorted(html.rglob("*.html")):
        problems += [f"{path.relative_to(html)}: {fault}" for fault in page_problems(path)]
    for path in sorted(html.rglob("*.css")):
        problems += [f"{path.relative_to(html)}: {fault}" for fault in style_problems(path)]
    if not (html / "mathjax" / "tex-svg.js").is_file():
        problems.append("mathjax: not in the built book")
    return problems
