//! What the report of a fault study must show, whatever it looks like.

use expect_test::expect;

use super::fault_fixture::{arms, repeated, stopped};
use super::figure::{Figure, Style};
use super::fixture::Fixture;
use super::{fault_tables, fault_words, figures, pages, text_summary};
use crate::measure::recovery::Recovered;

fn drawn(fixture: &Fixture) -> Vec<Figure> {
    figures(&fixture.input())
}

fn of(figures: &[Figure], id: &str) -> Figure {
    figures.iter().find(|figure| figure.id == id).expect("is there").clone()
}

#[test]
fn a_study_of_faults_has_its_figures_and_leads_with_all_in_one() {
    let ids = |fixture: &Fixture| drawn(fixture).into_iter().map(|figure| figure.id).collect::<Vec<_>>().join(" ");
    expect!["combined_failure_analysis recovery_analysis error_rate_over_time latency_over_time throughput_over_time"]
        .assert_eq(&ids(&stopped()));
    expect![[
        "combined_failure_analysis recovery_analysis arms_compared error_rate_over_time latency_over_time throughput_over_time amplification_over_time"
    ]]
    .assert_eq(&ids(&arms()));
    assert_eq!(super::figures::lead(&stopped().input()), "combined_failure_analysis");
    let combined = of(&drawn(&stopped()), "combined_failure_analysis");
    assert!(combined.stacked && combined.panels.len() == 3);
}

#[test]
fn shaded_is_from_effect_to_ready_and_never_from_the_command() {
    let combined = of(&drawn(&repeated()), "combined_failure_analysis");
    for panel in &combined.panels {
        let bands: Vec<(f64, f64)> = panel.bands.iter().map(|band| (band.from, band.to)).collect();
        assert_eq!(bands, [(12.1, 15.2), (30.1, 33.2), (48.1, 51.2)]);
    }
    let late = {
        let mut fixture = repeated();
        let recovery = fixture.trials[0].recovery.as_mut().unwrap();
        recovery.injections.truncate(1);
        recovery.injections[0].injection.command_s = Some(2.0);
        fixture
    };
    let panel = of(&drawn(&late), "combined_failure_analysis").panels.remove(0);
    assert_eq!((panel.bands[0].from, panel.bands[0].to), (12.1, 15.2));
    let command = panel.lines.iter().find(|line| line.label == "command").expect("ten seconds before, it has a name");
    assert_eq!(command.at, 2.0);
}

#[test]
fn the_trial_with_the_median_outage_is_drawn_and_the_others_lie_behind_it() {
    let figure = of(&drawn(&stopped()), "error_rate_over_time");
    assert!(figure.caption.contains("trial 004_microservices_r4, the median of 5 by outage"), "{}", figure.caption);
    let thin = figure.panels[0].curves.iter().filter(|curve| curve.style == Style::Thin).count();
    assert_eq!((thin, figure.panels[0].curves.len()), (4, 5));
}

#[test]
fn a_point_stands_in_the_middle_of_its_second() {
    let figure = of(&drawn(&repeated()), "error_rate_over_time");
    let bad = figure.panels[0].curves[0].points.iter().filter(|point| point.y.is_some_and(|y| y > 50.0));
    let times: Vec<f64> = bad.map(|point| point.x).filter(|x| *x < 20.0).collect();
    assert_eq!(times, [12.5, 13.5, 14.5, 15.5]);
}

#[test]
fn the_close_up_names_every_instant_and_what_was_usual() {
    let close = of(&drawn(&stopped()), "recovery_analysis");
    let labels: Vec<&str> =
        close.panels.iter().flat_map(|panel| &panel.lines).map(|line| line.label.as_str()).collect();
    expect![[r#"
        command −0.12 s
        effect
        repair +9.98 s
        ready +10.5 s
        users served as before +12.1 s
        usual 120/s, in band from 111/s


        p95 in band up to 7.5 ms"#]]
    .assert_eq(&labels.join("\n"));
    expect!["The stop-start took effect 0.12 s after its command and lasted 10.5 s. Users were served as before 12.1 s after the effect, 1.6 s after it was ready. As much was lost as in a full outage of 10.7 s. Shown: trial 004_microservices_r4, the median of 5 by outage."].assert_eq(&close.caption);
    let xs = || close.panels[0].curves.iter().flat_map(|curve| &curve.points).map(|point| point.x);
    assert!(xs().all(|x| (25.0..=58.0).contains(&x)));
}

#[test]
fn arms_are_aligned_at_the_effect_and_compared_by_what_they_cost() {
    let figures = drawn(&arms());
    let combined = of(&figures, "combined_failure_analysis");
    assert_eq!(combined.panels[0].x.title(), "Time since the first effect (s)");
    let labels: Vec<&str> = combined.panels[0].curves.iter().map(|curve| curve.label.as_str()).collect();
    assert_eq!(labels, ["timeout", "retry", "budget and breaker"]);
    let compared = of(&figures, "arms_compared");
    // The outage of what was not watched to its end is the least it can be.
    assert_eq!(compared.panels[0].x.names, ["timeout", "retry (at least)", "budget and breaker"]);
    assert_eq!(compared.panels[0].curves[1].points[0].low, None);
    assert_eq!(compared.panels[1].x.names, labels);
    let values: Vec<String> = compared
        .panels
        .iter()
        .flat_map(|panel| &panel.curves)
        .map(|curve| format!("{:.1}", curve.points[0].y.unwrap()))
        .collect();
    expect!["8.3 42.7 5.3 87.8 37.2 92.2 1.0 2.7 1.1"].assert_eq(&values.join(" "));
    assert!(compared.notes.iter().any(|note| note.starts_with("retry: not served as before")), "{:?}", compared.notes);
    assert_eq!(compared.notes[0], "Bars: 95 % t-intervals of the mean over at least 3 trials each.");
    let mut fixture = arms();
    let recovery = &mut fixture.trials[0].recovery.as_mut().unwrap().injections[0];
    (recovery.recovered, recovery.outage_equivalent_s) = (Recovered::Unknown, None);
    let compared = of(&drawn(&fixture), "arms_compared");
    assert_eq!(compared.panels[0].curves[0].points[0].n, 2);
    assert_eq!(compared.notes[0], "Bars: 95 % t-intervals of the mean over at least 2 trials each.");
    assert!(compared.notes.contains(&"timeout: 1 of 3 trials could not be judged.".to_owned()), "{:?}", compared.notes);
}

#[test]
fn every_injection_has_its_row() {
    let rows: Vec<String> =
        fault_tables::injections(&stopped().input()).rows.iter().take(2).map(|row| row.join(" | ")).collect();
    expect![[r#"
        000_microservices_r0 | stop-start | task-service 1 | 30 s | 30.1 s | 40.1 s | 40.6 s | 0.12 s | 0 s | 11.9 s | 1.4 s | 10.4 s | 13.1 % | 1251 | 0.402 % | no
        001_microservices_r1 | stop-start | task-service 1 | 30.4 s | 30.5 s | 40.5 s | 41 s | 0.12 s | 0 s | 12.5 s | 2 s | 11 s | 15.8 % | 1310 | 0.423 % | no"#]].assert_eq(&rows.join("\n"));
    let mut fixture = arms();
    let recovery = fixture.trials[0].recovery.as_mut().unwrap();
    recovery.injections[0].injection.skipped = Some("pausing needs a freezer cgroup".to_owned());
    let second = &mut fixture.trials[1].recovery.as_mut().unwrap().injections[0];
    (second.recovered, second.unknown) = (Recovered::Unknown, Some("baseline: goodput has a trend".to_owned()));
    fixture.trials[2].recovery.as_mut().unwrap().injections[0].recovered = Recovered::Absorbed;
    let cells: Vec<String> =
        fault_tables::injections(&fixture.input()).rows.iter().take(4).map(|row| row[9].clone()).collect();
    expect![[r#"
        skipped: pausing needs a freezer cgroup
        unknown: baseline: goodput has a trend
        absorbed
        > 45 s"#]]
    .assert_eq(&cells.join("\n"));
    for (recovered, unknown, expected) in [
        (
            Recovered::Unknown,
            Some("it was not injected: no such process"),
            "unknown: it was not injected: no such process",
        ),
        (Recovered::Unknown, Some("baseline: it moves"), "unknown: baseline: it moves; no such process"),
        (Recovered::Absorbed, None, "absorbed (no such process)"),
    ] {
        let each = &mut fixture.trials[1].recovery.as_mut().unwrap().injections[0];
        (each.recovered, each.unknown) = (recovered, unknown.map(str::to_owned));
        each.injection.problem = Some("no such process".to_owned());
        assert_eq!(fault_tables::injections(&fixture.input()).rows[1][9], expected);
    }
}

#[test]
fn what_was_usual_has_its_row() {
    let rows: Vec<String> =
        fault_tables::usual(&stopped().input()).rows.iter().take(1).map(|row| row.join(" | ")).collect();
    expect!["000_microservices_r0 | stop-start | task-service 1 | 18 × 1 s | 10 s | 28 s | 120 rps | 6 ms | 111 rps | 1 % | 7.5 ms"].assert_eq(&rows.join("\n"));
}

#[test]
fn availability_stands_by_operation_and_by_user_for_each_configuration() {
    let table = fault_tables::availability(&arms().input());
    let rows: Vec<String> = table.rows.iter().map(|row| row.join(" | ")).collect();
    expect![[r#"
        all operations | 87.8 % (86.8–88.7) | 37.2 % (37.1–37.3) | 92.2 % (91.1–93.3)
        those that may be sent again safely | 88.2 % (87.2–89.1) | 37.6 % (37.5–37.7) | 92.6 % (91.5–93.7)
        GET /api/v1/auth/me | 100 % (100–100) | 100 % (100–100) | 100 % (100–100)
        GET /api/v1/tasks/ | 86.8 % (85.8–87.7) | 36.2 % (36.1–36.3) | 91.2 % (90.1–92.3)
        POST /api/v1/tasks/ | 86.5 % (85.5–87.4) | 35.9 % (35.8–36) | 90.9 % (89.8–92)
        the worst user | 81.8 % (80.8–82.7) | 31.2 % (31.1–31.3) | 86.2 % (85.1–87.3)
        the median user | 87.8 % (86.8–88.7) | 37.2 % (37.1–37.3) | 92.2 % (91.1–93.3)
        the mean user | 87.9 % (86.9–88.8) | 37.3 % (37.2–37.4) | 92.3 % (91.2–93.4)"#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn a_write_that_was_lost_is_named() {
    let mut fixture = stopped();
    let lost = fixture.trials[2].lost.as_mut().unwrap();
    (lost.lost, lost.named) = (1, [("lost".to_owned(), vec!["op 812".to_owned()])].into());
    let named = fault_tables::named(&fixture.input());
    assert_eq!(named.rows, [["002_microservices_r2", "lost", "op 812"].map(str::to_owned)]);
    assert!(text_summary(&fixture.input()).contains("writes went wrong: "));
}

#[test]
fn the_terminal_has_a_line_a_configuration_and_one_for_the_writes() {
    expect![[r#"
        timeout: recovered 9.25 s (8.95–9.55) after the effect in 3 of 3 injections; as much lost as in 8.32 s of full outage; availability 87.8 %
        retry: not recovered while watched in 3 of 3 injections; as much lost as in at least 42.7 s of full outage; availability 37.2 %
        budget and breaker: recovered 5.85 s (5.55–6.15) after the effect in 3 of 3 injections; as much lost as in 5.29 s of full outage; availability 92.2 %
        nothing lost: 7872 creates acknowledged, 0 lost, 0 duplicated, 0 resurrected, 0 phantom; 81 unknown, 27 of them found"#]].assert_eq(&fault_words::lines(&arms().input()).join("\n"));
    expect![[r#"
        What does a dead service cost its users?
        While the task service was stopped for 10.5 s, users suffered for 12 s: goodput fell from 120/s to 14/s, and was as before 1.4 s after it was ready. Nothing that was acknowledged was lost.

        curve  trials  throughput      p50      p95      p99  wait p95  work p95  errors         CPU     memory
        all         5     177 rps  3.18 ms  7.06 ms  13.4 ms   7.06 ms   7.06 ms     0 %  0.118 CPUs  0.0606 GB

        recovered 12.1 s (11.6–13) after the effect in 5 of 5 injections; as much lost as in 10.7 s of full outage; availability 84.2 %
        nothing lost: 4374 creates acknowledged, 0 lost, 0 duplicated, 0 resurrected, 0 phantom; 45 unknown, 15 of them found

        verdict: pass
    "#]].assert_eq(&text_summary(&stopped().input()));
}

#[test]
fn the_pages_say_what_the_words_mean_and_what_killing_does_not_show() {
    let fixture = stopped();
    let input = fixture.input();
    let files = pages(&input, &figures(&input)).expect("a fixture can be drawn");
    for path in ["report.html", "report.md"] {
        let file = files.iter().find(|file| file.path == path).expect("is there");
        let text = String::from_utf8_lossy(&file.bytes);
        for part in ["does not test the disk", "What these words mean", "outage-equivalent", "nothing was measured"] {
            assert_eq!(text.contains(part), part != "nothing was measured", "{path}: {part}");
        }
        let (answer, figure) = (text.find("While the task service"), text.find("What the fault did to users"));
        assert!(answer < figure, "{path}: the answer leads");
    }
}

#[test]
fn where_every_fault_was_skipped_only_the_table_tells_of_it() {
    let mut fixture = stopped();
    fixture.trials.truncate(1);
    let recovery = fixture.trials[0].recovery.as_mut().unwrap();
    let injection = &mut recovery.injections[0].injection;
    (injection.effect_s, injection.skipped) = (None, Some("no netem".to_owned()));
    let ids: Vec<String> = drawn(&fixture).into_iter().map(|figure| figure.id).collect();
    assert_eq!(ids, ["latency_over_time", "throughput_over_time"]);
    assert_eq!(super::figures::lead(&fixture.input()), "latency_over_time");
    assert_eq!(fault_tables::injections(&fixture.input()).rows[0][9], "skipped: no netem");
}

#[test]
fn the_rest_of_the_schedule_after_the_measured_window_is_not_drawn() {
    let mut fixture = repeated();
    let last = fixture.trials[0].seconds.last_mut().unwrap();
    (last.measured, last.ok) = (false, 1);
    let figure = of(&drawn(&fixture), "error_rate_over_time");
    assert_eq!(figure.panels[0].curves[0].points.last().map(|point| (point.x, point.y)), Some((68.5, Some(0.0))));
}
