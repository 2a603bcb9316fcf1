//! A figure as data: axes with units, curves with intervals, lines, bands and notes.
//!
//! The one rule: nothing here knows how it is drawn, and no renderer adds a fact that is not here. What the PNG shows
//! and what the interactive page shows therefore cannot differ.

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By factors.
    Log,
}

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, without its unit.
    pub label: String,
    /// Its unit; empty for a bare count.
    pub unit: String,
    /// How it is divided.
    pub scale: Scale,
    /// Places that must have a tick (the tested levels); empty for ticks at round numbers.
    pub ticks: Vec<f64>,
    /// What stands at those ticks where they are no numbers: the name of each; empty for numbers.
    pub names: Vec<String>,
    /// Whether zero belongs on it.
    pub from_zero: bool,
}

impl Axis {
    /// A linear axis from zero with ticks at round numbers.
    pub fn linear(label: &str, unit: &str) -> Self {
        Self {
            label: label.to_owned(),
            unit: unit.to_owned(),
            scale: Scale::Linear,
            ticks: Vec::new(),
            names: Vec::new(),
            from_zero: true,
        }
    }

    /// Label and unit, as written at the axis.
    pub fn title(&self) -> String {
        match self.unit.is_empty() {
            true => self.label.clone(),
            false => format!("{} ({})", self.label, self.unit),
        }
    }
}

/// One measured value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The level.
    pub x: f64,
    /// The value; none leaves a gap.
    pub y: Option<f64>,
    /// Lower end of the 95 % interval; none with fewer than two trials.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// How many trials are behind it.
    pub n: usize,
    /// Drawn hollow, with this text: too few operations are behind it.
    pub hollow: Option<String>,
    /// The footnote marks (†, ‡, …) of the guards that touch it.
    pub marks: String,
    /// Why there is no value.
    pub null_reason: Option<String>,
}

/// How the points of a curve are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Markers with lines between them.
    Marked,
    /// A line alone, for many points.
    Plain,
    /// Markers alone, for points that are no curve.
    Dots,
    /// The same, each with its value beside it.
    Valued,
    /// Steps: each value holds from the middle between its point and the one before to the middle before the next, as that of
    /// a window does.
    Steps,
    /// The same, broad and pale: other curves lie on it.
    Broad,
    /// The same, thin and pale: what stands behind the curves that matter, such as further trials. Those of one name are named once.
    Thin,
}

impl Style {
    /// Whether it is drawn in steps.
    pub fn is_stepped(self) -> bool {
        matches!(self, Self::Steps | Self::Broad | Self::Thin)
    }

    /// Whether markers show its points.
    pub fn has_markers(self) -> bool {
        matches!(self, Self::Marked | Self::Dots | Self::Valued)
    }
}

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct FigureCurve {
    /// Its name.
    pub label: String,
    /// Its place in the palette; the same curve has the same colour and marker in every figure.
    pub color: usize,
    /// Its points, in the order of x.
    pub points: Vec<Point>,
    /// How they are shown.
    pub style: Style,
}

/// Along which axis a line or a band has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// A value on the x axis: a vertical line.
    X,
    /// A value on the y axis: a horizontal line.
    Y,
}

/// A line across a panel: a crossover, a knee, an objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which axis its value is on.
    pub along: Along,
    /// The value.
    pub at: f64,
    /// Its interval, drawn as a band.
    pub interval: Option<(f64, f64)>,
    /// What it is.
    pub label: String,
    /// The curve it belongs to; none for the figure's own ink.
    pub color: Option<usize>,
}

/// A stretch of the x axis, such as the measured window.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Its start.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// What it is; of a coloured one this stands above the panel.
    pub label: String,
    /// Its place in the palette; none for one that only sets something apart.
    pub color: Option<usize>,
}

/// One pair of axes with what is drawn on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Horizontal.
    pub x: Axis,
    /// Vertical.
    pub y: Axis,
    /// What is measured.
    pub curves: Vec<FigureCurve>,
    /// Lines across.
    pub lines: Vec<Line>,
    /// Stretches of x.
    pub bands: Vec<Band>,
    /// Words inside the panel, where there is nothing to draw.
    pub words: Option<String>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its file stem.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What to look at, in one sentence.
    pub caption: String,
    /// Side by side, or in rows of two, or below each other.
    pub panels: Vec<Panel>,
    /// Whether the panels stand below each other and share the axis of the last one.
    pub stacked: bool,
    /// Footnotes: gaps, hollow markers, guards, what is simulated.
    pub notes: Vec<String>,
}

impl Figure {
    /// The curves of all panels, each once, in the order of the palette.
    pub fn legend(&self) -> Vec<&FigureCurve> {
        let mut entries: Vec<&FigureCurve> = Vec::new();
        for curve in self.panels.iter().flat_map(|panel| &panel.curves) {
            if !entries.iter().any(|known| known.label == curve.label) {
                entries.push(curve);
            }
        }
        entries.sort_by_key(|curve| curve.color);
        entries
    }

    /// How many panels stand side by side: up to three; more stand in rows of two, unless they are stacked.
    pub fn columns(&self) -> usize {
        match self.panels.len() {
            _ if self.stacked => 1,
            0 => 1,
            few @ 1..=3 => few,
            _ => 2,
        }
    }
}

/// Colours after Okabe and Ito, told apart with every common form of colour blindness; yellow is left out because it
/// is too faint on white.
pub const PALETTE: [(u8, u8, u8); 7] =
    [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90)];

/// The colour of a curve.
pub fn color(index: usize) -> (u8, u8, u8) {
    PALETTE[index % PALETTE.len()]
}

/// The colour of a curve as `#rrggbb`.
pub fn hex(index: usize) -> String {
    let (red, green, blue) = color(index);
    format!("#{red:02x}{green:02x}{blue:02x}")
}
