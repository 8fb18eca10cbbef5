"""How large the report of a run is, how long it takes to write, and how long a browser takes to
open it.

python benchmarks/report.py [ATTEMPTS...]        # needs chromium and chromedriver
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from generate import cpu
from selfloop_plugins.report.page import write_page
from selfloop_plugins.report.run_summary import read_summary

TESTS = Path(__file__).parent.parent / "tests"
sys.path.extend([str(TESTS), str(TESTS / "browser")])
from test_browser import FLAGS, large  # noqa: E402


def main() -> None:
    """Print a row for each number of attempts."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    print(f"{cpu()}\n\n| attempts | file | written in | opened in |\n|---|---|---|---|")
    for count in map(int, sys.argv[1:] or ("100", "1000", "10000")):
        with TemporaryDirectory() as folder:
            run = large(Path(folder) / "run", count)
            start = time.monotonic()
            path = write_page(read_summary(run), Path(folder) / "page.html")
            wrote = time.monotonic() - start
            start = time.monotonic()
            browser.get(path.as_uri())
            assert browser.find_element("css selector", "#list details")
            opened = time.monotonic() - start
            print(
                f"| {count:,} | {path.stat().st_size / 1e6:.1f} MB | {wrote:.1f} s | {opened:.2f} "
                "s |"
            )
    browser.quit()


if __name__ == "__main__":
    main()
