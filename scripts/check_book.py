"""Look over the built book: every page is there, nothing is fetched from outside, every picture is described.

python scripts/check_book.py        # looks at _build/html; one line per fault, exit status 1 if there is any
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
LOADS = {  # what a browser fetches by itself; a plain <a href> it does not
    "script": ("src",),
    "img": ("src", "srcset"),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "iframe": ("src",),
    "embed": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "input": ("src",),
}
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
OUTSIDE = re.compile(r"(?:https?:)?//", re.I)
STYLE_LOADS = re.compile(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.I)
FORMULA = re.compile(r"\$[^$\s](?:[^$\n]{0,80}[^$\s])?\$")
FILE_NAME_AS_ALT = re.compile(r"(\.\./)*_(images|static)/\S*$")


# --- what there should be -----------------------------------------------------------------------------------------


def toc_pages(toc: Path) -> list[str]:
    """Every page named in the table of contents, without suffix."""
    return [re.sub(r"\.(md|ipynb)$", "", page) for page in _files(yaml.safe_load(toc.read_text(encoding="utf-8")))]


def _files(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (str(node[key]) for key in ("root", "file") if key in node)
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _files(item)


# --- one page -----------------------------------------------------------------------------------------------------


def fetched(soup: BeautifulSoup) -> Iterator[str]:
    """Every address that a browser fetches when it opens the page."""
    for name, attributes in LOADS.items():
        for tag in soup.find_all(name):
            for attribute in attributes:
                value = str(tag.get(attribute) or "")
                yield from (part.split()[0] for part in value.split(",") if part.strip()) if attribute == "srcset" else [value]
    for link in soup.find_all("link"):
        if LOADING_RELATIONS & set(link.get("rel") or []):
            yield str(link.get("href") or "")
    for style in [*soup.find_all("style"), *soup.find_all(style=True)]:
        yield from STYLE_LOADS.findall(str(style.get("style") or style.string or ""))


def missing(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """Every local address of the page, links included, that leads to no file."""
    links = [str(a["href"]) for a in soup.find_all("a", href=True)]
    for url in {*fetched(soup), *links}:
        local = unquote(re.split(r"[?#]", url)[0])
        if local and not re.match(r"[a-z][a-z0-9+.-]*:|//", url, re.I) and not (path.parent / local).exists():
            yield local


def undescribed(soup: BeautifulSoup) -> Iterator[str]:
    """Every picture without words of its own; one outside the text may be mere decoration, and say so by an empty alt."""
    for image in soup.find_all("img"):
        alt = image.get("alt")
        if alt is None or (image.find_parent("article") and (not str(alt).strip() or FILE_NAME_AS_ALT.fullmatch(str(alt)))):
            yield str(image.get("src"))[:80]


def bare_formulas(soup: BeautifulSoup) -> Iterator[str]:
    """Every formula between dollars that was not set, such as one in the output of a cell that is read as plain Markdown."""
    for text in soup.find_all(string=FORMULA):
        if not text.find_parent(["pre", "code", "script", "style"]) and not text.find_parent(class_="math"):
            yield from FORMULA.findall(str(text))


def page_problems(path: Path) -> list[str]:
    """What is wrong with one page, one line each."""
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    faults = [f"fetches {url}" for url in fetched(soup) if OUTSIDE.match(url)]
    faults += [f"nothing there: {url}" for url in sorted(missing(path, soup))]
    faults += [f"picture without a description: {source}" for source in undescribed(soup)]
    faults += [f"a cell failed: {e.get_text()[-80:].strip()!r}" for e in soup.select(".output.traceback")]
    faults += [f"a cell complains: {e.get_text()[:80].strip()!r}" for e in soup.select(".output.stderr")]
    faults += [f"a formula that was not set: {formula}" for formula in bare_formulas(soup)]
    if soup.select(".math") and not soup.select('script[src*="mathjax/"]'):
        faults.append("formulas, but no MathJax of our own")
    return faults


def style_problems(path: Path) -> list[str]:
    """Whatever a style sheet fetches from outside, one line each."""
    return [f"fetches {url}" for url in STYLE_LOADS.findall(path.read_text(encoding="utf-8", errors="replace"))]


# --- the whole book -----------------------------------------------------------------------------------------------


def check_book(html: Path, toc: Path) -> list[str]:
    """Every fault of the built book, one line each; an empty list is a sound book."""
    problems = [f"{page}: not in the built book" for page in toc_pages(toc) if not (html / f"{page}.html").is_file()]
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.parts:  # templates of the theme
            problems += [f"{path.relative_to(html)}: {fault}" for fault in page_problems(path)]
    for path in sorted(html.rglob("*.css")):
        problems += [f"{path.relative_to(html)}: {fault}" for fault in style_problems(path)]
    problems += [
        f"{name}: not in the built book" for name in ("index.html", "mathjax/tex-svg.js") if not (html / name).is_file()
    ]
    return problems


def main() -> None:
    problems = check_book(ROOT / "_build" / "html", ROOT / "_toc.yml")
    if problems:
        raise SystemExit("The built book has faults:\n" + "\n".join(problems))
    print(
        f"Looked over {len(toc_pages(ROOT / '_toc.yml'))} pages: all there, nothing fetched from outside, pictures described."
    )


if __name__ == "__main__":
    main()
