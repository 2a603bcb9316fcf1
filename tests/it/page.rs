//! The report as a browser shows it.

use super::lab::{call, scratch, write};

/// Chromium by one of its names.
pub fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| scalelab::doctor::in_path(name).is_some())
}

#[test]
fn the_report_draws_its_figures_in_a_browser_without_a_network_and_without_an_error() {
    let Some(chromium) = chromium() else {
        assert!(std::env::var_os("CI").is_none(), "CI has no Chromium; .ci/run installs it");
        eprintln!("skipped: no Chromium; apt-get install chromium");
        return;
    };
    let folder = scratch();
    let text = "# Is the page alright?\nsystem = \"task-tracker\"\ndeployment = \"in-process\"\ntrials = 1\nwarmup = \"0s\"\nduration = \"1s\"\n\
                [factors]\narchitecture = [\"monolith\"]\nusers = [1, 2]\n[load]\nthink = \"5ms\"\n[settings]\nargon2 = \"minimum\"\ntasks_per_user = 1\n";
    let file = write(folder.path(), "page.toml", text);
    let out = folder.path().join("runs");
    let called = call(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let page = std::fs::canonicalize(out.join("latest/report.html")).unwrap();
    let profile = folder.path().join("profile");
    let browser = std::process::Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("Chromium starts");
    let dom = String::from_utf8_lossy(&browser.stdout);
    let drawn = dom.matches("class=\"main-svg\"").count();
    assert!(drawn >= 9, "nine figures and more, {drawn} drawn");
    let log = String::from_utf8_lossy(&browser.stderr);
    let errors: Vec<_> = log.lines().filter(|line| line.contains("CONSOLE") && line.contains("rror")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    // What a library says in its own code is no address that the page asks for.
    let markup: String =
        dom.split("<script").map(|part| part.split_once("</script>").map_or(part, |(_, rest)| rest)).collect();
    for outside in ["src=\"http", "href=\"http", "url(http"] {
        assert!(!markup.contains(outside), "the page loads nothing from elsewhere: {outside}");
    }
}
