//! What is usual: the baseline before a fault, and the band around it that windows are held to.
//!
//! One rule: a baseline that moves, that strays, or that is too short is no baseline, and says why.

use std::ops::Range;

use crate::measure::recovery::Baseline;
use crate::measure::recovery::seconds::{Seconds, Window};
use crate::measure::stats;
use crate::verdict::three;

/// Operations that a window needs to say something.
const ENOUGH_OPS: f64 = 50.0;
/// Lengths of windows in seconds, of which the first with enough operations is taken.
const LENGTHS: [u32; 7] = [1, 2, 5, 10, 20, 30, 60];
/// The baseline ends so many seconds before the command: what was intended later may still be under way when it strikes.
const GAP_S: u32 = 2;
/// So many windows make a full baseline,
pub(super) const FULL: u32 = 18;
/// and so many the shortest.
const LEAST: usize = 5;
/// Makes of a median absolute deviation a standard deviation, for normal values.
const TO_SIGMA: f64 = 1.4826;
/// Normal values are below three standard deviations above their mean in this share of cases.
const THREE_SIGMA: f64 = 0.998_65;
/// A loss of less than this share of goodput is none.
const LOSS: f64 = 0.05;
/// A band that a larger loss than this share of goodput would not leave is none.
const MOST_MARGIN: f64 = 0.5;
/// A trend that moves less than this share of the median over the baseline is none.
const TREND: f64 = 0.05;
/// The same of p95, which varies more.
const TREND_P95: f64 = 0.5;

/// How a window lies to the band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    /// In it.
    In,
    /// Out of it, by no more than chance does now and then.
    Out,
    /// Far out: evidence on its own.
    Far,
}

/// The band around a baseline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub baseline: Baseline,
    /// Whether users send when they have an answer. Then a window with less goodput is one in which they waited; in an
    /// open loop the schedule says how many are sent, and goodput is read at the usual rate of offering.
    is_closed: bool,
}

impl Band {
    /// What was usual before a second, and not before another.
    pub fn before(seconds: &Seconds, command: u32, not_before: u32, is_closed: bool) -> Result<Self, String> {
        let to = command.saturating_sub(GAP_S);
        let length = LENGTHS.into_iter().find(|length| {
            let within = reach(to, not_before, *length);
            let windows = within.len() as f64 / f64::from(*length);
            windows >= 1.0 && seconds.all(within).offered as f64 / windows >= ENOUGH_OPS
        });
        let Some(length) = length else {
            return Err(format!(
                "no window of up to {} s before it has {ENOUGH_OPS} operations in the mean",
                LENGTHS[LENGTHS.len() - 1]
            ));
        };
        let windows = seconds.windows(reach(to, not_before, length), length);
        if windows.len() < LEAST {
            return Err(format!(
                "{} steady seconds before it make {} windows of {length} s, and {LEAST} are needed",
                to.saturating_sub(not_before),
                windows.len()
            ));
        }
        Self::of(&windows, is_closed)
    }

    fn of(windows: &[Window], is_closed: bool) -> Result<Self, String> {
        let offered: Vec<f64> = windows.iter().map(|window| window.per_s(window.tally.offered)).collect();
        let offered_rps = median(&offered);
        let mut baseline = Baseline {
            from_s: f64::from(windows[0].start),
            to_s: f64::from(windows[windows.len() - 1].end()),
            window_s: f64::from(windows[0].length),
            windows: windows.len(),
            offered_rps,
            ..Baseline::default()
        };
        let goodput: Vec<f64> = windows.iter().map(|window| rate_of(window, offered_rps, is_closed)).collect();
        let p95: Vec<f64> = windows.iter().filter_map(|window| window.tally.quantile_ms(0.95)).collect();
        let ops = offered_rps * baseline.window_s;
        gate(&goodput, &p95, ops)?;
        let (all, bad, wrong) = windows.iter().fold((0, 0, 0), |(all, bad, wrong), window| {
            (all + window.tally.offered, bad + window.tally.bad(), wrong + window.tally.wrong)
        });
        if wrong > 0 {
            return Err(format!("{wrong} answers were wrong before it, and in band none may be"));
        }
        baseline.goodput_rps = median(&goodput);
        baseline.goodput_mad = mad(&goodput);
        // The wider of the two: where nothing varies, the other would call half of the usual windows unusual.
        let margin = (LOSS * baseline.goodput_rps).max(strays(&goodput));
        if margin > MOST_MARGIN * baseline.goodput_rps {
            return Err(format!(
                "goodput before it strays so much that only a loss of more than {} % would be seen",
                three(100.0 * margin / baseline.goodput_rps)
            ));
        }
        baseline.least_goodput_rps = (baseline.goodput_rps - margin).max(0.0);
        let share = bad as f64 / all as f64;
        baseline.error_percent = 100.0 * share;
        baseline.most_error_percent = 100.0 * most_bad(share, ops);
        if p95.len() == windows.len() {
            let usual = median(&p95);
            baseline.p95_ms = Some(usual);
            baseline.most_p95_ms = Some((1.25 * usual).max(usual + strays(&p95)));
        }
        Ok(Self { baseline, is_closed })
    }

    /// The length of a window in seconds.
    pub fn length(&self) -> u32 {
        self.baseline.window_s as u32
    }

    /// How far out a window lies. Users who all wait send nothing: in a closed loop that is as far out as can be.
    pub fn grade(&self, window: &Window) -> Grade {
        let usual = &self.baseline;
        let tally = &window.tally;
        let Some(bad) = tally.bad_share() else { return if self.is_closed { Grade::Far } else { Grade::Out } };
        let goodput = rate_of(window, usual.offered_rps, self.is_closed);
        let mut grade = beyond(usual.goodput_rps - goodput, usual.goodput_rps - usual.least_goodput_rps, 2.0);
        let above = 100.0 * bad - usual.error_percent;
        grade = grade.worse(beyond(above, usual.most_error_percent - usual.error_percent, 2.0));
        if let (Some(p95), Some(base), Some(most)) = (tally.quantile_ms(0.95), usual.p95_ms, usual.most_p95_ms) {
            // The tail of a single window strays by much on a shared machine.
            grade = grade.worse(beyond(p95 - base, most - base, 6.0));
        }
        if tally.wrong > 0 { Grade::Far } else { grade }
    }

    /// Whether windows together have less goodput than one in band has at least.
    pub fn lacks_goodput(&self, windows: &[Window]) -> bool {
        let each: Vec<f64> =
            windows.iter().map(|window| rate_of(window, self.baseline.offered_rps, self.is_closed)).collect();
        stats::mean(&each).is_some_and(|mean| mean < self.baseline.least_goodput_rps)
    }

    /// Σ over windows of the part of their length in which, at the same loss, nobody would have been served.
    pub fn outage_s(&self, windows: &[Window]) -> f64 {
        let lost = |window: &Window| match window.tally.bad_share() {
            Some(share) => share,
            None if self.is_closed => 1.0,
            None => 0.0,
        };
        windows.iter().map(|window| f64::from(window.length) * lost(window)).sum()
    }

    /// Operations that would usually have ended well, and did not.
    pub fn lost_work(&self, windows: &[Window]) -> f64 {
        let usual = self.baseline.goodput_rps;
        let lost = |window: &Window| {
            f64::from(window.length) * (usual - rate_of(window, self.baseline.offered_rps, self.is_closed))
        };
        windows.iter().map(lost).sum::<f64>().max(0.0)
    }
}

impl Grade {
    fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Far, _) | (_, Self::Far) => Self::Far,
            (Self::Out, _) | (_, Self::Out) => Self::Out,
            _ => Self::In,
        }
    }
}

fn beyond(by: f64, margin: f64, far: f64) -> Grade {
    // Rates are quotients: what differs in the last digits is equal.
    let slack = 1e-9 * (1.0 + margin.abs());
    match by {
        _ if by > far * margin + slack => Grade::Far,
        _ if by > margin + slack => Grade::Out,
        _ => Grade::In,
    }
}

/// Good operations a second: as they were where users wait for answers, else as many as there would have been had the
/// usual number been offered.
fn rate_of(window: &Window, offered_rps: f64, is_closed: bool) -> f64 {
    match (is_closed, window.tally.offered) {
        (true, _) | (false, 0) => window.per_s(window.tally.ok),
        (false, offered) => offered_rps * window.tally.ok as f64 / offered as f64,
    }
}

/// The share of operations that may end badly in a window: 1 %, or what chance makes of the usual share: three binomial
/// standard deviations more, and one operation, because few come in lumps.
pub(super) fn most_bad(share: f64, ops: f64) -> f64 {
    let ops = ops.max(1.0);
    let lump = if share > 0.0 { 1.0 / ops } else { 0.0 };
    f64::max(0.01, share + 3.0 * (share * (1.0 - share) / ops).sqrt() + lump)
}

/// By how much a value strays from the median no more often than a normal one by three standard deviations, which are
/// taken from the median absolute deviation. Of few values that is itself off by much: Student's t allows for it.
fn strays(values: &[f64]) -> f64 {
    stats::t_quantile(THREE_SIGMA, values.len() as f64 - 1.0) * TO_SIGMA * mad(values)
}

/// The seconds of a baseline of windows of so many seconds.
fn reach(to: u32, not_before: u32, length: u32) -> Range<u32> {
    let room = to.saturating_sub(not_before);
    let windows = (room / length).min(FULL);
    to - (windows * length).min(to)..to
}

fn gate(goodput: &[f64], p95: &[f64], ops: f64) -> Result<(), String> {
    let mean = stats::mean(goodput).filter(|mean| *mean > 0.0).ok_or("no operation ended well before it")?;
    let cv = stats::variance(goodput).unwrap_or(0.0).sqrt() / mean;
    let most = f64::max(0.05, 2.0 / ops.sqrt());
    if cv > most {
        return Err(format!(
            "goodput before it varies by {} % of its mean, allowed are {} %",
            three(100.0 * cv),
            three(100.0 * most)
        ));
    }
    if let Some(share) = trend(goodput, TREND) {
        return Err(format!("goodput before it {} over the baseline", moves(share)));
    }
    match trend(p95, TREND_P95) {
        Some(share) => Err(format!("p95 before it {} over the baseline", moves(share))),
        None => Ok(()),
    }
}

fn moves(share: f64) -> String {
    format!("{} by {} %", if share > 0.0 { "rises" } else { "falls" }, three(100.0 * share.abs()))
}

/// By which share of their mean values move over their whole length, where that is sure: against independent scatter and
/// against scatter that depends on the value before (Newey & West 1987), because with few values the latter alone finds
/// trends where there are none.
fn trend(values: &[f64], least: f64) -> Option<f64> {
    let mean = stats::mean(values).filter(|mean| *mean > 0.0)?;
    let line = stats::newey_west_slope(values)?;
    let n = values.len() as f64;
    let share = line.slope * (n - 1.0) / mean;
    let middle = (n - 1.0) / 2.0;
    let left = |(place, value): (usize, &f64)| value - mean - line.slope * (place as f64 - middle);
    let squares: f64 = values.iter().enumerate().map(|pair| left(pair).powi(2)).sum();
    let sxx = n * (n * n - 1.0) / 12.0;
    let plain = (squares / (n - 2.0) / sxx).sqrt();
    let surely = line.slope.abs() > stats::t_quantile(0.995, n - 2.0) * plain.max(line.se);
    (surely && share.abs() >= least).then_some(share)
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn mad(values: &[f64]) -> f64 {
    let centre = median(values);
    median(&values.iter().map(|value| (value - centre).abs()).collect::<Vec<_>>())
}
