"""The page, in a browser: it is whole, fits a telephone, and asks for nothing from outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssmdiff_evaluate.compare import compare
from ssmdiff_evaluate.job import evaluate

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        pytest.skip("a page is opened in chromium by chromedriver, and they are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("pages")
    few = {"features": ["pixels"], "metrics": ["frechet", "copies"], "n": 48}
    for seed in (0, 1):
        evaluate(run, out=base / f"seed-{seed}", seed=seed, **few)
    compare([base / "seed-0", base / "seed-1"], base / "both")
    return [base / "seed-0" / "index.html", base / "both" / "comparison.html"]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["evaluation", "comparison"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_is_whole_at_any_width(browser, pages, which: int, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get_log("performance")
    browser.get(pages[which].as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    loaded = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth])"
    )
    assert loaded
    assert all(complete and natural > 0 for complete, natural in loaded)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].partition(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    first = browser.execute_script("return document.body.firstElementChild.innerText")
    assert first.startswith("This page holds")
