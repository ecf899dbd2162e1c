"""The report of a real night in a real browser: whole, alive, read by anyone, fooled by no id."""

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from rum_core.data.simulated import simulate
from rum_core.evaluation.nights import report_path
from rum_core.evaluation.report import write_report
from rum_core.settings import from_dict
from rum_core.store.layout import Store
from tests.nights import whole_night

CHROMIUM = shutil.which("chromium")
NIGHTS = (date(2026, 11, 21), date(2026, 11, 22))
HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=x onerror=alert(2)>"
PLOTS = {"models", "held-out", "following", "alpha", "segments", "catalogue", "time"}
CUSTOMERS = 6
SCREEN = {"width": 1200, "height": 900}
PHONE = {"width": 390, "height": 800}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the report is not seen in a browser"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, ray_free: None) -> str:
    """The report of the second of two nights of a shop whose every id is hostile."""
    folder = tmp_path_factory.mktemp("page")
    log = simulate(users=40, items=30, purchases=12).to_table().to_pandas()
    for name in ("user_id", "item_id"):
        log[name] = HOSTILE + log[name].astype(str)
    (folder / "log").mkdir()
    log.to_csv(folder / "log" / "log.csv", index=False)
    store = Store.open(str(folder / "store"))
    for night in NIGHTS:
        settings = from_dict(
            {
                "store": store.root,
                "run_date": night.isoformat(),
                "source": {
                    "path": str(folder / "log"),
                    "columns": {"time": "time"},
                    "name": HOSTILE,
                },
                "model": {"dim": 4},
                "train": {"epochs": 1, "negatives": 20},
                "evaluate": {"resamples": 100},
                "gate": {"lead": -1},
            }
        )
        whole_night(settings, store)
        write_report(store, night, settings)
    return f"file://{store.full(report_path(NIGHTS[1]))}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, address: str, **more: object) -> tuple[Page, list[str]]:
    """The page without a network, and what it complains of or asks for."""
    context: BrowserContext = browser.new_context(offline=True, **more)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: heard.append(f"asked for {request.url}"))
    page.set_default_timeout(10_000)
    page.goto(address)
    assert heard.pop(0) == f"asked for {address}"
    return page, heard


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """On a screen."""
    page, heard = opened(browser, address)
    yield page
    assert heard == []
    page.context.close()


def unfold(page: Page) -> None:
    """Open whatever is folded, as a reader would."""
    folded = page.locator("details:not([open]) > summary")
    while folded.count():
        folded.first.click()


def test_every_plot_is_drawn(page: Page) -> None:
    unfold(page)
    plots = page.locator("figure svg")
    named = {name.removesuffix("-title") for name in _first_labels(page)}
    assert named == PLOTS | {f"customer-{n}" for n in range(CUSTOMERS)}
    for plot in plots.all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 100
        ink = plot.locator("path, use").evaluate_all(
            "shapes => shapes.filter(s => s.getBoundingClientRect().width > 0).length"
        )
        assert ink > 10
        words = plot.locator("text").evaluate_all(
            "texts => texts.filter(t => t.getBoundingClientRect().width > 0).length"
        )
        assert words > 4  # axes and legend
    assert page.get_by_role("img").count() == plots.count()


def _first_labels(page: Page) -> list[str]:
    return page.locator("figure svg").evaluate_all(
        "plots => plots.map(p => p.getAttribute('aria-labelledby').split(' ')[0])"
    )


def test_every_link_leads_to_what_it_names(page: Page) -> None:
    links = page.locator("nav a").all()
    assert len(links) == page.locator("section").count()
    for link in links:
        link.click()
        target = page.locator(page.evaluate("location.hash"))
        assert target.count() == 1
        assert target.evaluate("t => t.getBoundingClientRect().top < innerHeight")
        assert target.locator("h2").is_visible()


def test_hostile_ids_are_text(page: Page) -> None:
    unfold(page)
    assert page.locator("script, img, iframe, object").count() == 0
    assert page.get_by_role("heading", level=1).inner_text().startswith(HOSTILE)
    assert HOSTILE in page.locator("article").first.inner_text()
    drawn = page.locator("article svg").first.locator("text").all_text_contents()
    assert any(text.startswith("<script>") for text in drawn)


@pytest.mark.parametrize(("scheme", "size"), [("light", SCREEN), ("dark", PHONE)])
def test_anyone_can_read_it(
    scheme: str, size: dict[str, int], browser: Browser, address: str
) -> None:
    page, heard = opened(browser, address, color_scheme=scheme, viewport=size)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    # contrast, names, roles, order of headings, reach by keyboard; plots are slow to look into
    found = Axe().run(page, context={"exclude": [["figure svg"]]})
    assert found.violations_count == 0, found.generate_report()
    assert heard == []
    page.context.close()


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    folded = page.locator("details:not([open]) > summary")
    before = folded.count()
    folded.first.focus()
    page.keyboard.press("Enter")
    assert folded.count() == before - 1
    reached = set()
    for _ in range(300):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
        if page.evaluate("document.activeElement === document.body"):
            break
    assert {"DIV", "SUMMARY"} <= reached  # tables that scroll, and what is folded


def test_on_paper_nothing_is_folded(page: Page) -> None:
    folded = page.locator("details:not([open]) table").first
    assert not folded.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert folded.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


def test_it_is_one_small_file(address: str) -> None:
    file = Path(address.removeprefix("file://"))
    assert file.stat().st_size < 1_000_000
    assert [path.name for path in file.parent.iterdir()] == ["report.html"]
