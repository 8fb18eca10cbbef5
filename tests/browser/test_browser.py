"""The report and the view in a real browser, headless: what a person sees, and what a hostile model
cannot do.

Needs Debian's chromium and chromium-driver; `.ci/run` installs them.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="pip install 'selfloop[dev]'")

from conftest import RECIPE, Selfloop
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selfloop_plugins.report.page import write_page
from selfloop_plugins.report.run_summary import read_summary

from selfloop import Attempt, Completion, Question, Round, Score, Verdict
from selfloop.storage.run_folder import RECIPE as RECIPE_FILE
from selfloop.storage.store import Store

Write = Callable[[Mapping[str, str | bytes]], Path]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="no chromium and chromedriver here",
    ),
]

HOSTILE = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>",
    "</textarea></title></script></style><h1>outside</h1>",
    "\u202eright to left\u202c \u200fand marks",
    "x" * 100_000,
    "bell \x07 escape \x1b[2J nul \x00 end",
    "javascript:window.pwned=1 {{ 7 * 7 }} &lt;b&gt;",
)
# the browser's own errands, which this machine's closed network would refuse one by one
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,1000",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def opened(browser: Any, url: str, *, width: int = 1440, dark: bool = False) -> None:
    """Open a page at a width, in light or dark."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get("about:blank")  # the page before may still ask a server that has stopped
    browser.get_log("browser")
    browser.get(url)


def clean(browser: Any) -> None:
    """Assert that a page ran no code of a model, fetched nothing, and logged no error."""
    assert browser.execute_script("return window.pwned") is None
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)"
    )
    assert all(one.startswith(("data:", "http://127.0.0.1")) for one in fetched), fetched
    assert browser.get_log("browser") == []


def fits(browser: Any) -> bool:
    wide, room = browser.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    return bool(wide <= room)


def hostile(write: Write, selfloop: Selfloop) -> Path:
    """Return a run whose model wrote what it should not."""
    asked = [f"What is {text} about?" for text in HOSTILE]
    script = {r"(Answer|Examples):\s*$": HOSTILE, "": asked}
    folder = write(
        {
            "s.json": json.dumps(script),
            "r.yaml": "rounds: 1\nbackend: {kind: scripted, script: s.json, context: 10000000}\n"
            "ask: {questions: 6, max_turns: 3, scorers: [], sources: [blank_slate]}\n"
            "answer: {samples: 3, max_tokens: 1000000, stop: []}\n",
        }
    )
    said = selfloop("run", "r.yaml")
    assert said.code == 0, said.err
    return folder / "runs/r"


def test_what_a_hostile_model_wrote_is_text(
    reports: None, browser: Any, write: Write, selfloop: Selfloop
) -> None:
    run = hostile(write, selfloop)
    opened(browser, (run / "report.html").as_uri())
    for details in browser.find_elements("css selector", "#list details"):
        browser.execute_script("arguments[0].open = true", details)
    time.sleep(0.3)
    text = browser.execute_script("return document.getElementById('list').textContent")
    assert (
        "<script>window.pwned = 1</script>" in text
        and "[U+202E]right to left" in text
        and "␛[2J" in text
    )
    assert "{{ 7 * 7 }}" in text and "more characters)" in text
    assert browser.find_elements("css selector", "#list script, #list img, #list h1") == []
    assert fits(browser)
    clean(browser)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve the view of a folder, as the command does."""
    import uvicorn
    from selfloop_plugins.view.library import Library
    from selfloop_plugins.view.server import _listening, application

    listening = _listening(0)
    server = uvicorn.Server(
        uvicorn.Config(application(Library(root)), log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_the_view_shows_the_same_and_runs_nothing(
    browser: Any, write: Write, selfloop: Selfloop
) -> None:
    run = hostile(write, selfloop)
    with served(run.parent) as url:
        opened(browser, f"{url}/?text=%3Cscript%3E")
        assert "<script>window.pwned = 1</script>" in browser.find_element("tag name", "main").text
        clean(browser)
        browser.find_element("css selector", "a[href^='/run/r']").click()
        assert browser.find_element("tag name", "h1").text == "r"
        clean(browser)


def test_a_run_at_work_is_watched(browser: Any, write: Write, selfloop: Selfloop) -> None:
    """The page says what the run does, and shows a round that ends without being reloaded."""
    folder = write({"r.yaml": RECIPE.replace("rounds: 1", "rounds: 2")})
    selfloop("run", "r.yaml")
    run = folder / "runs/r"
    events = [
        line for line in (run / "events.jsonl").read_text().splitlines() if "RunEnded" not in line
    ]
    (run / "events.jsonl").write_text("\n".join(events) + "\n")
    with served(run.parent) as url:
        opened(browser, f"{url}/run/r")
        browser.execute_script("window.before = true")
        _until(lambda: "At work: round 2" in browser.find_element("id", "now").text)
        with closing(Store(run, write=True)) as store:
            attempt = Attempt(Question("Is this new?", "test"), decision="belief", confidence=0.99)
            store.save_round(Round(3, (attempt,)))
        _until(lambda: "Is this new?" in browser.find_element("id", "list").text)
        assert "3 of 2" in browser.find_element("css selector", ".tiles").text
        assert browser.execute_script("return window.before") is True
        clean(browser)


def test_a_run_that_is_removed_says_so(browser: Any, write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    selfloop("run", "r.yaml")
    with served(Path("runs")) as url:
        opened(browser, f"{url}/run/r")
        shutil.rmtree("runs/r")
        _until(lambda: "it was removed" in browser.find_element("id", "now").text)


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)


def large(folder: Path, attempts: int) -> Path:
    """Return a run of so many attempts in ten rounds, each as full as a real one."""
    folder.mkdir(parents=True)
    with closing(Store(folder, write=True)) as store:
        store.set_meta(name="large", base=".")
        store.save_file(RECIPE_FILE, "rounds: 10\n")
        for number in range(1, 11):
            store.save_round(Round(number, tuple(full(number, k) for k in range(attempts // 10))))
    return folder


def full(number: int, k: int) -> Attempt:
    said = tuple(Completion(f" answer {n}", (1, 2), (-0.5, -0.25), sample=n) for n in range(8))
    return Attempt(
        Question(
            f"What is the name of the thing number {number}-{k}?", "blank_slate", f"topic {k % 50}"
        ),
        scores=tuple(Score(f"scorer_{n}", 1.0) for n in range(4)),
        draft=said[0],
        samples=said,
        verdicts=tuple(Verdict(f"detector_{n}", n / 6, "6 of 8 samples agree") for n in range(6)),
        decision=("belief", "undecided", "declined")[k % 3],  # type: ignore[arg-type]
        reason="confidence 0.5",
        confidence=k % 101 / 100,
    )


def test_ten_thousand_attempts(browser: Any, work: Path) -> None:
    path = write_page(read_summary(large(work / "runs/large", 10_000)), work / "large.html")
    assert path.stat().st_size < 15_000_000
    opened(browser, path.as_uri())
    # the first page of the list: a browser that drew all of it would stand still
    assert 0 < len(browser.find_elements("css selector", "#list details")) <= 500
    assert "10,000 questions" in browser.find_element("id", "count").text
    clean(browser)


def test_the_list_is_used_by_keyboard(reports: None, browser: Any, work: Path) -> None:
    path = write_page(read_summary(large(work / "runs/large", 200)), work / "large.html")
    opened(browser, path.as_uri())
    search = browser.find_element("name", "text")
    search.send_keys("number 3-1")
    assert browser.find_element("id", "count").text == "11 questions"
    for _ in range(4):  # over the filters to the first question
        browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.tag_name == "summary"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    _until(lambda: "6 of 8 samples agree" in browser.find_element("id", "list").text)
    search.clear()
    search.send_keys(" ")
    more = browser.find_element("id", "more")
    more.send_keys(Keys.ENTER)
    assert len(browser.find_elements("css selector", "#list details")) == 100
    assert browser.switch_to.active_element.tag_name == "summary"  # the first of those that came
    clean(browser)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_and_can_be_read(browser: Any, work: Path, width: int, dark: bool) -> None:
    path = write_page(read_summary(large(work / "runs/large", 200)), work / "large.html")
    opened(browser, path.as_uri(), width=width, dark=dark)
    assert fits(browser)
    ink, paper = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert contrast(ink, paper) > 7
    labels = browser.execute_script(
        "return getComputedStyle(document.querySelector('svg text')).fill"
    )
    assert contrast(labels, paper) > 4.5
    clean(browser)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as CSS computes them (WCAG 2.1)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
