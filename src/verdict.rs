//! Summary + SLO → verdict. Pure.
//!
//! One rule: unknown is an answer. An objective passes or fails only when the whole interval says so and nothing that
//! touches the number makes it doubtful.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::experiment::{Experiment, Search};
use crate::measure::{
    Bracket, CellRecovery, CellSummary, Guard, StreamState, StudySummary, TrialSummary, guards, search, stream, study,
};

mod writes;

pub use writes::exit_code_so_far;

/// One objective, as written: `p95 <= 250ms`.
///
/// `[wait|work] METRIC OP VALUE`, with `p50 p90 p95 p99 p99.9 avg mean max` against a duration (`250ms`, `1.5s`,
/// `800us`), `errors failed unknown wrong` against a share (`1%`, `0.01`), `throughput goodput` against a rate
/// (`500/s`), and `<= < >= >`. Of streams also `stable` alone, and `delay_growth processing scheduling_delay total_delay`
/// against a duration (`delay_growth <= 10ms`, a batch). With faults also `availability availability_repeatable` against a
/// share (`99.9%`), of all operations and of those that may be sent again safely, and `recovery outage` against a duration
/// (`recovery <= 5s`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slo {
    /// As written.
    pub text: String,
    /// The key of the metric in a cell, such as `latency_p95_ms`.
    pub key: String,
    /// How the number must lie to the limit.
    pub op: Op,
    /// In the metric's unit: milliseconds, percent, operations a second, or, with faults, seconds.
    pub limit: f64,
}

/// How a number must lie to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `<=`
    AtMost,
    /// `<`
    Below,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
}

impl Op {
    const ALL: [(&str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Below), (">", Self::Above)];

    /// Whether a number lies so to its limit.
    pub(crate) fn met(self, value: f64, limit: f64) -> bool {
        match self {
            Self::AtMost => value <= limit,
            Self::Below => value < limit,
            Self::AtLeast => value >= limit,
            Self::Above => value > limit,
        }
    }

    fn wants_less(self) -> bool {
        matches!(self, Self::AtMost | Self::Below)
    }
}

const DURATIONS: [(&str, &str); 8] = [
    ("p50", "p50"),
    ("p90", "p90"),
    ("p95", "p95"),
    ("p99", "p99"),
    ("p99.9", "p999"),
    ("avg", "avg"),
    ("mean", "avg"),
    ("max", "max"),
];
const SHARES: [(&str, &str); 4] =
    [("errors", "error_rate"), ("failed", "failed_rate"), ("unknown", "unknown_rate"), ("wrong", "wrong_rate")];
const RATES: [(&str, &str); 2] = [("throughput", "throughput_rps"), ("goodput", "goodput_rps")];

/// Averages of a stream.
const OF_STREAMS: [(&str, &str); 4] = [
    ("delay_growth", stream::GROWTH),
    ("processing", "processing_avg_ms"),
    ("scheduling_delay", "scheduling_delay_avg_ms"),
    ("total_delay", "total_delay_avg_ms"),
];

/// Good operations of those offered.
const AVAILABILITIES: [(&str, &str); 2] =
    [("availability", "availability_percent"), ("availability_repeatable", "availability_repeatable_percent")];

/// How long users suffer from a fault, by the clock and as a full outage.
const OF_FAULTS: [(&str, &str); 2] = [("recovery", "recovery_s"), ("outage", "outage_s")];

impl TryFrom<String> for Slo {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.trim() == stream::STABLE {
            return Ok(Self { key: stream::STABLE.to_owned(), op: Op::AtLeast, limit: 1.0, text });
        }
        let wrong = |why: String| format!("objective {text:?}: {why}");
        let found = Op::ALL.into_iter().filter_map(|(sign, op)| Some((text.find(sign)?, sign, op)));
        // The leftmost sign, and of `<=` and `<` at the same place the longer, which comes first in the table.
        let (place, sign, op) = found.min_by_key(|(place, ..)| *place).ok_or_else(|| {
            wrong("it has no comparison; write METRIC <= VALUE, with <=, <, >= or >, such as p95 <= 250ms".to_owned())
        })?;
        let value = text[place + sign.len()..].trim();
        let (key, limit) = metric(text[..place].trim(), value).map_err(wrong)?;
        Ok(Self { key, op, limit, text })
    }
}

impl From<Slo> for String {
    fn from(slo: Slo) -> Self {
        slo.text
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn metric(name: &str, value: &str) -> Result<(String, f64), String> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let (part, name) = match words.as_slice() {
        [part @ ("wait" | "work"), name] => (*part, *name),
        ["latency" | "total", name] | [name] => ("latency", *name),
        _ => return Err(format!("unknown metric {name:?}; {}", allowed())),
    };
    let named = |table: &[(&str, &'static str)]| table.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
    if let Some(key) = named(&DURATIONS) {
        return Ok((format!("{part}_{key}_ms"), milliseconds(value)?));
    }
    if part != "latency" {
        return Err(format!(
            "{part} is a duration and goes with p50, p90, p95, p99, p99.9, avg, mean or max, not {name:?}"
        ));
    }
    if let Some((_, key)) = OF_STREAMS.iter().find(|(known, _)| *known == name) {
        return Ok(((*key).to_owned(), milliseconds(value)?));
    }
    if let Some(key) = named(&AVAILABILITIES) {
        return Ok((key.to_owned(), percent(value)?));
    }
    if let Some(key) = named(&OF_FAULTS) {
        return Ok((key.to_owned(), milliseconds(value)? / 1e3));
    }
    match (named(&SHARES), named(&RATES)) {
        (Some(key), _) => Ok((key.to_owned(), percent(value)?)),
        (None, Some(key)) => Ok((key.to_owned(), per_second(value)?)),
        (None, None) => Err(format!("unknown metric {name:?}; {}", allowed())),
    }
}

fn allowed() -> String {
    let names = |table: &[(&str, &str)]| table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    format!(
        "there are {} (also after wait or work), {}, {}; of streams also stable, {}; with faults also {}, {}",
        names(&DURATIONS),
        names(&SHARES),
        names(&RATES),
        names(&OF_STREAMS),
        names(&AVAILABILITIES),
        names(&OF_FAULTS)
    )
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let units = [("ms", 1.0), ("us", 1e-3), ("µs", 1e-3), ("s", 1e3)];
    let (unit, digits) = units
        .into_iter()
        .find_map(|(unit, in_ms)| Some((in_ms, text.strip_suffix(unit)?)))
        .ok_or_else(|| format!("{text:?} is not a duration with its unit, such as 250ms, 1.5s or 800us"))?;
    let value = number(digits).ok_or_else(|| format!("{text:?} is not a duration, such as 250ms, 1.5s or 800us"))?;
    Ok(value * unit)
}

fn percent(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a share, such as 1% or 0.01");
    let value = match text.strip_suffix('%') {
        Some(digits) => number(digits).ok_or_else(wrong)?,
        None => 100.0 * number(text).ok_or_else(wrong)?,
    };
    if value > 100.0 {
        return Err(format!("{text:?} is more than everything; write {text}% for percent, or a share from 0 to 1"));
    }
    Ok(value)
}

fn per_second(text: &str) -> Result<f64, String> {
    text.strip_suffix("/s").and_then(number).ok_or_else(|| format!("{text:?} is not a rate, such as 500/s"))
}

/// Whether an objective is met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// All of the interval meets it.
    Pass,
    /// None of the interval meets it.
    Fail,
    /// It cannot be said, and why.
    Unknown(String),
}

/// Decides one objective for one cell.
///
/// The interval decides, or the value where a single trial gives none. A number that is null, that a guard touches, or
/// that too few operations stand behind, decides nothing; except where the guard says in which direction the number is
/// wrong and the truth can only be further from the limit (see `stands`).
pub fn decide(slo: &Slo, cell: &CellSummary) -> Decision {
    if slo.key == stream::STABLE {
        return decide_stable(cell);
    }
    let Some(estimate) = cell.metrics.get(&slo.key) else {
        let of_faults = AVAILABILITIES.iter().chain(&OF_FAULTS).any(|(_, key)| *key == slo.key);
        let why = if of_faults && cell.valid > 0 { "nothing was to be broken" } else { "it was not measured" };
        return Decision::Unknown(format!("{}: {why}", slo.key));
    };
    if let Some(decision) = cell.recovery.as_ref().and_then(|recovery| decide_censored(slo, recovery)) {
        return decision;
    }
    let Some(mean) = estimate.mean else {
        let why = estimate.null_reason.clone();
        return Decision::Unknown(why.unwrap_or_else(|| format!("{} was not measured", slo.key)));
    };
    let (low, high) = (estimate.low.unwrap_or(mean), estimate.high.unwrap_or(mean));
    let met = (slo.op.met(low, slo.limit), slo.op.met(high, slo.limit));
    let doubt = |guard: &&Guard| guards::touches(guard, &slo.key) && !stands(guard, slo, met);
    if let Some(guard) = cell.guards.iter().find(doubt) {
        return Decision::Unknown(format!("{}: {}", guard.id, guard.what));
    }
    if let Some(count) = estimate.thin {
        return Decision::Unknown(format!("too-few-ops: only {count} operations stand behind it"));
    }
    match met {
        (true, true) => too_few_to_show(slo, cell, &estimate.values).map_or(Decision::Pass, Decision::Unknown),
        (false, false) => Decision::Fail,
        _ => Decision::Unknown(format!("the interval {} spans {}", shown(&slo.key, low, high), limit(slo))),
    }
}

/// Where no operation ended badly, an interval has no width whatever the number of operations; up to 3 in as many may have
/// by chance (the rule of three, at 95 %).
fn too_few_to_show(slo: &Slo, cell: &CellSummary, values: &[f64]) -> Option<String> {
    let recovery = cell.recovery.as_ref().filter(|_| !slo.op.wants_less())?;
    let offered = match slo.key.as_str() {
        "availability_percent" => recovery.offered,
        "availability_repeatable_percent" => recovery.offered_repeatable,
        _ => return None,
    };
    let shown = 100.0 - 300.0 / offered as f64;
    let is_open = offered > 0 && values.iter().all(|value| *value >= 100.0) && slo.limit > shown;
    is_open.then(|| {
        format!(
            "too-few-ops: none of {offered} operations ended badly, which shows an availability of {shown:.3} % at most"
        )
    })
}

/// What users had not recovered from while they were watched took longer than that: where it is more than the limit
/// already, the objective is missed, and else it may be. None where they recovered each time.
fn decide_censored(slo: &Slo, recovery: &CellRecovery) -> Option<Decision> {
    let longer = match slo.key.as_str() {
        "recovery_s" => &recovery.longer_than_s,
        "outage_s" => &recovery.outage_more_than_s,
        _ => return None,
    };
    let longest = longer.iter().copied().max_by(f64::total_cmp)?;
    // It took longer: one that may be as long as the limit, and was watched just as long, is missed too.
    let is_missed = slo.op.wants_less() && longest >= slo.limit;
    Some(if is_missed { Decision::Fail } else { Decision::Unknown(recovery.statement.clone()) })
}

/// Every trial must keep up, or every trial fall behind. One that falls behind does so whatever touches it: a source that
/// was blocked or late offered less than it should. One that keeps up may do so only for that reason.
fn decide_stable(cell: &CellSummary) -> Decision {
    let Some(stream) = &cell.stream else {
        let why = if cell.valid == 0 { "no trial is valid" } else { "what was measured is no stream" };
        return Decision::Unknown(why.to_owned());
    };
    let touched = cell.guards.iter().find(|guard| guards::touches(guard, stream::STABLE));
    match (stream.state, touched) {
        (StreamState::FallsBehind, _) => Decision::Fail,
        (_, Some(guard)) => Decision::Unknown(format!("{}: {}", guard.id, guard.what)),
        (StreamState::Stable, None) => Decision::Pass,
        (StreamState::Unknown, None) => Decision::Unknown(stream.why.trim_start_matches("unknown: ").to_owned()),
    }
}

/// Whether a decision stands although a guard touches its number. Users who set the rate themselves cannot make it higher
/// than the system allows, and a growing backlog makes it look lower: a floor that was reached is reached. Latencies
/// without the operations that fared worst flatter: a ceiling that was missed is missed.
fn stands(guard: &Guard, slo: &Slo, met: (bool, bool)) -> bool {
    match guard.id.as_str() {
        "client-bound" | "saturated" => met == (true, true) && !slo.op.wants_less(),
        "not-sent" | "refusals-hide-latency" | "backlog" | "source-blocked" | "receiver-held" | "batches-failed" => {
            met == (false, false) && slo.op.wants_less()
        }
        _ => false,
    }
}

/// Decides all objectives of one level of a search together: fail when one fails, unknown when one is. Whether users or
/// the system set the rate plays no part, because the objectives are asked at this level, not of the system's limit. A
/// level that passed is no evidence of a capacity where a guard touches that; one that failed is one all the same.
pub fn decide_level(slos: &[Slo], cell: &CellSummary) -> Decision {
    let mut plain = cell.clone();
    plain.guards.retain(|guard| guard.id != "client-bound");
    let mut whole = Decision::Pass;
    for slo in slos {
        match decide(slo, &plain) {
            Decision::Fail => return Decision::Fail,
            // Before a reason, the name of this objective would read like an answer.
            Decision::Unknown(why) if slo.key == stream::STABLE => whole = Decision::Unknown(why),
            Decision::Unknown(why) => whole = Decision::Unknown(format!("{slo}: {why}")),
            Decision::Pass => {}
        }
    }
    let doubt = plain.guards.iter().find(|guard| guard.touches.iter().any(|touched| touched == "capacity"));
    match (whole, doubt) {
        (Decision::Pass, Some(guard)) => Decision::Unknown(format!("{}: {}", guard.id, guard.what)),
        (whole, _) => whole,
    }
}

fn shown(key: &str, low: f64, high: f64) -> String {
    format!("{}–{} {}", three(low), three(high), unit(key))
}

fn limit(slo: &Slo) -> String {
    format!("{} {}", three(slo.limit), unit(&slo.key))
}

fn unit(key: &str) -> &'static str {
    match key {
        _ if key.ends_with("_ms") => "ms",
        _ if key.ends_with("_rate") || key.ends_with("_percent") => "%",
        _ if key.ends_with("_s") => "s",
        _ => "/s",
    }
}

/// Three significant digits, without an exponent.
pub(crate) fn three(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { value.to_string() };
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The whole of an archive in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Every objective is met, or none was stated, and every trial is valid.
    Pass,
    /// An objective is not met.
    Fail,
    /// An objective cannot be decided, or a trial is invalid or missing.
    Unknown,
    /// Nothing was measured.
    None,
}

/// What `verdict.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In a word.
    pub verdict: Word,
    /// The objectives, with their cells, that failed; else those that could not be decided.
    pub which: Vec<String>,
    /// In a sentence.
    pub why: String,
    /// What touches the numbers behind it.
    pub guards: Vec<Guard>,
    /// How many trials are invalid.
    #[serde(default)]
    pub invalid: usize,
}

/// Judges a study: every objective at every cell, or, of a search, whether each curve has a level that meets them.
/// `missing` planned trials have not been run; what they would have said is unknown, unless something failed already.
pub fn judge(experiment: &Experiment, study: &StudySummary, missing: usize) -> Verdict {
    let is_stream = study.is_stream();
    let cells: Vec<(String, &CellSummary)> = study
        .curves
        .iter()
        .flat_map(|curve| {
            // The one curve of a stream needs no name.
            let label = if is_stream && curve.label == "all" { "" } else { curve.label.as_str() };
            curve.cells.iter().map(move |cell| (place(study.x.as_deref(), label, cell.x), cell))
        })
        .collect();
    let decisions = match (&study.search, &experiment.search) {
        (Some(found), Some(search)) => {
            found.brackets.iter().map(|bracket| (bracket.label.clone(), of_bracket(search, bracket))).collect()
        }
        _ => each(&experiment.slo, &cells),
    };
    let invalid = cells.iter().map(|(_, cell)| cell.invalid).sum();
    let tried = cells.iter().map(|(_, cell)| cell.valid + cell.invalid).sum();
    conclude(decisions, &Trials { tried, invalid, missing }, study.guards.clone())
}

/// Judges a single run, of which there is one value and no interval.
pub fn judge_one(slos: &[Slo], trial: &TrialSummary) -> Verdict {
    let cell = study::cell(&[trial], 0.0, &trial.name);
    let cells = [(String::new(), &cell)];
    conclude(each(slos, &cells), &Trials { tried: 1, invalid: cell.invalid, missing: 0 }, trial.guards.clone())
}

/// 0 when all is well, 1 when an objective failed, 3 when a trial is invalid or an objective could not be decided.
pub fn exit_code(verdict: &Verdict, any_invalid: bool) -> u8 {
    match verdict.verdict {
        Word::Fail => 1,
        Word::Unknown | Word::None => 3,
        Word::Pass if any_invalid || verdict.invalid > 0 => 3,
        Word::Pass => 0,
    }
}

fn place(x: Option<&str>, label: &str, at: f64) -> String {
    match x {
        Some(x) if label.is_empty() => format!("{x} {at}"),
        Some(x) => format!("{label}, {x} {at}"),
        None => label.to_owned(),
    }
}

fn each(slos: &[Slo], cells: &[(String, &CellSummary)]) -> Vec<(String, Decision)> {
    let named = |slo: &Slo, place: &str| if place.is_empty() { slo.to_string() } else { format!("{slo} at {place}") };
    let pairs = cells.iter().flat_map(|(place, cell)| slos.iter().map(move |slo| (slo, place, *cell)));
    pairs.map(|(slo, place, cell)| (named(slo, place), decide(slo, cell))).collect()
}

fn of_bracket(search: &Search, bracket: &Bracket) -> Decision {
    match (search::unsettled(search, bracket), bracket.pass) {
        (Some(why), _) => Decision::Unknown(why),
        (None, Some(_)) => Decision::Pass,
        (None, None) => Decision::Fail,
    }
}

/// How many trials a verdict rests on.
struct Trials {
    tried: usize,
    invalid: usize,
    missing: usize,
}

impl Trials {
    /// Why they are not all there, or not all of use.
    fn doubts(&self) -> impl Iterator<Item = String> {
        let planned = self.tried + self.missing;
        let be = |count: usize| if count == 1 { "is" } else { "are" };
        let missing = (self.missing > 0)
            .then(|| format!("{} of {planned} planned trials {} missing", self.missing, be(self.missing)));
        let invalid =
            (self.invalid > 0).then(|| format!("{} of the trials {} invalid", self.invalid, be(self.invalid)));
        missing.into_iter().chain(invalid)
    }
}

fn conclude(decisions: Vec<(String, Decision)>, trials: &Trials, guards: Vec<Guard>) -> Verdict {
    let failed: Vec<String> =
        decisions.iter().filter(|(_, decision)| *decision == Decision::Fail).map(|(name, _)| name.clone()).collect();
    let undecided: Vec<(String, String)> = decisions
        .iter()
        .filter_map(|(name, decision)| match decision {
            Decision::Unknown(why) => Some((name.clone(), why.clone())),
            Decision::Pass | Decision::Fail => None,
        })
        .collect();
    let reasons: Vec<String> = undecided.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let reasons = (!reasons.is_empty()).then(|| format!("could not be decided: {}", reasons.join("; ")));
    let doubts: Vec<String> = reasons.into_iter().chain(trials.doubts()).collect();
    let (verdict, which, why) = if trials.tried == 0 {
        (Word::None, Vec::new(), "nothing was measured".to_owned())
    } else if !failed.is_empty() {
        let why = format!("not met: {}", failed.join("; "));
        (Word::Fail, failed, why)
    } else if !doubts.is_empty() {
        (Word::Unknown, undecided.into_iter().map(|(name, _)| name).collect(), doubts.join("; "))
    } else if decisions.is_empty() {
        (Word::Pass, Vec::new(), "no objective was stated, and every trial is valid".to_owned())
    } else {
        (Word::Pass, Vec::new(), "every objective is met".to_owned())
    };
    Verdict { verdict, which, why, guards, invalid: trials.invalid }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Slo, String> {
        Slo::try_from(text.to_owned())
    }

    #[test]
    fn what_can_be_written() {
        let cases = [
            ("p95 <= 250ms", "latency_p95_ms", Op::AtMost, 250.0),
            ("p99.9<1.5s", "latency_p999_ms", Op::Below, 1_500.0),
            ("mean <= 800us", "latency_avg_ms", Op::AtMost, 0.8),
            ("wait p95 <= 10ms", "wait_p95_ms", Op::AtMost, 10.0),
            ("work max < 1s", "work_max_ms", Op::Below, 1_000.0),
            ("errors <= 1%", "error_rate", Op::AtMost, 1.0),
            ("wrong <= 0.001", "wrong_rate", Op::AtMost, 0.1),
            ("goodput >= 500/s", "goodput_rps", Op::AtLeast, 500.0),
            ("throughput > 1.5/s", "throughput_rps", Op::Above, 1.5),
            ("stable", "stable", Op::AtLeast, 1.0),
            ("delay_growth <= 10ms", "delay_growth_ms", Op::AtMost, 10.0),
            ("processing < 2s", "processing_avg_ms", Op::Below, 2_000.0),
            ("scheduling_delay <= 1s", "scheduling_delay_avg_ms", Op::AtMost, 1_000.0),
            ("availability >= 99.9%", "availability_percent", Op::AtLeast, 99.9),
            ("availability_repeatable > 0.999", "availability_repeatable_percent", Op::Above, 99.9),
            ("recovery <= 5s", "recovery_s", Op::AtMost, 5.0),
            ("outage < 1500ms", "outage_s", Op::Below, 1.5),
        ];
        for (text, key, op, limit) in cases {
            assert_eq!(parse(text), Ok(Slo { text: text.to_owned(), key: key.to_owned(), op, limit }));
        }
    }

    #[test]
    fn what_cannot_says_what_can() {
        let cases = [
            ("p95 250ms", "it has no comparison"),
            ("stable <= 1s", "unknown metric \"stable\"; there are p50"),
            ("p96 <= 1ms", "unknown metric \"p96\"; there are p50, p90"),
            ("p95 <= 250", "\"250\" is not a duration with its unit"),
            ("p95 <= -1ms", "\"-1ms\" is not a duration"),
            ("errors <= 5", "\"5\" is more than everything; write 5%"),
            ("goodput >= 500", "\"500\" is not a rate, such as 500/s"),
            ("wait errors <= 1%", "wait is a duration and goes with"),
            ("recovery <= 5", "\"5\" is not a duration with its unit"),
            ("availability >= 99.9", "\"99.9\" is more than everything; write 99.9%"),
            ("work recovery <= 5s", "work is a duration and goes with"),
            ("", "it has no comparison"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_objective_is_stored_as_it_was_written() {
        let slo: Slo = serde_json::from_str("\"p95  <=  250ms\"").unwrap();
        assert_eq!(serde_json::to_string(&slo).unwrap(), "\"p95  <=  250ms\"");
    }

    #[test]
    fn three_digits_are_shown_without_zeros() {
        for (value, text) in
            [(0.0, "0"), (12.04, "12"), (0.012345, "0.0123"), (1234.5, "1234"), (2.6, "2.6"), (100.0, "100")]
        {
            assert_eq!(three(value), text);
        }
    }

    #[test]
    fn a_latency_without_the_refused_passes_nothing_and_fails_all_the_same() {
        use crate::measure::samples::{op, record};
        use kit::{OpsRecord, Outcome};
        let mut record = record(1_000, 20);
        let mut refused = OpsRecord { second: 5, kind: "GET /".to_owned(), ..OpsRecord::default() };
        (0..640).for_each(|_| refused.record(&op(Outcome::Failed, 503, 1)));
        record.ops = record.ops.iter().chain([refused]).collect();
        let run = crate::measure::summarize_trial(&record);
        let word = |text: &str| judge_one(&[parse(text).unwrap()], &run).verdict;
        assert_eq!(
            (word("p95 <= 100ms"), word("p95 <= 10ms"), word("p50 <= 100ms")),
            (Word::Unknown, Word::Fail, Word::Pass)
        );
    }

    #[test]
    fn a_level_that_the_generator_limited_does_not_pass_a_search_and_fails_all_the_same() {
        use crate::measure::samples::{Made, trial};
        let level = |id: &str, touched: &str, text: &str| {
            let mut run = trial(&Made::default());
            let touches = vec!["latency".to_owned(), touched.to_owned()];
            let (at, what, advice) = (String::new(), "seen".to_owned(), String::new());
            run.guards.push(Guard { id: id.to_owned(), touches, at, what, advice });
            decide_level(&[parse(text).unwrap()], &study::cell(&[&run], 0.0, ""))
        };
        let doubted = Decision::Unknown("generator-limited: seen".to_owned());
        assert_eq!(level("generator-limited", "capacity", "errors <= 1%"), doubted);
        assert_eq!(level("generator-limited", "capacity", "goodput >= 9999/s"), Decision::Fail);
        assert_eq!(level("client-bound", "capacity", "errors <= 1%"), Decision::Pass);
        assert_eq!(level("not-steady", "throughput", "errors <= 1%"), Decision::Pass);
    }

    #[test]
    fn a_single_run_is_judged_by_its_value() {
        use crate::measure::samples::{Made, trial};
        let run = trial(&Made { p95: 20.0, ..Made::default() });
        let word = |text: &str| judge_one(&[parse(text).unwrap()], &run).verdict;
        assert_eq!((word("p95 <= 20ms"), word("p95 < 20ms")), (Word::Pass, Word::Fail));
        let failed = TrialSummary { valid: false, invalid: Some("it ended".to_owned()), ..run };
        let verdict = judge_one(&[parse("p95 <= 20ms").unwrap()], &failed);
        assert_eq!((verdict.verdict, exit_code(&verdict, true)), (Word::Unknown, 3));
    }
}
