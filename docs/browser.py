"""Opens every page of the built site in a real browser: `python docs/browser.py site`.

Chromium loads each page at a desktop's and at a phone's width. It is an error where the
console has one, a link or a picture leads nowhere, something comes from another host,
or the page is wider than the screen. Search has to find, sliders to move numbers, and a
dark screen to get a dark page.
"""

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag

from playwright.sync_api import Browser, Page, sync_playwright
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


def served(site: Path) -> str:
    """Serves the folder on this machine until the program ends; returns the address."""
    handler = functools.partial(_Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def watched(page: Page, address: str) -> list[str]:
    """What goes wrong on a page from now on."""
    found: list[str] = []
    page.on("console", lambda m: m.type == "error" and found.append(m.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda r: found.append(f"not loaded: {r.url}"))
    page.on(
        "response", lambda r: r.status < 400 or found.append(f"{r.status}: {r.url}")
    )
    page.on(
        "request",
        lambda r: (
            r.url.startswith((address, "data:"))
            or found.append(f"from elsewhere: {r.url}")
        ),
    )
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
    page.goto(f"{address}search.html?q=label+smoothing")
    page.wait_for_selector("#search-results li")
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
        page.goto(f"{address}{name}")
        for slider in page.locator("article input[type=range]").all():
            count += 1
            figure = slider.locator("xpath=ancestor::figure[1]")
            before = figure.inner_html()
            slider.focus()
            slider.press("ArrowRight")
            if figure.inner_html() == before:
                yield f"{name}: a slider that changes nothing"
        page.close()
    if not count:
        yield "no page has a slider"


def main(site: Path) -> list[str]:
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
                found.clear()
                page.goto(f"{address}{name}")
                found += page.evaluate(TOO_WIDE)
                for picture in page.eval_on_selector_all("article img", PICTURES):
                    found.append(f"no picture {picture}")
                wrong += [f"{name} on a {screen}: {text}" for text in found]
                here = page.eval_on_selector_all("a[href]", LINKS)
                links[name] = {link for link in here if link.startswith(address)}
                ids = page.eval_on_selector_all("[id]", ANCHORS)
                anchors[f"{address}{name}"] = set(ids)
        files = (p for p in site.rglob("*") if p.is_file() and p.suffix != ".html")
        for file in files:
            anchors[f"{address}{file.relative_to(site).as_posix()}"] = set()
        wrong += broken(links, anchors)
        wrong += searched(browser, address)
        wrong += darkened(browser, address)
        wrong += moved(browser, address, [p for p in pages if "/" not in p])
        browser.close()
    print(f"{len(pages)} pages, {len(wrong)} errors")
    return wrong


if __name__ == "__main__":
    errors = main(Path(sys.argv[1]))
    print("\n".join(errors))
    sys.exit(bool(errors))
