#!/usr/bin/env python3
"""The page of jobs in a real browser, over a real gateway whose export is replaced while a client writes to it.

    page_test.py PROGRAMS [CASE...]        no CASE: all of them

PICTURES in the environment names a folder for pictures of the page, for people to look at.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

TESTBED = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "testbed"
sys.path[:0] = [str(TESTBED), str(pathlib.Path(__file__).resolve().parent)]

from browser import Browser  # noqa: E402
from processes import run, wait_until  # noqa: E402
from report import Failed, say  # noqa: E402

DISK_BYTES = 64 << 20
HOSTILE = "<img src=x onerror=document.title='owned'>"
STRANGER = "stranger.example"
SECONDS = 90
TAB = "\ue004"
ENTER = "\ue007"


def expect(is_true, what):
    if not is_true:
        raise Failed(what)


class Gateway:
    """diskferryd with a page and one export, which has a hostile name."""

    def __init__(self, programs, folder):
        self.programs = pathlib.Path(programs)
        self.folder = pathlib.Path(folder)
        self.nbd = self.folder / "nbd.sock"
        self.url = None
        self.process = None
        self.image = self.folder / "first.raw"
        self.image.write_bytes(b"diskferry page! " * (DISK_BYTES // 16))

    def start(self):
        # The page is to be found where it was: the port that was free the first time.
        listen = urllib.parse.urlsplit(self.url).netloc if self.url else "127.0.0.1:0"
        config = self.folder / "diskferryd.toml"
        config.write_text(f'name = "host-a"\n[control]\nsocket = "{self.folder}/control.sock"\n[web]\nlisten = "{listen}"\n'
                          f'[nbd]\nlisten = "unix:{self.nbd}"\n[state]\nfolder = "{self.folder}/state"\n[move]\nwindow = "1M"\nrun-folder = "{self.folder}/run"\n'
                          f'[[export]]\nname = "{HOSTILE}"\nimage = "{self.image}"\nformat = "raw"\nwritable = true\n', encoding="utf-8")
        with open(self.folder / "diskferryd.log", "ab") as log:
            self.process = subprocess.Popen([self.programs / "diskferryd", "--config", config], stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline().decode()
        if not line.startswith("READY"):
            raise Failed((self.folder / "diskferryd.log").read_text(encoding="utf-8")[-2000:])
        self.url = next(word for word in line.split() if word.startswith("http://"))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            expect(self.process.wait(60) == 0, "the gateway did not end in order")

    def ask(self, *words):
        return run(self.programs / "diskferry", *words, "--gateway", f"unix:{self.folder}/control.sock", timeout=SECONDS)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=SECONDS) as answer:
            return answer.read().decode()

    def begin(self, *options):
        return self.ask("replace", HOSTILE, self.folder / "next.raw", "--detach", "--max-pause", "5000", *options).strip()

    def wait_for(self, job, phase):
        wait_until(lambda: json.loads(self.ask("status", job, "--json"))["phase"] == phase, f"phase {phase}", SECONDS)


class Writer:
    """A client that writes all the time, and lives through a gateway that is started again."""

    def __init__(self, gateway):
        image = {"driver": "raw", "file": {"driver": "nbd", "export": HOSTILE, "reconnect-delay": 60,
                                           "server": {"type": "unix", "path": str(gateway.nbd)}}}
        self.process = subprocess.Popen(["qemu-io", "json:" + json.dumps(image)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        at = 0
        with contextlib.suppress(BrokenPipeError):
            while not self.ends.wait(0.01):
                self.process.stdin.write(f"write -q -P {at % 251} {at * 7919 % (DISK_BYTES >> 16) << 16} {4096 << at % 4}\n")
                self.process.stdin.flush()
                at += 1

    def stop(self):
        self.ends.set()
        self.thread.join()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(SECONDS)


class Page:
    """What is to be seen on the page."""

    def __init__(self, browser, gateway):
        self.browser = browser
        self.gateway = gateway

    def open(self):
        self.browser.open(self.gateway.url)
        self.wait_connection("live")

    def wait_connection(self, state):
        self.until("return document.getElementById('connection').dataset.state === arguments[0]", f"the page being {state}", state)

    def until(self, script, what, *arguments):
        return wait_until(lambda: self.browser.run(script, *arguments), what, SECONDS)

    def text(self, selector):
        return self.browser.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def fact(self, label):
        return self.browser.run("return [...document.querySelectorAll('#active .fact')].find((fact) => !fact.hidden && "
                                "fact.querySelector('dt').textContent === arguments[0])?.querySelector('dd').textContent ?? ''", label)

    def points(self):
        """Of each plot: how many points it says it has, and how many its first line has."""
        return self.browser.run("return [...document.querySelectorAll('#active .plot:not([hidden]) svg')].map((svg) => "
                                "[Number(svg.dataset.points), (svg.querySelector('path').getAttribute('d') ?? '').split('L').length])")

    def expect_harmless(self):
        """Nothing that a name holds has become markup."""
        expect(self.browser.run("return document.querySelectorAll('main img, main script').length") == 0, "a name became markup")
        expect(self.browser.run("return document.title") == "host-a: diskferry", "a name was run as a script")
        complaints = self.browser.complaints()
        expect(not complaints, f"the console complains: {complaints}")

    def picture(self, name, width=1280, height=1400, scheme="light"):
        if folder := os.environ.get("PICTURES"):
            self.browser.look(width, height, scheme)
            self.browser.picture(pathlib.Path(folder) / f"{name}.png")


@contextlib.contextmanager
def a_page(programs, folder):
    with contextlib.ExitStack() as stack:
        gateway = Gateway(programs, folder)
        gateway.start()
        stack.callback(gateway.stop)
        browser = stack.enter_context(Browser(folder, maps=[STRANGER]))
        page = Page(browser, gateway)
        page.open()
        yield gateway, browser, page, stack


def job(programs, folder):
    """A job from its begin to its report, over a restart of the gateway."""
    with a_page(programs, folder) as (gateway, browser, page, stack):
        expect(page.text("#no-active") == "No job is active.", "there is a job already")
        expect(HOSTILE in page.text("#exports"), "the export is not listed by its name")
        writer = Writer(gateway)
        stack.callback(writer.stop)
        name = gateway.begin("--rate", "2M", "--retain", "600", "--commit-by-hand")

        page.until("return document.querySelector('#active [data-job=\"' + arguments[0] + '\"]') !== null", "the job being shown", name)
        expect(page.text("#active h3") == HOSTILE, f"the job is called {page.text('#active h3')!r}")
        wait_until(lambda: page.text("#active h4") == HOSTILE, "its disk being shown by its name", SECONDS)
        for label in ("Mode", "Frontier", "Copied", "Dirty", "Resent", "Guest writes", "Added latency", "Predicted pause"):
            wait_until(lambda: page.fact(label), f"'{label}' being shown", SECONDS)  # pylint: disable=cell-var-from-loop
        expect("p99" in page.fact("Added latency"), "no p99")
        for label in ("Frontier", "Copied", "Guest writes"):
            before = page.fact(label)
            wait_until(lambda: page.fact(label) != before, f"'{label}' changing from {before!r}", SECONDS)  # pylint: disable=cell-var-from-loop
        wait_until(lambda: len(page.points()) == 3 and all(said >= 4 and drawn >= 4 for said, drawn in page.points()),
                   "three plots with points", SECONDS)
        page.expect_harmless()
        page.picture("light")
        page.picture("dark", scheme="dark")
        page.picture("phone", 390, 1800)

        before = max(said for said, _ in page.points())
        gateway.kill()
        page.wait_connection("lost")
        gateway.start()
        page.wait_connection("live")
        wait_until(lambda: max((said for said, _ in page.points()), default=0) > before + 2, "the plots going on", SECONDS)
        browser.complaints()  # of the connection that was lost

        figures = gateway.get("metrics")
        expect(f'diskferry_job_disk_dirty_bytes{{job="{name}",disk="{HOSTILE}"}}' in figures, f"no series of the disk in:\n{figures}")
        gateway.ask("set", name, "--rate", "0")
        gateway.wait_for(name, "synchronized")
        gateway.ask("commit", name)
        page.until("return document.querySelector('#active .phase')?.textContent === 'retained'", "the phase 'retained' being shown")
        wait_until(lambda: "Writes were held for" in page.text("#active"), "the hold being told", SECONDS)
        page.picture("retained", scheme="dark")
        gateway.ask("commit", name)
        expect_ended(browser, page, name)
        expect(f'job="{name}"' not in gateway.get("metrics"), "series of a job that has ended")
        page.expect_harmless()
        page.picture("ended")


def expect_ended(browser, page, name):
    """It has moved to those that have ended, and its report opens by keyboard."""
    page.until("return document.querySelector('#ended [data-job=\"' + arguments[0] + '\"]') !== null && "
               "document.querySelector('#active [data-job]') === null", "the job being among those that have ended", name)
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(10):
        browser.press(TAB)
        if browser.run("return document.activeElement.tagName") == "SUMMARY":
            break
    browser.press(ENTER)
    wait_until(lambda: "Writes were held for" in page.text("#ended .report"), "the report being shown", SECONDS)
    expect("Left over: the old storage of " in page.text("#ended .report"), "what is left over is not told as that")
    expect("done" in page.text("#ended summary"), "it does not say that it is done")
    expect("retained after" in page.text("#ended .timeline"), "no timeline")


def phone(programs, folder):
    """At the width of a phone nothing is cut off, in light and dark."""
    with a_page(programs, folder) as (gateway, browser, page, _):
        name = gateway.begin("--rate", "1M")
        wait_until(lambda: len(page.points()) == 3, "three plots", SECONDS)
        for scheme, back in (("light", "rgb(245, 246, 248)"), ("dark", "rgb(15, 19, 24)")):
            browser.look(360, 740, scheme)
            expect(browser.run("return document.documentElement.scrollWidth") <= 360, "the page is wider than a phone")
            expect(browser.run("return getComputedStyle(document.body).backgroundColor") == back, f"it is not {scheme}")
        labels = browser.run("return [...document.querySelectorAll('#active svg')].map((svg) => svg.getAttribute('aria-label') ?? '')")
        expect(any(label.startswith("Written per second: target ") for label in labels), f"plots have no words: {labels}")
        gateway.ask("cancel", name)
        page.until("return document.querySelector('#ended [data-status=\"cancelled\"]') !== null", "the job being told as cancelled")


def strangers(programs, folder):
    """A name that a stranger made point here shows nothing, and no other page may read."""
    with a_page(programs, folder) as (gateway, browser, page, _):
        port = urllib.parse.urlsplit(gateway.url).port
        browser.open(f"http://{STRANGER}:{port}/")
        expect("not called by that name" in page.text("body"), "a stranger's name is answered")
        expect(HOSTILE not in page.text("body"), "a stranger sees exports")
        browser.open("data:text/html,<title>other</title>")
        read = ("const done = arguments[1]; fetch(arguments[0]).then((answer) => answer.text()).then(() => done('read'), () => done('refused'))")
        told = browser.call("POST", "/execute/async", {"script": read, "args": [f"{gateway.url}jobs"]})
        expect(told == "refused", "another site's page reads the jobs")
        expect(browser.complaints(), "the browser does not say why")
        page.open()
        try:
            urllib.request.urlopen(urllib.request.Request(gateway.url + "jobs", data=b"{}"), timeout=SECONDS)
            raise Failed("a job could be begun")
        except urllib.error.HTTPError as error:
            expect(error.code == 405, f"POST is answered with {error.code}")


CASES = {"job": job, "phone": phone, "strangers": strangers}


def main():
    programs, *chosen = sys.argv[1:]
    for name in chosen or CASES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="diskferry-web-", ignore_cleanup_errors=True) as folder:
            try:
                CASES[name](programs, folder)
            except Failed as failed:
                log = pathlib.Path(folder) / "diskferryd.log"
                print(log.read_text(encoding="utf-8")[-3000:] if log.exists() else "")
                print(f"FAILED: {name}: {failed}")
                return 1
        say(f"{name}: passed in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
