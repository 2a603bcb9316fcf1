//! What is told of a receiver, and when it connects again.
//!
//! The one rule: losing the source never ends a run. The receiver says why it stopped, waits, and connects again.

use kit::batch::{Entry, Receiver};

/// The state of one receiver.
#[derive(Clone, Debug)]
pub struct Receiving {
    restart_delay_ns: u64,
    origin_ns: u64,
    told: Receiver,
    /// How often it was connected.
    connections: u32,
}

impl Receiving {
    /// One that is not connected yet. `origin_ns` is the start of the schedule.
    pub fn new(stream: u32, source: &str, restart_delay_ns: u64, origin_ns: u64) -> Self {
        let told = Receiver { stream, source: source.to_owned(), ..Receiver::default() };
        Self { restart_delay_ns, origin_ns, told, connections: 0 }
    }

    /// It is connected. Lines are numbered from the beginning of a stream, so after a second connection the latency of
    /// its records is not known any more.
    pub fn connected(&mut self, now_ns: u64) -> Entry {
        self.connections += 1;
        self.told.active = true;
        if self.connections > 1 {
            self.no_record_latency("the receiver was restarted, so which line of the schedule a line is, is not known");
        }
        self.tell(now_ns)
    }

    /// It lost its source, or did not reach it; also says when to connect again.
    pub fn lost(&mut self, now_ns: u64, reason: &str) -> (Entry, u64) {
        self.told.active = false;
        self.told.restarts += 1;
        self.told.last_error = Some(reason.to_owned());
        self.told.last_error_ms = Some(ms_since(self.origin_ns, now_ns));
        (self.tell(now_ns), now_ns.saturating_add(self.restart_delay_ns))
    }

    /// It ended, because the run did.
    pub fn ended(&mut self, now_ns: u64) -> Entry {
        self.told.active = false;
        self.tell(now_ns)
    }

    /// The latency of its records is not known from now on. The first reason stays.
    pub fn no_record_latency(&mut self, reason: &str) {
        self.told.no_record_latency.get_or_insert_with(|| reason.to_owned());
    }

    /// Whether it is known which line of its schedule a line is.
    pub fn knows_lines(&self) -> bool {
        self.told.no_record_latency.is_none()
    }

    /// Its entry in the journal, as of now.
    pub fn tell(&mut self, now_ns: u64) -> Entry {
        self.told.at_ms = ms_since(self.origin_ns, now_ns);
        Entry::Receiver(self.told.clone())
    }
}

/// Milliseconds from one instant to another, before it too.
pub(super) fn ms_since(origin_ns: u64, at_ns: u64) -> f64 {
    (i128::from(at_ns) - i128::from(origin_ns)) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn receiver(entry: Entry) -> Receiver {
        let Entry::Receiver(receiver) = entry else { panic!("{entry:?}") };
        receiver
    }

    #[test]
    fn a_lost_source_is_told_with_its_reason_and_tried_again_after_the_delay() {
        let mut receiving = Receiving::new(0, "localhost:9999", 2_000 * MS, 10_000 * MS);
        let first = receiver(receiving.connected(10_001 * MS));
        assert_eq!((first.active, first.at_ms, first.restarts, first.no_record_latency), (true, 1.0, 0, None));

        let (lost, again_ns) = receiving.lost(10_500 * MS, "the source closed the connection");
        let lost = receiver(lost);
        assert_eq!((lost.active, lost.restarts, lost.last_error_ms, again_ns), (false, 1, Some(500.0), 12_500 * MS));
        assert_eq!(lost.last_error.as_deref(), Some("the source closed the connection"));

        let again = receiver(receiving.connected(12_500 * MS));
        assert!(again.active && again.last_error.is_some(), "the last error stays to be seen");
        assert!(again.no_record_latency.unwrap().contains("restarted") && !receiving.knows_lines());
    }

    #[test]
    fn a_source_that_was_absent_at_first_costs_no_line_numbers() {
        let mut receiving = Receiving::new(0, "localhost:9999", 2_000 * MS, 0);
        let _ = receiving.lost(MS, "connection refused");
        assert_eq!(receiver(receiving.connected(2_001 * MS)).no_record_latency, None);
        assert!(receiving.knows_lines());
    }

    #[test]
    fn the_first_reason_without_latency_stays() {
        let mut receiving = Receiving::new(1, "elsewhere:1", 0, 0);
        receiving.no_record_latency("the source is a foreign one");
        receiving.no_record_latency("something else");
        assert_eq!(receiver(receiving.tell(0)).no_record_latency.as_deref(), Some("the source is a foreign one"));
    }
}
