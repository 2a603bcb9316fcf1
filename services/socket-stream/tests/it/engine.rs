//! The engine, from lines on a socket to counts, and what it does when something goes wrong.

use std::io::Write;
use std::sync::Mutex;

use kit::batch::{Entry, Status};
use kit::host::Hosted;
use kit::role::BoxFuture;
use kit::{Env, Role};
use serde_json::{Value, json};
use socket_stream::stream::{Stream, Word};
use socket_stream::{engine as engine_module, model};

use crate::hosting::{
    AtEnd, batches, begin_role, completed_records, counted, drain, end, engine, foreign_source, journal, listener, ops,
    printed, receivers, series, settings, source, stages, start, until,
};

/// Quick batches that print every word.
fn quick(more: &Value) -> Value {
    let mut quick = json!({
        "batch_interval": "200ms",
        "block_interval": "50ms",
        "receiver_restart_delay": "100ms",
        "print": 99,
        "stages": stages(1_000.0, 2),
    });
    for (key, value) in more.as_object().unwrap() {
        quick[key] = value.clone();
    }
    quick
}

/// An engine alone, on a source of someone else.
fn on_foreign(script: Vec<(Vec<u8>, AtEnd)>, more: &Value) -> Hosted {
    let mut given = quick(more);
    given["source"] = json!(foreign_source(script).to_string());
    let engine = crate::hosting::begin("engine", &given, |_| {});
    start(&[&engine]);
    engine
}

#[test]
fn word_counts_are_those_of_a_plain_count_of_the_same_lines() {
    for (more, streams) in [
        (json!({}), 1),
        (json!({ "partitions": 0, "cores": 2 }), 1),
        (json!({ "partitions": 3, "reduce_partitions": 7, "skew": 1.2 }), 1),
        (json!({ "receivers": 2, "poisson": true, "concurrent_jobs": 2 }), 2),
    ] {
        let given = quick(&more);
        let source = source(&given);
        let engine = engine(&given, source.addr);
        start(&[&source, &engine]);
        // Every stream has the whole schedule: 1,000 lines/s for 2 s, or about as many.
        until("everything was sent", || {
            let sent = series(&source, "due_lines");
            sent.len() > 3 && sent[sent.len() - 1] == sent[sent.len() - 2]
        });
        drain(&source);
        let sent = series(&source, "sent_lines").last().unwrap().unwrap() as u64;
        drain(&engine);
        let batches = batches(&engine);
        assert!(batches.iter().all(|batch| batch.status == Status::Completed), "{batches:?}");
        assert_eq!(batches.iter().map(|batch| batch.records).sum::<u64>(), sent, "{more}");
        if more["poisson"] != json!(true) {
            assert_eq!(printed(&batches), counted(&settings(&given), streams, sent / u64::from(streams)), "{more}");
        }
        assert_eq!(printed(&batches).values().sum::<u64>(), 3 * sent, "{more}");
        let (batch_ops, record_ops) = (ops(&engine, "batch"), ops(&engine, "record"));
        assert_eq!((batch_ops.ok, batch_ops.units), (batches.len() as u64, sent), "{more}");
        assert_eq!((record_ops.ok, record_ops.count()), (sent, sent), "{more}");
        assert!(receivers(&engine).iter().all(|receiver| receiver.last_error.is_none()), "{more}");
        end(engine);
        end(source);
    }
}

#[test]
fn counts_of_the_stream_so_far_end_as_those_of_all_lines() {
    let given = quick(&json!({ "state": true }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("everything was received", || completed_records(&engine) == 2_000);
    drain(&source);
    drain(&engine);
    assert_eq!(printed(batches(&engine).last()), counted(&settings(&given), 1, 2_000));
    end(engine);
    end(source);
}

#[test]
fn a_source_that_is_absent_at_first_is_waited_for() {
    let addr = listener().local_addr().unwrap();
    let given = quick(&json!({}));
    let engine = engine(&given, addr);
    start(&[&engine]);
    let absent = format!("cannot connect to {addr}: ");
    until("it is told that the source is absent", || {
        receivers(&engine).iter().any(|told| told.last_error.as_deref().is_some_and(|error| error.starts_with(&absent)))
    });
    let source = crate::hosting::begin("source", &given, |config| config.bind = addr);
    start(&[&source]);
    until("its lines are counted", || completed_records(&engine) > 100);
    let told = receivers(&engine).pop().unwrap();
    assert!(told.active && told.restarts >= 1, "{told:?}");
    assert!(told.no_record_latency.unwrap().contains("after the start"));
    end(source);
    until("it is told that the source has gone", || receivers(&engine).last().is_some_and(|told| !told.active));
    end(engine);
}

#[test]
fn what_is_no_line_restarts_the_receiver_with_the_reason_and_loses_no_line_before_it() {
    let line = |bytes: &[u8]| [b"good words\n", bytes].concat();
    let endless = line(&vec![b'x'; 10 << 20]);
    for (sent, at_end, reason, words) in [
        (endless.clone(), AtEnd::Stay, "a line of more than 1048576 bytes (max_line_bytes)", 2),
        ([endless, b"\n".to_vec()].concat(), AtEnd::Close, "a line of more than 1048576 bytes", 2),
        (line(b"bad \xff\xfe words\n"), AtEnd::Stay, "a line that is not UTF-8", 2),
        (line(b"one more"), AtEnd::Close, "the source closed the stream", 4),
    ] {
        let engine = on_foreign(vec![(sent, at_end), (b"afterwards\n".to_vec(), AtEnd::Stay)], &json!({}));
        until("what came afterwards is counted", || printed(&batches(&engine)).contains_key("afterwards"));
        let told = receivers(&engine);
        let error = told.iter().find_map(|told| told.last_error.clone()).unwrap();
        assert!(error.contains(reason), "{error}");
        assert!(told.last().unwrap().active && told.last().unwrap().restarts == 1);
        let counts = printed(&batches(&engine));
        assert_eq!(counts["good"], 1);
        assert_eq!(counts.values().sum::<u64>(), words + 1, "{counts:?}");
        let held = series(&engine, "held_bytes").into_iter().flatten().fold(0.0, f64::max);
        assert!(held <= 2.0 * f64::from(1 << 20), "{held} bytes were held");
        drain(&engine);
        end(engine);
    }
}

#[test]
fn the_bound_of_memory_makes_the_receiver_wait_and_loses_nothing() {
    let given = quick(&json!({
        "stages": stages(20_000.0, 1), "cores": 2, "cost": "50us", "memory_bytes": 40_000, "max_line_bytes": 1_000,
        "graceful_stop_timeout": "60s",
    }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("everything was sent", || series(&source, "due_lines").last() == Some(&Some(20_000.0)));
    drain(&source);
    drain(&engine);
    assert_eq!(completed_records(&engine), 20_000);
    assert_eq!(ops(&engine, "record").ok, 20_000);
    assert!(series(&engine, "held_bytes").into_iter().all(|held| held.unwrap() <= 40_000.0));
    assert!(series(&engine, "receiver_blocked_s").last().unwrap().unwrap() > 0.1);
    end(engine);
    end(source);
}

#[test]
fn a_graceful_stop_does_not_wait_for_a_source_of_someone_else_that_never_ends() {
    let socket = listener();
    let mut given = quick(&json!({ "graceful_stop_timeout": "60s" }));
    given["source"] = json!(socket.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        let (mut client, _) = socket.accept().unwrap();
        while client.write_all(b"on and on\n").is_ok() {
            std::thread::yield_now();
        }
    });
    let engine = crate::hosting::begin("engine", &given, |_| {});
    start(&[&engine]);
    until("a batch has ended", || completed_records(&engine) > 0);
    drain(&engine);
    let received = series(&engine, "received_records").last().unwrap().unwrap();
    assert_eq!(completed_records(&engine) as f64, received);
    assert!(receivers(&engine).last().unwrap().no_record_latency.as_ref().unwrap().contains("foreign"));
    end(engine);
}

#[test]
fn a_graceful_stop_finishes_what_was_received_while_the_source_goes_on() {
    let given = quick(&json!({ "stages": stages(500.0, 60), "cost": "1ms" }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("a batch has ended", || completed_records(&engine) > 100);
    drain(&source);
    drain(&engine);
    let received = series(&engine, "received_records").last().unwrap().unwrap();
    assert_eq!(completed_records(&engine) as f64, received);
    assert!(batches(&engine).iter().all(|batch| batch.status == Status::Completed));
    assert_eq!(series(&engine, "held_bytes").last(), Some(&Some(0.0)));
    end(engine);
    end(source);
}

#[test]
fn what_cannot_be_finished_in_time_is_unknown_and_every_line_is_in_a_batch() {
    let given = quick(&json!({ "stages": stages(500.0, 60), "cost": "1h", "graceful_stop_timeout": "300ms" }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("some batches wait", || batches(&engine).len() > 3);
    drain(&source);
    drain(&engine);
    let batches = batches(&engine);
    let received = series(&engine, "received_records").last().unwrap().unwrap();
    assert_eq!(batches.iter().map(|batch| batch.records).sum::<u64>() as f64, received);
    assert!(batches.iter().filter(|batch| batch.records > 0).all(|batch| batch.status == Status::Failed));
    let reasons: Vec<_> = batches.iter().filter_map(|batch| batch.reason.as_deref()).collect();
    assert!(reasons.contains(&"still queued when the run ended"), "{reasons:?}");
    assert_eq!(ops(&engine, "record").unknown as f64, received);
    // Its threads are in the middle of tasks that take hours, and end all the same.
    end(engine);
    end(source);
}

#[test]
fn a_role_that_is_ended_in_the_middle_of_a_task_ends_at_once() {
    let given = quick(&json!({ "cost": "1h", "work": "burn", "stages": stages(100.0, 60) }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("a batch has started", || {
        batches(&engine).iter().any(|batch| batch.started_ms.is_some() && batch.records > 0)
    });
    let clock = kit::Clock::real();
    let before_ns = clock.now_ns();
    end(engine);
    assert!(clock.now_ns() - before_ns < 2_000_000_000);
    end(source);
}

#[test]
fn one_core_and_one_receiver_say_that_no_slot_is_left() {
    let given = quick(&json!({ "cores": 1, "receivers": 1 }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("it tells something", || !journal(&engine).is_empty());
    let Some(Entry::Engine(told)) = journal(&engine).into_iter().next() else { panic!("the engine is told first") };
    assert!(told.notes[0].contains("no slot is left") && told.notes[0].contains("cores"), "{:?}", told.notes);
    until("batches queue", || batches(&engine).len() > 3);
    // The first may begin, and waits for a slot for ever.
    assert!(batches(&engine).iter().all(|batch| batch.ended_ms.is_none()));
    assert!(batches(&engine)[1..].iter().all(|batch| batch.status == Status::Queued && batch.started_ms.is_none()));
    drain(&source);
    drain(&engine);
    let batches = batches(&engine);
    assert!(batches.iter().all(|batch| batch.status == Status::Failed), "{batches:?}");
    assert_eq!(ops(&engine, "batch").unknown, batches.len() as u64);
    end(engine);
    end(source);
}

#[test]
fn more_slots_that_compute_than_there_are_cpus_are_told() {
    let given = quick(&json!({ "cores": 2_000, "cost": "1us", "work": "burn", "stages": [] }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&engine]);
    until("it tells something", || !journal(&engine).is_empty());
    let Some(Entry::Engine(told)) = journal(&engine).into_iter().next() else { panic!("the engine is told first") };
    assert!(told.notes.iter().any(|note| note.starts_with("1999 slots compute on ")), "{:?}", told.notes);
    end(engine);
    end(source);
}

#[test]
fn the_processing_time_of_a_sleep_is_that_of_the_model() {
    let given = json!({ "batch_interval": "1s", "cost": "5ms", "stages": stages(290.0, 60) });
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    let full = |batch: &&kit::batch::Batch| batch.ended_ms.is_some() && (280..=300).contains(&batch.records);
    until("three batches have ended", || batches(&engine).iter().filter(full).count() >= 3);
    let mut ratios: Vec<_> = batches(&engine)
        .iter()
        .filter(full)
        .map(|batch| {
            let model = model::processing_time(&settings(&given), batch.records as f64).unwrap();
            (batch.ended_ms.unwrap() - batch.started_ms.unwrap()) / (model.as_secs_f64() * 1e3)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    assert!((0.95..=1.05).contains(&median), "{ratios:?}");
    end(engine);
    end(source);
}

#[test]
fn back_pressure_slows_the_receiver_down_to_what_batches_achieve() {
    // 1,000 lines/s of 2 ms each on one slot: half of it is too much.
    let given = quick(&json!({ "cores": 2, "cost": "2ms", "backpressure": true, "stages": stages(1_000.0, 60) }));
    let source = source(&given);
    let engine = engine(&given, source.addr);
    start(&[&source, &engine]);
    until("the rate is limited to about 500/s", || {
        series(&engine, "rate_limit").last().copied().flatten().is_some_and(|rate| rate < 600.0)
    });
    end(engine);
    end(source);
}

#[test]
fn a_job_that_keeps_values_is_refused_several_jobs_at_a_time() {
    fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
        let job = Stream::lines()
            .map(|line: &str| (Word::new(line), 1_u64))
            .reduce_by_key(|total, count| *total += count, 2)
            .running()
            .print(5);
        Box::pin(engine_module::run_job(env, move |_| Ok(job)))
    }
    let mut given = quick(&json!({ "concurrent_jobs": 2 }));
    given["source"] = json!(listener().local_addr().unwrap().to_string());
    let mut config = kit::RoleConfig::new("engine");
    config.settings = given;
    let role = Role { name: "engine", about: "a job that keeps values", run };
    let mut hosted = kit::host::start(role, config, kit::Clock::real()).unwrap();
    assert!(!hosted.wait_until_started());
    let error = format!("{:#}", hosted.join().unwrap_err());
    assert!(error.contains("concurrent_jobs is 2") && error.contains("set it to 1"), "{error}");
}

#[test]
fn what_was_read_before_the_stop_is_in_a_batch_whatever_the_rate_limit() {
    // At 10/s the fifty would take 5 s, and the stop lasts 2 s.
    let script = vec![(b"a line\n".repeat(50), AtEnd::Stay)];
    let engine = on_foreign(script, &json!({ "max_rate": 10.0 }));
    until("a batch has ended", || completed_records(&engine) > 0);
    assert!(completed_records(&engine) < 50);
    drain(&engine);
    assert_eq!(completed_records(&engine), 50);
    assert_eq!(printed(&batches(&engine))["line"], 50);
    end(engine);
}

#[test]
fn a_graceful_stop_under_back_pressure_loses_no_line_that_was_sent() {
    for more in [json!({ "max_rate": 800.0 }), json!({ "cores": 2, "cost": "1ms", "pid_min_rate": 300.0 })] {
        let mut given = quick(&json!({
            "backpressure": true, "stages": stages(1_500.0, 1), "graceful_stop_timeout": "60s",
        }));
        given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let source = source(&given);
        let engine = engine(&given, source.addr);
        start(&[&source, &engine]);
        until("everything was sent", || series(&source, "due_lines").last() == Some(&Some(1_500.0)));
        drain(&source);
        drain(&engine);
        assert_eq!(completed_records(&engine), 1_500, "{more}");
        assert_eq!((ops(&engine, "record").ok, ops(&engine, "record").unknown), (1_500, 0), "{more}");
        end(engine);
        end(source);
    }
}

#[test]
fn a_job_that_panics_fails_its_batch_with_the_reason_and_the_engine_goes_on() {
    static COUNTED: Mutex<Vec<(Word, u64)>> = Mutex::new(Vec::new());
    fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
        let job = Stream::lines()
            .repartition(2)
            .map(|line: &str| {
                assert!(line != "boom", "this line is {line}");
                (Word::new(line), 1_u64)
            })
            .reduce_by_key(|total, count| *total += count, 2)
            .for_each(|_, rows| COUNTED.lock().unwrap().extend_from_slice(rows));
        Box::pin(engine_module::run_job(env, move |_| Ok(job)))
    }
    let script = vec![(b"boom\n".to_vec(), AtEnd::Close), (b"calm\ncalm\n".to_vec(), AtEnd::Stay)];
    let mut given = quick(&json!({ "receiver_restart_delay": "600ms" }));
    given["source"] = json!(foreign_source(script).to_string());
    let engine = begin_role(Role { name: "engine", about: "a job that panics", run }, &given, |_| {});
    start(&[&engine]);
    until("what came afterwards is counted", || COUNTED.lock().unwrap().contains(&(Word::new("calm"), 2)));
    let failed: Vec<_> = batches(&engine).into_iter().filter(|batch| batch.status == Status::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].reason.as_deref(), Some("a task panicked: this line is boom"));
    drain(&engine);
    assert_eq!(ops(&engine, "batch").failed, 1);
    end(engine);
}

#[test]
fn ever_new_words_fail_their_batch_with_the_reason_and_the_engine_goes_on_with_those_it_has() {
    let new: String = (0..20_000).map(|n| format!("new{n}\n")).collect();
    for (kind, more) in [
        ("counts of the stream so far", json!({ "state": true })),
        ("a window of counts", json!({ "window_batches": 3 })),
    ] {
        let mut given = json!({ "receiver_restart_delay": "600ms", "state_bytes": 20_000 });
        given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let close = |text: &str| (text.as_bytes().to_vec(), AtEnd::Close);
        let engine = on_foreign(vec![close("known\n"), close(&new), close("known\n")], &given);
        until("the last line is counted", || {
            let counted = |batch: &kit::batch::Batch| (batch.status, batch.records) == (Status::Completed, 1);
            batches(&engine).iter().filter(|batch| counted(batch)).count() == 2
        });
        let told = batches(&engine);
        let failed: Vec<_> = told.iter().filter(|batch| batch.status == Status::Failed).collect();
        let reason = failed[0].reason.as_deref().unwrap();
        assert!(reason.starts_with(kind) && reason.contains("above state_bytes = 20000; raise it"), "{reason}");
        drain(&engine);
        assert_eq!(ops(&engine, "batch").failed, failed.len() as u64);
        end(engine);
    }
}
