#![doc = include_str!("README.md")]

pub mod experiment;
pub mod load;
pub mod measure;
pub mod report;
pub mod verdict;
