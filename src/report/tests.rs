//! What a report must show, whatever it looks like.

use expect_test::expect;

use super::fixture::{self, Fixture};
use super::{Rendered, figures, pages, png, render, text_summary};

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
    ];
    for (name, fixture) in fixtures {
        for file in render(&fixture.input()).expect("drawn") {
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
