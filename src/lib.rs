#![doc = include_str!("README.md")]

pub mod compare;
pub mod experiment;
pub mod load;
pub mod measure;
pub mod verdict;
