//! Keeps the books of the engine on a thread of its own: journal, operations, series.
//!
//! The one rule: in the order in which it was told. The last thing it does is to say that all is recorded.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use kit::batch::Entry;
use kit::role::Control;
use kit::series::Series;
use kit::{Env, Journal, Recorder};

use super::Engine;
use crate::ops::Ops;
use crate::policy::{Ended, Submitted};
use crate::stream::{Running, Text};

const S: u64 = 1_000_000_000;

/// Something to be kept.
pub(super) enum Note {
    /// An entry of the journal.
    Tell(Box<Entry>),
    /// A batch has been submitted.
    Submitted(Submitted),
    /// A batch has ended.
    Ended {
        /// How.
        ended: Ended,
        /// What it was made of, to be freed where nobody waits: the tables, and then the text.
        freed: Option<(Arc<dyn Running>, Vec<Text>)>,
    },
    /// Which line of its schedule a line of this stream is, is not known from the one of this number on.
    Forget {
        /// The stream.
        stream: u32,
        /// The number, as if lines were counted on.
        line: u64,
    },
    /// Nothing comes after this.
    Drained {
        /// Whether a receiver was cut off before its source had ended.
        cut: bool,
    },
}

pub(super) struct Ledger {
    notes: Receiver<Note>,
    ops: Ops,
    origin_ns: u64,
    journal: Journal,
    series: Series,
    recorder: Recorder,
    control: Control,
}

impl Ledger {
    pub(super) fn new(env: &Env, notes: Receiver<Note>, ops: Ops, origin_ns: u64) -> Self {
        Self {
            notes,
            ops,
            origin_ns,
            journal: env.journal.clone(),
            series: env.series.clone(),
            recorder: env.recorder.clone(),
            control: env.control.clone(),
        }
    }

    /// Keeps the books until everything was told, or the role ends: the body of the ledger's thread.
    pub(super) fn keep(mut self, engine: &Engine) {
        // Told from the very start on, also where nothing has happened yet.
        let mut tick_ns = self.origin_ns;
        let cut = loop {
            let now_ns = engine.clock.now_ns();
            if now_ns >= tick_ns {
                self.tell(engine, now_ns);
                tick_ns += S * ((now_ns - tick_ns) / S + 1);
            }
            let wait = Duration::from_nanos(tick_ns.saturating_sub(engine.clock.now_ns()));
            match self.notes.recv_timeout(wait) {
                Ok(Note::Drained { cut }) => break cut,
                Ok(note) => self.note(engine, note),
                // Everything that was told before comes first: a role that ends has nothing more to tell.
                Err(RecvTimeoutError::Timeout) if engine.signal.told().end => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        let stop_ns = engine.signal.told().stop_ns;
        self.ops.finish(engine.clock.now_ns(), stop_ns.filter(|_| cut));
        self.tell(engine, engine.clock.now_ns());
        // Nothing more comes: the last second is complete although it is not over.
        self.recorder.collect(u64::MAX);
        self.control.set_drained();
    }

    fn note(&mut self, engine: &Engine, note: Note) {
        match note {
            Note::Tell(entry) => self.journal.push(&entry),
            Note::Submitted(submitted) => self.ops.submitted(&submitted),
            Note::Ended { ended, freed } => {
                if let Some((tables, texts)) = freed {
                    drop(tables);
                    texts.into_iter().filter_map(Arc::into_inner).for_each(|text| engine.spare.give(text));
                }
                self.ops.ended(&ended);
            }
            Note::Forget { stream, line } => self.ops.forget_from(stream, line),
            Note::Drained { .. } => {}
        }
    }

    fn tell(&self, engine: &Engine, now_ns: u64) {
        let (queued, running) = engine.core.get().map_or((0, 0), super::core::Core::batches);
        let rates: Option<Vec<f64>> = engine.inboxes.iter().map(super::inbox::Inbox::rate).collect();
        let received: u64 = engine.inboxes.iter().map(super::inbox::Inbox::total_records).sum();
        for (name, value) in [
            ("queued_batches", Some(queued as f64)),
            ("running_batches", Some(running as f64)),
            ("held_bytes", Some(engine.memory.held_bytes() as f64)),
            ("receiver_blocked_s", Some(engine.memory.blocked_s())),
            ("rate_limit", rates.map(|rates| rates.iter().sum())),
            ("received_records", Some(received as f64)),
        ] {
            self.series.push(now_ns, name, value);
        }
    }
}
