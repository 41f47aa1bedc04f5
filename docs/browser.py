"""Opens every page of the built site in a real browser.

    python docs/browser.py site

Chromium loads each page at a desktop's and at a phone's width. It is an error where the
console has one, a link or a picture leads nowhere, something comes from another host,
the page is wider than the screen, or text stands out too little, on a light or a dark
screen. Search has to find, sliders to move numbers, copy buttons to copy code, and a
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
    sync_playwright,
)
from tqdm import tqdm


WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# Of words that people search for, the page about them: among the first three found.
SEARCHES = {
    "CLIP": "contrastive.html",
    "distillation": "distillation.html",
    "memory": "fused-head.html",
}
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


# Code and tables that scroll sideways, which on a desktop nothing has to.
SCROLLS = """() => [...document.querySelectorAll('article *')]
  .filter(e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => `${e.textContent.trim().slice(0, 40)}: ${e.scrollWidth} pixels in ` +
    `${e.clientWidth}`)"""


# Text whose contrast is below that of WCAG's level AA: 4.5, or 3 where it is large.
TOO_FAINT = """() => {
  const parsed = css => {
    const [r, g, b, a = 1] = css.match(/[\\d.]+(?:e-?\\d+)?/g).map(Number)
    const scale = css.startsWith('color(') ? 255 : 1
    return [r * scale, g * scale, b * scale, a]
  }
  const over = ([r, g, b, a], [R, G, B]) =>
    [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1]
  const luminance = ([r, g, b]) => [r, g, b].map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0)
  const opacity = element =>
    element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1
  const behind = element => {
    if (!element) return [255, 255, 255, 1]
    const color = parsed(getComputedStyle(element).backgroundColor)
    return color[3] === 1 ? color : over(color, behind(element.parentElement))
  }
  const found = new Map()
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement
    const text = texts.currentNode.textContent.trim()
    const seen = {opacityProperty: true, visibilityProperty: true}
    if (!text || !element.checkVisibility(seen) || element.closest('script, style'))
      continue
    const style = getComputedStyle(element), back = behind(element)
    const color = element.closest('svg') ? style.fill : style.color
    if (!/\\d/.test(color)) continue
    const [r, g, b, a] = parsed(color), front = [r, g, b, a * opacity(element)]
    const [dark, light] = [luminance(over(front, back)), luminance(back)]
      .sort((a, b) => a - b)
    const ratio = (light + 0.05) / (dark + 0.05), size = parseFloat(style.fontSize)
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700)
    if (ratio < (large ? 3 : 4.5) - 0.005)
      found.set(`${color} ${back}`, `${ratio.toFixed(2)} : 1 of ${text.slice(0, 40)}`)
  }
  return [...found.values()]
}"""
# What a copy button is to copy: of a session with prompts, what was typed.
TYPED = """button => {
  const lines = button.parentElement.querySelector('pre').innerText.split('\\n')
  const typed = lines.filter(line => /^(>>>|\\.\\.\\.) /.test(line))
  return (typed.length ? typed.map(line => line.slice(4)) : lines).join('\\n').trim()
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

    def lost(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # a page that is left stops loading
            found.append(f"not loaded: {request.url}")

    page.on("console", written)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lost)
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
    """What people search for leads to the page about it."""
    page = browser.new_page()
    found = watched(page, address)
    for words, wanted in SEARCHES.items():
        page.goto(f"{address}search.html?q={words}")
        page.wait_for_selector("#search-results li a")
        page.wait_for_function("!document.querySelector('#search-progress')?.innerText")
        page.wait_for_load_state("networkidle")  # it loads what it found, for summaries
        links = page.locator("#search-results li > a").all()[:3]
        came = [(a.get_attribute("href") or "").partition("?")[0] for a in links]
        if wanted not in came:
            yield f"search: {words} finds {', '.join(came)}, not {wanted}"
    yield from (f"search: {text}" for text in found)


def faint(browser: Browser, address: str, pages: list[str]) -> Iterator[str]:
    """Text that is hard to read, on a light and on a dark screen."""
    for scheme in SCHEMES:
        page = browser.new_page(color_scheme=scheme)
        for name in tqdm(pages, desc=scheme, unit="page", disable=None):
            page.goto(f"{address}{name}")
            yield from (f"{name}, {scheme}: {x}" for x in page.evaluate(TOO_FAINT))
        page.close()


def copied(browser: Browser, address: str, pages: list[str]) -> Iterator[str]:
    """A click on a copy button copies its code: of each page's first of a language."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    count = 0
    for name in pages:
        page.goto(f"{address}{name}")
        seen = set()
        for block in page.locator("article div[class*=highlight-]:has(.copybtn)").all():
            language = block.get_attribute("class")
            if language in seen or not block.is_visible():
                continue
            seen.add(language)
            count += 1
            button = block.locator(".copybtn")
            block.hover()
            button.click()
            got = page.evaluate("navigator.clipboard.readText()").removesuffix("\n")
            want = button.evaluate(TYPED)
            if got != want or not want:
                yield f"{name}: a copy button copies {got!r}, not {want!r}"
    if not count:
        yield "no page has a copy button"
    context.close()


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
                page.goto(f"{address}{name}")
                found += page.evaluate(TOO_WIDE)
                found += page.evaluate(SCROLLS) if screen == "desktop" else []
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
        wrong += faint(browser, address, pages)
        wrong += copied(browser, address, pages)
        wrong += moved(browser, address, [p for p in pages if "/" not in p])
        browser.close()
    print(f"{len(pages)} pages, {len(wrong)} errors")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path, help="the folder of the built site")
    arguments = parser.parse_args()
    errors = main(arguments.site)
    print("\n".join(errors))
    sys.exit(bool(errors))
