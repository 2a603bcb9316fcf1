#![doc = include_str!("README.md")]

pub mod experiment;
pub mod load;
pub mod load_url;
pub mod measure;
pub mod selftest;
pub mod verdict;
