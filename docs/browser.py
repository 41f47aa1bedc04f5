"""Opens every page of the built site in a real browser.

    python docs/browser.py site
    python docs/browser.py site --pictures docs/pictures     draws README's three anew

Chromium loads each page at a desktop's and at a phone's width. It is an error where the
console has one, a link or a picture leads nowhere, something comes from another host,
or the page is wider than the screen. Search has to find, sliders to move numbers, and a
dark screen to get a dark page.
"""

import argparse
import contextlib
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urldefrag

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    sync_playwright,
)
from tqdm import tqdm


WIDTHS = {"desktop": 1280, "phone": 390}
BROWSERS = ("chromium", "google-chrome", "chromium-browser")

LINKS = "links => links.map(a => a.href)"
ANCHORS = "all => all.map(element => element.id)"
PICTURES = "all => all.filter(i => !i.naturalWidth).map(i => i.getAttribute('src'))"
TOO_WIDE = """() => {
  const screen = document.documentElement.clientWidth
  if (document.documentElement.scrollWidth <= screen) return []
  return [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().right > screen + 1)
    .map(e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`).slice(0, 3)
    .concat(`${document.documentElement.scrollWidth} of ${screen} pixels`)
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # a page that is left early
            super().copyfile(source, outputfile)


def served(site: Path) -> str:
    """Serves the folder on this machine until the program ends; returns the address."""
    handler = functools.partial(_Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def watched(page: Page, address: str) -> list[str]:
    """What goes wrong on a page from now on."""
    found: list[str] = []

    def answered(response: Response) -> None:
        if response.status >= 400:
            found.append(f"{response.status}: {response.url}")

    def asked(request: Request) -> None:
        if not request.url.startswith((address, "data:")):
            found.append(f"from elsewhere: {request.url}")

    def written(message: ConsoleMessage) -> None:
        if message.type == "error":
            found.append(message.text)

    page.on("console", written)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"not loaded: {request.url}"))
    page.on("request", asked)
    page.on("response", answered)
    return found


def broken(links: dict[str, set[str]], anchors: dict[str, set[str]]) -> Iterator[str]:
    for page, targets in links.items():
        for target in targets:
            address, fragment = urldefrag(target)
            if address not in anchors:
                yield f"{page}: no page {address}"
            elif fragment and unquote(fragment) not in anchors[address]:
                yield f"{page}: no {fragment} on {address}"


def searched(browser: Browser, address: str) -> Iterator[str]:
    page = browser.new_page()
    found = watched(page, address)
    page.goto(f"{address}search.html?q=label+smoothing")
    page.wait_for_selector("#search-results li")
    yield from (f"search: {text}" for text in found)
    if not page.locator("#search-results a").count():
        yield "search: finds nothing for label smoothing"


def darkened(browser: Browser, address: str) -> Iterator[str]:
    page = browser.new_page(color_scheme="dark")
    page.goto(address)
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(x) for x in color.strip("rgb()").split(","))
    if brightness > 200:
        yield f"index.html: {color} behind a page on a dark screen"


def moved(browser: Browser, address: str, pages: list[str]) -> Iterator[str]:
    """Each slider, moved by a key, changes what stands beside it."""
    count = 0
    for name in pages:
        page = browser.new_page()
        found = watched(page, address)
        page.goto(f"{address}{name}")
        for slider in page.locator("article input[type=range]").all():
            count += 1
            figure = slider.locator("xpath=ancestor::figure[1]")
            before = figure.inner_html()
            slider.focus()
            slider.press("ArrowRight")
            if figure.inner_html() == before:
                yield f"{name}: a slider that changes nothing"
        yield from (f"{name}: {text}" for text in found)
        page.close()
    if not count:
        yield "no page has a slider"


# Of the README: a page, where on it, the screen's width, light or dark.
PICTURES_OF_SITE: dict[str, tuple[str, str, int, Literal["light", "dark"]]] = {
    "site-tutorial": (
        "cross-entropy.html",
        "figure[data-slider=softmax]",
        1000,
        "light",
    ),
    "site-guide": ("fused-head.html", "#which-layout", 1000, "dark"),
    "site-phone": ("index.html", "h1", 390, "light"),
}


def draw(browser: Browser, address: str, folder: Path) -> None:
    """Three screens of one height, for the README."""
    for name, (page_name, element, width, scheme) in PICTURES_OF_SITE.items():
        screen: ViewportSize = {"width": width, "height": 760}
        page = browser.new_page(viewport=screen, color_scheme=scheme)
        page.goto(f"{address}{page_name}")
        top = page.locator(element).first.bounding_box()
        page.evaluate("y => window.scrollTo(0, y)", (top or {"y": 0})["y"] - 120)
        page.wait_for_timeout(300)
        page.screenshot(path=folder / f"{name}.png")


def main(site: Path, pictures: Path | None = None) -> list[str]:
    address = served(site)
    pages = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))
    pages = [page for page in pages if not page.startswith("_")]
    links: dict[str, set[str]] = {}
    anchors: dict[str, set[str]] = {address: set()}
    wrong: list[str] = []
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"]
        )
        for screen, width in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": 900})
            found = watched(page, address)
            for name in tqdm(pages, desc=screen, unit="page", disable=None):
                page.goto(f"{address}{name}")
                found += page.evaluate(TOO_WIDE)
                for picture in page.eval_on_selector_all("article img", PICTURES):
                    found.append(f"no picture {picture}")
                wrong += [f"{name} on a {screen}: {text}" for text in found]
                found.clear()
                here = page.eval_on_selector_all("a[href]", LINKS)
                links[name] = {x for x in here if x.startswith(address)}
                ids = page.eval_on_selector_all("[id]", ANCHORS)
                anchors[f"{address}{name}"] = set(ids)
        files = (p for p in site.rglob("*") if p.is_file() and p.suffix != ".html")
        for file in files:
            anchors[f"{address}{file.relative_to(site).as_posix()}"] = set()
        wrong += broken(links, anchors)
        wrong += searched(browser, address)
        wrong += darkened(browser, address)
        wrong += moved(browser, address, [p for p in pages if "/" not in p])
        if pictures is not None:
            draw(browser, address, pictures)
        browser.close()
    print(f"{len(pages)} pages, {len(wrong)} errors")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path, help="the folder of the built site")
    parser.add_argument("--pictures", type=Path, help="a folder for the README's three")
    arguments = parser.parse_args()
    errors = main(arguments.site, arguments.pictures)
    print("\n".join(errors))
    sys.exit(bool(errors))
