//! The experiments that come along, in the binary too, so that they run from any folder.

/// Name and text of each.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("task-tracker/demo-local", include_str!("../workloads/task-tracker/demo-local.toml")),
    ("task-tracker/compare-arch", include_str!("../workloads/task-tracker/compare-arch.toml")),
    ("task-tracker/capacity", include_str!("../workloads/task-tracker/capacity.toml")),
    ("task-tracker/soak", include_str!("../workloads/task-tracker/soak.toml")),
    ("http/own-service", include_str!("../workloads/http/own-service.toml")),
];

/// An experiment by name, with or without `workloads/` and `.toml`.
pub fn find(name: &str) -> Option<(&'static str, &'static str)> {
    let short = name.trim_start_matches("workloads/").trim_end_matches(".toml");
    WORKLOADS.iter().find(|(workload, _)| *workload == short).copied()
}
