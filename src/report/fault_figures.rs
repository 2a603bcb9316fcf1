//! The figures of a study of faults: over time, close up, and its arms against each other.
//!
//! The one rule: shaded is from the effect to ready, never from the command; and a caption says which trial is shown.

use std::collections::BTreeMap;

use crate::measure::recovery::{Baseline, Recovery};
use crate::measure::{SecondSummary, TrialSummary, stats};
use crate::report::faults::{self, Arm};
use crate::report::figure::{Along, Axis, Band, Figure, FigureCurve, Line, Panel, Point, Scale, Style};
use crate::report::figures::{SIMULATED, is_simulated};
use crate::report::{ReportInput, fault_words, number};

/// The figure that the report leads with.
pub const LEAD: &str = "combined_failure_analysis";

/// Places in the palette, the same in every figure.
const COMPLETED: usize = 0;
const BAD: usize = 1;
const GOOD: usize = 2;
const P95: usize = 3;
const P50: usize = 4;
const OTHERS: usize = 6;

/// What arms are compared by first.
const OUTAGE: &str = "Outage-equivalent";

/// How much is shown around an injection, close up.
const BEFORE_S: f64 = 5.0;
const AFTER_S: f64 = 15.0;

/// All figures of a study of faults; none where no fault had an effect.
pub fn figures(input: &ReportInput) -> Vec<Figure> {
    let scene = Scene { arms: faults::arms(input), input };
    if scene.arms.is_empty() {
        return Vec::new();
    }
    let mut figures = vec![scene.combined()];
    figures.extend(scene.close_up());
    figures.extend(scene.compared());
    figures.extend([
        scene.alone(
            "error_rate_over_time",
            "Error rate over time",
            "Share of the operations due in each second that did not end well: refused, broken, given up or answered wrongly.",
            scene.errors(),
        ),
        scene.alone(
            "latency_over_time",
            "Latency over time",
            "Time from when an operation was due to its answer, for the operations due in each second; what was given up counts with the time until then.",
            scene.latency(),
        ),
        scene.alone(
            "throughput_over_time",
            "Throughput over time",
            "What was offered, what was answered whatever the answer, and what ended well: a system that answers errors is fast and useless.",
            scene.throughput(),
        ),
    ]);
    figures.extend(scene.amplification());
    figures
}

/// What is drawn: one arm over its trials' own time, several over the time since the effect.
struct Scene<'a> {
    arms: Vec<Arm<'a>>,
    input: &'a ReportInput<'a>,
}

type Pick<'p> = &'p dyn Fn(&TrialSummary, &SecondSummary) -> Option<f64>;

impl<'a> Scene<'a> {
    fn is_alone(&self) -> bool {
        self.arms.len() == 1
    }

    /// What is subtracted from the times of a trial.
    fn origin(&self, trial: &TrialSummary) -> f64 {
        if self.is_alone() { 0.0 } else { faults::origin(trial) }
    }

    fn x(&self) -> Axis {
        let label = if self.is_alone() { "Time since the trial's start" } else { "Time since the first effect" };
        Axis { from_zero: false, ..Axis::linear(label, "s") }
    }

    /// The trial whose injections are shaded.
    fn reference(&self) -> &'a TrialSummary {
        self.arms[0].typical()
    }

    fn panel(&self, y: Axis, curves: Vec<FigureCurve>) -> Panel {
        let nothing = curves.iter().flat_map(|curve| &curve.points).all(|point| point.y.is_none());
        Panel {
            x: self.x(),
            y,
            curves,
            lines: self.lines(),
            bands: self.bands(),
            words: nothing.then(|| "nothing was measured".to_owned()),
        }
    }

    /// From effect to ready, of each injection of the reference.
    fn bands(&self) -> Vec<Band> {
        let trial = self.reference();
        let (origin, end) = (self.origin(trial), end_of(trial));
        let band = |(effect, recovery): (f64, &Recovery)| {
            let injection = &recovery.injection;
            let to = injection.ready_s.unwrap_or(end).max(effect);
            let label = match injection.ready_s {
                Some(ready) => format!("{} {}", injection.kind, number::seconds(ready - effect)),
                None => format!("{}, never ready", injection.kind),
            };
            Band { from: effect - origin, to: to - origin, label, color: Some(BAD) }
        };
        faults::effects(trial).map(band).collect()
    }

    /// A thin line at each command, and one where users were served as before.
    fn lines(&self) -> Vec<Line> {
        let trial = self.reference();
        let origin = self.origin(trial);
        let span = end_of(trial).max(1.0);
        let instant = |at: f64, label: String, color| Line { along: Along::X, at, interval: None, label, color };
        let command = |recovery: &Recovery| {
            let (command, effect) = (recovery.injection.command_s?, recovery.injection.effect_s?);
            // Where both fall together, the edge of the shading says it.
            let label = if effect - command > 0.02 * span { "command" } else { "" };
            Some(instant(command - origin, label.to_owned(), None))
        };
        let mut lines: Vec<Line> = faults::injections(trial).iter().filter_map(command).collect();
        for arm in &self.arms {
            let (trial, color) = (arm.typical(), if self.is_alone() { GOOD } else { arm.color });
            for recovery in faults::injections(trial) {
                let Some((effect, at)) = recovery.injection.effect_s.zip(faults::recovered_s(recovery)) else {
                    continue;
                };
                let label = if self.is_alone() {
                    format!("served as before after {}", number::seconds(at - effect))
                } else {
                    String::new()
                };
                lines.push(instant(at - self.origin(trial), label, Some(color)));
            }
        }
        lines
    }

    /// The curves of one number: of one arm its other trials behind it in `color`; of several a curve each.
    fn curves(&self, label: &str, color: usize, pick: Pick) -> Vec<FigureCurve> {
        let [arm] = self.arms.as_slice() else {
            let of_arm = |arm: &Arm| {
                let trial = arm.typical();
                curve(&arm.label, arm.color, trial, -faults::origin(trial), Style::Steps, pick)
            };
            return self.arms.iter().map(of_arm).collect();
        };
        let at = faults::origin(arm.typical());
        let behind =
            |trial: &TrialSummary| curve("other trials", OTHERS, trial, at - faults::origin(trial), Style::Thin, pick);
        let mut curves: Vec<FigureCurve> = arm.others().into_iter().map(behind).collect();
        curves.push(curve(label, color, arm.typical(), 0.0, Style::Steps, pick));
        curves
    }

    fn more(&self, label: &str, color: usize, style: Style, pick: Pick) -> Option<FigureCurve> {
        self.is_alone().then(|| curve(label, color, self.reference(), 0.0, style, pick))
    }

    fn throughput(&self) -> Panel {
        let mut curves = self.curves("good", GOOD, &|_, second| Some(second.ok as f64));
        let own = curves.pop();
        // Completed and good ones lie on what was offered.
        let offered = self.more("offered", COMPLETED, Style::Broad, &|_, second| Some(second.offered as f64));
        curves.splice(0..0, offered);
        let answered =
            |_: &TrialSummary, second: &SecondSummary| Some(second.answered.max(second.ok + second.wrong) as f64);
        curves.extend(self.more("completed", COMPLETED, Style::Steps, &answered));
        curves.extend(own);
        let label = if self.is_alone() { "Throughput" } else { "Goodput" };
        self.panel(Axis::linear(label, "requests/s"), curves)
    }

    fn latency(&self) -> Panel {
        let mut curves = self.curves("p95", P95, &|_, second| second.latency.p95);
        let own = curves.pop();
        curves.extend(self.more("p50", P50, Style::Steps, &|_, second| second.latency.p50));
        curves.extend(own);
        let scale = scale_of(&curves);
        let label = if self.is_alone() { "Latency" } else { "Latency p95" };
        self.panel(Axis { scale, ..Axis::linear(label, "ms") }, curves)
    }

    fn errors(&self) -> Panel {
        self.panel(
            Axis::linear("Error rate", "%"),
            self.curves("error rate", BAD, &|_, second| faults::bad_percent(second)),
        )
    }

    /// Tries at upstreams for each operation; none where no gauge tells tries.
    fn amplification(&self) -> Option<Figure> {
        let known: BTreeMap<&str, BTreeMap<u32, f64>> = self
            .arms
            .iter()
            .flat_map(|arm| &arm.trials)
            .filter_map(|trial| Some((trial.name.as_str(), faults::tries(self.input.tries.get(&trial.name)?, trial))))
            .collect();
        let of =
            |trial: &TrialSummary, second: &SecondSummary| known.get(trial.name.as_str())?.get(&second.second).copied();
        let mut panel =
            self.panel(Axis::linear("Tries at upstreams for each operation", ""), self.curves("tries", P95, &of));
        if panel.words.is_some() {
            return None;
        }
        panel.lines.push(Line { along: Along::Y, at: 1.0, interval: None, label: String::new(), color: None });
        let caption = "How much more the services were asked than users asked, by second; a line that stays high after the shading is a retry storm.";
        Some(self.alone("amplification_over_time", "Amplification over time", caption, panel))
    }

    /// `stop-start of task-service 1, `; nothing where several things were broken.
    fn broken(&self) -> String {
        let mut broken: Vec<String> = faults::effects(self.reference())
            .map(|(_, recovery)| format!("{} of {}, ", recovery.injection.kind, faults::target(&recovery.injection)))
            .collect();
        broken.dedup();
        if broken.len() == 1 { broken.remove(0) } else { String::new() }
    }

    /// What is shown, for the end of a caption.
    fn shown(&self) -> String {
        let [arm] = self.arms.as_slice() else {
            let reference = &self.arms[0];
            return format!(
                "One trial of each configuration, the median by outage, aligned at the first effect. Shaded: {}from effect \
                 to ready ({}); dashed in its colour: where it serves as before.",
                self.broken(),
                reference.label
            );
        };
        let others = match arm.others().len() {
            0 => "",
            _ => "; pale: the others, aligned at the effect",
        };
        format!(
            "Shown: {}{others}. Shaded: {}from effect to ready; dashed: the command, and where users are served as before.",
            arm.which(),
            self.broken()
        )
    }

    fn figure(&self, id: &str, title: &str, caption: &str, panels: Vec<Panel>) -> Figure {
        let is_simulated = is_simulated(self.input);
        let mut notes: Vec<String> = is_simulated.then(|| SIMULATED.to_owned()).into_iter().collect();
        notes.extend(self.left_out());
        notes.extend(self.arms.iter().flat_map(|arm| doubts(arm.typical())).take(2));
        Figure {
            id: id.to_owned(),
            title: if is_simulated { format!("[simulated] {title}") } else { title.to_owned() },
            caption: caption.to_owned(),
            stacked: panels.len() > 1,
            panels,
            notes,
        }
    }

    fn left_out(&self) -> Option<String> {
        let [arm] = self.arms.as_slice() else { return None };
        let hidden = arm.trials.len() - 1 - arm.others().len();
        (hidden > 0).then(|| {
            format!("Trials whose faults came at other times are not drawn: {hidden} of {}.", arm.trials.len())
        })
    }

    fn alone(&self, id: &str, title: &str, caption: &str, panel: Panel) -> Figure {
        self.figure(id, title, &format!("{caption} {}", self.shown()), vec![panel])
    }

    fn combined(&self) -> Figure {
        let mut panels = vec![self.throughput(), self.latency(), self.errors()];
        for panel in &mut panels[1..] {
            panel.bands.iter_mut().for_each(|band| band.label.clear());
            panel.lines.iter_mut().for_each(|line| line.label.clear());
        }
        let caption = format!("How deep it falls, and how soon it is back. {}", self.shown());
        self.figure(LEAD, "What the fault did to users", &caption, panels)
    }

    /// From shortly before the command to some time after recovery; of one arm with what was usual, and every instant.
    fn close_up(&self) -> Option<Figure> {
        let recovery = faults::costliest(self.reference())?;
        let origin = self.origin(self.reference());
        let (from, to) = self.close_up_range()?;
        let mut panels = vec![self.throughput(), self.latency()];
        for panel in &mut panels {
            for curve in &mut panel.curves {
                curve.points.retain(|point| (from..=to).contains(&point.x));
            }
            panel.lines.retain(|line| (from..=to).contains(&line.at));
            panel.bands.retain(|band| band.to >= from && band.from <= to);
            panel.bands.iter_mut().for_each(|band| (band.from, band.to) = (band.from.max(from), band.to.min(to)));
            panel.y.scale = if panel.y.unit == "ms" { scale_of(&panel.curves) } else { Scale::Linear };
        }
        panels[1].bands.iter_mut().for_each(|band| band.label.clear());
        panels[1].lines.iter_mut().for_each(|line| line.label.clear());
        if !self.is_alone() {
            let caption = format!("Around the costliest injection. {}", self.shown());
            return Some(self.figure("recovery_analysis", "Recovery, close up", &caption, panels));
        }
        // Every instant has its name here, where there is room.
        panels[0].lines = instants(recovery, origin);
        panels[0].bands.iter_mut().for_each(|band| band.label.clear());
        if let Some(baseline) = &recovery.baseline {
            panels[0].lines.push(usual(baseline));
            panels[1].lines.extend(most_p95(baseline));
        }
        let title = format!("Recovery, close up: {}", faults::target(&recovery.injection));
        let caption = format!("{} Shown: {}.", fault_words::story(recovery), self.arms[0].which());
        Some(self.figure("recovery_analysis", &title, &caption, panels))
    }

    fn close_up_range(&self) -> Option<(f64, f64)> {
        let range = |arm: &Arm| {
            let trial = arm.typical();
            let (recovery, origin) = (faults::costliest(trial)?, self.origin(trial));
            let effect = recovery.injection.effect_s?;
            let from = recovery.injection.command_s.unwrap_or(effect).min(effect) - BEFORE_S;
            Some((from - origin, faults::end_s(recovery)? + AFTER_S - origin))
        };
        self.arms.iter().filter_map(range).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// A retry storm and its cure in one picture: what each arm cost.
    fn compared(&self) -> Option<Figure> {
        if self.is_alone() {
            return None;
        }
        let outage = |arm: &Arm| arm.trials.iter().filter_map(|trial| faults::outage(trial)).collect();
        let available = |arm: &Arm| faults::each(arm, |recovery| recovery.availability_percent);
        let amplified = |arm: &Arm| faults::each(arm, |recovery| recovery.amplification);
        let percent = Axis { from_zero: false, ..Axis::linear("Availability over the measured window", "%") };
        let panels = [
            (Axis::linear(OUTAGE, "s"), &outage as &dyn Fn(&Arm) -> Vec<f64>, f64::INFINITY),
            (percent, &available, 100.0),
            (Axis::linear("Tries at upstreams for each operation", ""), &amplified, f64::INFINITY),
        ];
        let mut panels: Vec<Panel> =
            panels.into_iter().filter_map(|(y, of, most)| by_arm(&self.arms, y, of, most)).collect();
        let values = panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.points).map(|point| point.n);
        let fewest = values.filter(|n| *n > 0).min().unwrap_or(0);
        if let Some(panel) = panels.first_mut().filter(|panel| panel.y.label == OUTAGE) {
            at_least(panel, &self.arms);
        }
        let caption = "What the same fault cost under each configuration. Outage-equivalent is as long as a full outage with \
                       the same loss would be: lower is better. Many tries for each operation are a retry storm.";
        let mut figure = self.figure("arms_compared", "What the fault cost, by configuration", caption, panels);
        figure.notes.insert(
            0,
            match fewest {
                0 | 1 => "One trial of a configuration: no interval can be given.".to_owned(),
                _ => format!("Bars: 95 % t-intervals of the mean over at least {fewest} trials each."),
            },
        );
        figure.notes.extend(self.arms.iter().filter_map(fault_words::not_judged));
        figure.notes.extend(self.arms.iter().filter_map(fault_words::censored));
        (!figure.panels.is_empty()).then_some(figure)
    }
}

/// Why nothing can be concluded from injections of a trial.
fn doubts(trial: &TrialSummary) -> Vec<String> {
    let doubt = |recovery: &Recovery| {
        let why = recovery.unknown.as_ref()?;
        Some(format!("{}, {}: {why}", trial.name, faults::target(&recovery.injection)))
    };
    faults::injections(trial).iter().filter_map(doubt).collect()
}

/// A number by second, each point in the middle of its second.
fn curve(label: &str, color: usize, trial: &TrialSummary, shift: f64, style: Style, pick: Pick) -> FigureCurve {
    let point = |second: &SecondSummary| {
        let y = pick(trial, second);
        let null_reason = y.is_none().then(|| "no operation in this second".to_owned());
        Point { x: f64::from(second.second) + 0.5 + shift, y, n: 1, null_reason, ..Point::default() }
    };
    FigureCurve { label: label.to_owned(), color, points: faults::watched(trial).iter().map(point).collect(), style }
}

fn end_of(trial: &TrialSummary) -> f64 {
    faults::watched(trial).last().map_or(0.0, |second| f64::from(second.second) + 1.0)
}

/// A wait for a time-out is a thousand times as long as an answer.
fn scale_of(curves: &[FigureCurve]) -> Scale {
    let values = || curves.iter().flat_map(|curve| &curve.points).filter_map(|point| point.y);
    let (low, high) = values().fold((f64::INFINITY, 0.0_f64), |(low, high), y| (low.min(y), high.max(y)));
    if low > 0.0 && high / low > 50.0 { Scale::Log } else { Scale::Linear }
}

/// The instants of an injection by name, with the time since the effect.
fn instants(recovery: &Recovery, origin: f64) -> Vec<Line> {
    let injection = &recovery.injection;
    let effect = injection.effect_s.unwrap_or(origin);
    let since = |at: f64| {
        let sign = if at < effect { "−" } else { "+" };
        format!("{sign}{}", number::seconds((at - effect).abs()))
    };
    let named = [
        ("command", injection.command_s, None),
        ("effect", injection.effect_s, Some(BAD)),
        ("repair", injection.repair_s, None),
        ("ready", injection.ready_s, Some(COMPLETED)),
        ("users served as before", faults::recovered_s(recovery), Some(GOOD)),
    ];
    let line = |(name, at, color): (&str, Option<f64>, Option<usize>)| {
        let at = at?;
        let label = if name == "effect" { name.to_owned() } else { format!("{name} {}", since(at)) };
        Some(Line { along: Along::X, at: at - origin, interval: None, label, color })
    };
    named.into_iter().filter_map(line).collect()
}

fn usual(baseline: &Baseline) -> Line {
    let Baseline { goodput_rps, least_goodput_rps, .. } = *baseline;
    let label =
        format!("usual {}/s, in band from {}/s", number::digits(goodput_rps), number::digits(least_goodput_rps));
    Line { along: Along::Y, at: goodput_rps, interval: Some((least_goodput_rps, goodput_rps)), label, color: None }
}

fn most_p95(baseline: &Baseline) -> Option<Line> {
    let most = baseline.most_p95_ms?;
    let label = format!("p95 in band up to {}", number::milliseconds(most));
    Some(Line { along: Along::Y, at: most, interval: None, label, color: None })
}

/// Outages of which some were not watched to their end: their mean is the least it can be, and has no interval.
fn at_least(panel: &mut Panel, arms: &[Arm]) {
    for ((arm, curve), name) in arms.iter().zip(&mut panel.curves).zip(&mut panel.x.names) {
        if arm.trials.iter().any(|trial| faults::is_censored(trial)) {
            name.push_str(" (at least)");
            curve.points.iter_mut().for_each(|point| (point.low, point.high) = (None, None));
        }
    }
}

/// One number of each arm with its interval; none where no arm has it.
fn by_arm(arms: &[Arm], y: Axis, of: &dyn Fn(&Arm) -> Vec<f64>, most: f64) -> Option<Panel> {
    let curve = |(place, arm): (usize, &Arm)| {
        let values = of(arm);
        let mean = stats::mean(&values);
        let interval = stats::t_interval(&values);
        let point = Point {
            x: place as f64 + 1.0,
            y: mean,
            low: interval.map(|interval| interval.low.max(0.0)),
            high: interval.map(|interval| interval.high.min(most)),
            n: values.len(),
            null_reason: mean.is_none().then(|| "it could not be told".to_owned()),
            ..Point::default()
        };
        FigureCurve { label: arm.label.clone(), color: arm.color, points: vec![point], style: Style::Valued }
    };
    let curves: Vec<FigureCurve> = arms.iter().enumerate().map(curve).collect();
    curves.iter().flat_map(|curve| &curve.points).any(|point| point.y.is_some()).then(|| Panel {
        x: Axis {
            ticks: (1..=arms.len()).map(|place| place as f64).collect(),
            names: arms.iter().map(|arm| arm.label.clone()).collect(),
            from_zero: false,
            ..Axis::linear("Configuration", "")
        },
        y,
        curves,
        lines: Vec::new(),
        bands: Vec::new(),
        words: None,
    })
}
