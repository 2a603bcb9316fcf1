//! CPU sets: which CPUs there are, who gets which, and how a thread and its children are held to them.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs this process may use.
pub fn allowed() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Who gets which CPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// For all roles of the system under test together.
    pub system: Option<Vec<usize>>,
    /// For the load generator.
    pub load: Option<Vec<usize>>,
}

/// Divides the CPUs: a quarter, but at least one, for the load generator, the rest for the system. With a single CPU
/// nothing is pinned.
pub fn budget(allowed: &[usize]) -> Budget {
    if allowed.len() < 2 {
        return Budget { system: None, load: None };
    }
    let system = allowed.len() - (allowed.len() / 4).max(1);
    Budget { system: Some(allowed[..system].to_vec()), load: Some(allowed[system..].to_vec()) }
}

/// Runs `body` with this thread held to `cpus`. Threads and processes that it starts inherit that.
///
/// # Errors
/// When the kernel refuses the set; `body` does not run then.
pub fn pinned<T>(cpus: Option<&[usize]>, body: impl FnOnce() -> T) -> anyhow::Result<T> {
    let Some(cpus) = cpus else { return Ok(body()) };
    let before = sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| {
        crate::error::surroundings(format!(
            "cannot use CPUs {}: {error}; this machine allows {}",
            show(cpus),
            show(&allowed())
        ))
    })?;
    let result = body();
    sched_setaffinity(None, &before)?;
    Ok(result)
}

/// `0,1,3`.
pub fn show(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gets_a_quarter_and_at_least_one_cpu() {
        let budget_of = |n: usize| budget(&(0..n).collect::<Vec<_>>());
        assert_eq!(budget_of(1), Budget { system: None, load: None });
        assert_eq!(budget_of(2), Budget { system: Some(vec![0]), load: Some(vec![1]) });
        assert_eq!(budget_of(8).load, Some(vec![6, 7]));
    }
}
