//! The report as one page that works offline: everything it needs is inside it.
//!
//! The one rule: a stranger understands it in ten seconds. Question, answer, verdict and the plot that shows it fit the
//! first screen; everything from outside is escaped; without scripts the same figures are there as static SVG.

use anyhow::Result;

use crate::report::figure::{Along, Figure, FigureCurve, Line, Panel, Scale, Style, hex};
use crate::report::figures::{SIMULATED, is_simulated, lead};
use crate::report::flags::{self, Flag};
use crate::report::tables::{self, Table};
use crate::report::{ReportInput, fault_tables, fault_words, faults};

/// What to type to get the same, or the same pictures, again.
pub const COMMANDS: &str = "scalelab run experiment.toml    # the same experiment, with the same seeds\n\
                            scalelab report DIR             # draw this report again from the archive alone";

/// The whole page; `pictures` are the figures as SVG, in the same order.
pub fn page(input: &ReportInput, figures: &[Figure], pictures: &[String]) -> Result<String> {
    let mut body = header(input);
    let lead = lead(input);
    let shown: Vec<(&Figure, &String)> = figures.iter().zip(pictures).collect();
    for (figure, picture) in shown.iter().filter(|(figure, _)| figure.id == lead) {
        body.push_str(&figure_html(figure, picture));
    }
    body.push_str(&faults(input));
    body.push_str(&section("Numbers", &numbers(input)));
    body.push_str(&guards(input));
    let rest: String = shown
        .iter()
        .filter(|(figure, _)| figure.id != lead)
        .map(|(figure, picture)| figure_html(figure, picture))
        .collect();
    if !rest.is_empty() {
        body.push_str(&section("Figures", &format!("<div class=\"grid\">{rest}</div>")));
    }
    body.push_str(&section("Operations and trials", &(table(&tables::kinds(input)) + &table(&tables::trials(input)))));
    body.push_str(&conditions(input)?);
    let data: Vec<serde_json::Value> = figures.iter().map(plotly).collect();
    Ok(document(&input.experiment.question, &body, &serde_json::to_string(&data)?))
}

/// What was broken and what came of it, with what the words mean.
fn faults(input: &ReportInput) -> String {
    if !faults::is_fault_study(input) {
        return String::new();
    }
    let tables: String = fault_tables::all(input).iter().map(table).collect();
    let meaning = format!(
        "<details><summary>What these words mean</summary><p>{}</p></details>\n<p>{}</p>\n",
        escape(fault_words::DEFINITIONS),
        escape(fault_words::DISK)
    );
    section("What the faults did", &(tables + &meaning))
}

fn numbers(input: &ReportInput) -> String {
    let tables = [tables::cells(input, true), tables::search(input), tables::scaling(input), tables::stream(input)];
    tables.iter().map(table).collect()
}

fn document(title: &str, body: &str, data: &str) -> String {
    let title = escape(title);
    // A `<` could end the script wherever it stands, within a text too.
    let data = data.replace('<', "\\u003c");
    let (style, plotly, script) = (include_str!("page.css"), plotly_js(), include_str!("page.js"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n<script type=\"application/json\" id=\"figures\">{data}</script>\n\
         {plotly}\n<script>{script}</script>\n</body>\n</html>\n"
    )
}

/// plotly.js alone: the crate adds MathJax behind it, which nothing here needs.
fn plotly_js() -> String {
    let both = plotly::Plot::offline_js_sources();
    match both.find("</script>") {
        Some(end) => both[..end + "</script>".len()].to_owned(),
        None => both,
    }
}

fn header(input: &ReportInput) -> String {
    let (word, why) = tables::verdict(input);
    let class = if matches!(word.as_str(), "pass" | "fail") { word.as_str() } else { "unknown" };
    let simulated = if is_simulated(input) { format!("<p class=\"simulated\">{SIMULATED}</p>") } else { String::new() };
    let incomplete = tables::incomplete(input)
        .map_or_else(String::new, |text| format!("<p class=\"incomplete\">{}</p>", code(&text)));
    let why = if why.is_empty() { String::new() } else { format!(" <span>{}</span>", escape(&why)) };
    format!(
        "<header>\n<p class=\"system\">{} · {}</p>\n<h1>{}</h1>\n{simulated}<p class=\"answer\">{}</p>\n\
         <p class=\"verdict\"><strong class=\"{class}\">{}</strong>{why}</p>\n{incomplete}</header>\n",
        escape(&input.experiment.system),
        escape(&input.experiment.name),
        escape(&input.experiment.question),
        escape(&input.study.answer),
        escape(&word),
    )
}

fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n{body}</section>\n", escape(title))
}

fn figure_html(figure: &Figure, picture: &str) -> String {
    let id = escape(&figure.id);
    let notes: String = figure.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    let notes = if notes.is_empty() { notes } else { format!("<ul class=\"notes\">{notes}</ul>") };
    format!(
        "<figure id=\"{id}\" class=\"panels-{}{}\">\n<h3>{}</h3>\n<p>{}</p>\n<div class=\"plot\" role=\"img\" \
         aria-label=\"{}\">{picture}</div>\n<figcaption>{notes}</figcaption>\n</figure>\n",
        figure.panels.len(),
        if figure.stacked { " stacked" } else { "" },
        escape(&figure.title),
        escape(&figure.caption),
        escape(&figure.title),
    )
}

fn table(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let head: String = table.head.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).collect();
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().enumerate().map(|(place, cell)| match place {
            0 => format!("<th scope=\"row\">{}</th>", escape(cell)),
            // A sentence in a wide table would else be as narrow as its longest word.
            _ if cell.chars().count() > 24 => format!("<td class=\"words\">{}</td>", value(cell)),
            _ => format!("<td>{}</td>", value(cell)),
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table>\n\
         <caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
        caption = escape(&table.caption)
    )
}

/// A value with its interval in smaller print, each of them unbroken.
fn value(cell: &str) -> String {
    match cell.split_once(" (") {
        Some((value, interval)) if interval.contains('–') && !cell.contains(" = ") => {
            format!("<span>{}</span> <small>({}</small>", escape(value), escape(interval))
        }
        // Short values stay on one line; sentences may break.
        _ if cell.chars().count() <= 18 => format!("<span>{}</span>", escape(cell)),
        _ => escape(cell),
    }
}

fn guards(input: &ReportInput) -> String {
    let groups = tables::guards(input);
    if groups.is_empty() {
        return String::new();
    }
    let mut list = String::from("<ul class=\"guards\">\n");
    for group in groups {
        let seen: String = group.seen.iter().map(|seen| format!("<li>{}</li>", escape(seen))).collect();
        let places = match group.seen.len() {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        list.push_str(&format!(
            "<li><strong>{} {}</strong> touches {}: {}.<details><summary>seen {places}</summary><ul>{seen}</ul>\
             </details></li>\n",
            escape(&group.mark),
            escape(&group.id),
            escape(&group.touches.join(", ")),
            escape(group.advice.trim_end_matches('.')),
        ));
    }
    section("What to keep in mind", &(list + "</ul>\n"))
}

fn conditions(input: &ReportInput) -> Result<String> {
    let notes: String = input.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    let toml = input.experiment.to_toml();
    let body = format!(
        "<ul>{notes}</ul>\n{}<p>Do it again:</p>\n<pre><code>{}</code></pre>\n\
         <details><summary>The resolved experiment</summary><pre><code>{}</code></pre></details>\n",
        table(&tables::environment(input)),
        escape(COMMANDS),
        escape(&toml)
    );
    Ok(section("Machine and conditions", &body))
}

/// Escaped, with `…` in backticks as code.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(place, part)| match place % 2 {
        1 => format!("<code>{}</code>", escape(part)),
        _ => escape(part),
    });
    parts.collect()
}

/// Text that means itself in HTML, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    out
}

/// A figure as plotly reads it; colours of text and grid are left to the page, which knows light from dark.
fn plotly(figure: &Figure) -> serde_json::Value {
    let mut traces = Vec::new();
    let mut layout = serde_json::Map::new();
    let (mut shapes, mut annotations) = (Vec::new(), Vec::new());
    let columns = figure.columns();
    let rows = figure.panels.len().div_ceil(columns);
    let count = columns as f64;
    let mut named: Vec<&str> = Vec::new();
    for (place, panel) in figure.panels.iter().enumerate() {
        let suffix = if place == 0 { String::new() } else { (place + 1).to_string() };
        let (column, row) = (place % columns, place / columns);
        let gap = if column == 0 { 0.0 } else { 0.05 };
        let domain =
            [column as f64 / count + gap, (column as f64 + 1.0) / count - if count > 1.0 { 0.02 } else { 0.0 }];
        let mut x_axis = x_axis(panel, domain, &suffix);
        let mut y_axis = y_axis(panel, &suffix);
        let height = 1.0 / rows as f64;
        let top = 1.0 - row as f64 * height;
        // Flags stand above the plot.
        let flags = flag_rows(panel) as f64 * FLAG_PX / if figure.stacked { STACKED_PX * rows as f64 } else { 280.0 };
        if figure.stacked {
            y_axis["domain"] = serde_json::json!([top - 0.90 * height, top - 0.04 * height - flags.min(0.5 * height)]);
            if row + 1 < rows {
                x_axis["showticklabels"] = false.into();
                x_axis["title"] = serde_json::Value::Null;
            }
            if place > 0 {
                x_axis["matches"] = "x".into();
            }
        } else if rows > 1 {
            y_axis["domain"] = serde_json::json!([top - 0.80 * height, top - 0.04 * height]);
        } else if flags > 0.0 {
            y_axis["domain"] = serde_json::json!([0.0, 1.0 - flags.min(0.5)]);
        }
        layout.insert(format!("xaxis{suffix}"), x_axis);
        layout.insert(format!("yaxis{suffix}"), y_axis);
        for curve in &panel.curves {
            let is_first = !named.contains(&curve.label.as_str());
            named.push(&curve.label);
            traces.push(trace(curve, panel, &suffix, is_first && panel.x.names.is_empty()));
        }
        marks(panel, &suffix, &mut shapes, &mut annotations);
    }
    layout.insert("shapes".to_owned(), shapes.into());
    layout.insert("annotations".to_owned(), annotations.into());
    serde_json::json!({ "id": figure.id, "stacked": figure.stacked, "data": traces, "layout": layout })
}

/// A row of flags, and a panel of several below each other, in pixels.
const FLAG_PX: f64 = 16.0;
const STACKED_PX: f64 = 230.0;

fn x_ends(panel: &Panel) -> (f64, f64) {
    let points = panel.curves.iter().flat_map(|curve| &curve.points).map(|point| point.x);
    points.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

/// The flags of a panel with their rows, laid out for a narrow screen; on a wide one they are then only further apart.
fn flags_of(panel: &Panel) -> Vec<(Flag<'_>, usize)> {
    const WIDTH: f64 = 210.0;
    let (from, to) = x_ends(panel);
    flags::placed(
        panel,
        &|at| (at - from) / (to - from).max(1e-9) * WIDTH,
        &|text| 6.5 * text.chars().count() as f64,
        WIDTH,
    )
}

fn flag_rows(panel: &Panel) -> usize {
    flags_of(panel).iter().map(|(_, row)| row + 1).max().unwrap_or(0)
}

fn x_axis(panel: &Panel, domain: [f64; 2], suffix: &str) -> serde_json::Value {
    let mut axis = serde_json::json!({
        "title": { "text": escape(&panel.x.title()) }, "domain": domain, "anchor": format!("y{suffix}"),
        "type": if panel.x.scale == Scale::Log { "log" } else { "linear" }, "zeroline": false,
    });
    // Left to itself it would make room for texts at its ends, or none around what is named.
    let (from, to) = x_ends(panel);
    if from < to && (flags::has(panel) || !panel.x.names.is_empty()) {
        axis["range"] = serde_json::json!([from - 0.5, to + 0.5]);
    }
    if !panel.x.ticks.is_empty() {
        axis["tickmode"] = "array".into();
        axis["tickvals"] = panel.x.ticks.clone().into();
        axis["ticktext"] = panel
            .x
            .ticks
            .iter()
            .enumerate()
            .map(|(place, tick)| {
                let name = panel.x.names.get(place).map(|name| escape(name).replace(" ", "<br>"));
                name.unwrap_or_else(|| crate::report::number::digits(*tick))
            })
            .collect::<Vec<_>>()
            .into();
    }
    axis
}

fn y_axis(panel: &Panel, suffix: &str) -> serde_json::Value {
    let log = panel.y.scale == Scale::Log;
    serde_json::json!({
        "title": { "text": escape(&panel.y.title()) }, "anchor": format!("x{suffix}"),
        "type": if log { "log" } else { "linear" },
        "rangemode": if log || !panel.y.from_zero { "normal" } else { "tozero" }, "zeroline": false, "automargin": true,
    })
}

fn trace(curve: &FigureCurve, panel: &Panel, suffix: &str, legend: bool) -> serde_json::Value {
    const SYMBOLS: [&str; 5] = ["circle", "square", "diamond", "triangle-up", "triangle-down"];
    let symbol = SYMBOLS[curve.color % 5];
    let symbols: Vec<String> = curve
        .points
        .iter()
        .map(|point| if point.hollow.is_some() { format!("{symbol}-open") } else { symbol.to_owned() })
        .collect();
    let reach = |end: fn(&crate::report::figure::Point) -> Option<f64>| -> Vec<f64> {
        curve.points.iter().map(|point| point.y.zip(end(point)).map_or(0.0, |(y, end)| (end - y).abs())).collect()
    };
    let texts: Vec<String> = curve
        .points
        .iter()
        .map(|point| escape(format!("{} {}", point.hollow.as_deref().unwrap_or(""), point.marks).trim()))
        .collect();
    let hover: Vec<String> = curve.points.iter().map(|point| escape(&hover(point, panel))).collect();
    let mode = match curve.style {
        Style::Marked => "lines+markers+text",
        Style::Plain | Style::Steps | Style::Broad | Style::Thin => "lines",
        Style::Dots => "markers",
        Style::Valued => "markers+text",
    };
    let (width, opacity) = match curve.style {
        Style::Thin => (1, 0.4),
        Style::Broad => (8, 0.3),
        _ => (2, 1.0),
    };
    let shape = if curve.style.is_stepped() { "hvh" } else { "linear" };
    let values = curve.points.iter().map(|point| point.y.map(|y| crate::report::number::with_unit(y, &panel.y.unit)));
    let (texts, position) = match curve.style {
        Style::Valued => (values.map(Option::unwrap_or_default).collect(), "middle right"),
        _ if curve.color.is_multiple_of(2) => (texts, "top center"),
        _ => (texts, "bottom center"),
    };
    serde_json::json!({
        "type": "scatter", "mode": mode,
        "name": escape(&curve.label), "legendgroup": curve.label, "showlegend": legend,
        "xaxis": format!("x{suffix}"), "yaxis": format!("y{suffix}"),
        "x": curve.points.iter().map(|point| point.x).collect::<Vec<_>>(),
        "y": curve.points.iter().map(|point| point.y).collect::<Vec<_>>(),
        "error_y": { "type": "data", "symmetric": false, "array": reach(|point| point.high),
                     "arrayminus": reach(|point| point.low), "visible": curve.points.iter().any(|point| point.low.is_some()),
                     "thickness": 1.5, "width": 4 },
        "text": texts, "textposition": position, "cliponaxis": false, "opacity": opacity, "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
        "connectgaps": false, "line": { "color": hex(curve.color), "width": width, "shape": shape },
        "marker": { "size": 9, "symbol": symbols, "color": hex(curve.color) },
    })
}

fn hover(point: &crate::report::figure::Point, panel: &Panel) -> String {
    let value =
        point.y.map_or_else(String::new, |y| crate::report::number::interval(y, point.low, point.high, &panel.y.unit));
    let trials = match point.n {
        0 => String::new(),
        1 => ", 1 trial".to_owned(),
        n => format!(", {n} trials"),
    };
    let extra = [point.hollow.as_deref().unwrap_or(""), &point.marks].join(" ");
    format!("{} {}: {value}{trials} {}", panel.x.label, crate::report::number::digits(point.x), extra.trim())
}

/// Beside its line, on the side where there is more room. Plotly wants logarithms here, though not for shapes.
fn line_label(line: &Line, panel: &Panel, refs: &(String, String), color: &str) -> serde_json::Value {
    let scaled = |value: f64, scale: Scale| if scale == Scale::Log { value.log10() } else { value };
    let (x, y, x_anchor, y_anchor) = match line.along {
        Along::X => {
            let ends = panel.x.ticks.first().zip(panel.x.ticks.last());
            let middle = ends.map(|(a, b)| (scaled(*a, panel.x.scale) + scaled(*b, panel.x.scale)) / 2.0);
            let at = scaled(line.at, panel.x.scale);
            let anchor = if middle.is_some_and(|middle| at > middle) { "right" } else { "left" };
            (at, 1.0, anchor, "top")
        }
        // In the middle there are faults, and less in the way.
        Along::Y if flags::has(panel) => (0.5, scaled(line.at, panel.y.scale), "center", "top"),
        Along::Y => (0.01, scaled(line.at, panel.y.scale), "left", "bottom"),
    };
    serde_json::json!({ "xref": refs.0, "yref": refs.1, "x": x, "y": y, "xanchor": x_anchor, "yanchor": y_anchor,
        "text": escape(&line.label), "showarrow": false, "font": { "color": color, "size": 12 } })
}

fn marks(panel: &Panel, suffix: &str, shapes: &mut Vec<serde_json::Value>, annotations: &mut Vec<serde_json::Value>) {
    let (x, y) = (format!("x{suffix}"), format!("y{suffix}"));
    for band in panel.bands.iter().filter_map(|band| Some((band, band.color?))) {
        let (band, color) = band;
        shapes.push(serde_json::json!({ "type": "rect", "xref": x, "yref": format!("{y} domain"), "x0": band.from,
            "x1": band.to, "y0": 0, "y1": 1, "fillcolor": hex(color), "opacity": 0.15, "line": { "width": 0 } }));
    }
    for (flag, row) in flags_of(panel) {
        annotations.push(serde_json::json!({ "xref": x, "yref": format!("{y} domain"), "x": flag.at, "y": 1,
            "yshift": FLAG_PX * row as f64, "xanchor": if flag.is_left { "right" } else { "left" }, "yanchor": "bottom",
            "text": escape(flag.text), "showarrow": false,
            "font": { "color": flag.color.map_or_else(|| "#808080".to_owned(), hex), "size": 11 } }));
    }
    for band in panel.bands.iter().filter(|band| band.color.is_none()) {
        shapes.push(serde_json::json!({ "type": "rect", "xref": x, "yref": format!("{y} domain"), "x0": band.from,
            "x1": band.to, "y0": 0, "y1": 1, "fillcolor": "#808080", "opacity": 0.12, "line": { "width": 0 },
            "label": { "text": escape(&band.label), "textposition": "top left" } }));
    }
    for line in &panel.lines {
        let color = line.color.map_or_else(|| "#808080".to_owned(), hex);
        let vertical = line.along == Along::X;
        let refs = if vertical { (x.clone(), format!("{y} domain")) } else { (format!("{x} domain"), y.clone()) };
        let shape = |low: f64, high: f64| {
            let (x0, x1, y0, y1) = if vertical { (low, high, 0.0, 1.0) } else { (0.0, 1.0, low, high) };
            serde_json::json!({ "xref": refs.0, "yref": refs.1, "x0": x0, "x1": x1, "y0": y0, "y1": y1 })
        };
        if let Some((low, high)) = line.interval {
            let mut band = shape(low, high);
            band["type"] = "rect".into();
            band["fillcolor"] = color.clone().into();
            band["opacity"] = 0.15.into();
            band["line"] = serde_json::json!({ "width": 0 });
            shapes.push(band);
        }
        let mut stroke = shape(line.at, line.at);
        stroke["type"] = "line".into();
        stroke["line"] = serde_json::json!({ "color": color, "width": 2, "dash": "dash" });
        shapes.push(stroke);
        let is_flagged = vertical && flags::has(panel);
        if !is_flagged && !line.label.is_empty() {
            annotations.push(line_label(line, panel, &refs, &color));
        }
    }
    if let Some(words) = &panel.words {
        annotations.push(serde_json::json!({ "xref": format!("{x} domain"), "yref": format!("{y} domain"), "x": 0.5,
            "y": 0.98, "text": escape(words), "showarrow": false }));
    }
}
