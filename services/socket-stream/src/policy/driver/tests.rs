//! The driver by hand: one call, and what it asks for.

use std::time::Duration;

use super::*;

const MS: u64 = 1_000_000;

/// Two slots and one receiver, batches of 1 s and blocks of 200 ms.
fn settings() -> Settings {
    Settings { cores: 3, partitions: 2, ..Settings::default() }
}

fn driver(settings: &Settings, plan: Plan) -> Driver {
    assert_eq!(settings.check(), Ok(()));
    let mut driver = Driver::new(settings, plan, &Start::default());
    assert!(matches!(driver.next_action(), Some(Action::Tell(entry)) if matches!(*entry, Entry::Engine(_))));
    driver
}

fn block(number: u64, records: u64, closed_ns: u64) -> Block {
    let id = BlockId { stream: 0, number };
    Block { id, records, bytes: 10 * records, first_line: None, closed_ns }
}

/// Everything asked for, but what is told to the journal.
fn asked(driver: &mut Driver) -> Vec<Action> {
    let actions: Vec<_> = std::iter::from_fn(|| driver.next_action()).collect();
    actions.into_iter().filter(|action| !matches!(action, Action::Tell(_))).collect()
}

fn started(actions: &[Action]) -> Vec<Task> {
    let task = |action: &Action| if let Action::StartTask(task) = action { Some(task.clone()) } else { None };
    actions.iter().filter_map(task).collect()
}

fn ended(actions: &[Action]) -> Option<Ended> {
    actions.iter().find_map(|action| if let Action::Ended(ended) = action { Some(ended.clone()) } else { None })
}

/// Wakes the driver for all that is due, without any block to close.
fn wake(driver: &mut Driver, now_ns: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    while driver.wake(now_ns) {
        actions.extend(asked(driver));
    }
    actions
}

/// Ends every task that starts with what `done` says, until none starts any more.
fn run(
    driver: &mut Driver,
    now_ns: u64,
    actions: Vec<Action>,
    done: impl Fn(&Task) -> Done,
) -> (Vec<Task>, Vec<Action>) {
    let (mut all, mut tasks) = (actions.clone(), Vec::new());
    let mut waiting: VecDeque<_> = started(&actions).into();
    while let Some(task) = waiting.pop_front() {
        driver.task_done(now_ns, task.id, Ok(done(&task)));
        let actions = asked(driver);
        waiting.extend(started(&actions));
        all.extend(actions);
        tasks.push(task);
    }
    (tasks, all)
}

fn rows(count: u32) -> Done {
    Done { rows: count, output: (0..count).map(|row| format!("row {row}")).collect() }
}

#[test]
fn at_one_instant_the_batch_tick_comes_before_the_block_tick() {
    let settings = settings();
    let mut driver = driver(&settings, Plan::of(&settings));
    let ticks: Vec<_> = wake(&mut driver, 1_000 * MS)
        .into_iter()
        .filter_map(|action| match action {
            Action::CloseBlocks { tick_ns } => Some(("block", tick_ns / MS)),
            Action::Submitted(submitted) => Some(("batch", submitted.time_ns / MS)),
            _ => None,
        })
        .collect();
    let blocks = [200, 400, 600, 800].map(|ms| ("block", ms));
    assert_eq!(ticks, [&blocks[..], &[("batch", 1_000), ("block", 1_000)]].concat());
    assert_eq!(driver.next_wake(), Some(1_200 * MS));
    assert!(!driver.wake(1_199 * MS));
}

#[test]
fn a_batch_goes_through_its_stages_on_the_slots_there_are() {
    let settings = settings();
    let mut driver = driver(&settings, Plan::of(&settings));
    for number in 0..3 {
        driver.block(0, block(number, 10, 0));
    }
    let actions = wake(&mut driver, 1_000 * MS);
    assert_eq!(started(&actions).iter().map(|task| task.slot).collect::<Vec<_>>(), [0, 1], "the third waits");
    let (tasks, all) = run(&mut driver, 1_010 * MS, actions, |task| match task.work {
        TaskWork::Reduce { .. } => rows(9),
        _ => Done::default(),
    });
    let works: Vec<_> = tasks.iter().map(|task| (task.id.stage, task.work)).collect();
    let spread = |number| TaskWork::Spread { block: BlockId { stream: 0, number }, start: start_of(number as u32, 2) };
    let map = |partition| TaskWork::MapPartition { partition, records: 15 };
    let reduce = TaskWork::Reduce { partition: 0 };
    assert_eq!(works, [(0, spread(0)), (0, spread(1)), (0, spread(2)), (1, map(0)), (1, map(1)), (2, reduce)]);
    assert_eq!(tasks[5].gives, Some((0, 6)), "one row more than is printed");
    let ended = ended(&all).unwrap();
    assert_eq!((ended.outcome, ended.records, ended.blocks.len(), ended.ended_ns), (Outcome::Ok, 30, 3, 1_010 * MS));
    assert_eq!(driver.running_batches(), 0);
}

#[test]
fn overheads_are_spent_before_tasks_start() {
    let settings = Settings {
        job_overhead: Some(Duration::from_millis(100)),
        task_overhead: Some(Duration::from_millis(10)),
        ..settings()
    };
    let mut driver = driver(&settings, Plan::of(&settings));
    driver.block(0, block(0, 10, 0));
    assert_eq!(started(&wake(&mut driver, 1_000 * MS)), []);
    // A job and one task; two tasks; one task.
    let mut starts = Vec::new();
    for now_ms in 1_000..1_200 {
        let actions = wake(&mut driver, now_ms * MS);
        let (tasks, _) = run(&mut driver, now_ms * MS, actions, |task| rows(6 * u32::from(task.gives.is_some())));
        starts.extend(tasks.into_iter().map(|task| (now_ms, task.id.stage)));
    }
    assert_eq!(starts, [(1_110, 0), (1_130, 1), (1_130, 1), (1_140, 2)]);
}

#[test]
fn what_is_printed_is_kept_in_the_order_of_partitions_with_a_sign_that_there_is_more() {
    let settings = Settings { print: 3, ..settings() };
    for (plan, per_task, printed, jobs) in [
        (Plan::of(&settings), 2, vec!["row 0", "row 1", "row 0", "..."], 2),
        (Plan::of(&settings), 1, vec!["row 0", "row 0"], 2),
        (Plan::of(&settings), 4, vec!["row 0", "row 1", "row 2", "..."], 1),
        (Plan { outputs: vec![Output::All], ..Plan::of(&settings) }, 1, vec!["row 0", "row 0"], 1),
    ] {
        let mut driver = driver(&settings, plan);
        let mut now_ns = 0;
        let mut told = None;
        driver.block(now_ns, block(0, 10, 0));
        while driver.batches.is_empty() {
            now_ns = driver.next_wake().unwrap();
            driver.wake(now_ns);
        }
        while let Some(action) = driver.next_action() {
            match action {
                Action::StartTask(task) => {
                    let done = if task.gives.is_some() { rows(per_task) } else { Done::default() };
                    driver.task_done(now_ns, task.id, Ok(done));
                }
                Action::Tell(entry) => told = Some(entry),
                _ => {}
            }
        }
        let Some(Entry::Batch(batch)) = told.map(|entry| *entry) else { panic!("a batch was told last") };
        assert_eq!((batch.output, batch.jobs), (printed.into_iter().map(str::to_owned).collect(), jobs));
    }
}

#[test]
fn further_outputs_repeat_only_the_last_stage() {
    let settings = settings();
    let plan = Plan { outputs: vec![Output::Take(1), Output::All], ..Plan::of(&settings) };
    let mut driver = driver(&settings, plan);
    driver.block(0, block(0, 10, 0));
    let actions = wake(&mut driver, 1_000 * MS);
    let (tasks, all) = run(&mut driver, 1_000 * MS, actions, |task| rows(u32::from(task.gives.is_some())));
    let found: Vec<_> = tasks.iter().map(|task| (task.id.stage, task.id.index, task.gives)).collect();
    let all_rows = Some((1, u32::MAX));
    let expected = [(0, 0, None), (1, 0, None), (1, 1, None), (2, 0, Some((0, 1))), (3, 0, all_rows), (3, 1, all_rows)];
    assert_eq!(found, expected);
    assert_eq!(ended(&all).unwrap().outcome, Outcome::Ok);
}

#[test]
fn without_a_reduce_the_map_is_the_last_stage() {
    let settings = Settings { partitions: 0, ..settings() };
    let plan = Plan { partitions: 0, reduce_partitions: 0, outputs: vec![Output::Take(3)] };
    let mut driver = driver(&settings, plan);
    (0..3).for_each(|number| driver.block(0, block(number, 10, 0)));
    let actions = wake(&mut driver, 1_000 * MS);
    let (tasks, _) = run(&mut driver, 1_000 * MS, actions, |_| rows(2));
    assert!(matches!(tasks[0].work, TaskWork::MapBlock { block: BlockId { number: 0, .. }, records: 10 }));
    assert_eq!(tasks.iter().map(|task| (task.id.stage, task.id.index)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
    // And without a block there is no partition to look at: no job, but a batch.
    let ended = ended(&wake(&mut driver, 2_000 * MS)).unwrap();
    assert_eq!(
        (ended.batch, ended.started_ns, ended.ended_ns, ended.outcome),
        (1, Some(2_000 * MS), 2_000 * MS, Outcome::Ok)
    );
}

#[test]
fn a_task_that_fails_fails_its_batch_alone() {
    let settings = settings();
    let mut driver = driver(&settings, Plan::of(&settings));
    (0..4).for_each(|number| driver.block(0, block(number, 10, 0)));
    let running = started(&wake(&mut driver, 1_000 * MS));
    driver.task_done(1_001 * MS, running[0].id, Err("block 0 holds no text".into()));
    let actions = asked(&mut driver);
    let failed = ended(&actions).unwrap();
    assert_eq!((failed.outcome, failed.reason.as_deref()), (Outcome::Failed, Some("block 0 holds no text")));
    assert_eq!(started(&actions), [], "the tasks that waited never start");

    // The task that was running with it still holds its slot, and what it says is not heard.
    let next = started(&wake(&mut driver, 2_000 * MS));
    assert_eq!(next.iter().map(|task| task.slot).collect::<Vec<_>>(), [0]);
    driver.task_done(2_001 * MS, running[1].id, Ok(Done::default()));
    let next_too = started(&asked(&mut driver));
    assert_eq!(next_too.iter().map(|task| (task.slot, task.id.batch)).collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn a_stop_makes_a_last_batch_at_once_and_ends_when_it_has_ended() {
    let settings = settings();
    let mut driver = driver(&settings, Plan::of(&settings));
    wake(&mut driver, 400 * MS);
    driver.stop(500 * MS);
    driver.block(500 * MS, block(0, 10, 500 * MS));
    driver.received_all(500 * MS);
    let actions = asked(&mut driver);
    let submitted = Submitted { batch: 0, time_ns: 500 * MS, next_time_ns: None };
    assert_eq!(actions[0], Action::Submitted(submitted));
    assert!(!driver.is_drained() && driver.next_batch_tick_ns().is_none());
    let (_, all) = run(&mut driver, 510 * MS, actions, |task| rows(6 * u32::from(task.gives.is_some())));
    assert_eq!(ended(&all).unwrap().outcome, Outcome::Ok);
    assert_eq!((all.last(), driver.next_wake(), driver.is_drained()), (Some(&Action::Drained), None, true));
}

#[test]
fn what_is_left_after_the_time_to_stop_is_given_up_open_blocks_included() {
    let settings = Settings { graceful_stop_timeout: Some(Duration::from_millis(300)), ..settings() };
    let mut driver = driver(&settings, Plan::of(&settings));
    driver.block(0, block(0, 10, 0));
    wake(&mut driver, 2_000 * MS);
    driver.stop(2_050 * MS);
    wake(&mut driver, 2_349 * MS);
    assert!(driver.wake(2_350 * MS));
    assert_eq!(asked(&mut driver), [Action::CloseBlocks { tick_ns: 2_350 * MS }]);
    driver.block(2_350 * MS, block(1, 5, 2_350 * MS));
    let actions = wake(&mut driver, 2_350 * MS);
    let given_up: Vec<_> = actions
        .iter()
        .filter_map(|action| if let Action::Ended(ended) = action { Some(ended) } else { None })
        .map(|ended| (ended.batch, ended.records, ended.outcome, ended.reason.as_deref().unwrap_or_default()))
        .collect();
    let (running, queued) = ("still running when the run ended", "still queued when the run ended");
    let unknown = Outcome::Unknown;
    assert_eq!(given_up, [(0, 10, unknown, running), (1, 0, unknown, queued), (2, 5, unknown, queued)]);
    assert_eq!(actions.last(), Some(&Action::Drained));
}

#[test]
fn a_batch_of_several_receivers_says_how_much_each_of_them_got() {
    for (receivers, expected) in [(1, vec![]), (3, vec![7, 0, 5])] {
        let settings = Settings { receivers, cores: 5, ..settings() };
        let mut driver = driver(&settings, Plan::of(&settings));
        for (stream, number, records) in [(0, 0, 3), (2, 0, 5), (0, 1, 4)] {
            let id = BlockId { stream, number };
            driver.block(0, Block { id, ..block(number, records, 0) });
        }
        while driver.wake(1_000 * MS) {}
        let batches = std::iter::from_fn(|| driver.next_action()).filter_map(|action| match action {
            Action::Tell(entry) => {
                if let Entry::Batch(batch) = *entry {
                    Some(batch)
                } else {
                    None
                }
            }
            _ => None,
        });
        let batch = batches.last().unwrap();
        assert_eq!((batch.records, &batch.records_by_stream), (12, &expected));
        let json = serde_json::to_string(&batch).unwrap();
        assert_eq!(json.contains("records_by_stream"), receivers > 1, "{json}");
        assert_eq!(serde_json::from_str::<Batch>(&json).unwrap(), batch);
    }
}

#[test]
fn back_pressure_asks_for_a_rate_after_the_second_batch() {
    let settings = Settings { backpressure: true, pid_min_rate: 1.0, ..settings() };
    let mut driver = driver(&settings, Plan::of(&settings));
    let mut rates = Vec::new();
    for batch in 1..=3 {
        driver.block(0, block(batch, 100, 0));
        let now_ns = batch * 1_000 * MS;
        let actions = wake(&mut driver, now_ns);
        // Half a second, and then more and more.
        let (_, all) =
            run(&mut driver, now_ns + 250 * batch * MS, actions, |task| rows(6 * u32::from(task.gives.is_some())));
        rates.extend(all.into_iter().filter(|action| matches!(action, Action::Rate { .. })));
    }
    // 100 records in 0.25 s are 400/s, in 0.5 s 200/s, in 0.75 s 133.3/s.
    assert_eq!(rates, [Action::Rate { stream: 0, per_s: 200 }, Action::Rate { stream: 0, per_s: 133 }]);
}

#[test]
fn times_are_told_in_ms_since_the_start_of_the_schedule_and_the_wall_makes_them_times_of_day() {
    let settings = settings();
    let wall_minus_now_ns = 1_700_000_000_000_000_000;
    let start = Start { now_ns: 5_100 * MS, origin_ns: 5_250 * MS, wall_minus_now_ns, notes: vec!["a note".into()] };
    let mut driver = Driver::new(&settings, Plan::of(&settings), &start);
    let Some(Action::Tell(entry)) = driver.next_action() else { panic!("the engine is told first") };
    let Entry::Engine(engine) = *entry else { panic!("{entry:?}") };
    assert_eq!((engine.start_unix_ms, engine.notes), (1_700_000_005_250.0, vec!["a note".to_owned()]));
    assert_eq!(driver.next_batch_tick_ns(), Some(6_000 * MS), "whole seconds of the wall clock");
    wake(&mut driver, 5_999 * MS);
    driver.wake(6_003 * MS);
    let told = std::iter::from_fn(|| driver.next_action()).find_map(|action| match action {
        Action::Tell(entry) => Some(*entry),
        _ => None,
    });
    let Some(Entry::Batch(batch)) = told else { panic!("a batch is told") };
    assert_eq!((batch.time_ms, batch.submitted_ms), (750.0, 753.0));
}
