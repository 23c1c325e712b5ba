// A plot of the last minutes: a few lines over time in SVG, with what is newest (or under the pointer) as text.

/** The plot spans the shortest of these that holds all samples; older ones than the longest are forgotten. */
const spans = [{ seconds: 60, text: "1 min ago" }, { seconds: 300, text: "5 min ago" }];
const keptMs = spans.at(-1).seconds * 1000;
const width = 300;
const height = 72;
const svgNamespace = "http://www.w3.org/2000/svg";

function svg(tag, attributes) {
  const made = document.createElementNS(svgNamespace, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function html(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** The top of the axis: `least` doubled until it holds the value, so that the axis is calm. */
function ceiling(value, least) {
  let top = least;
  while (top < value) top *= 2;
  return top;
}

export class Plot {
  /** `lines`: {name, className}; `least`: the smallest top of the axis; `format` makes a value a text. */
  constructor({ title, lines, least, format }) {
    this.lines = lines;
    this.least = least;
    this.format = format;
    this.title = title;
    this.samples = []; // [time in ms, value of each line]
    this.pointed = null;
    this.area = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
    for (const part of [0.25, 0.5, 0.75])
      this.area.append(svg("line", { class: "grid", x1: 0, x2: width, y1: height * part, y2: height * part }));
    this.paths = lines.map((line) => svg("path", { class: `line ${line.className}` }));
    this.mark = svg("line", { class: "mark", y1: 0, y2: height, visibility: "hidden" });
    this.area.append(...this.paths, this.mark);
    this.values = lines.map(() => html("b", ""));
    this.top = html("span", "top");
    this.since = html("span", "");
    this.when = html("span", "", "now");
    const legend = lines.map((line, i) => html("li", line.className, `${line.name} `, this.values[i]));
    this.element = html("figure", "plot",
      html("figcaption", "", html("span", "title", title), html("ul", "legend", ...legend)),
      html("div", "area", this.top, this.area),
      html("div", "axis", this.since, this.when));
    this.area.addEventListener("pointermove", (event) => this.point(event));
    this.area.addEventListener("pointerleave", () => this.point(null));
  }

  add(timeMs, values) {
    const last = this.samples.at(-1);
    if (last && timeMs <= last[0]) return;
    this.samples.push([timeMs, ...values]);
    while (this.samples[0][0] < timeMs - keptMs) this.samples.shift();
    this.draw();
  }

  span() {
    const longMs = this.samples.at(-1)[0] - this.samples[0][0];
    return spans.find((one) => one.seconds * 1000 >= longMs) ?? spans.at(-1);
  }

  point(event) {
    this.pointed = null;
    if (event && this.samples.length > 0) {
      const box = this.area.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const wanted = this.samples.at(-1)[0] - (1 - share) * this.span().seconds * 1000;
      this.pointed = this.samples.reduce((best, one) =>
        Math.abs(one[0] - wanted) < Math.abs(best[0] - wanted) ? one : best);
    }
    this.draw();
  }

  draw() {
    const newest = this.samples.at(-1);
    if (!newest) return;
    const top = ceiling(Math.max(...this.samples.flatMap((one) => one.slice(1))), this.least);
    const span = this.span();
    const x = (one) => width * (1 - (newest[0] - one[0]) / 1000 / span.seconds);
    const y = (value) => height - 1 - (height - 3) * (value / top);
    this.paths.forEach((path, i) => path.setAttribute("d", this.samples
      .map((one, at) => `${at === 0 ? "M" : "L"}${x(one).toFixed(1)} ${y(one[i + 1]).toFixed(1)}`).join("")));
    this.top.textContent = this.format(top);
    this.since.textContent = span.text;
    const shown = this.pointed ?? newest;
    this.values.forEach((value, i) => { value.textContent = this.format(shown[i + 1]); });
    this.when.textContent = this.pointed ? new Date(shown[0]).toLocaleTimeString() : "now";
    this.mark.setAttribute("visibility", this.pointed ? "visible" : "hidden");
    for (const end of ["x1", "x2"]) this.mark.setAttribute(end, x(shown).toFixed(1));
    const told = this.lines.map((line, i) => `${line.name} ${this.format(newest[i + 1])}`).join(", ");
    this.area.setAttribute("aria-label", `${this.title}: ${told}`);
    this.area.dataset.points = this.samples.length;
  }
}
