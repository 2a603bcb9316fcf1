//! Injections and seconds → how users fared.
//!
//! One rule: each injection is held to what was usual before it, and one that strikes before the one before was recovered
//! from has no usual.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::experiment::LoadPlan;
use crate::faults::Injection;
use crate::measure::TrialRecord;
use crate::measure::recovery::band::{self, Band, Grade};
use crate::measure::recovery::seconds::{Seconds, Tally, Window};
use crate::measure::recovery::{BUDGET_S, ByUser, Recovered, Recovery, RecoverySummary, gauges};

/// So many windows in band, one after another, are a recovery.
const STAYS: usize = 5;
/// Injections whose commands are no further apart struck together.
const TOGETHER_S: f64 = 1.0;
/// A system that is down for so many times the length of a fault after it is gone is held down by its load,
const METASTABLE: f64 = 3.0;
/// but not sooner than after so many windows.
const METASTABLE_WINDOWS: f64 = 10.0;
/// Durations that a percentile of a kind of operation needs.
const KIND_DURATIONS: u64 = 20;
/// How the reason begins why an injection did not take place.
const NOT_INJECTED: &str = "it was not injected: ";
/// Why nothing is said of users who were well as long as they were watched.
const NOT_WATCHED: &str = "it was not watched until after it was over";

/// What the faults of a trial did; `seconds` are its operations.
pub(crate) fn analyse(record: &TrialRecord, seconds: &Seconds) -> RecoverySummary {
    let mut nulls = BTreeMap::new();
    let window = record.window.clone();
    let all = seconds.all(window.clone());
    let by_kind = seconds.kinds(window.clone());
    let mut repeatable = Tally::default();
    by_kind.iter().filter(|(kind, _)| record.repeatable.contains(*kind)).for_each(|(_, tally)| repeatable.add(tally));
    let (from_s, to_s) = (f64::from(window.start), f64::from(window.end));
    let none_repeatable = if record.repeatable.is_empty() {
        "no kind of operation is known to be repeatable"
    } else {
        "no repeatable operation was offered in the measured window"
    };
    RecoverySummary {
        availability_percent: keep(
            &mut nulls,
            "availability_percent",
            available(&all).ok_or_else(|| "nothing was offered in the measured window".to_owned()),
        ),
        availability_repeatable_percent: keep(
            &mut nulls,
            "availability_repeatable_percent",
            available(&repeatable).ok_or_else(|| none_repeatable.to_owned()),
        ),
        by_kind: by_kind.iter().filter_map(|(kind, tally)| Some((kind.clone(), available(tally)?))).collect(),
        by_user: keep(&mut nulls, "by_user", by_user(&record.users)),
        offered: all.offered,
        offered_repeatable: repeatable.offered,
        amplification: keep(&mut nulls, "amplification", gauges::amplification(record, from_s, to_s, all.offered)),
        injections: injections(record, seconds),
        null_reasons: nulls,
    }
}

/// The measured seconds that no fault touched: steadiness and saturation are judged by them alone.
pub(crate) fn calm(summary: &RecoverySummary, window: Range<u32>) -> Vec<u32> {
    let touched = |recovery: &Recovery| {
        let injection = &recovery.injection;
        let from_s = injection.command_s.or(injection.effect_s)?;
        let is_over = recovery.unknown.is_none() && !recovery.recovered.is_censored();
        let ready_s = injection.ready_s.or(injection.repair_s).unwrap_or(f64::INFINITY);
        // Without a baseline nobody knows when it was over.
        let to_s = if is_over { recovery.suffered_to_s.unwrap_or(from_s).max(ready_s) } else { f64::INFINITY };
        Some((from_s.floor() - 1.0, to_s.ceil()))
    };
    let touched: Vec<(f64, f64)> =
        summary.injections.iter().filter(|r| r.injection.skipped.is_none()).filter_map(touched).collect();
    let is_calm = |second: &u32| !touched.iter().any(|(from, to)| (*from..*to).contains(&f64::from(*second)));
    window.filter(is_calm).collect()
}

fn keep<T>(nulls: &mut BTreeMap<String, String>, key: &str, value: Result<T, String>) -> Option<T> {
    value.map_err(|why| nulls.insert(key.to_owned(), why)).ok()
}

fn available(tally: &Tally) -> Option<f64> {
    tally.bad_share().map(|_| 100.0 * tally.ok as f64 / tally.offered as f64)
}

fn by_user(users: &BTreeMap<u64, (u64, u64)>) -> Result<ByUser, String> {
    let each: Vec<f64> =
        users.values().filter(|(_, all)| *all > 0).map(|(good, all)| 100.0 * *good as f64 / *all as f64).collect();
    if each.is_empty() {
        return Err("no history tells whose operation was whose".to_owned());
    }
    Ok(ByUser {
        users: each.len() as u64,
        worst: each.iter().copied().fold(100.0, f64::min),
        median: band::median(&each),
        mean: each.iter().sum::<f64>() / each.len() as f64,
    })
}

/// Injections that struck together, with the instants of all: the first effect, the last that was ready.
struct Strike {
    /// Their places.
    places: Vec<usize>,
    command_s: f64,
    effect_s: Option<f64>,
    repair_s: Option<f64>,
    ready_s: Option<f64>,
}

impl Strike {
    fn of(places: Vec<usize>, faults: &[Injection]) -> Option<Self> {
        let all = || places.iter().map(|place| &faults[*place]);
        let latest = |instant: fn(&Injection) -> Option<f64>| {
            all().map(instant).try_fold(f64::NEG_INFINITY, |latest, s| Some(latest.max(s?)))
        };
        Some(Self {
            command_s: all().filter_map(|injection| injection.command_s).min_by(f64::total_cmp)?,
            effect_s: all().filter_map(|injection| injection.effect_s).min_by(f64::total_cmp),
            repair_s: latest(|injection| injection.repair_s),
            ready_s: latest(|injection| injection.ready_s),
            places,
        })
    }

    /// The effect; where it was not seen, the command.
    fn origin_s(&self) -> f64 {
        self.effect_s.unwrap_or(self.command_s)
    }

    /// When the fault was gone, as far as that was seen.
    fn gone_s(&self) -> Option<f64> {
        self.ready_s.or(self.repair_s)
    }
}

fn injections(record: &TrialRecord, seconds: &Seconds) -> Vec<Recovery> {
    let faults = &record.faults;
    let mut all: Vec<Recovery> =
        faults.iter().map(|injection| Recovery { injection: injection.clone(), ..Recovery::default() }).collect();
    for recovery in &mut all {
        let injection = &recovery.injection;
        recovery.unknown = match &injection.skipped {
            Some(why) => Some(format!("skipped: {why}")),
            None if has_struck(injection) => None,
            None => Some(match injection.problem.as_deref().unwrap_or("nobody said why") {
                told if told.starts_with(NOT_INJECTED) => told.to_owned(),
                why => format!("{NOT_INJECTED}{why}"),
            }),
        };
    }
    let strikes = strikes(faults);
    let mut history = History::new(record);
    for (place, strike) in strikes.iter().enumerate() {
        let next_s = strikes.get(place + 1).map_or(f64::INFINITY, |next| next.command_s);
        let first = strike.places[0];
        let watched = watch(record, seconds, strike, next_s, &mut history);
        for place in &strike.places {
            let injection = all[*place].injection.clone();
            let own_effect_s = injection.effect_s.zip(injection.command_s).map(|(effect, command)| effect - command);
            let together_with = (*place != first).then_some(first);
            let mut recovery = Recovery { injection, together_with, ..watched.clone() };
            let not_seen =
                || recovery.injection.problem.clone().unwrap_or_else(|| "its effect was not seen".to_owned());
            let effect = own_effect_s.ok_or_else(not_seen);
            recovery.time_to_effect_s = keep(&mut recovery.null_reasons, "time_to_effect_s", effect);
            all[*place] = recovery;
        }
    }
    all
}

/// Whether it was injected. A command that failed has a problem instead of an effect, and nothing to repair.
fn has_struck(injection: &Injection) -> bool {
    let has_failed = injection.effect_s.is_none() && injection.repair_s.is_none() && injection.problem.is_some();
    injection.skipped.is_none() && injection.command_s.is_some() && !has_failed
}

/// What was injected, in the order of commands, in groups that struck together.
fn strikes(faults: &[Injection]) -> Vec<Strike> {
    let mut order: Vec<(usize, f64)> = faults
        .iter()
        .enumerate()
        .filter(|(_, injection)| has_struck(injection))
        .filter_map(|(place, injection)| Some((place, injection.command_s?)))
        .collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
    for (place, command_s) in order {
        match groups.last_mut() {
            Some((first_s, group)) if command_s - *first_s <= TOGETHER_S => group.push(place),
            _ => groups.push((command_s, vec![place])),
        }
    }
    groups.into_iter().filter_map(|(_, places)| Strike::of(places, faults)).collect()
}

/// What came before an injection, as far as the next one's baseline asks.
struct History {
    /// The first second that may be part of a baseline.
    free_from: u32,
    /// The band that users had not come back to, and the second from which on they may have.
    open: Option<(Band, u32, String)>,
}

impl History {
    fn new(record: &TrialRecord) -> Self {
        Self { free_from: record.window.start, open: None }
    }

    /// What was usual before an injection.
    fn band(&mut self, seconds: &Seconds, command: u32, is_closed: bool) -> Result<Band, String> {
        if let Some((band, from, whom)) = &self.open {
            let windows = seconds.windows(*from..command, band.length());
            let grades: Vec<Grade> = windows.iter().map(|window| band.grade(window)).collect();
            let Some(back) = stays(&grades, 0) else {
                return Err(format!("the injection before ({whom}) had not been recovered from"));
            };
            self.free_from = self.free_from.max(windows[back].start);
            self.open = None;
        }
        Band::before(seconds, command, self.free_from, is_closed)
    }
}

/// The place of the first of [`STAYS`] windows in band, at or after a place.
fn stays(grades: &[Grade], from: usize) -> Option<usize> {
    let runs = grades.get(from..)?.windows(STAYS);
    runs.into_iter().position(|run| run.iter().all(|grade| *grade == Grade::In)).map(|place| from + place)
}

/// The place of the first window, at or after a place, with which users are down.
fn leaves(grades: &[Grade], from: usize) -> Option<usize> {
    let is_down = |place: &usize| match grades[*place] {
        Grade::In => false,
        Grade::Far => true,
        Grade::Out => grades.get(place + 1).is_some_and(|next| *next != Grade::In),
    };
    (from..grades.len()).find(is_down)
}

/// What happened between an injection and the next, or the end of the measured window.
fn watch(record: &TrialRecord, seconds: &Seconds, strike: &Strike, next_s: f64, history: &mut History) -> Recovery {
    let mut recovery = Recovery::default();
    let is_closed = matches!(record.load, LoadPlan::Closed { .. });
    let whom = || {
        let injection = &record.faults[strike.places[0]];
        format!("{} of {} {}", injection.kind, injection.role, injection.replica)
    };
    let command = strike.command_s.max(0.0) as u32;
    let end = if next_s < f64::from(record.window.end) { next_s as u32 } else { record.window.end };
    let band = match history.band(seconds, command, is_closed) {
        Ok(band) => band,
        Err(why) => {
            recovery.unknown = Some(format!("baseline: {why}"));
            let over_s = strike.gone_s().unwrap_or_else(|| strike.origin_s());
            history.free_from = history.free_from.max(over_s.ceil() as u32);
            return recovery;
        }
    };
    recovery.baseline = Some(band.baseline);
    notes(&mut recovery, &band, strike);
    let origin = strike.origin_s().max(0.0) as u32;
    let windows = seconds.windows(origin..end, band.length());
    if windows.is_empty() {
        recovery.unknown = Some("nothing was watched after its effect".to_owned());
        history.free_from = history.free_from.max(end);
        return recovery;
    }
    let over = strike.gone_s().map_or(origin, |gone_s| gone_s.ceil() as u32);
    let course = Course::of(&band, &windows, strike, end);
    if course.is_open {
        if course.down.is_none() {
            recovery.unknown = Some(NOT_WATCHED.to_owned());
            history.free_from = history.free_from.max(over);
            return recovery;
        }
        if course.back.is_some() {
            recovery.notes.push(NOT_WATCHED.to_owned());
        }
    }
    course.tell(&mut recovery, &windows, strike);
    let span = course.span(&band, seconds, &windows, strike);
    sums(&mut recovery, &band, &span, seconds);
    blast(&mut recovery, &band, seconds, &span);
    from_gauges(&mut recovery, record, strike, &span, f64::from(end));
    recovery.metastable = metastable(&recovery, &band, &windows, strike);
    match recovery.recovered {
        Recovered::NotWithin(_) => history.open = Some((band, over.max(origin), whom())),
        _ => history.free_from = over.max(recovery.suffered_to_s.map_or(0, |s| s as u32)),
    }
    recovery
}

fn notes(recovery: &mut Recovery, band: &Band, strike: &Strike) {
    let baseline = &band.baseline;
    if baseline.windows < band::FULL as usize {
        recovery.notes.push(format!("the baseline is short: {} windows of {}", baseline.windows, band::FULL));
    }
    if band.length() > 1 {
        recovery.notes.push(format!("few operations: every instant is known to {} s", band.length()));
    }
    if strike.effect_s.is_none() {
        recovery.notes.push("its effect was not seen: instants count from the command".to_owned());
    }
}

/// How the windows went.
struct Course {
    /// The first out of band.
    down: Option<usize>,
    /// The first of five in band after that.
    back: Option<usize>,
    /// The first out of band again.
    relapse: Option<usize>,
    /// The first window after the last that the fault touched; past the end where users are still down.
    settled: usize,
    /// Where they are still down: the first of the windows in band, too few to say, with which it ends.
    bound: usize,
    /// Whether watching ended while the fault could still do harm: sooner than five windows after it was gone, or with a
    /// window out of band that might have been the first of several.
    is_open: bool,
}

impl Course {
    fn of(band: &Band, windows: &[Window], strike: &Strike, end: u32) -> Self {
        let grades: Vec<Grade> = windows.iter().map(|window| band.grade(window)).collect();
        let last_s = strike.gone_s().map_or(f64::from(end), |gone| gone + f64::from(STAYS as u32 * band.length()));
        let blamed = |from: usize| leaves(&grades, from).filter(|place| f64::from(windows[*place].start) <= last_s);
        let trailing = grades.iter().rev().take_while(|grade| **grade == Grade::In).count();
        let ends_out = windows.last().is_some_and(|last| trailing == 0 && f64::from(last.start) <= last_s);
        let is_open = ends_out || strike.gone_s().is_none() || f64::from(end) < last_s;
        let bound = grades.len() - trailing;
        let mut course = Self { down: blamed(0), back: None, relapse: None, settled: 0, bound, is_open };
        let mut down = course.down;
        while let Some(place) = down {
            let Some(back) = stays(&grades, place) else {
                // It came back and went down for good: it had not recovered.
                (course.back, course.relapse, course.settled) = (None, None, grades.len());
                return course;
            };
            course.back = course.back.or(Some(back));
            course.settled = back;
            down = blamed(back);
            course.relapse = course.relapse.or(down);
        }
        course
    }

    fn tell(&self, recovery: &mut Recovery, windows: &[Window], strike: &Strike) {
        let since = |second: u32| (f64::from(second) - strike.origin_s()).max(0.0);
        let start = |place: usize| windows.get(place).map_or(windows[windows.len() - 1].end(), |window| window.start);
        let nulls = &mut recovery.null_reasons;
        let not_ready = || "it was not seen ready again".to_owned();
        recovery.recovered = match (self.down, self.back) {
            (None, _) => Recovered::Absorbed,
            (Some(_), Some(_)) => Recovered::After(since(start(self.settled))),
            (Some(_), None) => Recovered::NotWithin(since(start(self.bound))),
        };
        let after_ready = match (self.down, self.back, strike.ready_s) {
            (None, ..) => Ok(0.0),
            (_, None, _) => Err("users had not recovered when watching ended".to_owned()),
            (_, _, None) => Err(not_ready()),
            (_, Some(_), Some(ready_s)) => Ok((f64::from(start(self.settled)) - ready_s).max(0.0)),
        };
        recovery.after_ready_s = keep(nulls, "after_ready_s", after_ready);
        let never = || "users never left the band".to_owned();
        let detect = self.down.map(|down| since(start(down))).ok_or_else(never);
        recovery.time_to_detect_s = keep(nulls, "time_to_detect_s", detect);
        recovery.relapsed_s = self.relapse.map(|relapse| since(start(relapse)));
        recovery.suffered_from_s = self.down.map(|down| f64::from(start(down)));
        recovery.suffered_to_s = self.down.map(|_| f64::from(start(self.settled)));
    }

    /// The windows that the sums are over: from the effect until users were served as before; where they never left the
    /// band, until the fault was gone. What was intended just before the effect was under way when it struck.
    fn span(&self, band: &Band, seconds: &Seconds, windows: &[Window], strike: &Strike) -> Vec<Window> {
        let settled = match (self.down, strike.gone_s()) {
            (Some(_), _) => self.settled,
            (None, Some(gone_s)) => windows.partition_point(|window| f64::from(window.start) < gone_s).max(1),
            (None, None) => windows.len(),
        };
        let mut span = windows[..settled.min(windows.len())].to_vec();
        let (start, length) = (windows[0].start, band.length());
        if self.down == Some(0) && start >= length {
            let before = seconds.windows(start - length..start, length);
            span.splice(0..0, before.into_iter().filter(|window| band.grade(window) != Grade::In));
        }
        span
    }
}

fn sums(recovery: &mut Recovery, band: &Band, span: &[Window], seconds: &Seconds) {
    let Some(within) = within(span) else { return };
    let all = seconds.all(within);
    let outage_s = band.outage_s(span);
    recovery.outage_equivalent_s = Some(outage_s);
    recovery.budget_burnt_percent = Some(100.0 * outage_s / BUDGET_S);
    recovery.bad_operations = Some(all.bad());
    recovery.lost_work = Some(band.lost_work(span));
    let nothing = || "nothing was offered meanwhile".to_owned();
    recovery.availability_percent =
        keep(&mut recovery.null_reasons, "availability_percent", available(&all).ok_or_else(nothing));
}

/// The seconds of windows that follow each other.
fn within(span: &[Window]) -> Option<Range<u32>> {
    Some(span.first()?.start..span.last()?.end())
}

/// Kinds are looked at over all that while, because many have few operations.
fn blast(recovery: &mut Recovery, band: &Band, seconds: &Seconds, span: &[Window]) {
    let Some(within) = within(span) else { return };
    let usual = seconds.kinds(band.baseline.from_s as u32..band.baseline.to_s as u32);
    let nothing = Tally::default();
    let is_worse = |kind: &String, now: &Tally| {
        let before = usual.get(kind).unwrap_or(&nothing);
        let most = band::most_bad(before.bad_share().unwrap_or(0.0), now.offered as f64);
        let fails = now.bad() > 1 && now.bad_share().is_some_and(|share| share > most);
        now.wrong > 0 || fails || is_slower(before, now)
    };
    let kinds = seconds.kinds(within);
    recovery.blast_radius =
        kinds.iter().filter(|(kind, now)| is_worse(kind, now)).map(|(kind, _)| kind.clone()).collect();
}

/// Whether surely more than one in twenty takes longer than 1.25 times what one in twenty took.
fn is_slower(before: &Tally, now: &Tally) -> bool {
    if before.answered().min(now.answered()) < KIND_DURATIONS {
        return false;
    }
    let chance = 3.0 * (0.05 * 0.95 / now.answered() as f64).sqrt();
    match (now.quantile_ms(0.95 - chance), before.quantile_ms(0.95)) {
        (Some(now), Some(before)) => now > 1.25 * before,
        _ => false,
    }
}

fn from_gauges(recovery: &mut Recovery, record: &TrialRecord, strike: &Strike, span: &[Window], end_s: f64) {
    let nulls = &mut recovery.null_reasons;
    let origin_s = strike.origin_s();
    recovery.system_detects_s = keep(nulls, "system_detects_s", gauges::system_detects(record, origin_s, end_s));
    if let Some(within) = within(span) {
        let (from_s, to_s) = (f64::from(within.start), f64::from(within.end));
        let offered = span.iter().map(|window| window.tally.offered).sum();
        let tried = gauges::amplification(record, from_s, to_s, offered);
        recovery.amplification = keep(nulls, "amplification", tried);
        recovery.peak_in_flight = keep(nulls, "peak_in_flight", gauges::peak_in_flight(record, from_s, to_s));
    }
    let usual = recovery.baseline.map_or((0.0, 0.0), |baseline| (baseline.from_s, baseline.to_s));
    let drain = match strike.ready_s {
        Some(ready_s) => gauges::drain(record, usual, ready_s, end_s),
        None => Err("it was not seen ready again".to_owned()),
    };
    recovery.drain_s = keep(nulls, "drain_s", drain);
}

/// Slow answers alone are no collapse: the load keeps down what does less than it did under the same load before.
fn metastable(recovery: &Recovery, band: &Band, windows: &[Window], strike: &Strike) -> Option<bool> {
    if !recovery.recovered.is_censored() {
        return Some(false);
    }
    let (ready_s, repair_s) = (strike.ready_s?, strike.repair_s.or(strike.ready_s)?);
    let held = METASTABLE * (repair_s - strike.origin_s()).max(0.0);
    let least = METASTABLE_WINDOWS * band.baseline.window_s;
    let last = &windows[windows.len().saturating_sub(STAYS)..];
    let watched_s = f64::from(last.last()?.end()) - ready_s;
    (watched_s >= held.max(least)).then(|| band.lacks_goodput(last))
}
