//! What is read of the replicas of a trial while it runs: samples, operations, gauges, journal.
//!
//! A replica that is down or held is not read. One that was started again numbers what it tells from 1 anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use kit::{Clock, OpsRecord};

use super::AdminClient;
use super::history::History;
use super::running::{Running, Slot};
use super::trial::Site;
use crate::archive::TrialFiles;
use crate::experiment::Trial;
use crate::faults::Injection;
use crate::load::Step;
use crate::measure::abort::{Abort, Watch};
use crate::measure::{Lost, OpsLog, Participant, Sample, TrialRecord, summarize_second};
use crate::report::csv;

/// What was read so far.
pub struct Collected {
    ops: OpsLog,
    /// Gauges, also those that are measured beside the replicas.
    pub series: Vec<Sample>,
    journal: Vec<kit::batch::Entry>,
    /// Everything up to the last row of the history.
    totals: OpsRecord,
    /// The kind whose operations the history counts, once there is one; all until then.
    counted: Option<&'static str>,
    seen_counted: bool,
    /// Whether the gauges of all roles under test are read, not only of those that measure.
    all_gauges: bool,
    /// Records of seconds whose row of the history is not written yet, by kind.
    waiting: BTreeMap<u32, BTreeMap<String, OpsRecord>>,
    /// The gauge `users` of each generator, by second.
    users: BTreeMap<usize, BTreeMap<u32, f64>>,
    /// Looks whether the trial is to be ended early, and why it was found to be.
    watch: Option<(Watch, Range<u32>)>,
    aborted: Option<String>,
    /// What was read last from each.
    read: BTreeMap<usize, Read>,
    /// Each operation, where that is asked for.
    pub history: Option<History>,
    /// What became of the writes, where that was checked.
    pub lost: Option<Lost>,
}

/// Sequence numbers of what was read last of one life of a replica.
#[derive(Clone, Copy, Default)]
struct Read {
    life: u32,
    ops: u64,
    series: u64,
    journal: u64,
    history: u64,
}

/// When a trial began.
#[derive(Clone, Copy, Default)]
pub struct Origin {
    /// On the lab's monotonic clock.
    pub ns: u64,
    /// On its wall clock.
    pub unix_s: f64,
}

/// Readings of every replica, at the same place of every interval.
pub fn sample(
    running: &Running<'_>,
    origin: Origin,
    clock: &Clock,
    collected: &mut Collected,
    files: &mut TrialFiles,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for slot in &running.slots {
        let reading = slot.reading(clock);
        let t_s = (reading.at_ns.saturating_sub(origin.ns)) as f64 / 1e9;
        let Participant { role, replica, .. } = &slot.participant;
        let mut push = |name: &str, value: Option<f64>| {
            samples.push(Sample { t_s, name: name.to_owned(), role: role.clone(), replica: *replica, value });
        };
        if let Some(cpu) = reading.cpu {
            push("cpu", cpu);
        }
        push("rss_bytes", reading.usage.rss_bytes.map(|bytes| bytes as f64));
        push("open_files", reading.usage.open_files.map(|files| files as f64));
        push("threads", reading.usage.threads.map(|threads| threads as f64));
    }
    files.series(&samples)?;
    collected.series.append(&mut samples);
    Ok(())
}

impl Collected {
    /// Nothing yet. Of a trial in which something is broken the gauges of all roles under test are read.
    pub fn new(counted: Option<&'static str>, all_gauges: bool) -> anyhow::Result<Self> {
        Ok(Self {
            counted,
            seen_counted: false,
            all_gauges,
            ops: OpsLog::new()?,
            series: Vec::new(),
            journal: Vec::new(),
            totals: OpsRecord::default(),
            waiting: BTreeMap::new(),
            users: BTreeMap::new(),
            watch: None,
            aborted: None,
            read: BTreeMap::new(),
            history: None,
            lost: None,
        })
    }

    /// Looks from now on, in a window, whether the trial is to be ended early.
    pub fn watch(&mut self, abort: Option<&Abort>, window: &Range<u32>) {
        self.watch = abort.map(|abort| (Watch::new(abort), window.clone()));
    }

    /// Why the trial is to be ended early, if so.
    pub fn aborted(&self) -> Option<String> {
        self.aborted.as_ref().map(|why| format!("aborted: {why}"))
    }

    /// Takes what was measured since the last read: operations, gauges, journal.
    pub fn read(&mut self, running: &Running<'_>, origin: Origin, files: &mut TrialFiles) -> anyhow::Result<()> {
        let mut open_from = u32::MAX;
        let mut samples = Vec::new();
        for (index, slot) in running.slots.iter().enumerate() {
            if slot.measures {
                let read = slot.ask(|admin, life| {
                    let mut read = self.read_of(index, life);
                    open_from = open_from.min(self.read_ops(admin, slot, &mut read)?);
                    let points = admin.series(read.series)?;
                    self.keep_gauges(index, slot, &points, origin, &mut read, &mut samples)?;
                    self.read_journal(admin, slot, &mut read, files)?;
                    if let Some(history) = &mut self.history {
                        history.read(admin, &mut read.history, files)?;
                    }
                    self.read.insert(index, read);
                    anyhow::Ok(())
                });
                read.transpose()?;
            } else if self.all_gauges && slot.participant.under_test {
                // One that is too busy to answer is asked again; nothing is lost by that.
                let read = slot.ask(|admin, life| {
                    let read = self.read_of(index, life);
                    admin.series_now(read.series).ok().map(|points| (read, points))
                });
                if let Some((mut read, points)) = read.flatten() {
                    self.keep_gauges(index, slot, &points, origin, &mut read, &mut samples)?;
                    self.read.insert(index, read);
                }
            }
        }
        files.series(&samples)?;
        self.series.append(&mut samples);
        self.write_history(open_from, origin, files)
    }

    fn read_of(&self, index: usize, life: u32) -> Read {
        let read = self.read.get(&index).copied().filter(|read| read.life == life);
        read.unwrap_or(Read { life, ..Read::default() })
    }

    /// Gives back the oldest second that is not complete.
    fn read_ops(&mut self, admin: &AdminClient, slot: &Slot<'_>, read: &mut Read) -> anyhow::Result<u32> {
        let mut open_from = u32::MAX;
        for line in admin.ops(read.ops)?.lines() {
            let record = self.ops.add(line)?;
            if record.open {
                // The seconds from the oldest open one on are not complete.
                open_from = open_from.min(record.second);
            } else {
                pass(&mut read.ops, record.seq, "seconds of operations", slot)?;
                self.seen_counted |= self.counted == Some(record.kind.as_str());
                let of_second = self.waiting.entry(record.second).or_default();
                of_second.entry(record.kind.clone()).or_default().merge(&record);
            }
        }
        Ok(open_from)
    }

    fn keep_gauges(
        &mut self,
        index: usize,
        slot: &Slot<'_>,
        points: &str,
        origin: Origin,
        read: &mut Read,
        samples: &mut Vec<Sample>,
    ) -> anyhow::Result<()> {
        let Participant { role, replica, .. } = &slot.participant;
        for line in points.lines() {
            let point: kit::series::Point = serde_json::from_str(line)?;
            pass(&mut read.series, point.seq, "gauges", slot)?;
            let t_s = point.at_ns.saturating_sub(origin.ns) as f64 / 1e9;
            if point.name == "users" {
                self.users.entry(index).or_default().insert(t_s as u32, point.value.unwrap_or(0.0));
            }
            let (role, replica) = (role.clone(), *replica);
            samples.push(Sample { t_s, name: point.name, role, replica, value: point.value });
        }
        Ok(())
    }

    fn read_journal(
        &mut self,
        admin: &AdminClient,
        slot: &Slot<'_>,
        read: &mut Read,
        files: &mut TrialFiles,
    ) -> anyhow::Result<()> {
        let told = admin.journal(read.journal)?;
        for line in told.lines() {
            let line: kit::journal::Line<kit::batch::Entry> = serde_json::from_str(line)?;
            pass(&mut read.journal, line.seq, "entries of the journal", slot)?;
            self.journal.push(line.entry);
        }
        files.journal(&told)
    }

    /// Writes what is written whole once the trial has ended.
    pub fn finish(
        &mut self,
        site: &Site<'_>,
        trial: &Trial,
        window: &Range<u32>,
        origin: Origin,
        files: &mut TrialFiles,
    ) -> anyhow::Result<()> {
        self.write_history(u32::MAX, origin, files)?;
        let measured_s = f64::from(window.end - window.start);
        files.finish(&self.ops, window.clone(), measured_s, &|kind| method_of(site, trial, kind), origin.unix_s)
    }

    /// The record of a trial.
    pub fn record(
        self,
        site: &Site<'_>,
        trial: &Trial,
        participants: Vec<Participant>,
        faults: Vec<Injection>,
        failure: Option<String>,
    ) -> TrialRecord {
        let Self { ops, series, journal, history, lost, .. } = self;
        let load = site.experiment.load.at(&trial.levels);
        let scenario = site.system.scenario(site.experiment, &trial.levels);
        TrialRecord {
            trial: trial.clone(),
            window: site.experiment.window(&load),
            load,
            ops,
            series,
            journal,
            measured_s: None,
            participants,
            failure,
            faults,
            lost,
            users: history.map(|history| history.users).unwrap_or_default(),
            repeatable: repeatable(&scenario.steps),
        }
    }

    /// How many users all generators had in a second.
    fn users_at(&self, second: u32) -> u32 {
        let last = |gauge: &BTreeMap<u32, f64>| gauge.range(..=second).next_back().map_or(0.0, |(_, users)| *users);
        self.users.values().map(last).sum::<f64>() as u32
    }

    /// Shows the watch the seconds before this one in which nothing was intended: they are complete, because this one is.
    fn watch_silence(&mut self, until: u32) {
        let Some((watch, window)) = &mut self.watch else { return };
        let since = watch.last().map_or(until, |last| last + 1);
        for second in since..until {
            let nothing = OpsRecord { second, ..OpsRecord::default() };
            if let Some(why) = watch.see(&summarize_second(&nothing, window)) {
                self.aborted.get_or_insert(why);
            }
        }
    }

    /// Writes the rows of complete seconds before `until`.
    fn write_history(&mut self, until: u32, origin: Origin, files: &mut TrialFiles) -> anyhow::Result<()> {
        while let Some(entry) = self.waiting.first_entry() {
            // A second of another generator may still be on its way: rows lag one second behind the newest.
            if *entry.key() >= until {
                break;
            }
            let (second, kinds) = entry.remove_entry();
            self.watch_silence(second);
            let mut record = OpsRecord::default();
            let counts = |kind: &str| !self.seen_counted || self.counted == Some(kind);
            kinds.iter().filter(|(kind, _)| counts(kind)).for_each(|(_, of_kind)| record.merge(of_kind));
            self.totals.merge(&record);
            record.second = second;
            if let Some((watch, window)) = &mut self.watch
                && let Some(why) = watch.see(&summarize_second(&record, window))
            {
                self.aborted.get_or_insert(why);
            }
            let unix_s = (origin.unix_s + f64::from(second)) as u64;
            files.history(&csv::history_row(unix_s, self.users_at(second), &record, &self.totals))?;
        }
        Ok(())
    }
}

/// The kind of a step's operations.
fn kind_of(step: &Step) -> String {
    step.name.clone().unwrap_or_else(|| format!("{} {}", step.method, step.path))
}

/// The kinds of operation of which every step may be sent again safely.
fn repeatable(steps: &[Step]) -> BTreeSet<String> {
    let unsafe_kinds: BTreeSet<_> = steps.iter().filter(|step| !step.is_repeatable()).map(kind_of).collect();
    steps.iter().map(kind_of).filter(|kind| !unsafe_kinds.contains(kind)).collect()
}

/// The HTTP method of a kind of operation, for the tables.
fn method_of(site: &Site<'_>, trial: &Trial, kind: &str) -> String {
    let scenario = site.system.scenario(site.experiment, &trial.levels);
    let step = scenario.steps.iter().find(|step| step.name.as_deref() == Some(kind));
    step.map_or_else(String::new, |step| step.method.clone())
}

/// Passes on to the next of what a replica tells in a row. It keeps what nobody has read for a while and no longer, and a
/// trial that lacks some of it must not look whole.
fn pass(read: &mut u64, seq: u64, what: &str, slot: &Slot<'_>) -> anyhow::Result<()> {
    let lost = seq.saturating_sub(*read + 1);
    *read = seq;
    anyhow::ensure!(
        lost == 0,
        "{lost} {what} of {} are lost, because they were not read in time; give the lab more CPU time, or have fewer told \
         (a longer batch interval, a lower rate)",
        slot.name()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_forgot_before_it_was_read_is_told() {
        let (mut read, of) = (4, Slot::external());
        assert!([5, 6, 7].iter().all(|seq| pass(&mut read, *seq, "gauges", &of).is_ok()));
        let error = pass(&mut read, 11, "gauges", &of).unwrap_err().to_string();
        assert!(error.starts_with("3 gauges of") && error.contains("were not read in time"), "{error}");
        assert!(pass(&mut read, 12, "gauges", &of).is_ok());
    }
}
