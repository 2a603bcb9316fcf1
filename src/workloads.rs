//! The experiments that come along, in the binary too, so that they run from any folder.

/// Name and text of each.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("task-tracker/demo-local", include_str!("../workloads/task-tracker/demo-local.toml")),
    ("task-tracker/compare-arch", include_str!("../workloads/task-tracker/compare-arch.toml")),
    ("task-tracker/capacity", include_str!("../workloads/task-tracker/capacity.toml")),
    ("task-tracker/soak", include_str!("../workloads/task-tracker/soak.toml")),
    ("task-tracker/faults", include_str!("../workloads/task-tracker/faults.toml")),
    ("task-tracker/replica-kill", include_str!("../workloads/task-tracker/replica-kill.toml")),
    ("task-tracker/resilience", include_str!("../workloads/task-tracker/resilience.toml")),
    ("task-tracker/metastable", include_str!("../workloads/task-tracker/metastable.toml")),
    ("task-tracker/fault-soak", include_str!("../workloads/task-tracker/fault-soak.toml")),
    ("socket-stream/baseline", include_str!("../workloads/socket-stream/baseline.toml")),
    ("socket-stream/slow-map", include_str!("../workloads/socket-stream/slow-map.toml")),
    ("socket-stream/slow-map-native", include_str!("../workloads/socket-stream/slow-map-native.toml")),
    ("socket-stream/parallelism", include_str!("../workloads/socket-stream/parallelism.toml")),
    ("socket-stream/before", include_str!("../workloads/socket-stream/before.toml")),
    ("socket-stream/after", include_str!("../workloads/socket-stream/after.toml")),
    ("socket-stream/interval", include_str!("../workloads/socket-stream/interval.toml")),
    ("socket-stream/capacity", include_str!("../workloads/socket-stream/capacity.toml")),
    ("socket-stream/stability-map", include_str!("../workloads/socket-stream/stability-map.toml")),
    ("socket-stream/word-count", include_str!("../workloads/socket-stream/word-count.toml")),
    ("socket-stream/soak", include_str!("../workloads/socket-stream/soak.toml")),
    ("socket-stream/source-dies", include_str!("../workloads/socket-stream/source-dies.toml")),
    ("http/own-service", include_str!("../workloads/http/own-service.toml")),
];

/// An experiment by name, with or without `workloads/` and `.toml`.
pub fn find(name: &str) -> Option<(&'static str, &'static str)> {
    let short = name.trim_start_matches("workloads/").trim_end_matches(".toml");
    WORKLOADS.iter().find(|(workload, _)| *workload == short).copied()
}
