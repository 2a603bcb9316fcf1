//! The exercises as a learner meets them: write the file, fill it in, have it checked.

use std::path::{Path, PathBuf};

use super::lab::{Called, call, scalelab, scratch, write};

/// Calls the program in a folder.
fn call_in(folder: &Path, arguments: &[&str]) -> Called {
    scalelab().current_dir(folder).args(arguments).output().expect("the program starts").into()
}

/// The file of an exercise, fetched as a learner fetches it, with values in the place of what it has.
fn filled(folder: &Path, name: &str, values: &[(&str, &str)]) -> PathBuf {
    let started = call_in(folder, &["exercise", "start", name]);
    assert_eq!(started.code, Some(0), "{}", started.stderr);
    let path = folder.join(format!("{name}.toml"));
    let fill = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        let value = values.iter().find(|(wanted, _)| *wanted == key);
        value.map_or_else(|| line.to_owned(), |(_, value)| format!("{key} = {value}"))
    };
    let text: String = std::fs::read_to_string(&path).unwrap().lines().map(|line| fill(line) + "\n").collect();
    std::fs::write(&path, text).unwrap();
    path
}

fn check(name: &str, values: &[(&str, &str)]) -> Called {
    let folder = scratch();
    let path = filled(folder.path(), name, values);
    let checked = call_in(folder.path(), &["exercise", "check", path.file_name().unwrap().to_str().unwrap()]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, [path], "a check leaves nothing behind");
    checked
}

const FALLS_BEHIND: [(&str, &str); 4] =
    [("batch_interval", "\"2s\""), ("cost", "\"15ms\""), ("partitions", "4"), ("reduce_partitions", "4")];
const AS_GIVEN: [(&str, &str); 4] =
    [("cost", "\"15ms\""), ("cores", "4"), ("partitions", "4"), ("reduce_partitions", "4")];

/// `values`, with one of them changed.
fn with(
    values: [(&'static str, &'static str); 4],
    key: &str,
    value: &'static str,
) -> Vec<(&'static str, &'static str)> {
    values.into_iter().map(|(name, old)| (name, if name == key { value } else { old })).collect()
}

#[test]
fn the_exercises_are_listed_with_their_goals() {
    let listed = call(&["exercise", "list"]);
    assert_eq!(listed.code, Some(0));
    for part in ["fill-gaps", "fix-delay", "goal: ", "exercise start"] {
        assert!(listed.stdout.contains(part), "{part}: {}", listed.stdout);
    }
}

#[test]
fn an_exercise_is_written_once_and_its_open_blanks_are_named_with_their_lines() {
    for name in ["fill-gaps", "fix-delay"] {
        let (folder, file) = (scratch(), format!("{name}.toml"));
        assert_eq!(call_in(folder.path(), &["exercise", "start", name]).code, Some(0));
        let text = std::fs::read_to_string(folder.path().join(&file)).unwrap();
        let again = call_in(folder.path(), &["exercise", "start", name]);
        assert_eq!(again.code, Some(2), "{}", again.stderr);
        assert!(again.stderr.contains(&file) && again.stderr.contains("stays as it is"), "{}", again.stderr);
        assert_eq!(std::fs::read_to_string(folder.path().join(&file)).unwrap(), text);

        let checked = call_in(folder.path(), &["exercise", "check", &file]);
        assert_eq!(checked.code, Some(1), "{}", checked.stderr);
        let lines = text.lines().enumerate().filter(|(_, line)| line.contains("___"));
        let expected: Vec<_> = lines.map(|(index, _)| format!("{file}:{}:", index + 1)).collect();
        assert_eq!(expected.len(), 4);
        assert_eq!(checked.stdout.lines().count(), 4, "{}", checked.stdout);
        for place in expected {
            assert!(checked.stdout.contains(&place), "{place} is not in {}", checked.stdout);
        }
    }
}

#[test]
fn the_published_answers_reach_their_goals() {
    let fell_behind = check("fill-gaps", &FALLS_BEHIND);
    assert_eq!(fell_behind.code, Some(0), "{}{}", fell_behind.stdout, fell_behind.stderr);
    for part in ["fill-gaps: met", "2.5", "interval 2 s", "3 slots", "2 waves"] {
        assert!(fell_behind.stdout.contains(part), "{part}: {}", fell_behind.stdout);
    }
    let answers = [("cost", "\"5ms\""), ("cores", "8"), ("partitions", "8"), ("reduce_partitions", "8")];
    let on_time = check("fix-delay", &answers);
    assert_eq!(on_time.code, Some(0), "{}{}", on_time.stdout, on_time.stderr);
    for part in ["fix-delay: met", "no batch at the end", "7 slots"] {
        assert!(on_time.stdout.contains(part), "{part}: {}", on_time.stdout);
    }
}

#[test]
fn there_is_more_than_one_way_to_fix_a_delay() {
    for (key, value) in [("cost", "\"10ms\""), ("partitions", "3"), ("cores", "5")] {
        let checked = check("fix-delay", &with(AS_GIVEN, key, value));
        assert_eq!(checked.code, Some(0), "{key} = {value}: {}{}", checked.stdout, checked.stderr);
    }
}

#[test]
fn a_goal_that_is_missed_comes_with_a_hint_and_no_answer() {
    for (name, values, expected) in [
        ("fix-delay", AS_GIVEN.to_vec(), "they take 2 waves"),
        ("fix-delay", with(AS_GIVEN, "cores", "1"), "none is left"),
        ("fill-gaps", with(FALLS_BEHIND, "cost", "\"5ms\""), "than its interval?"),
    ] {
        let checked = check(name, &values);
        assert_eq!(checked.code, Some(1), "{values:?}: {}{}", checked.stdout, checked.stderr);
        for part in ["not met yet", "hint: ", expected] {
            assert!(checked.stdout.contains(part), "{values:?}: {part:?} is not in {}", checked.stdout);
        }
    }
}

#[test]
fn a_goal_is_not_reached_by_changing_what_is_given() {
    for (key, value, expected) in [
        ("rate", "0.001", "gives rate = 143"),
        ("batch_interval", "\"1h\"", "gives batch_interval = \"2s\""),
        ("like", "\"none\"", "gives like"),
        ("cost", "\"0s\"", "from \"5ms\" to \"15ms\""),
        ("cores", "64", "from 1 to 8"),
    ] {
        let mut values = AS_GIVEN.to_vec();
        values.retain(|(name, _)| *name != key);
        values.push((key, value));
        let checked = check("fix-delay", &values);
        assert_eq!(checked.code, Some(1), "{key}: {}{}", checked.stdout, checked.stderr);
        assert!(checked.stdout.contains("fix-delay.toml:"), "{}", checked.stdout);
        assert!(checked.stdout.contains(expected), "{expected} is not in {}", checked.stdout);
    }
}

#[test]
fn a_file_that_cannot_be_judged_is_exit_2_with_its_line() {
    for (what, key, value, expected) in [
        ("broken TOML", "partitions", "four", "fill-gaps.toml:"),
        ("interval 0", "batch_interval", "\"0s\"", "batch_interval"),
        ("negative cost", "cost", "\"-5ms\"", "negative"),
        ("reduce partitions 0", "reduce_partitions", "0", "reduce_partitions"),
        ("another exercise", "name", "\"fill-the-gaps\"", "fill-gaps, fix-delay"),
    ] {
        let mut values = FALLS_BEHIND.to_vec();
        values.retain(|(name, _)| *name != key);
        values.push((key, value));
        let checked = check("fill-gaps", &values);
        assert_eq!(checked.code, Some(2), "{what}: {}{}", checked.stdout, checked.stderr);
        for part in ["fill-gaps.toml:", expected] {
            assert!(checked.stderr.contains(part), "{what}: {part:?} is not in {}", checked.stderr);
        }
    }
    let folder = scratch();
    let other = write(folder.path(), "mine.toml", "# why?\nsystem = \"task-tracker\"\n[load]\nusers = 1\n");
    for (arguments, expected) in [
        (&["exercise", "check", other.to_str().unwrap()][..], "is no exercise"),
        (&["exercise", "check", "/nothing/here.toml"], "exercise start"),
        (&["exercise", "start", "fill-the-gaps"], "fill-gaps, fix-delay"),
        (&["exercise", "check", "x.toml", "--ui", "4040"], "--live"),
    ] {
        let called = call_in(folder.path(), arguments);
        assert_eq!(called.code, Some(2), "{arguments:?}: {}", called.stderr);
        assert!(called.stderr.contains(expected), "{arguments:?}: {expected:?} is not in {}", called.stderr);
    }
}

#[test]
fn an_archive_is_kept_where_it_is_asked_for() {
    let folder = scratch();
    filled(folder.path(), "fill-gaps", &FALLS_BEHIND);
    let checked = call_in(folder.path(), &["exercise", "check", "fill-gaps.toml", "--out", "kept"]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let latest = folder.path().join("kept/latest");
    assert!(latest.join("report.html").is_file());
    let trial = std::fs::read_dir(latest.join("trials")).unwrap().flatten().next().expect("one trial").path();
    assert!(trial.join("batches.jsonl").is_file());
}
