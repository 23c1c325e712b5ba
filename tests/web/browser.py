"""A headless Chromium, driven through chromedriver by the WebDriver protocol (W3C): JSON over HTTP, so that nothing has to be installed for it
but Debian's chromium and chromium-driver."""

import base64
import json
import os
import pathlib
import re
import subprocess
import urllib.error
import urllib.request

from processes import LineReader, wait_until
from report import Failed

CALL_SECONDS = 60


class Browser:
    """One window. `with Browser(folder) as browser`. `maps`: names that are made to point to this host."""

    def __init__(self, folder, maps=()):
        self.folder = pathlib.Path(folder) / "browser"
        self.folder.mkdir()
        self.maps = maps
        self.driver = None
        self.base = ""

    def __enter__(self):
        environment = {**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        log = self.folder / "chromedriver.log"
        self.driver = subprocess.Popen(["chromedriver", "--port=0", f"--log-path={log}"], stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, env=environment)
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self):
        said = LineReader(self.driver.stdout)

        def port():
            if self.driver.poll() is not None:
                raise Failed(f"chromedriver ended: {said.texts()}")
            return next((found.group(1) for text in said.texts() if (found := re.search(r"successfully on port (\d+)", text))), None)

        root = f"http://127.0.0.1:{wait_until(port, 'chromedriver telling its port')}"
        rules = ", ".join(f"MAP {name} 127.0.0.1" for name in self.maps)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--no-proxy-server", "--window-size=1280,1400", f"--user-data-dir={self.folder}/profile",
                     f"--host-resolver-rules={rules}"]
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": arguments},
                                                   "goog:loggingPrefs": {"browser": "ALL"}}}}
        self.base = root
        self.base = f"{root}/session/{self.call('POST', '/session', wanted)['sessionId']}"

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        except (OSError, Failed):
            pass
        self.driver.terminate()
        try:
            self.driver.wait(20)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.wait()

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.base + path, method=method, headers={"Content-Type": "application/json"},
                                         data=None if method != "POST" else json.dumps(body or {}).encode())
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path}: {error.read().decode()[:1000]}") from error

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The body of a function; what it returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def press(self, key):
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def complaints(self):
        """What the console has said since the last time."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})
                if entry["level"] in ("SEVERE", "WARNING")]

    def look(self, width, height, scheme):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))
