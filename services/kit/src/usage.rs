//! What a process, or a group of named threads, uses: CPU time, memory, open files.

use std::fs;
use std::path::Path;

/// A reading of one process. What could not be read is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time since it started, in seconds.
    pub cpu_s: Option<f64>,
    /// Resident memory in bytes.
    pub rss_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// Reads a process by its id; all none when it has gone.
pub fn of_process(pid: u32) -> Usage {
    let folder = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{folder}/stat")).ok();
    let fields = stat.as_deref().map(fields_after_name).unwrap_or_default();
    Usage {
        cpu_s: cpu_seconds(&fields),
        rss_bytes: fields.get(21).and_then(|pages| pages.parse::<u64>().ok()).map(|pages| pages * page_size()),
        open_files: fs::read_dir(format!("{folder}/fd")).ok().map(|entries| entries.count() as u64),
        threads: fields.get(17).and_then(|threads| threads.parse().ok()),
    }
}

/// Whether a process is stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    fields_after_name(&stat).first() == Some(&"T")
}

/// CPU time, in seconds, of every living thread of this process whose name starts with `prefix`, by thread id.
///
/// Names reach threads that a driver starts for itself, where ids would have to be handed over.
pub fn of_threads(prefix: &str) -> Vec<(u32, f64)> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| {
            let path = task.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            if !name.starts_with(prefix) {
                return None;
            }
            let id = path.file_name()?.to_str()?.parse().ok()?;
            Some((id, thread_cpu_s(&path)?))
        })
        .collect()
}

/// `schedstat` counts nanoseconds where `stat` counts hundredths of a second.
fn thread_cpu_s(task: &Path) -> Option<f64> {
    if let Ok(text) = fs::read_to_string(task.join("schedstat"))
        && let Some(ns) = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok())
    {
        return Some(ns as f64 / 1e9);
    }
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    cpu_seconds(&fields_after_name(&stat))
}

/// The name may hold spaces and brackets; everything after its last bracket is fixed. Field 0 is the state.
fn fields_after_name(stat: &str) -> Vec<&str> {
    stat.rsplit_once(") ").map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default()
}

fn cpu_seconds(fields: &[&str]) -> Option<f64> {
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_cpu_memory_files_and_threads() {
        let usage = of_process(std::process::id());
        assert!(usage.cpu_s.is_some());
        assert!(usage.rss_bytes.unwrap() > 100_000);
        assert!(usage.open_files.unwrap() >= 3);
        assert!(usage.threads.unwrap() >= 1);
    }

    #[test]
    fn a_process_that_is_gone_is_unknown_not_zero() {
        assert_eq!(of_process(u32::MAX), Usage::default());
    }

    #[test]
    fn threads_are_found_by_the_start_of_their_name() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("zz9/worker".into())
            .spawn(move || {
                let _ = receive.recv();
            })
            .unwrap();
        // A thread names itself once it runs.
        while of_threads("zz9/").is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(of_threads("zz9/").len(), 1);
        assert!(of_threads("zz8/").is_empty());
        drop(send);
        thread.join().unwrap();
    }
}
