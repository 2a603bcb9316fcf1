"use strict";
// Small charts of lines and bars in SVG, drawn again with every update. All that stand on time share one cursor.

// Three significant digits, thin spaces between thousands.
const digits = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  const text = magnitude > 2 ? String(Math.round(value)) : String(Number(value.toFixed(Math.min(6, 2 - magnitude))));
  return Math.abs(value) >= 1e4 ? text.replace(/\B(?=(\d{3})+$)/g, "\u2009") : text;
};
const withUnit = (value, unit) => value === null || value === undefined ? "–" : `${digits(value)}${unit ? " " + unit : ""}`;
// A duration in milliseconds as one says it: 5 ms, 2.53 s, 3 m 20 s.
const spoken = (ms) => {
  if (ms === null || ms === undefined) return "–";
  if (Math.abs(ms) < 999.5) return `${digits(ms)} ms`;
  if (ms < 99.95e3) return `${digits(ms / 1e3)} s`;
  const seconds = Math.round(ms / 1e3);
  if (ms < 7200e3) return `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} m`;
};
const two = (number) => String(number).padStart(2, "0");
// A time on the axis: 30 s, 2:30, 1:05:00.
const elapsed = (seconds, longest) => {
  const whole = Math.round(seconds);
  if (longest < 120) return `${digits(seconds)} s`;
  if (longest < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole % 3600 / 60))}:${two(whole % 60)}`;
};
// At most `most` round steps between 0 and `span`.
const step = (span, most, steps = [1, 2, 5]) => {
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * ([...steps, 10].find((factor) => factor * power >= raw * 0.999) ?? 10);
};
const timeStep = (span, most) =>
  [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400].find((one) => span / one <= most)
  ?? step(span, most);
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
};
// Nodes and attributes are touched only where they differ: what is selected or focused stays so.
const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const drawing = (tag, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (text !== undefined) made.textContent = text;
  return made;
};

const cursor = { at: null, charts: new Set(), clock: () => "" };
const moveCursor = (at) => {
  cursor.at = at;
  cursor.charts.forEach((chart) => chart.point());
};

class Chart {
  // `name` makes the accessible label; a row of the stream brings its own heading and passes `bare`.
  constructor(id, { bare = false, histogram = false } = {}) {
    this.id = id;
    this.histogram = histogram;
    this.svg = drawing("svg", { role: "img", "data-chart": id });
    this.title = element("h3");
    this.unit = element("small");
    this.legend = element("ul", { class: "legend" });
    this.caption = element("p", { class: "caption" });
    this.table = element("div", { class: "scroll", tabindex: "0", role: "region" });
    this.table.hidden = true;
    this.button = element("button", { type: "button", "aria-expanded": "false" }, "Table");
    this.button.addEventListener("click", () => {
      this.table.hidden = !this.table.hidden;
      this.button.setAttribute("aria-expanded", String(!this.table.hidden));
      this.tabulate();
    });
    const head = element("div", { class: "head" }, bare ? this.legend : this.title, this.button);
    this.figure = histogram ? element("figure", {}, this.svg) : bare ? element("figure", {}, head, this.svg, this.table)
      : element("figure", {}, head, this.legend, this.svg, this.caption, this.table);
    this.moved = 0;
    this.last = "";
    if (!histogram) this.listen();
  }

  listen() {
    cursor.charts.add(this);
    this.svg.setAttribute("tabindex", "0");
    const follow = (event) => {
      const box = this.svg.getBoundingClientRect();
      const share = (event.clientX - box.left - this.left) / Math.max(1, box.width - this.left - this.right);
      const [from, to] = this.data?.x ?? [0, 1];
      moveCursor(from + Math.min(1, Math.max(0, share)) * (to - from));
    };
    this.svg.addEventListener("pointermove", follow);
    this.svg.addEventListener("pointerdown", follow);
    this.svg.addEventListener("pointerleave", () => moveCursor(null));
    this.svg.addEventListener("blur", () => moveCursor(null));
    this.svg.addEventListener("keydown", (event) => {
      const times = this.data?.lines[0]?.t ?? [];
      const now = cursor.at === null ? times.length - 1 : this.nearest(times, cursor.at);
      const far = Math.max(1, Math.round(times.length / 10));
      const to = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - far, PageDown: now + far, Home: 0,
        End: times.length - 1 }[event.key];
      if (event.key === "Escape") moveCursor(null);
      if (to === undefined || !times.length) return;
      event.preventDefault();
      moveCursor(times[Math.min(times.length - 1, Math.max(0, to))]);
      document.getElementById("reader").textContent = `${this.data.title} at ${cursor.clock(cursor.at)}: ` +
        this.data.lines.map((line) => `${line.label} ${this.show(this.valueAt(line))}`).join(", ");
    });
  }

  show(value) { return this.data.show ? this.data.show(value) : withUnit(value, this.data.unit); }

  nearest(times, at) {
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < at) low = middle + 1; else high = middle;
    }
    return low > 0 && at - times[low - 1] < times[low] - at ? low - 1 : low;
  }

  // The value at the cursor, or the last one that is known.
  valueAt(line) {
    if (cursor.at !== null) return line.v[this.nearest(line.t, cursor.at)] ?? null;
    // What comes after the end of the schedule is the rest of it, not what the system does.
    const end = this.data.end ?? Infinity;
    for (let place = line.v.length - 1; place >= 0; place--) if (line.v[place] !== null && line.t[place] < end) return line.v[place];
    return null;
  }

  // { title, unit, caption, lines: [{label, t, v}], x: [from, to], top, references, marks, from, bins }
  set(data) {
    this.data = data;
    setText(this.title, data.title + " ");
    if (data.unit) { setText(this.unit, data.unit); this.title.append(this.unit); }
    setText(this.caption, data.caption ?? "");
    this.table.setAttribute("aria-label", `${data.title} as a table`);
    this.button.setAttribute("aria-label", `${data.title} as a table`);
    const key = JSON.stringify([data.lines, data.x, data.top, data.references, data.marks, data.from, data.bins]);
    if (key !== this.last) {
      this.last = key;
      this.moved += 1;
      this.svg.dataset.moved = this.moved;
      this.draw();
      this.tabulate();
    }
    this.point();
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!this.data || width < 20) return;
    const top = this.data.top > 0 ? this.data.top : 1;
    const tick = step(top, 4);
    const ticks = Array.from({ length: Math.floor(top / tick + 1e-9) + 1 }, (_, place) => place * tick);
    const labels = ticks.map((value) => digits(Number(value.toPrecision(6))));
    if (this.data.unit?.length <= 3) labels[labels.length - 1] += ` ${this.data.unit}`;
    this.left = this.histogram ? 2 : Math.max(44, 10 + 6.5 * Math.max(...labels.map((label) => label.length)));
    this.right = this.histogram ? 22 : 6;
    const [above, below] = [this.data.marks?.length ? 18 : 8, 18];
    this.y = (value) => height - below - value / top * (height - above - below);
    this.inner = { width: width - this.left - this.right, height, above, below };
    const parts = [];
    ticks.forEach((value, place) => {
      parts.push(drawing("line", { class: place ? "grid-line" : "axis", x1: this.left, x2: width - this.right,
        y1: this.y(value), y2: this.y(value) }));
      if (!this.histogram) {
        parts.push(drawing("text", { x: this.left - 5, y: this.y(value) + 4, "text-anchor": "end" }, labels[place]));
      }
    });
    if (this.histogram) this.bars(parts, top, width); else this.curves(parts, width);
    this.svg.replaceChildren(...parts);
    this.needle = null;
  }

  curves(parts, width) {
    const { x: [from, to], lines, references = [], marks = [] } = this.data;
    const { height, above, below } = this.inner;
    const span = Math.max(1e-9, to - from);
    this.x = (at) => this.left + (at - from) / span * this.inner.width;
    const tick = timeStep(span, Math.max(2, this.inner.width / 75));
    for (let at = Math.ceil(from / tick) * tick; at <= to; at += tick) {
      const anchor = this.x(at) > width - 30 ? "end" : this.x(at) < this.left + 12 ? "start" : "middle";
      parts.push(drawing("text", { x: this.x(at), y: height - 4, "text-anchor": anchor }, elapsed(at, to)));
    }
    if (this.data.from > from) {
      const x = this.x(Math.min(this.data.from, to));
      parts.push(drawing("rect", { class: "band", x: this.left, y: above, width: Math.max(0, x - this.left), height: height - above - below }));
      if (x - this.left > 56) parts.push(drawing("text", { x: this.left + 4, y: above + 10 }, "warm-up"));
    }
    marks.filter((mark) => mark.from <= to && (mark.to ?? to) >= from).forEach((mark) => {
      const x = this.x(Math.max(from, mark.from)), end = this.x(Math.min(to, mark.to ?? mark.from));
      if (end > x) parts.push(drawing("rect", { class: "band", x, y: above, width: end - x, height: height - above - below }));
      parts.push(drawing("line", { class: mark.planned ? "mark planned" : "mark", x1: x, x2: x, y1: above, y2: height - below }));
      const anchor = x > width * 0.6 ? "end" : "start";
      parts.push(drawing("text", { class: "mark-label", x, y: 12, "text-anchor": anchor }, mark.label + (mark.planned ? " (planned)" : "")));
    });
    lines.forEach((line) => {
      const color = `c${line.color % 7}`;
      let path = "", dots = "", pen = "M";
      line.t.forEach((at, place) => {
        const value = line.v[place];
        if (value === null || at < from) { pen = "M"; return; }
        const [x, y] = [this.x(at).toFixed(1), this.y(value).toFixed(1)];
        path += `${pen}${x} ${y}`;
        dots += `M${x} ${y}h.01`;
        pen = "L";
      });
      parts.push(drawing("path", { class: `curve ${color}`, d: path }));
      if (line.t.length <= this.inner.width / 9 && (this.data.dots || line.t.length < 3)) parts.push(drawing("path", { class: `dots ${color}`, d: dots }));
    });
    references.filter(({ at }) => at <= this.data.top).forEach(({ at, label }) => {
      const y = this.y(at);
      parts.push(drawing("line", { class: "reference", x1: this.left, x2: width - this.right, y1: y, y2: y }));
      // Beside the line on the right, above a curve that runs close to it.
      const near = lines.flatMap((line) => line.t.map((t, place) => [t, line.v[place]]))
        .filter(([t, value]) => value !== null && this.x(t) > width * 0.5).map(([, value]) => this.y(value));
      const highest = Math.min(y, ...near.filter((other) => Math.abs(other - y) < 26));
      parts.push(drawing("text", { class: "reference-label", x: width - this.right - 2, "text-anchor": "end",
        y: highest < above + 16 ? y + 13 : highest - 6 }, label));
    });
    if (lines.every((line) => line.v.every((value) => value === null))) {
      parts.push(drawing("text", { x: this.left + this.inner.width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to show yet"));
    }
    const known = lines.map((line) => `${line.label} ${this.show(this.valueAt(line))}`);
    this.svg.setAttribute("aria-label", `${this.data.title} over time, now ${known.join(", ")}. Arrow keys read values.`);
    this.svg.dataset.points = lines[0]?.v.filter((value) => value !== null).length ?? 0;
  }

  bars(parts, top, width) {
    const { bins } = this.data;
    const most = Math.max(1, ...bins);
    const length = (count) => count / most * (width - this.left - this.right);
    bins.forEach((count, place) => {
      if (!count) return;
      const [low, high] = [this.y(top * place / bins.length), this.y(top * (place + 1) / bins.length)];
      parts.push(drawing("rect", { class: "bar-of c0", x: this.left, y: high + 1, width: Math.max(1, length(count)), height: Math.max(1, low - high - 2) }));
      parts.push(drawing("text", { x: this.left + length(count) + 4, y: (low + high) / 2 + 4 }, digits(count)));
    });
    parts.push(drawing("text", { x: this.left, y: this.inner.height - 4 }, "batches"));
    const told = bins.map((count, place) => count ? `${count} between ${this.show(top * place / bins.length)} and ${this.show(top * (place + 1) / bins.length)}` : "");
    this.svg.setAttribute("aria-label", `${this.data.title}, number of batches: ${told.filter(Boolean).join("; ") || "none yet"}`);
    this.svg.dataset.bars = bins.filter(Boolean).length;
  }

  // The cursor's line, and the values in the legend.
  point() {
    if (!this.data || !this.x || this.histogram) return;
    const { lines, x: [from, to] } = this.data;
    if (this.legend.children.length !== lines.length) {
      this.legend.replaceChildren(...lines.map((line) => element("li", { class: `c${line.color % 7}` }, "", element("b"))));
    }
    lines.forEach((line, place) => {
      const item = this.legend.children[place];
      item.className = `c${line.color % 7}`;
      if (item.firstChild.data !== `${line.label} `) item.firstChild.data = `${line.label} `;
      const when = cursor.at !== null && place === 0 ? ` at ${cursor.clock(cursor.at)}` : "";
      setText(item.lastChild, this.show(this.valueAt(line)) + when);
    });
    this.needle?.remove();
    this.needle = null;
    if (cursor.at === null || cursor.at < from || cursor.at > to) return;
    const x = this.x(cursor.at);
    this.needle = drawing("line", { class: "cursor", x1: x, x2: x, y1: this.inner.above, y2: this.inner.height - this.inner.below });
    this.svg.append(this.needle);
  }

  tabulate() {
    if (this.table.hidden || !this.data) return;
    const { lines } = this.data;
    const times = [...new Set(lines.flatMap((line) => line.t.slice(-60)))].sort((a, b) => b - a).slice(0, 60);
    const head = element("tr", {}, ...["Time", ...lines.map((line) => line.label)].map((name) => element("th", { scope: "col" }, name)));
    const rows = times.map((at) => element("tr", {}, element("th", { scope: "row" }, cursor.clock(at)),
      ...lines.map((line) => element("td", {}, this.show(line.v[line.t.indexOf(at)] ?? null)))));
    this.table.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  }
}
