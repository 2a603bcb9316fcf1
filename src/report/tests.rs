//! What a report must show, whatever it looks like.

use expect_test::expect;

use super::fault_fixture;
use super::fixture::{self, Fixture};
use super::{Rendered, ReportInput, figures, pages, png, render, text_summary};

const OVER_X: [&str; 9] = [
    "crossover_analysis",
    "latency_p50_vs_concurrency",
    "latency_p95_vs_concurrency",
    "latency_p99_vs_concurrency",
    "throughput_vs_concurrency",
    "error_rate_vs_concurrency",
    "cpu_vs_concurrency",
    "memory_vs_concurrency",
    "efficiency_vs_concurrency",
];

/// Without the bitmaps, which cost more than all the rest.
fn rendered(fixture: &Fixture) -> Vec<Rendered> {
    let input = fixture.input();
    pages(&input, &figures(&input)).expect("a fixture can be drawn")
}

fn text<'a>(files: &'a [Rendered], path: &str) -> &'a str {
    let file = files.iter().find(|file| file.path == path).expect("the file is there");
    std::str::from_utf8(&file.bytes).expect("text")
}

/// The page without the plotting library, whose text holds addresses that it never loads by itself.
fn own_html(files: &[Rendered]) -> String {
    let page = text(files, "report.html");
    let start = page.find("<script type=\"text/javascript\">").expect("the library is inside");
    let end = page[start..].find("</script>").expect("and ends") + start;
    format!("{}{}", &page[..start], &page[end..])
}

/// Writes a report where the variable says, to be looked at: `LOOK=DIR cargo test -p scalelab look`.
#[test]
fn look() {
    let Ok(folder) = std::env::var("LOOK") else { return };
    let fixtures = [
        ("comparison", fixture::comparison()),
        ("single", fixture::single()),
        ("simulated", fixture::simulated_without_crossover()),
        ("hostile", fixture::hostile()),
        ("before", fixture::stream(2_531.0, 1_900.0)),
        ("after", fixture::stream(1_060.0, 1_900.0)),
        ("rates", fixture::stream_sweep()),
        ("intervals", fixture::stream_intervals()),
        ("map", fixture::stream_map()),
        ("warmed", fixture::warmed_up()),
        ("stopped", fault_fixture::stopped()),
        ("repeated", fault_fixture::repeated()),
        ("arms", fault_fixture::arms()),
    ];
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, fixture) in fixtures.into_iter().filter(|(name, _)| name.contains(&only)) {
        let input = ReportInput { highest_stable_rate: Some(&fixture::published_rate), ..fixture.input() };
        for file in render(&input).expect("drawn") {
            let path = std::path::Path::new(&folder).join(name).join(&file.path);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder to write to");
            std::fs::write(path, file.bytes).expect("writable");
        }
        std::fs::write(std::path::Path::new(&folder).join(name).join("summary.txt"), text_summary(&fixture.input()))
            .expect("writable");
    }
}

#[test]
fn every_figure_is_there_as_png_and_as_svg() {
    let files = render(&fixture::comparison().input()).expect("a fixture can be drawn");
    for id in OVER_X {
        let png = files.iter().find(|file| file.path == format!("plots/{id}.png")).expect("a png");
        assert!(png.bytes.starts_with(b"\x89PNG"), "{id}");
        assert!(text(&files, &format!("plots/{id}.svg")).starts_with("<svg"), "{id}");
    }
    for path in ["report.html", "report.md", "figures.csv"] {
        assert!(!text(&files, path).is_empty(), "{path}");
    }
}

#[test]
fn the_same_study_gives_the_same_bytes() {
    let (once, again) = (rendered(&fixture::comparison()), rendered(&fixture::comparison()));
    assert!(once.iter().zip(&again).all(|(a, b)| a.path == b.path && a.bytes == b.bytes));
    let figures = figures(&fixture::single().input());
    let last = figures.last().expect("there are figures");
    assert!(png::png(last).expect("drawn") == png::png(last).expect("drawn"));
}

#[test]
fn the_page_loads_nothing_from_anywhere() {
    let page = own_html(&rendered(&fixture::comparison()));
    for load in ["src=\"", "href=\"", "@import", "url(", "<link", "<iframe"] {
        assert!(!page.contains(load), "{load}");
    }
    let addresses = page.matches("http").count() - page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(addresses, 0, "no address apart from the name space of SVG");
}

#[test]
fn what_nobody_measured_is_a_gap_with_its_reason_and_never_zero() {
    let files = rendered(&fixture::comparison());
    let memory: Vec<&str> =
        text(&files, "figures.csv").lines().filter(|line| line.starts_with("memory_vs_concurrency")).collect();
    expect![[r#"
        memory_vs_concurrency,Memory (GB),microservices × 3,16,,,,0,,the process ended before its second sample"#]]
    .assert_eq(memory[6]);
    assert!(text(&files, "plots/memory_vs_concurrency.svg").contains("the process ended before its second sample"));
}

#[test]
fn guards_are_told_once_a_kind_with_their_advice_and_mark_their_points() {
    let files = rendered(&fixture::comparison());
    let page = own_html(&files);
    assert_eq!(page.matches("<strong>† client-bound</strong>").count(), 1);
    assert!(page.contains("more users, or less think time"));
    assert!(text(&files, "plots/throughput_vs_concurrency.svg").contains("† client-bound"));
    assert!(!text(&files, "plots/latency_p95_vs_concurrency.svg").contains("† client-bound"));
}

#[test]
fn an_objective_is_drawn_where_the_verdict_decides() {
    let mut fixture = fixture::comparison();
    let written = ["errors <= 0.01", "latency p95 <= 0.3s", "total p50 <= 90ms", "goodput >= 500/s"];
    fixture.experiment.slo = written.map(|text| crate::verdict::Slo::try_from(text.to_owned()).unwrap()).to_vec();
    let figures = figures(&fixture.input());
    let drawn = |id: &str, panel: usize| {
        let figure = figures.iter().find(|figure| figure.id == id).expect("is there");
        let lines = figure.panels[panel].lines.iter().filter(|line| line.label.starts_with("objective: "));
        lines.map(|line| line.at).collect::<Vec<_>>()
    };
    assert_eq!(drawn("error_rate_vs_concurrency", 0), [1.0]);
    assert_eq!(drawn("latency_p95_vs_concurrency", 0), [300.0]);
    assert_eq!(drawn("latency_p50_vs_concurrency", 0), [90.0]);
    assert_eq!((drawn("crossover_analysis", 0), drawn("crossover_analysis", 1)), (vec![300.0], vec![500.0]));
}

#[test]
fn a_figure_of_durations_says_that_their_intervals_are_on_the_log_scale() {
    let mut fixture = fixture::comparison();
    let logs = |fixture: &Fixture, id: &str| {
        let figures = figures(&fixture.input());
        let figure = figures.iter().find(|figure| figure.id == id).expect("is there");
        figure.notes.iter().any(|note| note.starts_with("Bars: ") && note.ends_with("are on the log scale."))
    };
    assert!(logs(&fixture, "latency_p95_vs_concurrency") && logs(&fixture, "crossover_analysis"));
    assert!(!logs(&fixture, "throughput_vs_concurrency"));
    fixture.study.curves.iter_mut().flat_map(|curve| &mut curve.cells).for_each(|cell| cell.valid = 2);
    assert!(!logs(&fixture, "latency_p95_vs_concurrency"), "two trials have the plain interval");
}

#[test]
fn a_thin_percentile_is_hollow_with_its_count() {
    let figures = figures(&fixture::comparison().input());
    let p99 = figures.iter().find(|figure| figure.id == "latency_p99_vs_concurrency").expect("is there");
    assert_eq!(p99.panels[0].curves[0].points[0].hollow.as_deref(), Some("n=812"));
    assert_eq!(p99.panels[0].curves[0].points[1].hollow, None);
}

#[test]
fn text_from_outside_stays_text() {
    let files = rendered(&fixture::hostile());
    let page = own_html(&files);
    assert!(!page.contains("<script>alert"));
    assert!(!page.contains("<img"));
    assert!(!page.contains("</script><"), "nothing ends a script early");
    assert!(!text(&files, "report.md").contains("<script>"));
    assert!(!text(&files, "plots/crossover_analysis.svg").contains("<img"));
}

#[test]
fn a_simulated_study_says_so_in_every_figure_and_on_every_page() {
    let fixture = fixture::simulated_without_crossover();
    let files = rendered(&fixture);
    let svgs = files.iter().filter(|file| file.path.ends_with(".svg"));
    assert!(svgs.clone().count() > 0);
    for file in svgs {
        assert!(text(&files, &file.path).contains("[simulated]"), "{}", file.path);
    }
    assert!(own_html(&files).contains("class=\"simulated\""));
    assert!(text(&files, "report.md").contains("Simulated"));
    assert!(text_summary(&fixture.input()).starts_with("Simulated"));
    assert!(text(&files, "plots/crossover_analysis.svg").contains("no crossover in the tested range"));
}

#[test]
fn a_study_of_one_cell_is_drawn_over_time() {
    let ids: Vec<String> = figures(&fixture::single().input()).into_iter().map(|figure| figure.id).collect();
    assert!(ids.contains(&"latency_over_time".to_owned()) && ids.contains(&"throughput_over_time".to_owned()));
    assert!(!ids.contains(&"crossover_analysis".to_owned()));
}

#[test]
fn throughput_over_time_is_what_was_answered_whatever_the_answer() {
    let mut fixture = fixture::single();
    let second = &mut fixture.trials[0].seconds[5];
    (second.ok, second.failed, second.wrong, second.answered) = (40, 30, 5, 75);
    let figures = figures(&fixture.input());
    let figure = figures.iter().find(|figure| figure.id == "throughput_over_time").expect("is there");
    assert_eq!(figure.panels[0].curves[0].points[5].y, Some(75.0));
}

#[test]
fn a_run_that_was_cut_short_says_how_far_it_came() {
    let mut fixture = fixture::comparison();
    fixture.trials.truncate(12);
    let files = rendered(&fixture);
    assert!(own_html(&files).contains("12 of 30 planned trials"));
    assert!(text(&files, "report.md").contains("12 of 30 planned trials"));
}

#[test]
fn the_terminal_shows_the_answer_the_numbers_and_what_touches_them() {
    let mut fixture = fixture::comparison();
    fixture.study.curves.iter_mut().for_each(|curve| curve.cells.truncate(2));
    expect![[r#"
        From how many users on do microservices answer faster than the monolith?
        From about 83 users on (71–97) microservices × 3 answer faster than the monolith: p95 72 ms against 118 ms at 128 users.

        curve              users  trials  throughput      p50      p95              p99  wait p95  work p95  errors         CPU     memory
        monolith               4       3     180 rps  3.24 ms   7.2 ms  13.7 ms ○ n=812   2.16 ms   5.76 ms     0 %   0.12 CPUs  0.0618 GB
        monolith              16       3   661 rps †  4.41 ms   9.8 ms          18.6 ms   2.94 ms   7.84 ms     0 %   0.44 CPUs  0.0642 GB
        microservices × 3      4       3     150 rps  5.58 ms  12.4 ms  23.6 ms ○ n=812   3.72 ms   9.92 ms     0 %    0.1 CPUs   0.143 GB
        microservices × 3     16       3   561 rps †  7.16 ms  15.9 ms          30.2 ms   4.77 ms   12.7 ms     0 %  0.373 CPUs          –

        ! too-few-ops: monolith, users 4: 812 requests behind p99 (and 1 more)
          measure for longer
        † client-bound: monolith, users 16: throughput is 97 % of what 16 users with 20 ms of think time can ask for (and 1 more)
          more users, or less think time: this level says nothing about the system's limit

        verdict: fail (p95 <= 250ms: monolith at 256 users: p95 290 ms (279–301))
    "#]].assert_eq(&text_summary(&fixture.input()));
}

#[test]
fn a_stream_is_drawn_over_time_with_the_line_that_it_must_stay_below() {
    let fixture = fixture::stream(2_531.0, 1_900.0);
    let figures = figures(&fixture.input());
    let [figure] = figures.as_slice() else { panic!("one figure") };
    assert_eq!(figure.id, "batches_over_time");
    let labels: Vec<String> = figure.panels.iter().map(|panel| panel.y.title()).collect();
    assert_eq!(labels, ["Input rate (records/s)", "Scheduling delay (s)", "Processing time (s)", "Total delay (s)"]);
    let lines: Vec<(f64, &str)> =
        figure.panels.iter().flat_map(|panel| &panel.lines).map(|line| (line.at, line.label.as_str())).collect();
    assert_eq!(lines, [(2.0, "batch interval 2 s")]);
    assert!(figure.panels.iter().all(|panel| panel.curves[0].points.len() == 56));
    let files = rendered(&fixture);
    assert!(own_html(&files).contains("id=\"batches_over_time\" class=\"panels-4\""));
    assert_eq!(
        text(&files, "figures.csv").lines().filter(|line| line.starts_with("batches_over_time,")).count(),
        4 * 56
    );
}

#[test]
fn a_stream_without_a_slot_is_drawn_without_what_never_happened() {
    let mut fixture = fixture::stream(2_531.0, 1_900.0);
    for entry in fixture.journals.values_mut().flatten() {
        let kit::batch::Entry::Batch(batch) = entry else { continue };
        (batch.started_ms, batch.ended_ms) = (None, None);
    }
    let figure = figures(&fixture.input()).remove(0);
    let words: Vec<Option<&str>> = figure.panels.iter().map(|panel| panel.words.as_deref()).collect();
    assert_eq!(words, [None, Some("no batch started"), Some("no batch ended"), Some("no batch ended")]);
    assert!(png::svg(&figure).is_ok_and(|svg| svg.contains("batch interval 2 s")));
    let reason = figure.panels[1].curves[0].points[0].null_reason.as_deref();
    assert_eq!(reason, Some("it had not started"));
}

#[test]
fn the_terminal_closes_with_whether_a_stream_keeps_up() {
    expect![[r#"
        When does a stream fall behind?
        The stream falls behind: processing takes 2.532 s of every 2 s and the scheduling delay grows by 0.532 s a batch; at the end 11 batches wait.

        curve  trials  interval          input  processing     delay     total  growth a batch  record p95         state
        all         1       2 s  143 records/s      2.52 s  11.2 s †  13.4 s †          532 ms    15.4 s †  falls behind

        † backlog: all: the scheduling delay had grown to 22.858 s, and 11 batches waited (and 1 more)
          total delay and throughput of a stream that falls behind depend on how long was measured; judge it by its processing time and by how much the delay grows a batch

        verdict: fail (not met: stable)
        falls behind: processing takes 2.532 s of every 2 s and the scheduling delay grows by 0.532 s a batch
    "#]]
    .assert_eq(&text_summary(&fixture::stream(2_531.0, 1_900.0).input()));
}

#[test]
fn a_sweep_of_streams_speaks_of_batches_and_records() {
    let fixture = fixture::stream_sweep();
    let drawn = figures(&fixture.input());
    let ids: Vec<&str> = drawn.iter().map(|figure| figure.id.as_str()).collect();
    assert_eq!(ids, ["processing_time", "delay_growth", "total_delay", "record_latency"]);
    assert_eq!(drawn[0].panels[0].x.title(), "Offered rate (records/s)");
    assert_eq!(drawn[0].panels[0].lines[0].label, "batch interval 2 s");
    let files = rendered(&fixture);
    let page = own_html(&files);
    for foreign in ["users", "requests", "rps", "crossover", "scalability law"] {
        assert!(!page.contains(foreign), "{foreign}");
        assert!(!text_summary(&fixture.input()).contains(foreign), "{foreign}");
    }
    let intervals = figures(&fixture::stream_intervals().input());
    let curves: Vec<&str> = intervals[0].panels[0].curves.iter().map(|curve| curve.label.as_str()).collect();
    assert_eq!(curves, ["all", "batch interval"]);
}

#[test]
fn a_map_shows_what_keeps_up_and_the_line_that_the_model_expects() {
    let fixture = fixture::stream_map();
    let with_model = ReportInput { highest_stable_rate: Some(&fixture::published_rate), ..fixture.input() };
    let map = figures(&with_model).remove(0);
    assert_eq!((map.id.as_str(), super::figures::lead(&with_model)), ("stability_map", "stability_map"));
    let panel = &map.panels[0];
    assert_eq!((panel.x.title(), panel.y.title()), ("Cores".to_owned(), "Offered rate (records/s)".to_owned()));
    let [stable, behind, model] = panel.curves.as_slice() else { panic!("three curves") };
    assert_eq!(stable.points.len() + behind.points.len(), 25);
    assert!(
        behind.points.iter().all(|point| point.hollow.is_some()) && stable.points.iter().all(|p| p.hollow.is_none())
    );
    // What keeps up lies below the line, what falls behind above it.
    let line =
        |x: f64| model.points.iter().find(|point| point.x == x).and_then(|point| point.y).unwrap_or(f64::INFINITY);
    assert!(stable.points.iter().all(|point| point.y.unwrap() < line(point.x)));
    assert!(behind.points.iter().all(|point| point.y.unwrap() > line(point.x)));
    let without = figures(&fixture.input()).remove(0);
    assert_eq!(without.panels[0].curves.len(), 2);
}
