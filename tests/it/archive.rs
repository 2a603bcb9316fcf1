//! What happens to an archive that somebody damaged.

use super::lab::{call, scratch, write};

#[test]
fn a_damaged_archive_is_exit_2_and_the_file_is_named() {
    let experiment = "# why?\nsystem = \"task-tracker\"\n[factors]\nusers = [1]\n";
    for (name, text, named) in [
        ("results.jsonl", "{\"index\": 0}\n", "results.jsonl:1"),
        ("results.jsonl", "not json\n", "results.jsonl:1"),
        ("plan.json", "{", "plan.json"),
        ("environment.json", "[", "environment.json"),
        ("experiment.toml", "system = 3\n", "experiment.toml:1"),
    ] {
        let folder = scratch();
        write(folder.path(), "experiment.toml", experiment);
        write(folder.path(), "results.jsonl", "");
        write(folder.path(), name, text);
        let called = call(&["report", folder.path().to_str().unwrap()]);
        assert_eq!(called.code, Some(2), "{name}: {}", called.stderr);
        assert!(called.stderr.contains(named), "{name}: {}", called.stderr);
    }
}

#[test]
fn a_last_line_that_was_being_written_is_left_out() {
    let folder = scratch();
    write(folder.path(), "experiment.toml", "# why?\nsystem = \"task-tracker\"\n[factors]\nusers = [1]\n");
    write(folder.path(), "results.jsonl", "{\"index\": 0, \"na");
    let called = call(&["report", folder.path().to_str().unwrap()]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
}
