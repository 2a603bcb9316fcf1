//! Series with known answers.

use std::collections::BTreeMap;

use kit::Outcome;
use proptest::prelude::*;

use super::made::{Burst, by_chance, closed, due, failed, gauge, good, injection, record};
use super::{Recovered, Recovery, RecoverySummary, analyse};
use crate::faults::Injection;
use crate::measure::{TrialRecord, summarize_trial};

fn summary(record: &TrialRecord) -> RecoverySummary {
    summarize_trial(record).recovery.unwrap()
}

fn only(record: &TrialRecord) -> Recovery {
    let mut all = summary(record).injections;
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn after(recovery: &Recovery) -> f64 {
    match recovery.recovered {
        Recovered::After(s) => s,
        other => panic!("{other:?} {:?}", recovery.unknown),
    }
}

fn near(found: Option<f64>, expected: f64, within: f64) {
    assert!(found.is_some_and(|found| (found - expected).abs() <= within), "{found:?}, not {expected}");
}

/// 100 operations a second of 20 ms, and what is said of some seconds.
fn plain(seconds: u32, faults: Vec<Injection>, of: impl Fn(u32) -> Option<Vec<Burst>>) -> TrialRecord {
    record(seconds, faults, |second| of(second).unwrap_or_else(|| vec![good(100, 20.0)]))
}

fn out(seconds: std::ops::Range<u32>) -> impl Fn(u32) -> Option<Vec<Burst>> {
    move |second| seconds.contains(&second).then(|| vec![failed(100)])
}

#[test]
fn a_full_outage_of_six_seconds_is_read_as_such_and_not_as_sixteen_at_half() {
    // 48.8 a second, of which 88.5 % need what is down; commanded at 30 s, gone from 40.2 to 46.2.
    for phase in [0.0, 0.3, 0.8, 1.2] {
        let (effect_s, ready_s) = (40.0 + phase, 46.0 + phase);
        let injection = injection(30.0, effect_s, 40.3 + phase, ready_s);
        let record = record(90, vec![injection], |second| {
            let all = due(48.8, second);
            let begins = f64::from(second);
            let down = (ready_s.min(begins + 1.0) - effect_s.max(begins)).clamp(0.0, 1.0);
            let bad = (all as f64 * 0.885 * down).round() as u64;
            vec![good(all - bad, 20.0), failed(bad)]
        });
        let recovery = only(&record);
        near(recovery.time_to_effect_s, 10.0 + phase, 1e-9);
        near(recovery.outage_equivalent_s, 5.31, 0.08);
        near(recovery.bad_operations.map(|count| count as f64), 259.0, 3.0);
        // Few operations: windows are of two seconds.
        assert_eq!(recovery.baseline.unwrap().window_s, 2.0);
        near(Some(after(&recovery)), 6.0, 2.0);
        near(recovery.time_to_detect_s, 0.0, 2.0);
        near(recovery.after_ready_s, 0.0, 2.0);
        near(recovery.lost_work, 259.0, 5.0);
        near(recovery.budget_burnt_percent, 0.205, 0.01);
        near(recovery.availability_percent, 11.5, 25.0);
    }
}

#[test]
fn every_instant_is_known_within_a_window() {
    for (effect_s, ready_s) in [(30.0, 36.0), (30.4, 36.7), (33.9, 41.1)] {
        let faults = vec![injection(30.0, effect_s, ready_s - 1.0, ready_s)];
        let record = plain(90, faults, |second| {
            let begins = f64::from(second);
            let down = (ready_s.min(begins + 1.0) - effect_s.max(begins)).clamp(0.0, 1.0);
            let bad = (100.0 * down).round() as u64;
            Some(vec![good(100 - bad, 20.0), failed(bad)])
        });
        let recovery = only(&record);
        near(Some(after(&recovery)), ready_s - effect_s, 1.0);
        near(recovery.time_to_detect_s, 0.0, 1.0);
        near(recovery.after_ready_s, 0.0, 1.0);
        near(recovery.suffered_from_s, effect_s, 1.0);
        near(recovery.suffered_to_s, ready_s, 1.0);
        near(recovery.outage_equivalent_s, ready_s - effect_s, 0.02);
        assert_eq!((recovery.metastable, recovery.blast_radius), (Some(false), vec!["list".to_owned()]));
    }
}

#[test]
fn a_backlog_that_drains_slowly_counts_until_it_is_gone() {
    // Ready at 40 s; what waited is worked off until 55 s, and all of it is late until then.
    let late = |second: u32| match second {
        30..40 => Some(vec![failed(100)]),
        40..55 => Some(vec![good(100, 20.0 + 100.0 * f64::from(55 - second))]),
        _ => None,
    };
    let mut record = plain(90, vec![injection(30.0, 30.0, 39.5, 40.0)], late);
    record.series = gauge("in_flight", "load", 90, |t| match t {
        30.0..40.0 => 500.0,
        40.0..55.0 => 3.0 + 20.0 * (55.0 - t),
        _ => 3.0,
    });
    let recovery = only(&record);
    near(Some(after(&recovery)), 25.0, 1.0);
    near(recovery.after_ready_s, 15.0, 1.0);
    near(recovery.drain_s, 15.0, 1.0);
    near(recovery.outage_equivalent_s, 10.0, 0.01);
    near(recovery.peak_in_flight, 500.0, 0.0);
}

#[test]
fn a_fault_that_nobody_felt_is_absorbed() {
    let recovery = only(&plain(60, vec![injection(30.0, 30.0, 40.0, 40.5)], |_| None));
    assert_eq!((recovery.recovered, recovery.metastable), (Recovered::Absorbed, Some(false)));
    assert_eq!((recovery.outage_equivalent_s, recovery.bad_operations), (Some(0.0), Some(0)));
    assert_eq!((recovery.after_ready_s, recovery.suffered_from_s), (Some(0.0), None));
    assert_eq!(recovery.null_reasons["time_to_detect_s"], "users never left the band");
    assert!(recovery.blast_radius.is_empty());
}

#[test]
fn a_kind_that_is_rare_is_told_though_users_as_a_whole_feel_nothing() {
    let record = plain(60, vec![injection(30.0, 30.0, 40.0, 40.0)], |second| {
        let rare = if (30..40).contains(&second) { failed(1) } else { good(1, 20.0) };
        Some(vec![good(199, 20.0), rare.of("export")])
    });
    let recovery = only(&record);
    assert_eq!((recovery.recovered, recovery.blast_radius), (Recovered::Absorbed, vec!["export".to_owned()]));
    assert_eq!(recovery.bad_operations, Some(10));
}

#[test]
fn what_is_not_over_took_longer_than_was_watched() {
    // Down to the end, and down until too few windows are left to say.
    for (until, longer) in [(60, 30.0), (57, 27.0)] {
        let recovery = only(&plain(60, vec![injection(30.0, 30.0, 35.0, 36.0)], out(30..until)));
        assert_eq!(recovery.recovered, Recovered::NotWithin(longer));
        assert_eq!((recovery.after_ready_s, recovery.bad_operations), (None, Some(u64::from(until - 30) * 100)));
        near(recovery.suffered_to_s, 60.0, 0.0);
    }
}

#[test]
fn coming_back_for_three_windows_is_no_recovery() {
    let flaps = |second: u32| match second {
        30..34 | 37..40 | 43..45 => Some(vec![failed(100)]),
        _ => None,
    };
    let recovery = only(&plain(70, vec![injection(30.0, 30.0, 39.0, 40.0)], flaps));
    assert_eq!((after(&recovery), recovery.relapsed_s), (15.0, None));
    near(recovery.outage_equivalent_s, 9.0, 0.0);
}

#[test]
fn a_relapse_when_the_target_comes_back_is_counted_and_told() {
    let twice = |second: u32| match second {
        30..32 | 41..43 => Some(vec![failed(100)]),
        _ => None,
    };
    let recovery = only(&plain(70, vec![injection(30.0, 30.0, 40.0, 41.0)], twice));
    assert_eq!((after(&recovery), recovery.relapsed_s, recovery.suffered_to_s), (13.0, Some(11.0), Some(43.0)));
    assert_eq!(recovery.after_ready_s, Some(2.0));
    assert_eq!((recovery.bad_operations, recovery.outage_equivalent_s), (Some(400), Some(4.0)));
    // One that stays is none: it had not recovered.
    let stays = |second: u32| ((30..32).contains(&second) || second >= 41).then(|| vec![failed(100)]);
    let recovery = only(&plain(90, vec![injection(30.0, 30.0, 40.0, 41.0)], stays));
    assert_eq!((recovery.recovered, recovery.metastable), (Recovered::NotWithin(60.0), Some(true)));
}

#[test]
fn load_that_keeps_a_healed_system_down_is_metastable_when_watched_long_enough() {
    // Five seconds of fault, from 30 to 35: three times as long is 15 s after ready.
    for (seconds, expected) in [(49, None), (51, Some(true)), (90, Some(true))] {
        let recovery = only(&plain(seconds, vec![injection(30.0, 30.0, 35.0, 35.0)], out(30..seconds)));
        assert_eq!(recovery.metastable, expected, "{seconds}");
    }
}

#[test]
fn a_fault_that_only_slows_is_seen_by_p95() {
    let slow = |second: u32| (30..37).contains(&second).then(|| vec![good(100, 60.0)]);
    let recovery = only(&plain(70, vec![injection(30.0, 30.0, 37.0, 37.0)], slow));
    assert_eq!((after(&recovery), recovery.bad_operations), (7.0, Some(0)));
    assert_eq!(recovery.outage_equivalent_s, Some(0.0));
    assert_eq!(recovery.blast_radius, ["list"]);
}

#[test]
fn wrong_answers_are_suffering_though_they_are_fast() {
    let wrong = Burst { outcome: Outcome::Wrong, ..good(1, 20.0) };
    let record = plain(70, vec![injection(30.0, 30.0, 37.0, 37.0)], |second| {
        (30..37).contains(&second).then(|| vec![good(199, 20.0), wrong.of("stats")])
    });
    let recovery = only(&record);
    assert_eq!((after(&recovery), recovery.blast_radius), (7.0, vec!["stats".to_owned()]));
    let before = plain(70, vec![injection(30.0, 30.0, 37.0, 37.0)], |second| {
        (second == 20).then(|| vec![good(99, 20.0), wrong])
    });
    let why = only(&before).unknown.unwrap();
    assert_eq!(why, "baseline: 1 answers were wrong before it, and in band none may be");
}

#[test]
fn users_who_wait_send_less_and_that_is_their_outage() {
    // All hang from 30 to 40, and are answered well in the end.
    let hang = |second: u32| match second {
        30 => Some(vec![good(10, 10_000.0)]),
        31..40 => Some(Vec::new()),
        _ => None,
    };
    let recovery = only(&closed(plain(70, vec![injection(30.0, 30.0, 40.0, 40.0)], hang)));
    assert_eq!((after(&recovery), recovery.bad_operations), (10.0, Some(0)));
    near(recovery.outage_equivalent_s, 9.0, 0.0);
    near(recovery.lost_work, 990.0, 0.0);
    // A third of the users hang, and the others are served as before.
    let third = |second: u32| match second {
        30 => Some(vec![good(64, 20.0), good(3, 8_000.0)]),
        31..38 => Some(vec![good(67, 20.0)]),
        _ => None,
    };
    let recovery = only(&closed(plain(70, vec![injection(30.0, 30.0, 38.0, 38.0)], third)));
    assert_eq!((after(&recovery), recovery.outage_equivalent_s), (8.0, Some(0.0)));
    near(recovery.lost_work, 8.0 * 33.0, 0.0);
}

#[test]
fn chance_alone_is_absorbed() {
    for (rate, fails, is_closed) in
        [(60.0, 0.0, false), (150.0, 0.002, false), (150.0, 0.002, true), (300.0, 0.0, true)]
    {
        let count = |wanted: fn(&Recovery) -> bool| {
            let one = |seed: u64| {
                let record = record(45, vec![injection(22.0, 22.1, 32.0, 32.4)], |_| Vec::new());
                let record = if is_closed { closed(record) } else { record };
                analyse(&record, &by_chance(45, rate, fails, seed)).injections.remove(0)
            };
            (0..100).map(one).filter(wanted).count()
        };
        let absorbed = count(|recovery| recovery.recovered == Recovered::Absorbed);
        assert!(absorbed >= 95, "{absorbed} of 100 at {rate}/s, closed: {is_closed}");
    }
}

#[test]
fn a_baseline_that_moves_strays_or_is_short_leaves_all_unknown() {
    let fault = || vec![injection(30.0, 30.0, 36.0, 36.0)];
    let waves = |second: u32| (second < 30).then(|| vec![good(if second.is_multiple_of(2) { 100 } else { 40 }, 20.0)]);
    let rises = |second: u32| (second < 30).then(|| vec![good(70 + u64::from(second), 20.0)]);
    let slows = |second: u32| (second < 30).then(|| vec![good(100, 20.0 + 4.0 * f64::from(second))]);
    let early = vec![injection(6.0, 6.0, 9.0, 9.0)];
    let cases: [(TrialRecord, &str); 5] = [
        (closed(plain(60, fault(), rises)), "baseline: goodput before it rises by "),
        (closed(plain(60, fault(), waves)), "baseline: goodput before it varies by "),
        (plain(60, fault(), slows), "baseline: p95 before it rises by "),
        (plain(60, early, |_| None), "baseline: 4 steady seconds before it make 4 windows of 1 s, and 5 are needed"),
        (record(60, fault(), |_| vec![good(1, 20.0)]), "baseline: no window of up to 60 s before it has 50 operations"),
    ];
    for (record, expected) in cases {
        let trial = summarize_trial(&record);
        let recovery = &trial.recovery.as_ref().unwrap().injections[0];
        assert!(recovery.unknown.as_ref().is_some_and(|why| why.starts_with(expected)), "{:?}", recovery.unknown);
        assert_eq!((recovery.recovered, recovery.outage_equivalent_s), (Recovered::Unknown, None));
        let guard = trial.guards.iter().find(|guard| guard.id == "baseline-unstable").unwrap();
        assert!(guard.what.starts_with(expected) && guard.touches == ["recovery"], "{guard:?}");
    }
    let short = only(&plain(60, vec![injection(10.0, 10.0, 15.0, 15.0)], out(10..15)));
    assert_eq!((after(&short), short.notes), (5.0, vec!["the baseline is short: 8 windows of 18".to_owned()]));
}

#[test]
fn windows_are_as_wide_as_it_takes_for_fifty_operations() {
    for (rate, expected) in [(60.0, 1.0), (30.0, 2.0), (12.0, 5.0), (6.0, 10.0)] {
        let made = record(400, vec![injection(200.0, 200.0, 230.0, 230.0)], |second| {
            let all = due(rate, second);
            vec![if (200..230).contains(&second) { failed(all) } else { good(all, 20.0) }]
        });
        let recovery = only(&made);
        assert_eq!(recovery.baseline.unwrap().window_s, expected, "{rate}");
        near(Some(after(&recovery)), 30.0, 0.0);
    }
}

#[test]
fn an_injection_before_the_one_before_was_recovered_from_has_no_baseline() {
    let two = |second_s: f64| vec![injection(30.0, 30.0, 35.0, 35.0), injection(second_s, second_s, 70.0, 70.0)];
    let summary_of = |second: u32, down: std::ops::Range<u32>| {
        summary(&plain(110, two(f64::from(second)), move |s| {
            (down.contains(&s) || (second..70).contains(&s)).then(|| vec![failed(100)])
        }))
    };
    let overlapping = summary_of(50, 30..50);
    let [first, second] = overlapping.injections.as_slice() else { panic!() };
    assert_eq!(first.recovered, Recovered::NotWithin(20.0));
    let why = "baseline: the injection before (stop-start of task-service 1) had not been recovered from";
    assert_eq!((second.unknown.as_deref(), second.recovered), (Some(why), Recovered::Unknown));
    let apart = summary_of(60, 30..36);
    let [first, second] = apart.injections.as_slice() else { panic!() };
    assert_eq!((after(first), after(second)), (6.0, 10.0));
    // Its baseline begins where users were served as before.
    assert_eq!(second.baseline.unwrap().from_s, 40.0);
    let close = summary_of(45, 30..36);
    assert_eq!(close.injections[1].baseline.unwrap().from_s, 36.0);
    assert_eq!(close.injections[1].notes, ["the baseline is short: 7 windows of 18"]);
}

#[test]
fn injections_that_strike_together_are_one_event() {
    let mut other = injection(30.2, 30.6, 40.0, 41.0);
    other.replica = 2;
    let both = summary(&plain(80, vec![injection(30.0, 30.1, 40.0, 40.5), other], out(30..42)));
    let [first, second] = both.injections.as_slice() else { panic!() };
    assert_eq!((first.together_with, second.together_with), (None, Some(0)));
    near(Some(after(first)), 11.9, 1e-9);
    assert_eq!((first.recovered, first.bad_operations), (second.recovered, second.bad_operations));
    near(second.time_to_effect_s, 0.4, 1e-9);
    near(first.after_ready_s, 1.0, 1e-9);
}

#[test]
fn two_kinds_of_operation_that_overlap_are_told_apart() {
    // Reads fail from 30 to 36, writes are slow from 33 to 40.
    let record = plain(80, vec![injection(30.0, 30.0, 40.0, 40.0)], |second| {
        let reads = if (30..36).contains(&second) { failed(60) } else { good(60, 10.0) };
        let writes = good(40, if (33..40).contains(&second) { 300.0 } else { 30.0 });
        Some(vec![reads.of("read"), writes.of("write"), good(20, 5.0).of("health")])
    });
    let summary = summary(&record);
    let recovery = &summary.injections[0];
    assert_eq!((after(recovery), recovery.bad_operations), (10.0, Some(360)));
    assert_eq!(recovery.blast_radius, ["read", "write"]);
    assert_eq!(summary.by_kind["write"], 100.0);
    near(summary.by_kind.get("read").copied(), 92.5, 1e-9);
}

#[test]
fn gauges_tell_what_the_system_knew_and_how_often_it_tried() {
    let mut record = plain(60, vec![injection(30.0, 30.0, 36.0, 36.0)], out(30..36));
    record.repeatable = ["list".to_owned()].into();
    record.users = BTreeMap::from([(1, (100, 100)), (2, (50, 100)), (3, (90, 100))]);
    // Three tries for each operation while it is down, and a counter that starts anew with its process.
    record.series = gauge("tries", "gateway", 60, |t| match t {
        ..30.0 => 100.0 * t,
        30.0..36.0 => 3_000.0 + 300.0 * (t - 30.0),
        _ => 100.0 * (t - 36.0),
    });
    record.series.extend(gauge(
        "breaker_open",
        "task-service",
        60,
        |t| if (31.5..36.0).contains(&t) { 1.0 } else { 0.0 },
    ));
    let summary = summary(&record);
    let recovery = &summary.injections[0];
    assert_eq!(recovery.system_detects_s, Some(1.5));
    near(recovery.amplification, 2.75, 0.26);
    assert_eq!(recovery.null_reasons["peak_in_flight"], "no generator told its operations under way meanwhile");
    assert_eq!(summary.availability_repeatable_percent, Some(90.0));
    let by_user = summary.by_user.unwrap();
    assert_eq!((by_user.users, by_user.worst, by_user.median, by_user.mean), (3, 50.0, 90.0, 80.0));
    let without = self::summary(&plain(60, vec![injection(30.0, 30.0, 36.0, 36.0)], out(30..36)));
    for key in ["amplification", "by_user", "availability_repeatable_percent"] {
        assert!(without.null_reasons.contains_key(key), "{key}");
    }
}

#[test]
fn what_was_not_injected_is_unknown_with_its_reason() {
    let skipped = Injection { skipped: Some("no cgroup".to_owned()), command_s: None, ..injection(0.0, 0.0, 0.0, 0.0) };
    let failed = Injection { skipped: None, problem: Some("the role had ended".to_owned()), ..skipped.clone() };
    // Its command was issued, and failed.
    let tried = Injection { command_s: Some(30.0), effect_s: None, repair_s: None, ready_s: None, ..failed.clone() };
    let trial = summarize_trial(&plain(60, vec![skipped, failed, tried], |_| None));
    let whys: Vec<_> =
        trial.recovery.unwrap().injections.into_iter().map(|recovery| recovery.unknown.unwrap()).collect();
    let why = "it was not injected: the role had ended";
    assert_eq!(whys, ["skipped: no cgroup", why, why]);
    for (id, what) in
        [("fault-skipped", "no cgroup (1 of 3 injections)"), ("fault-unknown", &format!("{why} (2 of 3 injections)"))]
    {
        let guard = trial.guards.iter().find(|guard| guard.id == id).unwrap();
        assert_eq!((guard.what.as_str(), guard.touches.join(" ")), (what, "recovery availability".to_owned()));
    }
}

#[test]
fn nothing_is_said_to_be_absorbed_that_was_not_watched_until_after_it_was_over() {
    let of = |seconds: u32, ready_s: f64, ends_out: bool| {
        let slow = |second: u32| (ends_out && second == seconds - 1).then(|| vec![good(100, 30.0)]);
        only(&plain(seconds, vec![injection(30.0, 30.0, ready_s, ready_s)], slow))
    };
    let why = "it was not watched until after it was over";
    for (ready_s, ends_out, expected) in [
        (40.0, false, None),
        (45.0, false, None),
        (46.0, false, Some(why)),
        (70.0, false, Some(why)),
        (45.0, true, Some(why)),
        (40.0, true, None),
    ] {
        let recovery = of(50, ready_s, ends_out);
        assert_eq!(recovery.unknown.as_deref(), expected, "{ready_s} {ends_out}");
        let expected = if expected.is_some() { Recovered::Unknown } else { Recovered::Absorbed };
        assert_eq!(recovery.recovered, expected);
    }
}

#[test]
fn users_who_only_wait_longer_are_not_kept_down_by_the_load() {
    let recovery = only(&plain(90, vec![injection(30.0, 30.0, 35.0, 35.0)], |second| {
        (second >= 30).then(|| vec![good(100, 60.0)])
    }));
    assert_eq!((recovery.recovered, recovery.metastable), (Recovered::NotWithin(60.0), Some(false)));
}

#[test]
fn a_band_that_only_half_of_goodput_would_leave_is_none() {
    // Few windows that stray by a fifth: Student's t makes of it more than half.
    let strays = |second: u32| (second < 30).then(|| vec![good(50 + [0, 6, 12][second as usize % 3], 20.0)]);
    let recovery =
        only(&closed(record(60, vec![injection(7.0, 7.0, 12.0, 12.0)], |second| strays(second).unwrap_or_default())));
    let why = recovery.unknown.unwrap();
    assert!(why.starts_with("baseline: goodput before it strays so much that only a loss of more than "), "{why}");
}

#[test]
fn what_a_fault_did_does_not_make_a_trial_doubtful() {
    let summary = summarize_trial(&closed(plain(90, vec![injection(30.0, 30.0, 40.0, 40.0)], out(30..41))));
    let ids: Vec<&str> = summary.guards.iter().map(|guard| guard.id.as_str()).collect();
    // Percentiles are of the whole window.
    assert_eq!(ids, ["refusals-hide-latency", "replicas-unsampled"]);
    // Nor does a rate that is a little lower after it, and in band.
    let lower = |second: u32| match second {
        30..41 => Some(vec![failed(100)]),
        41.. => Some(vec![good(96, 20.0)]),
        _ => None,
    };
    let summary = summarize_trial(&closed(plain(90, vec![injection(30.0, 30.0, 40.0, 40.0)], lower)));
    assert!(summary.guards.iter().all(|guard| guard.id != "not-steady"), "{:?}", summary.guards);
    // As it was seen, with other work on the machine near the end: all seconds together fall by 4 %.
    let seen: [u64; 45] = [
        252, 244, 258, 254, 251, 252, 250, 248, 261, 247, 254, 247, 243, 237, 249, 252, 252, 250, 249, 249, 236, 13,
        15, 14, 16, 13, 87, 255, 252, 250, 255, 243, 247, 238, 250, 249, 251, 242, 244, 236, 234, 241, 242, 259, 238,
    ];
    let of =
        |second: u32| vec![good(seen[second as usize], 1.0), failed(if (21..27).contains(&second) { 230 } else { 0 })];
    let summary = summarize_trial(&closed(record(45, vec![injection(21.0, 21.0, 26.0, 26.04)], of)));
    assert_eq!(after(&summary.recovery.as_ref().unwrap().injections[0]), 6.0);
    assert!(summary.guards.iter().all(|guard| guard.id != "not-steady"), "{:?}", summary.guards);
    // What happens elsewhere does: the rate falls for good once all is over.
    let falls = |second: u32| match second {
        30..41 => Some(vec![failed(100)]),
        60.. => Some(vec![good(60, 20.0)]),
        _ => None,
    };
    let summary = summarize_trial(&closed(plain(90, vec![injection(30.0, 30.0, 40.0, 40.0)], falls)));
    assert!(summary.guards.iter().any(|guard| guard.id == "not-steady"), "{:?}", summary.guards);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn instants_move_with_the_series_and_do_not_depend_on_the_rate(
        shift in 0_u32..40, scale in 1_u64..20, length in 1_u32..20, share in 5_u64..=100, phase in 0.0..0.99_f64,
    ) {
        let of = |shift: u32, scale: u64| {
            let from = 40 + shift;
            let at = |s: u32| f64::from(s) + phase;
            let fault = injection(at(from), at(from), at(from + length), at(from + length));
            only(&plain(100 + shift, vec![fault], |second| {
                let bad = if (from..from + length).contains(&second) { share * scale } else { 0 };
                Some(vec![good(100 * scale - bad, 20.0), failed(bad)])
            }))
        };
        let plain = of(0, 1);
        let same = |other: &Recovery| match (plain.recovered, other.recovered) {
            (Recovered::After(a), Recovered::After(b)) => (a - b).abs() < 1e-6,
            (a, b) => a == b,
        };
        let (moved, scaled) = (of(shift, 1), of(0, scale));
        prop_assert!(same(&moved) && same(&scaled), "{plain:?} {moved:?} {scaled:?}");
        prop_assert_eq!(moved.suffered_from_s.map(|s| s - f64::from(shift)), plain.suffered_from_s);
        prop_assert_eq!(scaled.suffered_from_s, plain.suffered_from_s);
        let outage = |recovery: &Recovery| recovery.outage_equivalent_s.unwrap();
        prop_assert!((outage(&moved) - outage(&plain)).abs() < 1e-9 && (outage(&scaled) - outage(&plain)).abs() < 1e-9);
        prop_assert_eq!(scaled.bad_operations.unwrap(), scale * plain.bad_operations.unwrap());
    }
}
