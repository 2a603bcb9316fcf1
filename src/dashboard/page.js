// Asks for the state each second and shows it.
const $ = (id) => document.getElementById(id);
const page = { version: null, chosen: "", state: null, charts: new Map(), pages: { active: 0, completed: 0 }, missed: 0 };

const show = (node, is) => { if (node.hidden === is) node.hidden = !is; };
// A time on the schedule as a time of day, or as time since the start where there is no day (simulated).
const clock = (seconds) => {
  const start = page.state?.stream?.start_unix_ms;
  if (!start) return spoken(seconds * 1e3);
  const at = new Date(start + seconds * 1e3);
  const fine = page.state.stream.interval_ms % 1000 !== 0 ? "." + String(at.getMilliseconds()).padStart(3, "0") : "";
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}${fine}`;
};
cursor.clock = clock;
const exact = (count) => count < 1e4 ? String(count) : String(count).replace(/\B(?=(\d{3})+$)/g, "\u2009");

function head() {
  const { run, trial, stream, trials } = page.state;
  document.title = `${run.state === "running" ? "● " : ""}${run.name} · scalelab`;
  setText($("system"), [run.system, run.name, run.deployment].filter(Boolean).join(" · "));
  setText($("question"), run.question || run.name);
  show($("simulated"), Boolean(run.simulated));
  setText($("simulated"), run.simulated ?? "");
  const word = { running: "running", ended: "ended", interrupted: "stopped before its end", waiting: "starting" }[run.state];
  setText($("state"), word);
  $("state").className = `chip ${run.state}`;
  const sentence = stream?.sentence ?? trial?.sentence ?? "";
  const [lead, rest] = sentence.includes(":") && stream ? [sentence.slice(0, sentence.indexOf(":") + 1), sentence.slice(sentence.indexOf(":") + 1)] : ["", sentence];
  if ($("answer").textContent !== sentence) $("answer").replaceChildren(...(lead ? [element("strong", {}, lead)] : []), rest);
  const tone = { stable: "good", behind: "bad", stuck: "bad", failing: "bad", tight: "warn", held: "warn", "catching-up": "warn" }[stream?.state] ?? "";
  $("answer").className = `answer ${tone}`;
  pick(trials);
  place(run, trial);
  verdict(run);
}

function place(run, trial) {
  const parts = [];
  if (trial) {
    if (run.planned > 1 && trial.place) parts.push(`trial ${trial.place} of ${run.planned}`);
    const long = trial.to_s ? ` of ${spoken(trial.to_s * 1e3)}` : "";
    parts.push(trial.is_final ? spoken((trial.to_s ?? trial.now_s) * 1e3) : `${spoken(Math.floor(trial.now_s) * 1e3)}${long}`);
    if (trial.left > 0) parts.push(`reading, ${digits(trial.left / 1048576)} MiB left`);
  }
  setText($("where"), parts.join(", "));
  show($("progress"), Boolean(trial?.to_s) && !trial.is_final);
  if (trial?.to_s) $("progress").value = Math.min(1, trial.now_s / trial.to_s);
}

function pick(trials) {
  const begun = trials.filter((trial) => trial.begun);
  show($("picker"), begun.length > 1);
  const options = [["", "the latest"], ...begun.map((trial) => [trial.name, trial.levels ? `${trial.name.slice(0, 3)} · ${trial.levels}` : trial.name])];
  const key = JSON.stringify(options);
  if ($("trial").dataset.key === key) return;
  $("trial").dataset.key = key;
  $("trial").replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  $("trial").value = page.chosen;
}

function verdict(run) {
  show($("verdict"), Boolean(run.verdict));
  if (!run.verdict || $("verdict").dataset.key === JSON.stringify(run.verdict)) return;
  $("verdict").dataset.key = JSON.stringify(run.verdict);
  const { verdict, why, guards = [] } = run.verdict;
  const word = ["pass", "fail"].includes(verdict) ? verdict : "unknown";
  const says = run.judged || verdict !== "pass";
  const parts = says ? [element("strong", { class: word }, String(verdict)), typeof why === "string" ? why : ""] : [];
  if (guards.length) {
    const items = guards.map((guard) => element("li", {}, `${guard.at ? guard.at + ": " : ""}${guard.what}; ${guard.advice}`));
    parts.push(element("details", {}, element("summary", {}, `What to know about the numbers (${guards.length})`), element("ul", {}, ...items)));
  }
  $("verdict").replaceChildren(...parts);
}

// The four rows, as on the published page.
const ROWS = [
  { id: "input-rate", key: "rate", title: "Input rate", tip: "Records of a batch, divided by its interval." },
  { id: "scheduling-delay", key: "scheduling", title: "Scheduling delay", tip: "Wait: from submission until the first job starts." },
  { id: "processing-time", key: "processing", title: "Processing time", tip: "Work: from the start of the first job to the end of the last." },
  { id: "total-delay", key: "total", title: "Total delay", tip: "Both: from submission until all is done." },
];
const BINS = 10;

function rows() {
  if (page.rows) return page.rows;
  page.rows = ROWS.map((row) => {
    const parts = { average: element("p", { class: "average" }, element("small", {}, "average "), element("span"),
        element("small", {}, row.key === "rate" ? " records/s" : "")), note: element("p", { class: "muted" }),
      line: new Chart(row.id, { bare: true }), bars: new Chart(`${row.id}-histogram`, { histogram: true }) };
    const name = element("div", { class: "name" }, element("h3", {}, row.title), parts.average, element("p", { class: "muted" }, row.tip), parts.note);
    $("rows").append(element("div", { class: "row" }, name, parts.line.figure, parts.bars.figure));
    return { ...row, ...parts };
  });
  return page.rows;
}

function stream() {
  const { stream, marks, trial } = page.state;
  show($("stream"), Boolean(stream));
  if (!stream) return;
  const { batches, averages, interval_ms: interval } = stream;
  const since = stream.start_unix_ms ? `since ${clock(0).split(".")[0]}` : "of virtual time";
  setText($("line"), `Batches of ${spoken(interval)} for ${spoken(stream.end_ms)} ${since}: ${exact(stream.completed)} completed with ` +
    `${exact(stream.processed_records)} records, ${exact(stream.active)} active (${stream.running} running, ${stream.waiting} waiting).`);
  setText($("slots"), [stream.slots && stream.slots + ".", stream.predicted && `The model expects ${stream.predicted} of processing.`].filter(Boolean).join(" "));
  const troubles = stream.receivers.filter((one) => !one.active && one.last_error).map((one) => `Receiver ${one.stream} does not receive: ${one.last_error}`);
  // Where no slot is left, the sentence on top says so already.
  const said = stream.state === "stuck" ? stream.notes.filter((note) => !/slot/.test(note)) : stream.notes;
  const notes = [...new Set([...said, ...troubles])];
  if ($("notes").dataset.key !== JSON.stringify(notes)) {
    $("notes").dataset.key = JSON.stringify(notes);
    $("notes").replaceChildren(...notes.map((note) => element("li", {}, note)));
  }
  const times = batches.time_ms.map((ms) => ms / 1e3);
  const columns = { ...batches, rate: batches.records.map((records) => interval ? records * 1e3 / interval : null) };
  const largest = (key) => columns[key].reduce((most, value) => Math.max(most, value ?? 0), 0);
  const begin = batches.number.length && batches.number[0] > 1 && stream.completed > 1000 ? times[0] : 0;
  const x = [begin, Math.max(begin + 1, stream.end_ms / 1e3, times.at(-1) ?? 0)];
  const shared = $("shared").checked;
  const most = Math.max(...["scheduling", "processing", "total"].map(largest));
  rows().forEach((row) => {
    const isRate = row.key === "rate";
    const own = shared ? most : largest(row.key);
    // The line at the interval is drawn where the scale reaches it, and stretches it a little.
    const isProcessing = row.key === "processing";
    const near = !isRate && (shared || isProcessing) && own < interval && own > interval / 5;
    const limit = isRate ? Math.ceil(largest("rate")) : near || own === 0 ? interval * 1.1 : own * 1.05;
    const [scale, unit] = isRate ? [1, "records/s"] : limit < 1e3 ? [1, "ms"] : limit < 120e3 ? [1e-3, "s"] : [1 / 60e3, "min"];
    const values = columns[row.key].map((value) => value === null ? null : value * scale);
    const say = isRate ? (value) => withUnit(value, "/s") : (value) => value === null ? "–" : spoken(value / scale);
    const references = isProcessing ? [{ at: interval * scale, label: `stable below the interval, ${spoken(interval)}` }] : [];
    const data = { title: row.title, unit, show: say, x, top: limit * scale, references, marks, dots: true };
    row.line.set({ ...data, latest: true, lines: [{ label: "batch", t: times, v: values, color: 0 }] });
    const bins = Array(BINS).fill(0);
    values.forEach((value) => { if (value !== null) bins[Math.min(BINS - 1, Math.max(0, Math.floor(value / (limit * scale) * BINS)))] += 1; });
    row.bars.set({ ...data, lines: [], bins });
    setText(row.average.children[1], isRate ? digits(averages.rate) : spoken(averages[row.key]));
    setText(row.note, isRate ? `Receivers: ${stream.receivers.filter((one) => one.active).length} / ${stream.receivers_planned ?? "?"} active.`
      : row.key === "scheduling" && averages.lateness > 1 ? `Batches are submitted ${spoken(averages.lateness)} after their tick.`
      : isProcessing && references.length && limit < interval ? `The interval, ${spoken(interval)}, is far above.` : "");
  });
  receivers(stream);
  const active = [], completed = [];
  batches.number.forEach((_, place) => (["completed", "failed"].includes(batches.status[place]) ? completed : active).unshift(place));
  const hidden = stream.active - active.length;
  paged("active", `Active batches (${exact(stream.active)}${hidden > 0 ? `, ${exact(hidden)} of them not listed` : ""})`, active);
  paged("completed", `Completed batches (last ${exact(completed.length)} of ${exact(stream.completed)})`, completed);
  show($("printed"), Boolean(stream.output));
  if (stream.output) setText($("printed").lastElementChild, `Batch of ${clock(stream.output.time_ms / 1e3)}\n${stream.output.lines.join("\n")}`);
}

function fill(table, names, rows, texts = []) {
  const key = JSON.stringify([names, rows]);
  if (table.dataset.key === key) return;
  table.dataset.key = key;
  const cell = (value, place) => place === 0 ? element("th", { scope: "row" }, value) : element("td", texts.includes(place) ? { class: "text" } : {}, value);
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...names.map((name, place) => element("th", texts.includes(place) ? { scope: "col", class: "text" } : { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))));
}

function receivers(stream) {
  const rows = stream.receivers.map((one) => [`${one.stream}`, one.source, one.active ? "active" : "not active", String(one.restarts), withUnit(one.rate, "records/s"),
    one.last_error_ms === null ? "–" : clock(one.last_error_ms / 1e3), [one.last_error, one.no_record_latency].filter(Boolean).join("; ") || "–"]);
  fill($("receivers"), ["Stream", "Reads from", "Status", "Restarts", "Average", "Last error at", "Last error"], rows, [1, 2, 6]);
}

function paged(id, title, places) {
  const box = $(id);
  if (!box.firstChild) {
    const pager = element("span", { class: "pager" });
    const button = (text, by) => {
      const made = element("button", { type: "button" }, text);
      made.addEventListener("click", () => { page.pages[id] += by; stream(); });
      return made;
    };
    pager.append(button("Newer", -1), element("span"), button("Older", 1));
    box.append(element("div", { class: "head" }, element("h3"), pager), element("div", { class: "scroll", tabindex: "0", role: "region" }, element("table")));
  }
  const size = 10, count = Math.max(1, Math.ceil(places.length / size));
  page.pages[id] = Math.min(count - 1, Math.max(0, page.pages[id]));
  const from = page.pages[id] * size;
  const [heading, pager] = box.firstChild.children;
  setText(heading, title);
  const [newer, range, older] = pager.children;
  newer.disabled = from === 0;
  older.disabled = from + size >= places.length;
  show(pager, places.length > size);
  setText(range, `${from + 1}–${Math.min(places.length, from + size)}`);
  box.lastChild.setAttribute("aria-label", title.replace(/\s*\(.*/, ""));
  show(box.lastChild, places.length > 0);
  const { batches } = page.state.stream;
  const isDone = id === "completed";
  const rows = places.slice(from, from + size).map((place) => {
    const row = [clock(batches.time_ms[place] / 1e3), exact(batches.records[place]), spoken(batches.scheduling[place]), spoken(batches.processing[place])];
    if (isDone) row.push(spoken(batches.total[place]));
    return [...row, String(batches.jobs[place]), String(batches.tasks[place]), batches.ops[place],
      isDone ? batches.reason[place] ?? (batches.status[place] === "failed" ? "failed" : "–") : [batches.status[place], batches.reason[place]].filter(Boolean).join(": ")];
  });
  fill(box.lastChild.firstChild, ["Batch time", "Records", "Scheduling delay", "Processing time", ...(isDone ? ["Total delay"] : []), "Jobs", "Tasks",
    "Output ops done", isDone ? "Error" : "Status"], rows, [isDone ? 8 : 7]);
}

function machine() {
  const { charts, marks, trial } = page.state;
  show($("machine"), charts.length > 0);
  const x = [0, Math.max(1, trial?.now_s ?? 0)];
  const wanted = new Set(charts.map((chart) => chart.id));
  page.charts.forEach((chart, id) => show(chart.figure, wanted.has(id)));
  charts.forEach((data) => {
    if (!page.charts.has(data.id)) {
      const chart = new Chart(data.id);
      page.charts.set(data.id, chart);
      $("charts").append(chart.figure);
      show(chart.figure, true);
    }
    const lines = data.lines.map((line, color) => ({ ...line, color }));
    const most = Math.max(0, ...lines.map((line) => line.v.reduce((top, value) => Math.max(top, value ?? 0), 0)));
    page.charts.get(data.id).set({ ...data, lines, x, top: most > 0 ? most * 1.08 : 1, marks, from: trial?.from_s, end: trial?.to_s });
  });
}

function study() {
  const { trials } = page.state;
  show($("study"), trials.length > 0);
  const ms = (value) => value === null ? "–" : spoken(value);
  const rows = trials.map((trial) => [trial.name, trial.levels || "–", trial.state + (trial.why ? `: ${trial.why}` : ""), withUnit(trial.good, "/s"),
    ms(trial.wait_p95), ms(trial.work_p95), ms(trial.total_p95), withUnit(trial.errors, "%")]);
  fill($("trials"), ["Trial", "Levels", "State", "Good", "Wait p95", "Work p95", "Total p95", "Errors"], rows, [1, 2]);
}

function render() {
  const { run, path } = page.state;
  setText($("path"), path);
  show($("stream"), Boolean(run) && Boolean(page.state.stream));
  show($("machine"), Boolean(run));
  show($("study"), Boolean(run));
  if (!run) {
    setText($("state"), "waiting");
    setText($("question"), "Waiting for a run");
    setText($("answer"), `There is no archive at ${path} yet; this page shows it as soon as it is there.`);
    return;
  }
  head();
  stream();
  machine();
  study();
}

async function ask() {
  const query = new URLSearchParams();
  if (page.chosen) query.set("trial", page.chosen);
  if (page.version !== null) query.set("version", page.version);
  let wait = 1000;
  try {
    const answer = await fetch(`/api/state?${query}`);
    if (answer.status === 200) {
      page.state = await answer.json();
      page.version = page.state.version;
      render();
      if (page.state.trial?.left > 0) wait = 50;
    } else if (page.missed > 0 && page.state) {
      render();
    }
    page.missed = 0;
  } catch (error) {
    if (!(error instanceof TypeError)) console.error(error);
    page.missed += 1;
    if (page.missed > 1) {
      setText($("state"), "the lab is gone; this is the last it said");
      $("state").className = "chip gone";
    }
    wait = Math.min(10000, 1000 * page.missed);
  }
  page.timer = setTimeout(ask, wait);
}

function askAgain() {
  clearTimeout(page.timer);
  page.version = null;
  ask();
}

$("trial").addEventListener("change", () => { page.chosen = $("trial").value; askAgain(); });
$("shared").addEventListener("change", () => { if (page.state) stream(); });
ask();
