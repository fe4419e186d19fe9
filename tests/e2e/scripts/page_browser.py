"""A headless Chromium on the page, driven as a person would: by what is written on things."""

import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 30
WIDE, NARROW = (1600, 1000), (400, 860)
SCHEMES = ("light", "dark")


class Page:
    """One browser, on the page of one control plane."""

    def __init__(self, address):
        self.origin = f"http://{address}"
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        # In a container there may be no user namespaces and little /dev/shm.
        for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]:
            options.add_argument(flag)
        # What the browser asks for itself is not what is looked at.
        for flag in ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_script_timeout(120)
        self.requests = []
        self.look(WIDE, "light")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if error is not None:
            self.driver.save_screenshot("/tmp/page-failed.png")
            print(self.text("body"))
        self.driver.quit()

    def look(self, size, scheme):
        """At this size, on a machine that prefers this colour scheme and no motion."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, path="/ui/"):
        self.driver.get(self.origin + path)

    def log_in(self, token):
        self.open()
        self.fill("Token", token)
        self.press("Log in")
        self.until("it is in", lambda: self.find("nav a[aria-current]"))

    def drawn(self):
        self.until("the graph is drawn", lambda: self.find("svg.graph[data-drawn]"))

    def go(self, view, heading):
        """To a view, as by a link."""
        self.driver.execute_script("location.hash = arguments[0]", view)
        self.until(f"{view} is shown", lambda: self.text("#main h1") == heading)

    # What is there.

    def find(self, selector):
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found[0] if found else None

    def text(self, selector):
        """Of what is shown, without what is hidden from the eye."""
        element = self.find(selector)
        return element.text if element else ""

    def rows(self):
        """The texts of the rows of the table of a view."""
        return self.driver.execute_script("return [...document.querySelectorAll('#main tbody tr')].map((row) => row.innerText)")

    def until(self, what, look):
        """Asks again until there is an answer."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if answer := look():
                    return answer
            except StaleElementReferenceException:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE} s in vain until {what}; the page says:\n{self.text('body')}")
            time.sleep(0.05)

    def until_text(self, selector, part):
        return self.until(f"{selector} says {part!r}", lambda: part in self.text(selector))

    def named(self, tags, name, within):
        """What has this name for who listens to the page."""
        script = """
            const [tags, name, within] = arguments;
            const scopes = [...document.querySelectorAll(within)];
            const isShown = (one) => one.checkVisibility() && (one.getAttribute("aria-label") ?? one.textContent).trim() === name;
            return scopes.flatMap((scope) => [...scope.querySelectorAll(tags)]).find(isShown) ?? null;
        """
        return self.driver.execute_script(script, tags, name, within)

    # What a person does.

    def press(self, name, within=None):
        """A button or a link, in the dialog where one is open."""
        def pressed():
            scope = within or ("dialog:last-of-type" if self.find("dialog[open]") else "body")
            element = self.named("button, a, summary, svg [role=link]", name, scope)
            if element is None or not element.is_enabled():
                return False
            try:
                element.click()
            except StaleElementReferenceException:
                return False
            except WebDriverException as error:
                # What is written anew while it is looked for.
                if "not clickable" not in str(error) and "stale" not in str(error):
                    raise
                return False
            return True

        self.until(f"{name!r} can be pressed", pressed)

    def control(self, label):
        script = """
            const [label] = arguments;
            const scope = document.querySelector("dialog:last-of-type") ?? document;
            const named = [...scope.querySelectorAll("label")].filter((one) => one.checkVisibility() && one.textContent.trim() === label);
            return named.length ? named[0].control : null;
        """
        return self.until(f"there is a field {label!r}", lambda: self.driver.execute_script(script, label))

    def fill(self, label, text):
        control = self.control(label)
        control.clear()
        control.send_keys(text)

    def choose(self, label, option):
        control = self.control(label)
        for one in control.find_elements(By.TAG_NAME, "option"):
            if one.text == option:
                one.click()
                return
        raise AssertionError(f"{label} has no {option!r}")

    def press_choice(self, begin):
        """The choice whose text begins so."""
        script = """
            const scope = document.querySelector("dialog:last-of-type") ?? document;
            return [...scope.querySelectorAll("label.choice")].find((one) => one.textContent.startsWith(arguments[0])) ?? null;
        """
        self.until(f"there is a choice {begin!r}", lambda: self.driver.execute_script(script, begin)).click()

    def type(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self):
        """The name of what has the focus."""
        return self.driver.execute_script(
            "const one = document.activeElement; return one.getAttribute('aria-label') ?? one.textContent.trim()"
        )

    # What must hold.

    def shot(self, directory, name):
        Path(directory).mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(Path(directory) / f"{name}.png"))

    def faults(self, axe):
        """What axe-core takes for serious or critical."""
        self.driver.execute_script(Path(axe).read_text())
        result = self.driver.execute_async_script("axe.run(document, {resultTypes: ['violations']}).then(arguments[0])")
        bad = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:400]}" for one in bad for node in one["nodes"]]

    def check_faults(self, axe):
        """In both colour schemes."""
        found = []
        for scheme in reversed(SCHEMES):
            self.look(WIDE, scheme)
            found += [f"{scheme}: {fault}" for fault in self.faults(axe)]
        assert not found, "\n".join(found)

    def check_nothing_left(self):
        """No request went elsewhere, nothing is kept, nothing was written to the console."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        elsewhere = [url for url in self.requests if not url.startswith((self.origin + "/", "data:", "about:", "chrome:"))]
        assert not elsewhere, elsewhere
        assert any(urlsplit(url).path == "/ui/app.js" for url in self.requests), self.requests[:20]
        kept = self.driver.execute_script("return [document.cookie, localStorage.length, sessionStorage.length]")
        assert kept == ["", 0, 0], kept
        assert not self.driver.get_cookies()
        console = [entry["message"] for entry in self.driver.get_log("browser")]
        # A status that is part of a test is no fault of the page.
        faults = [line for line in console if "Failed to load resource" not in line]
        assert not faults, faults


__all__ = ["Keys", "NARROW", "Page", "SCHEMES", "WIDE"]
