//! Histories as text: `create c1 0..10 ok id=1 status=todo`, with times in seconds, `..` before a return that never
//! came, `@1` for the thing that an operation is about, and `status:=done` for what it sets.

use proptest::prelude::*;

use super::*;

fn fields(words: &[&str], mark: &str) -> Fields {
    let split = |word: &&str| word.split_once(mark).map(|(name, value)| (Text::from(name), Text::from(value)));
    let plain = |name: &Text| !name.ends_with(':');
    words.iter().filter_map(split).filter(|(name, _)| plain(name)).collect()
}

fn operation(line: &str) -> Operation {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind, op, times, fate, rest @ ..] = words.as_slice() else { panic!("{line}") };
    let does = match *kind {
        "create" => Does::Create,
        "get" => Does::Read,
        "delete" => Does::Delete,
        "list" => Does::Count,
        _ => Does::Change,
    };
    let seconds = |text: &str| text.parse::<i64>().ok().map(|seconds| seconds * 1_000_000_000);
    let (invoke, answered) = times.split_once("..").unwrap();
    let (fate, status) = match *fate {
        "ok" => (Fate::Acknowledged, 200),
        "unknown" => (Fate::Unknown, 0),
        "refused" => (Fate::Failed, 0),
        status => (Fate::Failed, status.parse().unwrap()),
    };
    Operation {
        user: 0,
        op: (*op).into(),
        kind: (*kind).into(),
        does,
        fate,
        status,
        invoke_ns: seconds(invoke).unwrap(),
        return_ns: seconds(answered),
        resent: rest.contains(&"resent"),
        arg: rest.iter().find_map(|word| word.strip_prefix('@')).map(Text::from),
        sets: fields(rest, ":="),
        got: fields(rest, "="),
    }
}

/// `1 c1 status=todo`, and `v3` for its version.
fn thing(line: &str) -> Thing {
    let words: Vec<&str> = line.split_whitespace().collect();
    let version = words.iter().find_map(|word| word.strip_prefix('v')?.parse().ok());
    let state = fields(&words, "=").into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Thing { id: words[0].to_owned(), op: words.get(1).map(|op| (*op).to_owned()), version, state }
}

fn found(lines: &[&str]) -> Vec<Found> {
    vec![Found { user: 0, things: Ok(lines.iter().map(|line| thing(line)).collect()), totals: Vec::new() }]
}

fn history(lines: &[&str]) -> History {
    History { operations: lines.iter().map(|line| operation(line)).collect(), ..History::default() }
}

/// What is wrong, as `lost 1: create c1 of 1 at 0.0 s`.
fn wrong(lost: &Lost) -> Vec<String> {
    let found = FINDINGS.iter().filter(|(.., count)| count(lost) > 0);
    found.map(|(key, _, count)| format!("{key} {}: {}", count(lost), lost.named[*key].join("; "))).collect()
}

/// What it shows, the history, what is there, and what is wrong.
type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

#[test]
fn each_anomaly_is_found_and_what_is_legal_is_not_one() {
    let rows: &[Row] = &[
        (
            "all is well",
            &["create c1 0..1 ok id=1 status=todo", "get r1 2..3 ok @1 status=todo"],
            &["1 c1 status=todo"],
            &[],
        ),
        (
            "an acknowledged create is not there",
            &["create c1 0..1 ok id=1", "create c2 2..3 ok id=2"],
            &["1 c1"],
            &["lost 1: create c2 of 2 at 2.0 s"],
        ),
        ("one that was given up is there or not", &["create c1 0.. unknown", "create c2 0.. unknown"], &["1 c1"], &[]),
        ("one that was refused is not", &["create c1 0..1 503", "create c2 2..2 refused"], &[], &[]),
        (
            "one that was refused is there",
            &["create c1 0..1 503", "create c2 2.. refused"],
            &["1 c1", "2 c2"],
            &[
                "phantom 2: 1 is there, and create c1 at 0.0 s was answered 503; 2 is there, and create c2 at 2.0 s was not sent",
            ],
        ),
        (
            "something that nobody made is there",
            &[],
            &["7 c9", "8"],
            &["phantom 2: 8 of user 0, which names no create; 7 of user 0: no create c9 was sent"],
        ),
        (
            "a create that was repeated was done twice",
            &["create c1 0.. unknown", "create c2 0..1 ok id=2"],
            &["1 c1", "2 c2", "3 c2"],
            &["duplicated 1: create c2 of 2 at 0.0 s made 2 and 3"],
        ),
        (
            "a delete that was acknowledged was undone",
            &["create c1 0..1 ok id=1", "delete d1 2..3 ok @1"],
            &["1 c1"],
            &[
                "resurrected 1: 1 is there after delete d1 of 1 at 2.0 s",
                "not_linearizable 1: 1 of user 0, made by c1: 2 operations",
            ],
        ),
        (
            "a delete that was given up was done or not",
            &[
                "create c1 0..1 ok id=1",
                "create c2 0..1 ok id=2",
                "delete d1 2.. unknown @1",
                "delete d2 3.. unknown @2",
            ],
            &["1 c1"],
            &[],
        ),
        (
            "a delete that was refused was not",
            &["create c1 0..1 ok id=1", "delete d1 2..3 503 @1"],
            &[],
            &["lost 1: create c1 of 1 at 0.0 s", "not_linearizable 1: 1 of user 0, made by c1: 2 operations"],
        ),
        (
            "what an acknowledged create made is not found by a read after it",
            &["create c1 0..1 ok id=1", "get r1 2..3 404 @1"],
            &["1 c1"],
            &[
                "not_linearizable 1: 1 of user 0, made by c1: 2 operations",
                "stale 1: get r1 of 1 at 2.0 s did not find 1, which create c1 of 1 at 0.0 s had made",
            ],
        ),
        (
            "a delete that was given up explains that, even one that is answered so itself",
            &["create c1 0..1 ok id=1", "delete d1 2.. unknown @1", "get r1 3..4 404 @1"],
            &[],
            &[],
        ),
        ("a read that began before is not stale", &["create c1 1..3 ok id=1", "get r1 2..4 404 @1"], &["1 c1"], &[]),
        (
            "a version goes back",
            &["create c1 0..1 ok id=1 version=1", "update u1 2..3 ok @1 version=2", "get r1 4..5 ok @1 version=1"],
            &["1 c1 v2"],
            &["stale 1: get r1 of 1 at 4.0 s saw version 1 of 1, and update u1 of 1 at 2.0 s version 2 before"],
        ),
        (
            "a change that was acknowledged is not there",
            &["create c1 0..1 ok id=1 version=1", "update u1 2..3 ok @1 version=2"],
            &["1 c1 v1"],
            &["lost 1: update u1 of 1 at 2.0 s made version 2, and 1 is there"],
        ),
        (
            "a change that was lost stays lost when another one makes its version again",
            &[
                "create c1 0..1 ok id=1 version=1",
                "update u1 2..3 ok @1 version=2",
                "update u2 4..5 ok @1 version=2",
                "update u3 6..7 ok @1 version=3",
            ],
            &["1 c1 v3"],
            &["lost 1: update u1 of 1 at 2.0 s made version 2, and update u2 of 1 at 4.0 s version 2 after it"],
        ),
        (
            "each of several that were lost is counted once",
            &[
                "create c1 0..1 ok id=1 version=1",
                "update u1 2..3 ok @1 version=2",
                "update u2 4..5 ok @1 version=3",
                "update u3 6..7 ok @1 version=2",
                "update u4 8..9 ok @1 version=4",
            ],
            &["1 c1 v3"],
            &["lost 3: update u1 of 1 at 2.0 s made version 2, and update u3 of 1 at 6.0 s version 2 after it; \
                 update u2 of 1 at 4.0 s made version 3, and update u3 of 1 at 6.0 s version 2 after it; \
                 update u4 of 1 at 8.0 s made version 4, and 3 is there"],
        ),
        (
            "one of two at a time that made the same version is lost, also of a thing that is deleted in the end",
            &[
                "create c1 0..1 ok id=1 version=1",
                "update u1 2..5 ok @1 version=2",
                "update u2 3..4 ok @1 version=2",
                "delete d1 6..7 ok @1",
            ],
            &[],
            &["lost 1: update u1 of 1 at 2.0 s made version 2, and update u2 of 1 at 3.0 s version 2 after it"],
        ),
        (
            "a create has a version too",
            &["create c1 0..1 ok id=1 version=3", "update u1 2..3 ok @1 version=3"],
            &["1 c1 v3"],
            &["lost 1: create c1 of 1 at 0.0 s made version 3, and update u1 of 1 at 2.0 s version 3 after it"],
        ),
        (
            "changes at the same time end in any order, and one that was given up makes a version too",
            &[
                "create c1 0..1 ok id=1 version=1",
                "update u1 2..6 ok @1 version=4",
                "update u2 3..5 ok @1 version=2",
                "update u3 3.. unknown @1",
                "update u4 7..8 ok @1 version=5",
            ],
            &["1 c1 v6"],
            &[],
        ),
        (
            "counts lie between what must and what may be there",
            &[
                "create c1 0..1 ok id=1",
                "create c2 2.. unknown",
                "list l1 3..4 ok total=1",
                "list l2 3..4 ok total=2",
                "delete d1 5..6 ok @1",
                "list l3 5..6 ok total=0",
                "list l4 7..8 ok total=0",
                "list l5 7..8 ok total=2",
                "list l6 3..4 ok total=0",
            ],
            &[],
            &["stale 2: list l6 at 3.0 s counted 0, not 1 to 2; list l5 at 7.0 s counted 2, not 0 to 1"],
        ),
        (
            "a write is seen, and then is not",
            &[
                "create c1 0..1 ok id=1 status=todo",
                "complete p1 2.. unknown @1 status:=done",
                "get r1 3..4 ok @1 status=done",
                "get r2 5..6 ok @1 status=todo",
            ],
            &["1 c1 status=todo"],
            &["not_linearizable 1: 1 of user 0, made by c1: 4 operations"],
        ),
        (
            "a write that was given up takes effect late",
            &[
                "create c1 0..1 ok id=1 status=todo",
                "complete p1 2.. unknown @1 status:=done",
                "get r1 3..4 ok @1 status=todo",
                "incomplete i1 5..6 ok @1 status:=todo status=todo",
                "get r2 7..8 ok @1 status=done",
            ],
            &["1 c1 status=done"],
            &[],
        ),
        (
            "a change that was sent twice may be done a second time after other changes",
            &[
                "create c1 0..1 ok id=1 status=todo",
                "complete p1 2..3 ok @1 resent status:=done status=done",
                "incomplete i1 4..5 ok @1 status:=todo status=todo",
                "get r1 6..7 ok @1 status=done",
            ],
            &["1 c1 status=done"],
            &[],
        ),
        (
            "one that was sent once may not",
            &[
                "create c1 0..1 ok id=1 status=todo",
                "complete p1 2..3 ok @1 status:=done status=done",
                "incomplete i1 4..5 ok @1 status:=todo status=todo",
            ],
            &["1 c1 status=done"],
            &["not_linearizable 1: 1 of user 0, made by c1: 3 operations"],
        ),
        (
            "one that was sent twice and given up may be done twice",
            &[
                "create c1 0..1 ok id=1 status=todo",
                "complete p1 2.. unknown @1 resent status:=done",
                "get r1 3..4 ok @1 status=done",
                "incomplete i1 5..6 ok @1 status:=todo status=todo",
            ],
            &["1 c1 status=done"],
            &[],
        ),
        (
            "the answer to a change shows a write that was never made",
            &["create c1 0..1 ok id=1 status=todo title=a", "complete p1 2..3 ok @1 status:=done status=done title=b"],
            &["1 c1 status=done title=b"],
            &["not_linearizable 1: 1 of user 0, made by c1: 2 operations"],
        ),
        (
            "what is there in the end is a read too",
            &["create c1 0..1 ok id=1 status=todo", "complete p1 2..3 ok @1 status:=done"],
            &["1 c1 status=todo"],
            &["not_linearizable 1: 1 of user 0, made by c1: 2 operations"],
        ),
    ];
    for (sentence, lines, there, expected) in rows {
        let lost = check(&history(lines), &found(there), 1);
        assert_eq!(
            (wrong(&lost), lost.unchecked),
            (expected.iter().map(ToString::to_string).collect(), None),
            "{sentence}"
        );
    }
}

#[test]
fn creates_are_counted_by_what_is_known_of_them() {
    let lines = [
        "create c1 0..1 ok id=1",
        "create c2 0.. unknown",
        "create c3 0.. unknown",
        "create c4 0..1 422",
        "list l 2..3 ok total=2",
    ];
    let lost = check(&history(&lines), &found(&["1 c1", "2 c2"]), 1);
    assert_eq!((lost.attempted, lost.acknowledged, lost.unknown, lost.unknown_found), (4, 1, 2, 1));
    assert_eq!(lost.statement(), "no acknowledged write was lost (1 acknowledged, 2 unknown of which 1 were found)");
}

#[test]
fn what_could_not_be_looked_at_is_unchecked_and_never_well() {
    let lines = ["create c1 0..1 ok id=1"];
    let gap = History { incomplete: Some("5 lines of the history are missing".to_owned()), ..history(&lines) };
    let unread = [Found { user: 0, things: Err("answered 503".to_owned()), totals: Vec::new() }];
    for (history, found, why) in [
        (&gap, &unread[..0], "5 lines of the history are missing"),
        (&history(&lines), &unread[..], "what 1 of 1 users wrote could not be read back: answered 503"),
        (&history(&lines), &unread[..0], "what 1 of 1 users wrote could not be read back: nobody looked"),
    ] {
        let lost = check(history, found, 1);
        assert_eq!((lost.unchecked.as_deref(), lost.is_broken(), lost.acknowledged), (Some(why), false, 1));
        assert_eq!(
            lost.statement(),
            format!("whether an acknowledged write was lost is unknown: {why} (1 acknowledged, none unknown)")
        );
    }
}

#[test]
fn totals_that_do_not_add_up_are_told_once_a_user() {
    let mut found = found(&["1 c1"]);
    let total = |name: &str, said| Total { name: name.to_owned(), said, counted: 1 };
    found[0].totals = vec![total("total", 1), total("total_tasks", 2), total("todo", 0)];
    let lost = check(&history(&["create c1 0..1 ok id=1"]), &found, 1);
    assert_eq!(wrong(&lost), ["wrong_totals 1: total_tasks of user 0 is said to be 2, and 1 are there"]);
    assert!(lost.statement().starts_with("writes went wrong: 1 owners with totals that do not add up (total_tasks of"));
}

#[test]
fn at_most_twenty_operations_are_named() {
    let lines: Vec<String> = (0..50).map(|n| format!("create c{n} 0..1 ok id={n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let lost = check(&history(&lines), &found(&[]), 1);
    assert_eq!((lost.lost, lost.named["lost"].len()), (50, 20));
    assert!(
        lost.statement().contains("create c1 of 1 at 0.0 s; create c2 of 2 at 0.0 s and 47 more"),
        "{}",
        lost.statement()
    );
}

#[test]
fn a_long_history_is_searched_to_its_end_and_one_that_is_too_long_is_undecided() {
    for (reads, given_up, last, counts) in [
        (200, 0, "todo", (1, 0, 0)),
        (200, 0, "done", (1, 1, 0)),
        // In any order, or never.
        (200, 40, "todo", (1, 0, 0)),
        (1000, 2, "todo", (1, 0, 0)),
        (1000, 2, "never", (1, 1, 0)),
        (1100, 0, "todo", (1, 0, 1)),
        (1100, 0, "done", (1, 0, 1)),
    ] {
        let mut lines = vec!["create c 0..1 ok id=1 status=todo".to_owned()];
        lines.extend((0..reads).map(|n| format!("get r{n} {}..{} ok @1 status=todo", 2 + n, 2 + n)));
        lines.extend((0..given_up).map(|n| format!("complete p{n} {n}.. unknown @1 status:=done{n}")));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let lost = check(&history(&lines), &found(&[&format!("1 c status={last}")]), 1);
        let found = (lost.linearizable_checked, lost.not_linearizable, lost.linearizable_undecided);
        assert_eq!(found, counts, "{reads} reads, {given_up} given up, {last} in the end");
    }
}

#[test]
fn a_search_that_is_too_long_is_undecided() {
    let mut lines = vec!["create c 0..1 ok id=1 a=0".to_owned()];
    lines.extend((0..25).map(|n| format!("update u{n} 2.. unknown @1 f{n}:=1")));
    lines.push("get r 3..4 ok @1 a=1".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let lost = check(&history(&lines), &[], 1);
    assert_eq!((lost.linearizable_checked, lost.not_linearizable, lost.linearizable_undecided), (1, 0, 1));
}

/// A store that does one thing after another, and a client that is told of some of it.
#[derive(Default)]
struct Store {
    things: BTreeMap<u64, Thing>,
    made: u64,
    now: i64,
    operations: Vec<Operation>,
    /// Given up by the client, and not done yet.
    late: Vec<Work>,
}

#[derive(Clone)]
enum Work {
    Create(String),
    Set(u64, String),
    Delete(u64),
}

impl Store {
    fn apply(&mut self, work: &Work) -> Option<Thing> {
        match work {
            Work::Create(op) => {
                self.made += 1;
                let state = BTreeMap::from([("status".to_owned(), "todo".to_owned())]);
                let thing = Thing { id: self.made.to_string(), op: Some(op.clone()), version: Some(1), state };
                self.things.insert(self.made, thing.clone());
                Some(thing)
            }
            Work::Set(id, status) => {
                let thing = self.things.get_mut(id)?;
                thing.version = thing.version.map(|version| version + 1);
                thing.state.insert("status".to_owned(), status.clone());
                Some(thing.clone())
            }
            Work::Delete(id) => self.things.remove(id),
        }
    }

    fn step(&mut self, rng: &mut kit::Rng) {
        if !self.late.is_empty() && rng.random_ratio(1, 4) {
            let work = self.late.swap_remove(rng.random_range(0..self.late.len()));
            self.apply(&work);
        }
        let op = format!("o{}", self.operations.len());
        let id = rng.random_range(1..=self.made.max(1));
        let known = self.operations.iter().any(|known| known.got("id").is_some_and(|known| **known == *id.to_string()));
        let status = ["todo", "done"][rng.random_range(0..2)].to_owned();
        let (kind, work) = match rng.random_range(0..10) {
            0..3 => ("create", Some(Work::Create(op.clone()))),
            3 => ("list", None),
            _ if !known => ("list", None),
            4..6 => ("get", None),
            6..9 => ("update", Some(Work::Set(id, status.clone()))),
            _ => ("delete", Some(Work::Delete(id))),
        };
        let at = self.now;
        self.now += 2;
        let about = if matches!(kind, "create" | "list") { String::new() } else { format!("@{id}") };
        let sets = if kind == "update" { format!("status:={status}") } else { String::new() };
        let line = match (&work, rng.random_range(0..10)) {
            (Some(_), 0) => format!("{kind} {op} {at}..{} 503 {about} {sets}", at + 1),
            (Some(work), fate @ 1..4) => {
                match fate {
                    1 => drop(self.apply(work)),
                    2 => self.late.push(work.clone()),
                    _ => {}
                }
                format!("{kind} {op} {at}.. unknown {about} {sets}")
            }
            (work, _) => {
                let there = match work {
                    Some(work) => self.apply(work),
                    None => self.things.get(&id).cloned(),
                };
                match there {
                    _ if kind == "list" => format!("{kind} {op} {at}..{} ok total={}", at + 1, self.things.len()),
                    None => format!("{kind} {op} {at}..{} 404 {about} {sets}", at + 1),
                    Some(thing) => {
                        let id = if kind == "create" { format!("id={}", thing.id) } else { String::new() };
                        let shown = match kind {
                            "delete" => String::new(),
                            _ => format!("version={} status={}", thing.version.unwrap(), thing.state["status"]),
                        };
                        format!("{kind} {op} {at}..{} ok {about} {sets} {id} {shown}", at + 1)
                    }
                }
            }
        };
        self.operations.push(operation(&line));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_history_of_a_correct_store_is_always_clean(seed: u64, steps in 1_usize..60) {
        let mut rng = kit::rng(seed, "store");
        let mut store = Store::default();
        (0..steps).for_each(|_| store.step(&mut rng));
        let things: Vec<Thing> = store.things.into_values().collect();
        let total = Total { name: "total".to_owned(), said: things.len() as u64, counted: things.len() as u64 };
        let found = [Found { user: 0, things: Ok(things), totals: vec![total] }];
        let lost = check(&History { operations: store.operations, ..History::default() }, &found, seed);
        prop_assert_eq!(wrong(&lost), Vec::<String>::new());
    }
}
