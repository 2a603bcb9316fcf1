//! A figure → shapes on a page of 1600 × 1000, higher for stacked panels: where everything stands, and nothing about how it is painted.
//!
//! The one rule: a label never covers data. Names stand at the ends of their curves or above the panels, notes below,
//! and what does not fit is left out whole.

use crate::report::figure::{Along, Axis, Figure, FigureCurve, Line, Panel, Point, Scale, Style};
use crate::report::flags::Flag;
use crate::report::{flags, number};

/// The page.
pub const WIDTH: f64 = 1600.0;
/// The page, of panels that are not stacked.
const HEIGHT: f64 = 1000.0;

/// How high the page of a figure is.
pub fn height(figure: &Figure) -> f64 {
    let further = figure.panels.len().saturating_sub(1) as f64;
    if figure.stacked { HEIGHT + 140.0 * further } else { HEIGHT }
}

const MARGIN: f64 = 48.0;
const TITLE: f64 = 42.0;
const BODY: f64 = 26.0;
const SMALL: f64 = 22.0;
const MARKER: f64 = 9.0;
/// From one row of flags to the next.
const ROW: f64 = 28.0;

/// What a shape is painted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Text and axes.
    Ink,
    /// Labels of lesser weight.
    Muted,
    /// Grid lines.
    Grid,
    /// The page itself.
    Paper,
    /// A curve of the palette.
    Curve(usize),
    /// The same, pale.
    Pale(usize),
}

/// Which point of a text its position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// One thing to paint.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A line through points.
    Path {
        /// In pixels.
        points: Vec<(f64, f64)>,
        /// Its colour.
        ink: Ink,
        /// In pixels.
        width: u32,
    },
    /// A filled polygon.
    Area {
        /// In pixels.
        points: Vec<(f64, f64)>,
        /// Its colour.
        ink: Ink,
        /// From 0 to 1.
        alpha: f64,
    },
    /// A filled circle.
    Dot {
        /// Its middle.
        at: (f64, f64),
        /// In pixels.
        radius: f64,
        /// Its colour.
        ink: Ink,
    },
    /// One line of text; its position is on the middle of its height.
    Text {
        /// Where its anchor is.
        at: (f64, f64),
        /// What it says.
        text: String,
        /// In pixels.
        size: f64,
        /// Whether it is bold.
        bold: bool,
        /// Which point of it is at its position.
        anchor: Anchor,
        /// Its colour.
        ink: Ink,
    },
}

/// How wide a text is: size, bold, text → pixels.
pub type Measure<'a> = &'a dyn Fn(f64, bool, &str) -> f64;

/// Everything to paint, from back to front.
pub fn shapes(figure: &Figure, measure: Measure) -> Vec<Shape> {
    let mut page = Page { shapes: Vec::new(), measure, height: height(figure) };
    let top = page.heading(figure);
    let bottom = page.notes(&figure.notes);
    // Markers that are no curve have no end at which a name could stand.
    let dots = figure.legend().iter().any(|curve| curve.style == Style::Dots);
    let direct = figure.panels.len() == 1 && figure.legend().len() <= 8 && !dots;
    // An axis that names what stands on it needs no legend.
    let named = figure.panels.iter().all(|panel| !panel.x.names.is_empty());
    let top = if direct || named { top } else { page.legend(&figure.legend(), top) };
    if figure.stacked {
        page.stack(&figure.panels, top, bottom);
        return page.shapes;
    }
    let gap = 40.0;
    let columns = figure.columns();
    let rows = figure.panels.len().div_ceil(columns).max(1);
    let width = (WIDTH - 2.0 * MARGIN - gap * (columns as f64 - 1.0)) / columns as f64;
    // The name of an axis stands at the lower edge of its panel, the title of the next one at the upper edge.
    let between = 20.0;
    let height = (bottom - top - between * (rows as f64 - 1.0)) / rows as f64;
    for (place, panel) in figure.panels.iter().enumerate() {
        let left = MARGIN + (place % columns) as f64 * (width + gap);
        let top = top + (place / columns) as f64 * (height + between);
        let place = Place { names: direct, ..Place::alone(&page, panel) };
        page.panel(panel, Rect { left, top, right: left + width, bottom: top + height }, &place);
    }
    page.shapes
}

/// What a panel shares with those around it.
struct Place {
    /// The range of x.
    x: (f64, f64),
    /// Room for the labels of the y axis.
    labels: f64,
    /// Whether names stand at the ends of curves.
    names: bool,
    /// Whether its x axis is labelled.
    is_last: bool,
}

impl Place {
    fn alone(page: &Page, panel: &Panel) -> Self {
        Self { x: x_range(panel), labels: page.label_width(panel), names: false, is_last: true }
    }

    /// Room below the plot.
    fn below(&self) -> f64 {
        if self.is_last { 84.0 } else { 24.0 }
    }
}

#[derive(Clone, Copy)]
struct Rect {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

struct Page<'a> {
    shapes: Vec<Shape>,
    measure: Measure<'a>,
    height: f64,
}

impl Page<'_> {
    fn text(&mut self, at: (f64, f64), text: &str, size: f64, anchor: Anchor, ink: Ink) {
        self.shapes.push(Shape::Text { at, text: text.to_owned(), size, bold: false, anchor, ink });
    }

    fn path(&mut self, points: &[(f64, f64)], ink: Ink, width: u32) {
        self.shapes.push(Shape::Path { points: points.to_vec(), ink, width });
    }

    /// Title and caption; returns where the rest may begin.
    fn heading(&mut self, figure: &Figure) -> f64 {
        let room = (WIDTH - 2.0 * MARGIN) / (self.measure)(TITLE, true, &figure.title).max(1.0);
        let title = Shape::Text {
            at: (MARGIN, MARGIN + 8.0),
            text: figure.title.clone(),
            size: TITLE * room.min(1.0),
            bold: true,
            anchor: Anchor::Start,
            ink: Ink::Ink,
        };
        self.shapes.push(title);
        let mut y = MARGIN + 64.0;
        for line in self.wrap(&figure.caption, BODY, WIDTH - 2.0 * MARGIN, 3) {
            self.text((MARGIN, y), &line, BODY, Anchor::Start, Ink::Muted);
            y += 36.0;
        }
        y + 8.0
    }

    /// Footnotes; returns where the panels must end.
    fn notes(&mut self, notes: &[String]) -> f64 {
        const MOST: usize = 5;
        let mut lines: Vec<String> =
            notes.iter().flat_map(|note| self.wrap(note, SMALL, WIDTH - 2.0 * MARGIN, 2)).collect();
        if lines.len() > MOST {
            lines.truncate(MOST - 1);
            lines.push("… more in the report".to_owned());
        }
        let top = self.height - 28.0 - 30.0 * lines.len() as f64;
        for (place, line) in lines.iter().enumerate() {
            self.text((MARGIN, top + 30.0 * place as f64 + 15.0), line, SMALL, Anchor::Start, Ink::Muted);
        }
        top - 12.0
    }

    /// The names of all curves in rows; returns where the panels may begin.
    fn legend(&mut self, entries: &[&FigureCurve], top: f64) -> f64 {
        let (mut x, mut y) = (MARGIN, top + 12.0);
        for FigureCurve { label, color, style, points } in entries.iter().copied() {
            let width = 70.0 + (self.measure)(BODY, false, label);
            if x + width > WIDTH - MARGIN {
                (x, y) = (MARGIN, y + 38.0);
            }
            if let Some((ink, width)) = stroke(*style, *color) {
                self.path(&[(x, y), (x + 40.0, y)], ink, width);
            }
            if style.has_markers() {
                let hollow = *style == Style::Dots && points.iter().all(|point| point.hollow.is_some());
                self.marker((x + 20.0, y), *color, hollow);
            }
            self.text((x + 52.0, y), label, BODY, Anchor::Start, Ink::Ink);
            x += width + 30.0;
        }
        y + 34.0
    }

    /// Panels below each other: equally high where curves are, one x axis below the last.
    fn stack(&mut self, panels: &[Panel], top: f64, bottom: f64) {
        let x = panels.iter().map(x_range).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0.0, 1.0));
        let labels = panels.iter().map(|panel| self.label_width(panel)).fold(0.0, f64::max);
        let places: Vec<Place> =
            (1..=panels.len()).map(|place| Place { x, labels, names: false, is_last: place == panels.len() }).collect();
        let beside = |page: &Self, panel: &Panel, place: &Place| {
            page.flags(panel, place, MARGIN, WIDTH - MARGIN).0 + place.below()
        };
        let around: Vec<f64> = panels.iter().zip(&places).map(|(panel, place)| beside(self, panel, place)).collect();
        let inner = (bottom - top - around.iter().sum::<f64>()) / panels.len().max(1) as f64;
        let mut top = top;
        for ((panel, place), around) in panels.iter().zip(&places).zip(around) {
            let bottom = top + inner + around;
            self.panel(panel, Rect { left: MARGIN, top, right: WIDTH - MARGIN, bottom }, place);
            top = bottom;
        }
    }

    fn y_labels(panel: &Panel) -> Vec<String> {
        ticks(&panel.y, y_range(panel)).iter().map(|tick| number::digits(*tick)).collect()
    }

    fn label_width(&self, panel: &Panel) -> f64 {
        Self::y_labels(panel).iter().map(|label| (self.measure)(SMALL, false, label)).fold(0.0, f64::max)
    }

    /// What stands above a panel: how high that is with its title, and each flag with its row.
    fn flags<'p>(&self, panel: &'p Panel, place: &Place, left: f64, right: f64) -> (f64, Vec<(Flag<'p>, usize)>) {
        let names = if place.names { self.name_width(panel) } else { 16.0 };
        let (from, to) = (left + place.labels + 18.0, right - names);
        let x = Map::new(panel.x.scale, place.x, from + 24.0, to - 24.0);
        let width = |text: &str| (self.measure)(SMALL, false, text);
        let flags = flags::placed(panel, &|at| x.within(at), &width, to);
        let rows = flags.iter().map(|(_, row)| row + 1).max().unwrap_or(1);
        (48.0 + ROW * (rows as f64 - 1.0), flags)
    }

    fn panel(&mut self, panel: &Panel, outer: Rect, place: &Place) {
        let y_ticks = ticks(&panel.y, y_range(panel));
        let names = if place.names { self.name_width(panel) } else { 16.0 };
        let (above, flags) = self.flags(panel, place, outer.left, outer.right);
        let plot = Rect {
            left: outer.left + place.labels + 18.0,
            top: outer.top + above,
            right: outer.right - names,
            bottom: outer.bottom - place.below(),
        };
        self.text((outer.left, outer.top + 12.0), &panel.y.title(), BODY, Anchor::Start, Ink::Ink);
        let frame = Frame {
            plot,
            x: Map::new(panel.x.scale, place.x, plot.left + 24.0, plot.right - 24.0),
            y: Map::new(panel.y.scale, ends(&y_ticks), plot.bottom, plot.top),
        };
        self.bands(panel, &frame);
        self.y_axis(&frame, &y_ticks, &Self::y_labels(panel));
        self.x_axis(&panel.x, &frame, &ticks(&panel.x, place.x), place.is_last);
        self.raise(&flags, &frame);
        panel.lines.iter().for_each(|line| self.line(line, &frame, panel));
        for (place, curve) in panel.curves.iter().enumerate() {
            self.curve(curve, &frame.beside(place, panel.curves.len(), curve.style), &panel.y.unit);
        }
        if place.names {
            self.names(panel, &frame);
        }
        if let Some(words) = &panel.words {
            self.words(words, &frame);
        }
    }

    /// Flags above the plot, each on its stem.
    fn raise(&mut self, flags: &[(Flag, usize)], frame: &Frame) {
        for (flag, row) in flags {
            let (x, y) = (frame.x.within(flag.at), frame.plot.top - 14.0 - ROW * *row as f64);
            let ink = flag.color.map_or(Ink::Ink, Ink::Curve);
            if flag.has_stem {
                self.path(&[(x, y - 8.0), (x, frame.plot.top)], ink, 2);
            }
            let (at, anchor) = if flag.is_left { (x - 7.0, Anchor::End) } else { (x + 7.0, Anchor::Start) };
            self.text((at, y), flag.text, SMALL, anchor, ink);
        }
    }

    fn words(&mut self, words: &str, frame: &Frame) {
        let plot = frame.plot;
        let lines = self.wrap(words, BODY, plot.right - plot.left - 60.0, 3);
        let middle = ((plot.left + plot.right) / 2.0, plot.top + 24.0);
        for (place, line) in lines.iter().enumerate() {
            self.text((middle.0, middle.1 + 36.0 * place as f64), line, BODY, Anchor::Middle, Ink::Muted);
        }
    }

    fn y_axis(&mut self, frame: &Frame, ticks: &[f64], labels: &[String]) {
        let plot = frame.plot;
        for (tick, label) in ticks.iter().zip(labels) {
            let y = frame.y.at(*tick);
            self.path(&[(plot.left, y), (plot.right, y)], Ink::Grid, 1);
            self.text((plot.left - 12.0, y), label, SMALL, Anchor::End, Ink::Muted);
        }
        self.path(&[(plot.left, plot.bottom), (plot.right, plot.bottom)], Ink::Ink, 2);
    }

    fn x_axis(&mut self, axis: &Axis, frame: &Frame, ticks: &[f64], is_labelled: bool) {
        let plot = frame.plot;
        let mut free_from = f64::NEG_INFINITY;
        // Ticks at round numbers enclose the range; this axis ends with its data.
        let inside = |tick: f64| (plot.left..=plot.right).contains(&frame.x.at(tick));
        for (place, tick) in ticks.iter().enumerate().filter(|(_, tick)| inside(**tick)) {
            let x = frame.x.at(*tick);
            self.path(&[(x, plot.bottom), (x, plot.bottom + 8.0)], Ink::Ink, 2);
            if !is_labelled {
                continue;
            }
            let label = axis.names.get(place).cloned().unwrap_or_else(|| number::digits(*tick));
            let half = (self.measure)(SMALL, false, &label) / 2.0;
            if x - half > free_from {
                self.text((x, plot.bottom + 26.0), &label, SMALL, Anchor::Middle, Ink::Muted);
                free_from = x + half + 14.0;
            } else if !axis.names.is_empty() {
                // A number may be left out, a name not.
                self.text((x, plot.bottom + 44.0), &label, SMALL, Anchor::Middle, Ink::Muted);
            }
        }
        if is_labelled {
            let middle = ((plot.left + plot.right) / 2.0, plot.bottom + 62.0);
            self.text(middle, &axis.title(), BODY, Anchor::Middle, Ink::Ink);
        }
    }

    fn bands(&mut self, panel: &Panel, frame: &Frame) {
        let plot = frame.plot;
        for band in &panel.bands {
            let (left, right) = (frame.x.within(band.from), frame.x.within(band.to));
            if let Some(color) = band.color {
                self.area(left, plot.top, right, plot.bottom, Ink::Curve(color), 0.13);
                continue;
            }
            self.area(left, plot.top, right, plot.bottom, Ink::Muted, 0.10);
            let width = (self.measure)(SMALL, false, &band.label);
            let rows = [plot.top + 16.0, plot.bottom - 16.0];
            let row = rows.into_iter().min_by_key(|row| covered(panel, frame, left + 8.0, width, *row));
            self.text((left + 8.0, row.unwrap_or(rows[0])), &band.label, SMALL, Anchor::Start, Ink::Muted);
        }
        for line in &panel.lines {
            let ink = line.color.map_or(Ink::Ink, Ink::Curve);
            match (line.along, line.interval) {
                (Along::X, Some((low, high))) => {
                    self.area(frame.x.within(low), plot.top, frame.x.within(high), plot.bottom, ink, 0.12);
                }
                (Along::Y, Some((low, high))) => {
                    self.area(plot.left, frame.y.within(high), plot.right, frame.y.within(low), ink, 0.12);
                }
                _ => {}
            }
        }
    }

    fn area(&mut self, left: f64, top: f64, right: f64, bottom: f64, ink: Ink, alpha: f64) {
        let points = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
        self.shapes.push(Shape::Area { points, ink, alpha });
    }

    fn line(&mut self, line: &Line, frame: &Frame, panel: &Panel) {
        let plot = frame.plot;
        let ink = line.color.map_or(Ink::Ink, Ink::Curve);
        match line.along {
            Along::X => {
                let x = frame.x.within(line.at);
                self.dashed((x, plot.top), (x, plot.bottom), ink);
                if line.label.is_empty() || flags::has(panel) {
                    return;
                }
                let width = (self.measure)(SMALL, false, &line.label);
                let (at, anchor) =
                    if x + width + 16.0 < plot.right { (x + 10.0, Anchor::Start) } else { (x - 10.0, Anchor::End) };
                let rows = [-10.0, 18.0, 46.0, 74.0].map(|down| plot.top + down);
                let row = self.free_row(at, anchor, width, &rows);
                self.text((at, row), &line.label, SMALL, anchor, ink);
            }
            Along::Y => {
                let y = frame.y.within(line.at);
                self.dashed((plot.left, y), (plot.right, y), ink);
                let width = (self.measure)(SMALL, false, &line.label);
                let (at, row) = beside_line(y, width, plot, |left, row| covered(panel, frame, left, width, row));
                self.text((at, row), &line.label, SMALL, Anchor::Start, ink);
            }
        }
    }

    /// The first of the heights at which a text covers no other text; the first of all where none is free.
    fn free_row(&self, x: f64, anchor: Anchor, width: f64, rows: &[f64]) -> f64 {
        let left = start(x, anchor, width);
        let taken = |row: f64| {
            self.shapes.iter().any(|shape| match shape {
                Shape::Text { at, text, size, bold, anchor, .. } => {
                    let other = (self.measure)(*size, *bold, text);
                    let start = start(at.0, *anchor, other);
                    (at.1 - row).abs() < 26.0 && start < left + width && left < start + other
                }
                _ => false,
            })
        };
        rows.iter().copied().find(|row| !taken(*row)).unwrap_or(rows[0])
    }

    fn dashed(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink) {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let step = 16.0;
        let mut gone = 0.0;
        while gone < length {
            let along = |distance: f64| {
                let share = distance.min(length) / length;
                (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share)
            };
            self.path(&[along(gone), along(gone + step * 0.6)], ink, 2);
            gone += step;
        }
    }

    fn curve(&mut self, curve: &FigureCurve, frame: &Frame, unit: &str) {
        let ink = Ink::Curve(curve.color);
        for stretch in curve.points.split(|point| point.y.is_none()) {
            let points: Vec<_> = stretch.iter().filter_map(|point| frame.point(point)).collect();
            let points = if curve.style.is_stepped() { stepped(&points) } else { points };
            if let Some((ink, width)) = stroke(curve.style, curve.color).filter(|_| points.len() > 1) {
                self.path(&points, ink, width);
            }
        }
        let alone = curve.points.iter().filter(|point| point.y.is_some()).count() == 1;
        if !curve.style.has_markers() && !alone {
            return;
        }
        for point in &curve.points {
            self.whisker(point, ink, frame);
        }
        for point in &curve.points {
            let Some(at) = frame.point(point) else { continue };
            self.marker(at, curve.color, point.hollow.is_some());
            self.beside(point, at, ink);
            if let (Style::Valued, Some(y)) = (curve.style, point.y) {
                self.text((at.0 + 18.0, at.1), &number::with_unit(y, unit), SMALL, Anchor::Start, ink);
            }
        }
    }

    fn whisker(&mut self, point: &Point, ink: Ink, frame: &Frame) {
        let (Some(low), Some(high)) = (point.low, point.high) else { return };
        let x = frame.x.at(point.x);
        let (low, high) = (frame.y.within(low), frame.y.within(high));
        self.path(&[(x, low), (x, high)], ink, 2);
        self.path(&[(x - 8.0, low), (x + 8.0, low)], ink, 2);
        self.path(&[(x - 8.0, high), (x + 8.0, high)], ink, 2);
    }

    /// Guard marks and the count of a hollow marker, above it.
    fn beside(&mut self, point: &Point, at: (f64, f64), ink: Ink) {
        let text = match &point.hollow {
            Some(hollow) => format!("{hollow} {}", point.marks),
            None => point.marks.clone(),
        };
        let text = text.trim();
        if !text.is_empty() {
            let width = (self.measure)(SMALL, false, text);
            let rows = [at.1 - 24.0, at.1 + 28.0, at.1 - 52.0, at.1 + 56.0];
            let row = self.free_row(at.0, Anchor::Middle, width, &rows);
            self.text((at.0, row), text, SMALL, Anchor::Middle, ink);
        }
    }

    fn marker(&mut self, at: (f64, f64), color: usize, hollow: bool) {
        let ink = Ink::Curve(color);
        let inner = if hollow { Ink::Paper } else { ink };
        match color % 5 {
            0 => {
                self.shapes.push(Shape::Dot { at, radius: MARKER, ink });
                self.shapes.push(Shape::Dot { at, radius: MARKER - 3.0, ink: inner });
            }
            shape => {
                self.shapes.push(Shape::Area { points: corners(shape, at, MARKER + 1.0), ink, alpha: 1.0 });
                self.shapes.push(Shape::Area { points: corners(shape, at, MARKER - 3.5), ink: inner, alpha: 1.0 });
            }
        }
    }

    fn name_width(&self, panel: &Panel) -> f64 {
        let widest = panel.curves.iter().map(|curve| (self.measure)(BODY, false, &curve.label)).fold(0.0, f64::max);
        widest.min(380.0) + 34.0
    }

    /// The name of each curve at its last point, moved apart where two would touch.
    fn names(&mut self, panel: &Panel, frame: &Frame) {
        let mut names: Vec<(f64, &FigureCurve)> = panel
            .curves
            .iter()
            .filter_map(|curve| {
                let last = curve.points.iter().rev().find_map(|point| frame.point(point))?;
                Some((last.1, curve))
            })
            .collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut named: Vec<&str> = Vec::new();
        names.retain(|(_, FigureCurve { label, style, .. })| {
            let is_known = *style == Style::Thin && named.contains(&label.as_str());
            named.push(label);
            !is_known
        });
        let heights: Vec<f64> = names.iter().map(|(y, _)| *y).collect();
        for (y, (_, curve)) in apart(&heights, 36.0, frame.plot.top, frame.plot.bottom).into_iter().zip(names) {
            let label = self.fit(&curve.label, BODY, 380.0);
            self.text((frame.plot.right + 10.0, y), &label, BODY, Anchor::Start, Ink::Curve(curve.color));
        }
    }

    fn fit(&self, text: &str, size: f64, width: f64) -> String {
        let mut text = text.to_owned();
        while (self.measure)(size, false, &text) > width && text.chars().count() > 2 {
            text = text.chars().take(text.chars().count() - 2).collect::<String>() + "…";
        }
        text
    }

    /// Lines no wider than `width`; the last one ends in `…` when there are more than `most`.
    fn wrap(&self, text: &str, size: f64, width: f64, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if (self.measure)(size, false, &format!("{line} {word}")) <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        if lines.len() > most {
            lines.truncate(most);
            if let Some(last) = lines.last_mut() {
                *last = self.fit(&format!("{last}…"), size, width);
            }
        }
        lines.into_iter().map(|line| self.fit(&line, size, width)).collect()
    }
}

/// Each value as long as its share of the axis.
fn stepped(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut out = Vec::with_capacity(2 * points.len());
    for (place, (x, y)) in points.iter().copied().enumerate() {
        let before = place.checked_sub(1).map(|place| (x - points[place].0) / 2.0);
        let after = points.get(place + 1).map(|(next, _)| (next - x) / 2.0);
        let (before, after) = (before.or(after).unwrap_or(0.0), after.or(before).unwrap_or(0.0));
        out.extend([(x - before, y), (x + after, y)]);
    }
    out
}

/// The line of a curve: its colour and width; none where there are markers alone.
fn stroke(style: Style, color: usize) -> Option<(Ink, u32)> {
    match style {
        Style::Dots | Style::Valued => None,
        Style::Thin => Some((Ink::Pale(color), 2)),
        Style::Broad => Some((Ink::Pale(color), 11)),
        Style::Marked | Style::Plain | Style::Steps => Some((Ink::Curve(color), 3)),
    }
}

/// Where the label of a horizontal line covers the least of the data: above the line or below it (where an axis ends
/// there is no room), at its left end or at its right one.
fn beside_line(y: f64, width: f64, plot: Rect, covered: impl Fn(f64, f64) -> usize) -> (f64, f64) {
    let (left, right) = (plot.left + 12.0, plot.right - 12.0 - width);
    let above = |far: f64| (y - far - 18.0 >= plot.top).then_some(y - far);
    let below = |far: f64| (y + far + 16.0 <= plot.bottom).then_some(y + far);
    // Near the line where that covers nothing, else a row further away.
    let rows = [above(16.0), below(18.0).or(above(16.0).is_none().then_some(y + 18.0)), above(42.0), below(44.0)];
    let places = rows.into_iter().flatten().flat_map(|row| [(left, row), (right, row)]);
    places.min_by_key(|(at, row)| covered(*at, *row)).unwrap_or((left, y - 16.0))
}

/// How much of the data a text would cover.
fn covered(panel: &Panel, frame: &Frame, left: f64, width: f64, row: f64) -> usize {
    let across = left - MARKER..=left + width + MARKER;
    let under = |(x, y): &(f64, f64)| across.contains(x) && (y - row).abs() < 11.0 + MARKER / 2.0;
    let crossing = panel.lines.iter().filter(|line| line.along == Along::X && across.contains(&frame.x.at(line.at)));
    panel.curves.iter().map(|curve| along(curve, frame).filter(under).count()).sum::<usize>() + 8 * crossing.count()
}

/// Places along a curve, near enough to each other to tell whether something is on it.
fn along(curve: &FigureCurve, frame: &Frame) -> impl Iterator<Item = (f64, f64)> {
    const STEPS: u32 = 8;
    let places: Vec<(f64, f64)> = curve.points.iter().filter_map(|point| frame.point(point)).collect();
    let next: Vec<(f64, f64)> = places.iter().skip(1).chain(places.last()).copied().collect();
    places.into_iter().zip(next).flat_map(|((x, y), (to_x, to_y))| {
        (0..STEPS).map(move |step| {
            let share = f64::from(step) / f64::from(STEPS);
            (x + (to_x - x) * share, y + (to_y - y) * share)
        })
    })
}

/// The left end of a text.
fn start(x: f64, anchor: Anchor, width: f64) -> f64 {
    match anchor {
        Anchor::Start => x,
        Anchor::Middle => x - width / 2.0,
        Anchor::End => x - width,
    }
}

/// Heights moved so that neighbours are `gap` apart, within limits as far as they fit.
fn apart(heights: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut moved = heights.to_vec();
    for place in 1..moved.len() {
        moved[place] = moved[place].max(moved[place - 1] + gap);
    }
    let over = moved.last().map_or(0.0, |last| (last - bottom).max(0.0));
    for place in (0..moved.len()).rev() {
        let limit = moved.get(place + 1).map_or(bottom, |below| below - gap);
        moved[place] = moved[place].min(limit);
    }
    let lift = moved.first().map_or(0.0, |first| (top - first).max(0.0));
    if over > 0.0 && lift > 0.0 { moved.iter().map(|height| height + lift).collect() } else { moved }
}

fn corners(shape: usize, (x, y): (f64, f64), size: f64) -> Vec<(f64, f64)> {
    match shape {
        1 => vec![(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)],
        2 => {
            let size = size * 1.3;
            vec![(x, y - size), (x + size, y), (x, y + size), (x - size, y)]
        }
        3 => vec![(x, y - 1.3 * size), (x + 1.2 * size, y + size), (x - 1.2 * size, y + size)],
        _ => vec![(x, y + 1.3 * size), (x + 1.2 * size, y - size), (x - 1.2 * size, y - size)],
    }
}

struct Frame {
    plot: Rect,
    x: Map,
    y: Map,
}

impl Frame {
    /// Moved by a few pixels for each curve, so that equal values and their intervals do not hide each other.
    fn beside(&self, place: usize, count: usize, style: Style) -> Self {
        let step = match style {
            Style::Marked => (24.0 / count as f64).min(7.0),
            _ => 0.0,
        };
        let shift = (place as f64 - (count as f64 - 1.0) / 2.0) * step;
        let x = Map { from: self.x.from + shift, to: self.x.to + shift, ..self.x };
        Self { plot: self.plot, x, y: self.y }
    }

    fn point(&self, point: &Point) -> Option<(f64, f64)> {
        point.y.map(|y| (self.x.at(point.x), self.y.within(y)))
    }
}

/// From values to pixels.
#[derive(Clone, Copy)]
struct Map {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Map {
    fn new(scale: Scale, (low, high): (f64, f64), from: f64, to: f64) -> Self {
        Self { scale, low: project(scale, low), high: project(scale, high), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let span = self.high - self.low;
        let share = if span == 0.0 { 0.5 } else { (project(self.scale, value) - self.low) / span };
        self.from + share * (self.to - self.from)
    }

    /// The same, held within the axis.
    fn within(&self, value: f64) -> f64 {
        self.at(value).clamp(self.from.min(self.to), self.from.max(self.to))
    }
}

fn project(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.max(1e-9).log10(),
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(1.0))
}

fn points(panel: &Panel) -> impl Iterator<Item = &Point> {
    panel.curves.iter().flat_map(|curve| &curve.points)
}

fn x_range(panel: &Panel) -> (f64, f64) {
    let xs = points(panel).map(|point| point.x).chain(panel.x.ticks.iter().copied());
    let (low, high) = range(xs).unwrap_or((0.0, 1.0));
    // What is named stands in the middle of its share of the axis.
    if panel.x.names.is_empty() { (low, high) } else { (low - 0.5, high + 0.5) }
}

fn y_range(panel: &Panel) -> (f64, f64) {
    let values = points(panel).flat_map(|point| [point.y, point.low, point.high]).flatten();
    // A logarithmic axis cannot show an interval that reaches below zero; it ends at the edge.
    let values = values.filter(|value| panel.y.scale == Scale::Linear || *value > 0.0);
    let mut limits = panel.lines.iter().filter(|line| line.along == Along::Y).map(|line| line.at);
    // Without data a line still has its place.
    let Some((low, high)) = range(values) else { return (0.0, limits.next().unwrap_or(1.0).max(1.0)) };
    let high = limits.fold(high, f64::max);
    if panel.y.from_zero && panel.y.scale == Scale::Linear { (low.min(0.0), high) } else { (low, high) }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
    })
}

/// Where ticks are, in rising order; on a value axis the first and the last enclose the data.
fn ticks(axis: &Axis, (low, high): (f64, f64)) -> Vec<f64> {
    if !axis.ticks.is_empty() {
        return axis.ticks.clone();
    }
    match axis.scale {
        Scale::Linear => linear_ticks(low, high),
        Scale::Log => log_ticks(low, high),
    }
}

fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step + 1e-9).floor();
    let last = ((low + span).max(high) / step - 1e-9).ceil();
    (0..=(last - first) as i64).map(|place| (first + place as f64) * step).collect()
}

fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let wide = high / low > 1e4;
    let steps: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all: Vec<f64> = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade))).collect();
    let first = all.iter().rposition(|tick| *tick <= low * 1.0001).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * 0.9999).unwrap_or(all.len() - 1);
    all[first..=last.max(first)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_lasts_as_long_as_its_window() {
        let expected = [(0.5, 7.0), (1.5, 7.0), (1.5, 2.0), (2.5, 2.0)];
        assert_eq!(stepped(&[(1.0, 7.0), (2.0, 2.0)]), expected);
        assert_eq!(stepped(&[(1.0, 7.0)]), [(1.0, 7.0), (1.0, 7.0)]);
    }

    #[test]
    fn ticks_are_round_and_enclose_the_data() {
        assert_eq!(linear_ticks(0.0, 87.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(linear_ticks(0.0, 0.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(log_ticks(3.0, 700.0), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
    }

    #[test]
    fn names_that_would_touch_are_moved_apart_and_stay_on_the_page() {
        assert_eq!(apart(&[10.0, 12.0, 90.0], 20.0, 0.0, 100.0), [10.0, 30.0, 90.0]);
        assert_eq!(apart(&[95.0, 96.0], 20.0, 0.0, 100.0), [80.0, 100.0]);
    }
}
