// The page of jobs: what the gateway says of them, kept up to date by its stream of events. Names come from
// clients and operators and are text, never markup: everything goes through textContent.
import * as figures from "./figures.js";
import { Plot } from "./plot.js";

const reopenAfterMs = 2000;
const silentAfterMs = 20000; // the gateway says something every five seconds
const endedShown = 50;

const byId = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Only what differs is written, so that a reader's selection stays. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function announce(text) {
  byId("news").replaceChildren(make("span", "", text));
}

// A disk ------------------------------------------------------------------------------------------------------

const has = (value) => value !== undefined && value !== null;
const given = (value, format) => (has(value) ? format(value) : undefined);

/** What is told of a disk: a label, and the text or undefined where this kind of job does not have it. */
const diskFacts = [
  ["Mode", (disk) => given(disk.mode, (mode) => (disk["mode-reason"] ? `${mode}: ${disk["mode-reason"]}` : mode))],
  ["Frontier", (disk) => given(disk["frontier-bytes"], (at) =>
    `${figures.bytes(at)} of ${figures.bytes(disk["size-bytes"])} (${figures.percent(at, disk["size-bytes"])})`)],
  ["Received", (disk) => given(disk["received-bytes"], figures.bytes)],
  ["Copied", (disk) => given(disk["copied-bytes"], figures.bytes)],
  ["Dirty", (disk) => given(disk["dirty-bytes"], figures.bytes)],
  ["Sent", (disk) => given(disk["sent-bytes"], figures.bytes)],
  ["Resent", (disk) => given(disk["resent-bytes"], figures.bytes)],
  ["Waiting", (disk) => given(disk["pending-bytes"], figures.bytes)],
  ["Guest writes", (disk, rates) => given(disk["guest-bytes"], (all) =>
    `${has(rates.guest) ? `${figures.rate(rates.guest)}, ` : ""}${figures.bytes(all)} in all`)],
  ["Writes slowed to", (disk) => (disk["guest-bytes-per-second-max"] ? figures.rate(disk["guest-bytes-per-second-max"]) : undefined)],
  ["Write latency", (disk) => given(disk["write-p50-us"], (p50) =>
    `p50 ${figures.latency(p50)}, p99 ${figures.latency(disk["write-p99-us"])}`)],
  ["Added latency", (disk) => given(disk["added-p50-us"], (p50) =>
    `p50 ${figures.latency(p50)}, p99 ${figures.latency(disk["added-p99-us"])}`)],
  ["Time left", (disk) => given(disk["eta-ms"], figures.duration)],
  ["Predicted pause", (disk) => given(disk["predicted-pause-ms"], (ms) => figures.latency(ms * 1000))],
];

/** What has no sense once a job has ended. */
const whileItRuns = new Set(["Waiting", "Writes slowed to", "Time left", "Predicted pause"]);

class DiskView {
  constructor(name, hidden = new Set()) {
    this.hidden = hidden;
    this.before = null;
    this.rates = {};
    this.facts = diskFacts.map(([label]) => {
      const text = make("dd");
      const row = make("div", label === "Mode" ? "fact wide" : "fact", make("dt", "", label), text);
      row.hidden = true;
      return { row, text };
    });
    this.plots = {
      flow: new Plot({ title: "Written per second", least: 65536, format: figures.rate,
        lines: [{ name: "target", className: "one" }, { name: "guest", className: "two" }] }),
      dirty: new Plot({ title: "Not at the target yet", least: 65536, format: figures.bytes,
        lines: [{ name: "dirty", className: "one" }, { name: "waiting", className: "two" }] }),
      added: new Plot({ title: "Latency added to writes", least: 500, format: figures.latency,
        lines: [{ name: "p50", className: "one" }, { name: "p99", className: "two" }] }),
    };
    const plots = make("div", "plots", ...Object.values(this.plots).map((plot) => plot.element));
    this.element = make("section", "disk", make("h4", "", name), make("dl", "facts", ...this.facts.map((fact) => fact.row)), plots);
    for (const plot of Object.values(this.plots)) plot.element.hidden = true;
  }

  /** `timeMs` is null where it is not known when this was so. */
  update(disk, timeMs) {
    if (has(timeMs)) this.sample(disk, timeMs);
    diskFacts.forEach(([label, text], i) => {
      const told = this.hidden.has(label) ? undefined : text(disk, this.rates);
      this.facts[i].row.hidden = !has(told);
      if (has(told)) say(this.facts[i].text, told);
    });
  }

  sample(disk, timeMs) {
    const { before } = this;
    this.before = { disk, timeMs };
    if (has(disk["dirty-bytes"])) this.draw("dirty", timeMs, [disk["dirty-bytes"], disk["pending-bytes"] ?? 0]);
    if (has(disk["added-p50-us"])) this.draw("added", timeMs, [disk["added-p50-us"], disk["added-p99-us"]]);
    if (!before || timeMs <= before.timeMs) return;
    const perSecond = (field) => {
      const moved = (disk[field] ?? 0) - (before.disk[field] ?? 0);
      return Math.max(0, (1000 * moved) / (timeMs - before.timeMs));
    };
    this.rates = { sent: perSecond("sent-bytes"), guest: perSecond(has(disk["guest-bytes"]) ? "guest-bytes" : "received-bytes") };
    this.draw("flow", timeMs, [this.rates.sent, this.rates.guest]);
  }

  draw(name, timeMs, values) {
    this.plots[name].element.hidden = false;
    this.plots[name].add(timeMs, values);
  }
}

// A job -------------------------------------------------------------------------------------------------------

class JobView {
  constructor(id) {
    this.disks = new Map();
    this.phase = "";
    this.parts = { subject: make("h3"), kind: make("span", "quiet"), status: make("span", "badge"), phase: make("b", "phase"),
      done: make("span"), bar: make("progress"), error: make("p", "error"), hold: make("p", "quiet"), memory: make("p", "standing"), warnings: make("ul", "warnings"), disks: make("div") };
    const { subject, kind, status, phase, done, bar, error, hold, memory, warnings, disks } = this.parts;
    memory.hidden = true;
    bar.max = 1;
    bar.setAttribute("aria-label", "done");
    this.element = make("article", "job", make("div", "head", subject, kind, status),
      make("p", "standing", "Phase ", phase, ", ", done), bar, error, warnings, hold, memory, disks);
    this.element.dataset.job = id;
  }

  update(job) {
    const { subject, kind, status, error } = this.parts;
    say(subject, job.subject || job.id);
    say(kind, `${job.kind} ${job.id}, since ${figures.time(job["created-ms"])}`);
    say(status, job.status);
    status.dataset.status = job.status;
    say(error, job.error ?? "");
    error.hidden = !job.error;
    this.enter(job.phase ?? "");
    this.progress(job.progress ?? {}, null);
  }

  enter(phase) {
    if (this.phase && phase && phase !== this.phase) announce(`${this.parts.subject.textContent}: ${phase}`);
    this.phase = phase || this.phase;
    say(this.parts.phase, this.phase);
  }

  progress(body, timeMs) {
    const { done, bar, hold, memory, warnings, disks } = this.parts;
    if (body.phase) this.enter(body.phase);
    bar.hidden = !body.total;
    if (body.total) {
      bar.value = body.done / body.total;
      say(done, `${figures.percent(body.done, body.total)} (${figures.bytes(body.done)} of ${figures.bytes(body.total)})`);
    }
    say(hold, body.hold ? holdText(body.hold) : "");
    hold.hidden = !body.hold;
    memory.hidden = !body.memory;
    if (body.memory) say(memory, memoryText(body.memory));
    const told = body.warnings ?? [];
    if (warnings.childElementCount !== told.length) warnings.replaceChildren(...told.map((text) => make("li", "", text)));
    for (const disk of body.disks ?? []) {
      if (!this.disks.has(disk.disk)) {
        const view = new DiskView(disk.disk);
        this.disks.set(disk.disk, view);
        disks.append(view.element);
      }
      this.disks.get(disk.disk).update(disk, timeMs);
    }
  }
}

function memoryText(memory) {
  return `Memory: ${figures.bytes(memory["processed-bytes"] ?? 0)} of ${figures.bytes(memory["total-bytes"] ?? 0)}, ` +
    `${figures.bytes(memory["remaining-bytes"] ?? 0)} left, ${figures.rate(memory["bytes-per-second"] ?? 0)}`;
}

function holdText(hold) {
  const parts = ["drain", "flush", "record", "switch"].filter((part) => has(hold[`${part}-us`]))
    .map((part) => `${part} ${figures.latency(hold[`${part}-us`])}`);
  return `Writes were held for ${figures.latency(hold["total-us"] ?? 0)} at the switchover: ${parts.join(", ")}.`;
}

// A job that has ended: its report comes when it is opened ---------------------------------------------------

class EndedView {
  constructor(id) {
    this.id = id;
    this.parts = { subject: make("b", "subject"), status: make("span", "badge"), about: make("span", "quiet"), report: make("div", "report") };
    this.element = make("details", "ended", make("summary", "", this.parts.subject, " ", this.parts.status, " ", this.parts.about), this.parts.report);
    this.element.dataset.job = id;
    this.element.addEventListener("toggle", () => this.element.open && this.load());
  }

  update(job) {
    say(this.parts.subject, job.subject || job.id);
    say(this.parts.status, job.status);
    this.parts.status.dataset.status = job.status;
    say(this.parts.about, `${job.kind} ${job.id}, ended ${figures.time(job["updated-ms"])}`);
  }

  async load() {
    try {
      this.show(await ask(`jobs/${encodeURIComponent(this.id)}`));
    } catch (error) {
      this.parts.report.replaceChildren(make("p", "error", `The report did not come: ${error.message}`));
    }
  }

  show(job) {
    const report = job.report ?? {};
    const raw = make("a", "", "as JSON");
    raw.href = `jobs/${encodeURIComponent(this.id)}`;
    const parts = [];
    if (job.error) parts.push(make("p", "error", job.error));
    if (report.hold) parts.push(make("p", "", holdText(report.hold)));
    for (const text of report.warnings ?? []) parts.push(make("p", "", `Warning: ${text}`));
    for (const text of report.leftovers ?? []) parts.push(make("p", "", `Left over: ${text}`));
    if (report.timeline?.length) parts.push(timelineOf(report.timeline));
    for (const disk of report.disks ?? []) {
      const view = new DiskView(disk.disk, whileItRuns);
      view.update(disk, null);
      parts.push(view.element);
    }
    this.parts.report.replaceChildren(...parts, make("p", "quiet", "The report ", raw));
  }
}

function timelineOf(timeline) {
  const begun = timeline[0]["at-ms"];
  const rows = timeline.map((step) => make("li", "", make("b", "", step.phase), ` after ${figures.duration(step["at-ms"] - begun)}`));
  return make("ol", "timeline", ...rows);
}

// All of it ---------------------------------------------------------------------------------------------------

const active = new Map();
const ended = new Map();

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
  return answer.json();
}

/** Has a view for each of the jobs, in their order, and none besides. */
function keep(views, jobs, place, View) {
  const ids = new Set(jobs.map((job) => job.id));
  for (const [id, view] of views) {
    if (ids.has(id)) continue;
    view.element.remove();
    views.delete(id);
  }
  jobs.forEach((job, at) => {
    if (!views.has(job.id)) views.set(job.id, new View(job.id));
    const view = views.get(job.id);
    view.update(job);
    if (place.children[at] !== view.element) place.insertBefore(view.element, place.children[at] ?? null);
  });
}

function showExports(exports) {
  byId("exports").replaceChildren(...exports.map((one) => make("tr", "",
    make("th", "", one.name), make("td", "", figures.bytes(one.size ?? 0)), make("td", "", String(one.clients ?? 0)),
    make("td", "image", one.waiting ? `waiting: ${one.waiting}` : one.image ?? ""))));
  for (const cell of byId("exports").querySelectorAll("th")) cell.scope = "row";
  byId("no-exports").hidden = exports.length > 0;
}

let refreshing = null;
let isStale = false;

/** Asks for everything anew; what is asked for meanwhile is done once more after it. */
function refresh() {
  isStale = true;
  refreshing ??= (async () => {
    while (isStale) {
      isStale = false;
      const [gateway, { jobs }, { exports }] = await Promise.all([ask("gateway"), ask("jobs"), ask("exports")]);
      say(byId("gateway"), `${gateway.name} (${gateway.version})`);
      document.title = `${gateway.name}: diskferry`;
      const isActive = (job) => ["queued", "running", "paused"].includes(job.status);
      keep(active, jobs.filter(isActive), byId("active"), JobView);
      keep(ended, jobs.filter((job) => !isActive(job)).slice(0, endedShown), byId("ended"), EndedView);
      byId("no-active").hidden = active.size > 0;
      byId("no-ended").hidden = ended.size > 0;
      showExports(exports);
    }
  })().catch((error) => connection("lost", `not up to date: ${error.message}`)).finally(() => { refreshing = null; });
  return refreshing;
}

function connection(state, text) {
  byId("connection").dataset.state = state;
  say(byId("connection"), text);
}

function take(event) {
  const view = active.get(event.job);
  if (event.kind === "heartbeat") return;
  if (event.kind === "progress" && view) {
    view.progress(event.body, event["time-ms"]);
  } else {
    if (event.kind === "phase" && view && event.body.phase) view.enter(event.body.phase);
    refresh();
  }
}

let stream = null;
let heardAt = 0;

function listen() {
  stream?.close();
  heardAt = Date.now();
  stream = new EventSource("events");
  stream.onopen = () => {
    connection("live", "live");
    refresh();
  };
  stream.onmessage = (message) => {
    heardAt = Date.now();
    take(JSON.parse(message.data));
  };
  stream.onerror = () => {
    connection("lost", "connection lost, trying again");
    // A refusal ends the stream for good, unlike a connection that breaks.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, reopenAfterMs);
  };
}

setInterval(() => {
  if (Date.now() - heardAt > silentAfterMs) listen();
}, 5000);
listen();
