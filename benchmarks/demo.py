"""How long it takes from `mixtura demo` to the hub's page in the browser, and to the first demo in its tab.

    python benchmarks/demo.py [--rounds 5]

Time runs from the start of the command until Chromium has drawn the named tabs (`page`), and until the training demo in its tab
has drawn its fields (`demo`), which takes importing gradio, building the demo, and the page's scripts. `import_gradio` is what
`python -c "import gradio"` takes alone: what the page would wait for if it were gradio's. The browser runs before; files are in
the page cache after the first round, which isn't counted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import keep, middle, say
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.demos.browser import EXECUTABLE, FLAGS


def measure(browser: Any, folder: Path) -> dict[str, float]:
    """One start of the command; seconds since then."""
    page = browser.new_page()
    began = time.perf_counter()
    command = [sys.executable, "-u", "-m", "mixtura.cli", "demo", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout or () if "http://" in line)
        address = re.search(r"http://\S+", line)[0]  # type: ignore[index]
        printed = time.perf_counter() - began
        page.goto(address, wait_until="commit", timeout=300_000)
        page.get_by_role("tab", name="Training").wait_for(timeout=300_000)
        drawn = time.perf_counter() - began
        page.get_by_role("tab", name="Training").click()
        frame = page.frame_locator("#panel-training iframe")
        frame.locator(".gradio-container .block").first.wait_for(timeout=300_000)
        return {"address": printed, "page": drawn, "demo": time.perf_counter() - began}
    finally:
        page.close()
        process.terminate()
        process.wait()


def import_alone() -> float:
    """Seconds of `import gradio` in a process of its own."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"})
    return time.perf_counter() - began


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=list(FLAGS))
        results, imports = [], []
        for number in range(rounds + 1):
            found, alone = measure(browser, Path(folder)), import_alone()
            if number:
                results.append(found)
                imports.append(alone)
                say("  ".join(f"{name} {value:.2f} s" for name, value in found.items()) + f"  import gradio alone {alone:.2f} s")
        browser.close()
    figures = {name: middle([result[name] for result in results]) for name in results[0]}
    figures |= {"page_worst": max(r["page"] for r in results), "import_gradio": middle(imports), "load": os.getloadavg()[0]}
    say(f"first page {figures['page']:.2f} s (worst {figures['page_worst']:.2f} s), demo {figures['demo']:.2f} s")
    keep("demo", {"rounds": rounds, "seconds": figures})


if __name__ == "__main__":
    main()
