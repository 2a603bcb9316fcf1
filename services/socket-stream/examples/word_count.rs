//! Counts the words of any socket that sends lines of text: `word_count [HOST:PORT]`, and Ctrl-C ends it.
//!
//! For a source without this crate: `yes "to be or not to be" | nc -lk 9999`.

use kit::batch::{Entry, Status};
use kit::journal::Line;
use kit::role::BoxFuture;
use kit::{Clock, Env, Role, RoleConfig, host};
use serde_json::json;
use socket_stream::engine;
use socket_stream::stream::{Job, Stream, Word};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The job: words of at least two letters, and how often each was there in the last five batches.
fn word_count() -> Job {
    Stream::lines()
        .repartition(2)
        .flat_map(|line, out| line.split_whitespace().for_each(|word| out(Word::new(word))))
        .filter(|word| word.chars().count() > 1)
        .map(|word| (word, 1_u64))
        .reduce_by_key(|total, count| *total += count, 2)
        .by_window(5)
        .print(10)
}

fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
    Box::pin(engine::run_job(env, |_| Ok(word_count())))
}

fn main() -> anyhow::Result<()> {
    let source = std::env::args().nth(1).unwrap_or_else(|| "localhost:9999".to_owned());
    let mut config = RoleConfig::new("word-count");
    config.settings = json!({ "source": source, "batch_interval": "1s", "cores": 3, "memory_bytes": 256 << 20 });
    let role = Role { name: "word-count", about: "counts the words of a socket", run };
    let clock = Clock::real();
    let mut hosted = host::start(role, config, clock.clone())?;
    if hosted.wait_until_started() {
        hosted.admin.control.start(clock.now_ns());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                () = follow(&hosted, &clock) => {}
                () = host::termination() => {}
            }
        });
        hosted.request_stop();
    }
    hosted.join()
}

/// Shows what the engine tells, as it tells it.
async fn follow(hosted: &host::Hosted, clock: &Clock) {
    let mut read = 0;
    loop {
        for line in hosted.admin.journal(read).lines() {
            let Ok(line) = serde_json::from_str::<Line<Entry>>(line) else { continue };
            read = line.seq;
            show(line.entry);
        }
        clock.sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn show(entry: Entry) {
    match entry {
        Entry::Batch(batch) if batch.status == Status::Completed => {
            let processing_ms = batch.ended_ms.zip(batch.started_ms).map_or(0.0, |(ended, started)| ended - started);
            println!("--- batch {}: {} lines in {processing_ms:.1} ms", batch.batch, batch.records);
            batch.output.iter().for_each(|row| println!("{row}"));
        }
        Entry::Batch(batch) if batch.status == Status::Failed => {
            println!("--- batch {} failed: {}", batch.batch, batch.reason.unwrap_or_default());
        }
        Entry::Receiver(receiver) if !receiver.active => {
            eprintln!("no source: {}", receiver.last_error.unwrap_or_default());
        }
        _ => {}
    }
}
